//! The tables: the day as a whole, and phase by phase.

use std::fmt::Write as _;

use crate::options::Options;
use crate::run::Day;
use crate::script::Phase;
use crate::shared::machine;
use crate::tally::Tally;

/// Counted pulls for each distinct manifest: at most this many through the daemon.
pub(crate) const MOST: f64 = 1.05;

/// A row's name, its value, and what the daemon's should be.
type Row = (&'static str, fn(&Tally) -> String, &'static str);

const ROWS: [Row; 9] = [
    (
        "failed jobs, image seen before",
        |it| it.failed_seen.to_string(),
        "0",
    ),
    (
        "failed jobs, never seen before",
        |it| it.failed_new.to_string(),
        "",
    ),
    ("pulls counted upstream", |it| it.pulls.to_string(), ""),
    (
        "distinct manifests asked for",
        |it| it.asked.len().to_string(),
        "",
    ),
    (
        "pulls for each of them",
        |it| format!("{:.2}", it.ratio()),
        "at most 1.05",
    ),
    ("answered 429 upstream", |it| it.refused.to_string(), ""),
    (
        "requests upstream, free ones too",
        |it| it.requests.to_string(),
        "",
    ),
    (
        "stale answers, of those by tag",
        |it| format!("{} of {}", it.stale, it.by_tag),
        "",
    ),
    (
        "from upstream",
        |it| format!("{:.1} MB", it.bytes as f64 / 1e6),
        "",
    ),
];

/// Everything, ready for the README.
pub(crate) fn document(
    days: &[Day],
    script: &[Phase],
    versions: &[String],
    load: f64,
    options: &Options,
) -> String {
    let mut text = machine::preface("fleet", versions, load);
    let jobs: usize = script.iter().map(|phase| phase.jobs.len()).sum();
    let moved: usize = script.iter().map(|phase| phase.releases.len()).sum();
    let _infallible = write!(
        text,
        "\nA day of {jobs} CI jobs behind one address, without a local image each: 40 multi-arch images of Docker Hub, {moved} \
         releases meanwhile, 100 pulls in six hours, which take {:.0} s here (seed {}).\n\n",
        options.pace().window.as_secs_f64(),
        options.seed
    );
    let names: Vec<&str> = days.iter().map(|day| day.contestant.name()).collect();
    let _infallible = writeln!(text, "| | {} | to reach |", names.join(" | "));
    let _infallible = writeln!(text, "|---|{}---|", "---|".repeat(names.len()));
    let totals: Vec<Tally> = days.iter().map(|day| Tally::total(&day.phases)).collect();
    for (name, value, target) in ROWS {
        let cells: Vec<String> = totals.iter().map(value).collect();
        let _infallible = writeln!(text, "| {name} | {} | {target} |", cells.join(" | "));
    }
    text.push_str(&phases(days, script));
    text
}

/// One row for each contestant in each phase.
fn phases(days: &[Day], script: &[Phase]) -> String {
    let mut text = String::from(
        "\n| phase | | jobs | failed, seen before | failed, never seen | pulls counted | manifests | 429 | stale | MB |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (number, phase) in script
        .iter()
        .enumerate()
        .filter(|(_, phase)| !phase.jobs.is_empty())
    {
        for (place, day) in days.iter().enumerate() {
            let it = &day.phases[number];
            let name = if place == 0 { phase.name } else { "" };
            let _infallible = writeln!(
                text,
                "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {:.1} |",
                day.contestant.name(),
                it.jobs,
                it.failed_seen,
                it.failed_new,
                it.pulls,
                it.asked.len(),
                it.refused,
                it.stale,
                it.bytes as f64 / 1e6
            );
        }
    }
    text
}
