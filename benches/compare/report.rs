//! The tables: one per scenario, each row a measure of ours, a peer's in the same run, their ratio and the target.

use std::fmt::Write as _;

use crate::figures::Sample;
use crate::options::Options;

/// A load average beyond this blurs wall times. Building the benchmark just before leaves about one a core behind.
const BUSY: f64 = 2.5;

/// What a measure should be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// At most this many times the peer's.
    Ratio(f64),
    /// At most this.
    Value(f64),
    /// Told for its own sake.
    None,
}

/// One row.
pub(crate) struct Row {
    /// What is measured, with its unit.
    pub(crate) measure: String,
    /// Ours.
    pub(crate) ours: Sample,
    /// Whose value it is held against.
    pub(crate) peer: String,
    /// The peer's.
    pub(crate) theirs: Sample,
    /// What it should be.
    pub(crate) target: Target,
}

/// One scenario's table.
pub(crate) struct Section {
    /// The heading.
    pub(crate) title: String,
    /// What was done, in a sentence or two.
    pub(crate) about: String,
    /// The rows.
    pub(crate) rows: Vec<Row>,
}

impl Section {
    /// The section as Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("### {}\n\n{}\n\n", self.title, self.about);
        text.push_str("| measure | wharfinger | peer | peer's value | ratio | target | reached |\n");
        text.push_str("|---|---|---|---|---|---|---|\n");
        for row in &self.rows {
            text.push_str(&row.markdown());
        }
        text
    }
}

impl Row {
    fn markdown(&self) -> String {
        let ours = self.ours.median();
        let ratio = ours
            .zip(self.theirs.median())
            .filter(|(_, theirs)| *theirs > 0.0)
            .map(|(ours, theirs)| ours / theirs);
        let (target, reached) = match self.target {
            Target::Ratio(most) => (
                format!("at most {}x", number(most)),
                ratio.map(|ratio| ratio <= most),
            ),
            Target::Value(most) => (format!("at most {}", number(most)), ours.map(|ours| ours <= most)),
            Target::None => (String::new(), None),
        };
        let reached = match (self.target, reached) {
            (Target::None, _) => "",
            (_, Some(true)) => "yes",
            (_, Some(false)) => "**no**",
            (_, None) => "not measured",
        };
        let ratio = ratio
            .map(|ratio| format!("{}x", number(ratio)))
            .unwrap_or_default();
        let (measure, peer) = (&self.measure, &self.peer);
        let (ours, theirs) = (cell(&self.ours), cell(&self.theirs));
        format!("| {measure} | {ours} | {peer} | {theirs} | {ratio} | {target} | {reached} |\n")
    }
}

/// The median, and the spread where it says something.
fn cell(sample: &Sample) -> String {
    let Some((median, (smallest, largest))) = sample.median().zip(sample.spread()) else {
        return "-".to_owned();
    };
    let (median, smallest, largest) = (number(median), number(smallest), number(largest));
    if smallest == largest {
        median
    } else {
        format!("{median} ({smallest} to {largest})")
    }
}

/// About three significant digits, thousands set apart.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 => 0,
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        small if small >= 1.0 => 2,
        smaller if smaller >= 0.1 => 3,
        _ => 4,
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) && digit.is_ascii_digit() {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let rest = rest.trim_end_matches('0');
    if rest.is_empty() {
        grouped
    } else {
        format!("{grouped}.{rest}")
    }
}

/// Runnable tasks, on average over the last minute.
pub(crate) fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|average| average.parse().ok())
        .unwrap_or_default()
}

/// Everything, ready for the README.
pub(crate) fn document(sections: &[Section], versions: &[String], load: f64, options: &Options) -> String {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let mut command = "cargo bench --bench compare".to_owned();
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
    if options.quick {
        text.push_str("\n**With `--quick`: a check that everything runs, not a measurement.**\n");
    }
    for section in sections {
        let _infallible = write!(text, "\n{}", section.markdown());
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
