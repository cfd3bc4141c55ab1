//! Running a job of the daemon and showing how far it is: a bar for people on a terminal, the events as they come with
//! `--json`, and neither where nobody watches.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::config::Config;
use crate::job::{Event, Unit};

use super::admin::Told;
use super::client::{CallError, Client};
use super::say;

/// Runs the job `name` of the daemon. What it ends with is told by `words`, or was printed with `json`, which prints
/// every event on a line of its own.
///
/// # Errors
/// When the daemon cannot be reached, or does not start the job.
pub async fn run(
    config: &Config,
    name: &str,
    options: &impl Serialize,
    json: bool,
    words: impl FnOnce(&serde_json::Value) -> String,
) -> Result<Told, CallError> {
    run_judged(config, name, options, json, words, |_| true).await
}

/// The same, where `judge` says whether what it ended with is well.
///
/// # Errors
/// As [`run`].
pub(super) async fn run_judged(
    config: &Config,
    name: &str,
    options: &impl Serialize,
    json: bool,
    words: impl FnOnce(&serde_json::Value) -> String,
    judge: impl FnOnce(&serde_json::Value) -> bool,
) -> Result<Told, CallError> {
    let mut watch = Watch::new(json);
    let client = Client::new(config);
    client
        .job(name, options, |line, event| watch.hear(line, event))
        .await?;
    Ok(watch.end(name, words, judge))
}

/// Shows the events of a job, and keeps how it ended.
pub(super) struct Watch {
    bar: Bar,
    json: bool,
    ended: Option<Result<serde_json::Value, String>>,
}

impl Watch {
    pub(super) fn new(json: bool) -> Self {
        Self {
            bar: Bar::new(!json && std::io::stderr().is_terminal()),
            json,
            ended: None,
        }
    }

    pub(super) fn hear(&mut self, line: &str, event: Event) {
        if self.json {
            say(line);
        } else {
            self.bar.show(&event);
        }
        match event {
            Event::Done { result } => self.ended = Some(Ok(result)),
            Event::Failed { message } => self.ended = Some(Err(message)),
            Event::Progress { .. } | Event::Note { .. } => {}
        }
    }

    pub(super) fn end(
        self,
        name: &str,
        words: impl FnOnce(&serde_json::Value) -> String,
        judge: impl FnOnce(&serde_json::Value) -> bool,
    ) -> Told {
        self.bar.end();
        let (text, well) = match self.ended {
            Some(Ok(result)) if self.json => (String::new(), judge(&result)),
            Some(Ok(result)) => (words(&result), judge(&result)),
            Some(Err(_)) if self.json => (String::new(), false),
            Some(Err(message)) => (format!("{name}: {message}"), false),
            None => (String::new(), false),
        };
        Told { text, well }
    }
}

/// The progress bar, on standard error.
pub(super) struct Bar {
    drawn: ProgressBar,
    shown: bool,
    style: Option<(Unit, bool)>,
}

impl Bar {
    pub(super) fn new(shown: bool) -> Self {
        let target = if shown {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        Self {
            drawn: ProgressBar::with_draw_target(None, target),
            shown,
            style: None,
        }
    }

    pub(super) fn show(&mut self, event: &Event) {
        match event {
            Event::Progress { done, total, unit } => {
                let wanted = (*unit, total.is_some());
                if self.style != Some(wanted) {
                    self.style = Some(wanted);
                    if let Ok(style) = ProgressStyle::with_template(template(*unit, total.is_some())) {
                        self.drawn.set_style(style);
                    }
                }
                if let Some(total) = total {
                    self.drawn.set_length(*total);
                }
                self.drawn.set_position(*done);
            }
            Event::Note { text } if self.shown => self.drawn.println(text),
            Event::Note { text } => say(text),
            Event::Done { .. } | Event::Failed { .. } => {}
        }
    }

    pub(super) fn end(&self) {
        self.drawn.finish_and_clear();
    }
}

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
    }
}
