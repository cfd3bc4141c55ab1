//! The access log: one line per request, as text (`key=value`) or JSON, written when its response has ended.
//!
//! `api` writes, `app` starts and stops it.

use std::cell::RefCell;
use std::fmt;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::line;
use super::lines::{Lines, LinesGuard};
use super::metrics::Metrics;

/// With so many bytes waiting, the reader of the log does not keep up, and further lines are dropped and counted: a
/// blocked log must not block pulls.
const MOST_WAITING: usize = 4 * 1024 * 1024;
/// Client-supplied text is cut here.
const MOST_PATH: usize = 1024;
const MOST_AGENT: usize = 256;

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All of it was handed to the connection.
    Whole,
    /// We broke it off, since the rest could not be had.
    Broken,
    /// The client went away before.
    Cut,
}

impl Ending {
    /// The log word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Broken => "broken",
            Self::Cut => "cut",
        }
    }
}

/// One request, as the log tells it.
pub struct AccessEntry<'a> {
    /// When it came, in milliseconds since 1970.
    pub unix_millis: u64,
    /// Our id of it.
    pub request: &'a str,
    /// Who connected; none through the unix socket.
    pub peer: Option<SocketAddr>,
    /// Who asked, if that is a proxy which tells it.
    pub forwarded_for: Option<IpAddr>,
    /// Whether the client's connection is a TLS one.
    pub https: bool,
    /// The subject of the client's certificate.
    pub certificate: Option<&'a [u8]>,
    /// The door it came through.
    pub door: &'static str,
    /// Its method.
    pub method: &'a str,
    /// Path and query as asked.
    pub path: &'a str,
    /// The repository, with its upstream's prefix.
    pub repository: Option<&'a str>,
    /// The tag that was asked for.
    pub tag: Option<&'a str>,
    /// Digest of what was asked for or served.
    pub digest: Option<&'a dyn fmt::Display>,
    /// Status of the response; 499 when the client left before there was one.
    pub status: u16,
    /// What the cache did.
    pub outcome: Option<&'static str>,
    /// Whether that is because we are offline.
    pub offline: bool,
    /// The upstream that the repository belongs to.
    pub upstream: Option<&'a str>,
    /// Bytes of the body that were sent.
    pub bytes: u64,
    /// Until the first byte of the body (or the head, where there is no body).
    pub first_byte: Duration,
    /// Until the end.
    pub total: Duration,
    /// How it ended.
    pub ending: Ending,
    /// `User-Agent` as sent.
    pub agent: Option<&'a [u8]>,
}

/// Where requests are logged. Clones are the same log.
#[derive(Clone)]
pub struct AccessLog {
    lines: Option<Lines>,
    json: bool,
}

/// Writes what is left when dropped. Keep it until the last response has ended.
pub struct AccessLogGuard {
    _lines: LinesGuard,
}

impl AccessLog {
    /// No access log.
    pub fn off() -> Self {
        Self {
            lines: None,
            json: false,
        }
    }

    /// Starts the writing thread. `writer` gets whole lines, many at a time.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        json: bool,
        metrics: &Metrics,
        writer: Box<dyn Write + Send>,
    ) -> std::io::Result<(Self, AccessLogGuard)> {
        let lost = metrics.log_lines_lost("access");
        let (lines, guard) = Lines::start("access-log", MOST_WAITING, lost, writer)?;
        let log = Self {
            lines: Some(lines),
            json,
        };
        Ok((log, AccessLogGuard { _lines: guard }))
    }

    /// Whether entries are written at all.
    pub fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    /// Logs one request.
    pub fn write(&self, entry: &AccessEntry<'_>) {
        thread_local! {
            static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let Some(lines) = &self.lines else { return };
        // Formatted outside the lock, in a buffer that the thread keeps.
        let kept = LINE.try_with(|line| {
            if let Ok(mut line) = line.try_borrow_mut() {
                line.clear();
                entry.format(self.json, &mut line);
                lines.append(&line);
            }
        });
        if kept.is_err() {
            // The thread is ending.
            let mut line = Vec::new();
            entry.format(self.json, &mut line);
            lines.append(&line);
        }
    }
}

impl AccessEntry<'_> {
    fn format(&self, json: bool, line: &mut Vec<u8>) {
        let mut fields = Fields { json, line };
        fields.begin();
        fields.key("time");
        fields.bare(|line| line::push_time(line, self.unix_millis));
        fields.word("request", Some(self.request));
        let mut address = |key, address: &dyn fmt::Display| {
            fields.key(key);
            fields.bare(|line| line::push(line, format_args!("{address}")));
        };
        match (self.forwarded_for, self.peer) {
            (Some(client), Some(proxy)) => {
                address("client", &client);
                address("proxy", &proxy);
            }
            (None, Some(client)) => address("client", &client),
            (_, None) => fields.word("client", Some("local")),
        }
        fields.word("scheme", self.https.then_some("https"));
        if let Some(subject) = self.certificate {
            fields.quoted("certificate", subject, MOST_AGENT);
        }
        fields.word("door", Some(self.door));
        fields.word("method", Some(self.method));
        fields.quoted("path", self.path.as_bytes(), MOST_PATH);
        fields.word("repository", self.repository);
        fields.word("tag", self.tag);
        if let Some(digest) = self.digest {
            fields.key("digest");
            fields.bare(|line| line::push(line, format_args!("{digest}")));
        }
        fields.number("status", u64::from(self.status));
        fields.word("outcome", self.outcome);
        fields.word("detail", self.offline.then_some("offline"));
        fields.word("upstream", self.upstream);
        fields.number("bytes", self.bytes);
        fields.seconds("first_byte", self.first_byte);
        fields.seconds("total", self.total);
        fields.word("body", Some(self.ending.as_str()));
        if let Some(agent) = self.agent {
            fields.quoted("agent", agent, MOST_AGENT);
        }
        fields.end();
    }
}

