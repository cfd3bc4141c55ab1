//! What the daemon under test prints: kept line by line, waited for, and read for where it listens.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::sync::watch;

use crate::support::{locked, soon};

/// How many lines a failing test prints.
pub(super) const TAIL: usize = 60;

/// Where a line of the log says that a door listens: `listening door="main" address=127.0.0.1:4711`, also in
/// JSON. Gives the door's name and its address.
pub(super) fn parse_listening(line: &str) -> Option<(&str, SocketAddr)> {
    if !line.contains("listening") {
        return None;
    }
    let field = |name: &str| {
        let (_, rest) = [format!(" {name}="), format!("\"{name}\":")]
            .iter()
            .find_map(|key| line.split_once(key.as_str()))?;
        rest.trim_start_matches(['=', ':', '"', ' '])
            .split(['"', ',', ' ', '}'])
            .next()
    };
    Some((field("door").unwrap_or("main"), field("address")?.parse().ok()?))
}

/// What the daemon printed, all runs together.
#[derive(Clone, Default)]
pub(super) struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    changed: Arc<watch::Sender<usize>>,
}

impl Lines {
    pub(super) async fn collect(self, stream: impl AsyncRead + Unpin) {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            locked(&self.lines).push(line);
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// All lines so far.
    pub(super) fn all(&self) -> Vec<String> {
        locked(&self.lines).clone()
    }

    /// Waits until `look` finds what it wants in the lines so far.
    pub(super) async fn wait_for<T>(&self, what: &str, look: impl Fn(&[String]) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        let wait = async {
            loop {
                if let Some(found) = look(&locked(&self.lines)) {
                    return found;
                }
                changed.changed().await.expect("the daemon holds its own sender");
            }
        };
        soon(&format!("the log to say {what:?}"), wait).await
    }

    /// The last lines, indented.
    pub(super) fn tail(&self) -> String {
        let lines = locked(&self.lines);
        lines
            .iter()
            .skip(lines.len().saturating_sub(TAIL))
            .fold(String::new(), |mut text, line| {
                let _ = writeln!(text, "    {line}");
                text
            })
    }
}
