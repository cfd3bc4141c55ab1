//! The audit log: who did what to which repository, from where, and whether they might; one line of JSON each, in a file
//! or stream of its own. `api` writes, `app` starts and stops it.

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;

use serde::Serialize;

use super::lines::{Lines, LinesGuard};
use super::metrics::Metrics;

/// Bytes that wait for a slow disk: a day's worth for most.
const MOST_WAITING: usize = 64 * 1024 * 1024;

/// One thing that somebody did, or was kept from.
#[derive(Debug, Serialize)]
pub struct AuditEntry<'a> {
    /// When, in words (RFC 3339).
    pub time: String,
    /// Our id of the request, as the access log has it.
    pub request: &'a str,
    /// Who: the name, empty for nobody in particular.
    pub who: &'a str,
    /// How they were proved: `user`, `robot`, `workload`, `certificate`, `operator`, `anonymous`.
    pub kind: &'a str,
    /// What policies call them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arn: Option<&'a str>,
    /// From where; none through the unix socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// What they asked to do, by the name that policies use: `ecr:PutImage`.
    pub action: &'a str,
    /// What the action was about, where that is no content: `create alice`, a job's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<&'a str>,
    /// To which repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<&'a str>,
    /// To which tag of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<&'a str>,
    /// To which manifest or blob.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Whether they might.
    pub allowed: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// The status of the answer.
    pub status: u16,
    /// What the client calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<&'a str>,
}

/// Where it goes. Clones go the same way.
#[derive(Clone)]
pub struct AuditLog {
    lines: Option<Lines>,
    pulls: bool,
}

/// Writes what is left when dropped. Keep it until the last response has ended.
pub struct AuditLogGuard {
    _lines: LinesGuard,
}

impl AuditLog {
    /// No audit log.
    pub fn off() -> Self {
        Self {
            lines: None,
            pulls: false,
        }
    }

    /// Appends to the file at `path`, which is made for our eyes only where there is none; `-` is standard error. `pulls`:
    /// whether pulls are told that were allowed.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path, pulls: bool, metrics: &Metrics) -> std::io::Result<(Self, AuditLogGuard)> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let writer: Box<dyn Write + Send> = if path == Path::new("-") {
            Box::new(std::io::stderr())
        } else {
            let mut options = File::options();
            Box::new(options.append(true).create(true).mode(0o600).open(path)?)
        };
        Self::start(writer, pulls, metrics)
    }

    fn start(
        writer: Box<dyn Write + Send>,
        pulls: bool,
        metrics: &Metrics,
    ) -> std::io::Result<(Self, AuditLogGuard)> {
        let lost = metrics.log_lines_lost("audit");
        let (lines, guard) = Lines::start("audit-log", MOST_WAITING, lost, writer)?;
        let log = Self {
            lines: Some(lines),
            pulls,
        };
        Ok((log, AuditLogGuard { _lines: guard }))
    }

    /// Whether anything is told.
    pub fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    /// Whether pulls that were allowed are told.
    pub fn tells_pulls(&self) -> bool {
        self.pulls
    }

    /// Tells.
    pub fn write(&self, entry: &AuditEntry<'_>) {
        let Some(lines) = &self.lines else { return };
        // Strings and numbers always serialize.
        let mut line = serde_json::to_vec(entry).unwrap_or_default();
        line.push(b'\n');
        lines.append(&line);
    }
}