/// Writes one line in either form.
struct Fields<'a> {
    json: bool,
    line: &'a mut Vec<u8>,
}

impl Fields<'_> {
    fn begin(&mut self) {
        if self.json {
            self.line.push(b'{');
        }
    }

    fn end(&mut self) {
        self.line
            .extend_from_slice(if self.json { b"}\n" } else { b"\n" });
    }

    fn key(&mut self, key: &str) {
        if self.json {
            if self.line.len() > 1 {
                self.line.push(b',');
            }
            self.line.push(b'"');
            self.line.extend_from_slice(key.as_bytes());
            self.line.extend_from_slice(b"\":");
        } else {
            if !self.line.is_empty() {
                self.line.push(b' ');
            }
            self.line.extend_from_slice(key.as_bytes());
            self.line.push(b'=');
        }
    }

    /// A value that needs no escaping; in quotes in JSON.
    fn bare(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.json {
            self.line.push(b'"');
        }
        write(self.line);
        if self.json {
            self.line.push(b'"');
        }
    }

    /// A value of a grammar without spaces, quotes and control characters.
    fn word(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.key(key);
            self.bare(|line| line.extend_from_slice(value.as_bytes()));
        }
    }

    fn quoted(&mut self, key: &str, value: &[u8], most: usize) {
        self.key(key);
        line::push_quoted(self.line, value, most);
    }

    fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        line::push_number(self.line, value);
    }

    fn seconds(&mut self, key: &str, value: Duration) {
        self.key(key);
        line::push_seconds(self.line, value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::thread;

    use super::*;

    fn entry() -> AccessEntry<'static> {
        AccessEntry {
            unix_millis: 1_735_689_600_001,
            request: "ABCDEFGH00000001",
            peer: Some(SocketAddr::from(([127, 0, 0, 1], 4242))),
            forwarded_for: None,
            https: false,
            certificate: None,
            door: "main",
            method: "GET",
            path: "/v2/x/manifests/a\"b",
            repository: Some("docker-hub/library/nginx"),
            tag: Some("latest"),
            digest: Some(&"sha256:00"),
            status: 200,
            outcome: Some("hit"),
            offline: false,
            upstream: Some("docker-hub"),
            bytes: 1234,
            first_byte: Duration::from_micros(12),
            total: Duration::from_millis(1500),
            ending: Ending::Whole,
            agent: Some(b"docker/29\n"),
        }
    }

    fn line(json: bool, entry: &AccessEntry<'_>) -> String {
        let mut line = Vec::new();
        entry.format(json, &mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn text() {
        assert_eq!(
            line(false, &entry()),
            "time=2025-01-01T00:00:00.001Z request=ABCDEFGH00000001 client=127.0.0.1:4242 door=main method=GET \
             path=\"/v2/x/manifests/a\\\"b\" repository=docker-hub/library/nginx tag=latest digest=sha256:00 \
             status=200 outcome=hit upstream=docker-hub bytes=1234 first_byte=0.000012 total=1.500000 body=whole \
             agent=\"docker/29\\u000a\"\n"
        );
    }

    #[test]
    fn json_is_json() {
        let value: serde_json::Value = serde_json::from_str(&line(true, &entry())).unwrap();
        assert_eq!(value["path"], "/v2/x/manifests/a\"b");
        assert_eq!(value["agent"], "docker/29\n");
        assert_eq!(value["status"], 200);
        assert_eq!(value["digest"], "sha256:00");
        assert_eq!(value["total"], 1.5);
        let bare = AccessEntry {
            repository: None,
            tag: None,
            digest: None,
            agent: None,
            outcome: None,
            upstream: None,
            offline: true,
            ..entry()
        };
        let value: serde_json::Value = serde_json::from_str(&line(true, &bare)).unwrap();
        assert_eq!(
            (value.get("repository"), &value["detail"]),
            (None, &"offline".into())
        );
        let behind = AccessEntry {
            forwarded_for: Some(IpAddr::from([203, 0, 113, 9])),
            https: true,
            certificate: Some(b"CN=a\"b"),
            ..entry()
        };
        let value: serde_json::Value = serde_json::from_str(&line(true, &behind)).unwrap();
        assert_eq!(
            (
                &value["client"],
                &value["proxy"],
                &value["scheme"],
                &value["certificate"]
            ),
            (
                &"203.0.113.9".into(),
                &"127.0.0.1:4242".into(),
                &"https".into(),
                &"CN=a\"b".into()
            )
        );
        assert!(line(false, &behind).contains(
            " client=203.0.113.9 proxy=127.0.0.1:4242 scheme=https certificate=\"CN=a\\\"b\" door="
        ));
    }

    #[derive(Clone, Default)]
    struct Shelf(Arc<Mutex<Vec<u8>>>);

    impl Write for Shelf {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_is_written_by_the_end() {
        let shelf = Shelf::default();
        let (log, guard) = AccessLog::start(true, &Metrics::new(), Box::new(shelf.clone())).unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        log.write(&entry());
                    }
                });
            }
        });
        drop(guard);
        let written = String::from_utf8(shelf.0.lock().unwrap().clone()).unwrap();
        assert_eq!(written.lines().count(), 2000);
        assert!(
            written
                .lines()
                .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
        );
        AccessLog::off().write(&entry());
    }
}
