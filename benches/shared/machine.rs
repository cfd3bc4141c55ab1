//! What is said above every table: the command, the machine, and who was measured.

use std::fmt::Write as _;

/// A load average beyond this blurs wall times. Building the benchmark just before leaves about one a core behind.
const BUSY: f64 = 2.5;

/// Runnable tasks, on average over the last minute.
pub(crate) fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|average| average.parse().ok())
        .unwrap_or_default()
}

/// The line above the tables of the benchmark `name`, and a warning when the machine was busy before.
pub(crate) fn preface(name: &str, versions: &[String], load: f64) -> String {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let mut command = format!("cargo bench --bench {name}");
    if !arguments.is_empty() {
        let _infallible = write!(command, " -- {}", arguments.join(" "));
    }
    let mut text = format!("`{command}` on {}; {}.\n", machine(), versions.join(", "));
    if load > BUSY {
        let _infallible = write!(
            text,
            "\n**The machine was busy (load average {load:.1}): measure again on an idle one.**\n"
        );
    }
    text
}

/// Cores, processor, memory and kernel in one line.
fn machine() -> String {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cpuinfo = read("/proc/cpuinfo");
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let processor = field(&cpuinfo, "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let memory = field(&read("/proc/meminfo"), "MemTotal")
        .and_then(|total| total.strip_suffix(" kB")?.trim().parse::<f64>().ok())
        .map_or_else(String::new, |total| {
            format!(", {:.0} GiB", total / 1024.0 / 1024.0)
        });
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} cores ({processor}){memory}, Linux {}", kernel.trim())
}
