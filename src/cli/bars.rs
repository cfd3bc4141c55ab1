//! Progress on a terminal: a bar for the whole of a job, and above it one for each of its parts that runs, like the layers
//! of an image. Without a terminal each part that has ended is a line. Used by `job` and `offline`.

use std::collections::HashMap;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::job::{Event, PartState, Unit};

use super::say;
use super::show::{bytes, short};

/// What is drawn, on standard error.
pub(super) struct Bars {
    all: MultiProgress,
    shown: bool,
    /// How far the whole is, once that was told.
    whole: Option<ProgressBar>,
    style: Option<(Unit, bool)>,
    /// By name and what it is a part of.
    parts: HashMap<(String, String), ProgressBar>,
}

impl Bars {
    /// Draws, or only prints lines.
    pub(super) fn new(shown: bool) -> Self {
        let target = if shown {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        Self {
            all: MultiProgress::with_draw_target(target),
            shown,
            whole: None,
            style: None,
            parts: HashMap::new(),
        }
    }

    /// Shows what an event says.
    pub(super) fn show(&mut self, event: &Event) {
        match event {
            Event::Progress { done, total, unit } => self.whole(*done, *total, *unit),
            Event::Part {
                name,
                of,
                done,
                total,
                state,
            } => self.part((name, of), *done, *total, *state),
            Event::Note { text } => self.line(text),
            Event::Done { .. } | Event::Failed { .. } => {}
        }
    }

    /// Takes the bars away; the lines stay.
    pub(super) fn end(&mut self) {
        for (_, bar) in self.parts.drain() {
            bar.finish_and_clear();
        }
        if let Some(whole) = self.whole.take() {
            whole.finish_and_clear();
        }
    }

    fn line(&self, text: &str) {
        if self.shown {
            let _ = self.all.println(text);
        } else {
            say(text);
        }
    }

    fn whole(&mut self, done: u64, total: Option<u64>, unit: Unit) {
        let bar = self
            .whole
            .get_or_insert_with(|| self.all.add(ProgressBar::no_length()));
        let wanted = (unit, total.is_some());
        if self.style != Some(wanted) {
            self.style = Some(wanted);
            if let Ok(style) = ProgressStyle::with_template(template(unit, total.is_some())) {
                bar.set_style(style);
            }
        }
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_position(done);
    }

    fn part(&mut self, (name, of): (&str, &str), done: u64, total: Option<u64>, state: PartState) {
        let key = (name.to_owned(), of.to_owned());
        if state != PartState::Running {
            if let Some(bar) = self.parts.remove(&key) {
                bar.finish_and_clear();
                self.all.remove(&bar);
            }
            self.line(&part_line(name, done, total, state));
            return;
        }
        if !self.shown {
            return;
        }
        let bar = self.parts.entry(key).or_insert_with(|| {
            let new = match total {
                Some(total) => ProgressBar::new(total),
                None => ProgressBar::no_length(),
            };
            if let Ok(style) = ProgressStyle::with_template(PART) {
                new.set_style(style);
            }
            new.set_prefix(short(name).to_owned());
            // What is here at the first look says nothing of the rate.
            new.set_position(done);
            new.reset_eta();
            match &self.whole {
                Some(whole) => self.all.insert_before(whole, new),
                None => self.all.add(new),
            }
        });
        bar.set_position(done);
    }
}

/// A part that has ended, as a line.
fn part_line(name: &str, done: u64, total: Option<u64>, state: PartState) -> String {
    let (word, size) = match state {
        PartState::Running => ("running", done),
        PartState::Here => ("here already", total.unwrap_or(done)),
        PartState::Done => ("fetched", total.unwrap_or(done)),
        PartState::Failed => ("failed", done),
    };
    format!("  {}  {:>10}  {word}", short(name), bytes(size))
}

const PART: &str = "  {prefix}  {bar:30} {binary_bytes:>11}/{binary_total_bytes}  {binary_bytes_per_sec}";

fn template(unit: Unit, has_total: bool) -> &'static str {
    match (unit, has_total) {
        (Unit::Bytes, true) => "{wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta}",
        (Unit::Bytes, false) => "{spinner} {bytes}  {bytes_per_sec}",
        (Unit::Items, true) => "{wide_bar} {human_pos}/{human_len}  {eta}",
        (Unit::Items, false) => "{spinner} {human_pos}",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_valid() {
        for unit in [Unit::Bytes, Unit::Items] {
            for has_total in [true, false] {
                assert!(ProgressStyle::with_template(template(unit, has_total)).is_ok());
            }
        }
        assert!(ProgressStyle::with_template(PART).is_ok());
    }

    #[test]
    fn a_part_that_has_ended_is_a_line() {
        let name = format!("sha256:{}", "ab".repeat(32));
        assert_eq!(
            part_line(&name, 5, Some(32_715_571), PartState::Done),
            "  sha256:abababababab    31.2 MiB  fetched"
        );
        assert_eq!(
            part_line(&name, 5, Some(1024), PartState::Failed),
            "  sha256:abababababab         5 B  failed"
        );
    }
}
