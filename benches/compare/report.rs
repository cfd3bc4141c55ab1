//! The tables: one per scenario, each row a measure of ours, a peer's in the same run, their ratio and the target.

use std::fmt::Write as _;

use crate::figures::Sample;
use crate::options::Options;
use crate::shared::machine;

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

/// Everything, ready for the README.
pub(crate) fn document(sections: &[Section], versions: &[String], load: f64, options: &Options) -> String {
    let mut text = machine::preface("compare", versions, load);
    if options.quick {
        text.push_str("\n**With `--quick`: a check that everything runs, not a measurement.**\n");
    }
    for section in sections {
        let _infallible = write!(text, "\n{}", section.markdown());
    }
    text
}
