//! Running a job of the daemon and showing how far it is: a bar for people on a terminal, the events as they come with
//! `--json`, and neither where nobody watches.

use std::io::IsTerminal as _;

use serde::Serialize;

use crate::config::Config;
use crate::job::Event;

use super::admin::Told;
use super::bars::Bars;
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
    bars: Bars,
    json: bool,
    ended: Option<Result<serde_json::Value, String>>,
}

impl Watch {
    pub(super) fn new(json: bool) -> Self {
        Self {
            bars: Bars::new(!json && std::io::stderr().is_terminal()),
            json,
            ended: None,
        }
    }

    pub(super) fn hear(&mut self, line: &str, event: Event) {
        if self.json {
            say(line);
        } else {
            self.bars.show(&event);
        }
        match event {
            Event::Done { result } => self.ended = Some(Ok(result)),
            Event::Failed { message } => self.ended = Some(Err(message)),
            Event::Progress { .. } | Event::Part { .. } | Event::Note { .. } => {}
        }
    }

    pub(super) fn end(
        mut self,
        name: &str,
        words: impl FnOnce(&serde_json::Value) -> String,
        judge: impl FnOnce(&serde_json::Value) -> bool,
    ) -> Told {
        self.bars.end();
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
