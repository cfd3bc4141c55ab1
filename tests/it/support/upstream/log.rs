//! The record of every request that an upstream received and of what it answered, in order of arrival.

use std::sync::{Arc, Mutex};

use http::{HeaderMap, Method};
use tokio::sync::watch;

use super::Upstream;
use super::matching::{Asked, Match, blob, manifests, tokens};
use crate::support::{PATIENCE, locked};

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Still being answered.
    Running,
    /// Sent to its end.
    Complete,
    /// Broken off by the script.
    Cut,
    /// Broken off by the client.
    ClientGone,
}

/// One request and its answer so far.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub asked: Asked,
    /// 0 while no head has been sent.
    pub status: u16,
    /// Bytes of the body handed to the connection.
    pub sent: u64,
    pub outcome: Outcome,
}

impl Recorded {
    pub fn method(&self) -> &Method {
        &self.asked.method
    }

    pub fn path(&self) -> &str {
        &self.asked.path
    }

    pub fn query(&self) -> &str {
        &self.asked.query
    }

    pub fn headers(&self) -> &HeaderMap {
        &self.asked.headers
    }

    /// The value of the first request header line of this name, or "".
    pub fn header(&self, name: &str) -> &str {
        self.asked.header(name)
    }
}

/// All records of one upstream.
pub(super) struct Log {
    records: Mutex<Vec<Recorded>>,
    forgotten: Mutex<usize>,
    changed: watch::Sender<u64>,
}

impl Log {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            records: Mutex::new(Vec::new()),
            forgotten: Mutex::new(0),
            changed: watch::Sender::new(0),
        })
    }

    pub(super) fn add(self: &Arc<Self>, asked: Asked) -> Entry {
        let mut records = locked(&self.records);
        records.push(Recorded {
            asked,
            status: 0,
            sent: 0,
            outcome: Outcome::Running,
        });
        let index = records.len() - 1;
        drop(records);
        self.bump();
        Entry {
            log: Arc::clone(self),
            index,
        }
    }

    pub(super) fn snapshot(&self) -> Vec<Recorded> {
        self.with(<[Recorded]>::to_vec)
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&[Recorded]) -> T) -> T {
        let forgotten = *locked(&self.forgotten);
        look(&locked(&self.records)[forgotten..])
    }

    /// Shows only what comes from now on. Nothing is removed: answers under way know their record by index.
    pub(super) fn forget(&self) {
        *locked(&self.forgotten) = locked(&self.records).len();
        self.bump();
    }

    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(super) fn bump(&self) {
        self.changed.send_modify(|version| *version += 1);
    }
}

/// The record of a request that is being answered; dropped early, it says that the client went away.
pub(super) struct Entry {
    log: Arc<Log>,
    index: usize,
}

impl Entry {
    fn change(&self, change: impl FnOnce(&mut Recorded)) {
        change(&mut locked(&self.log.records)[self.index]);
        self.log.bump();
    }

    pub(super) fn status(&self, status: u16) {
        self.change(|record| record.status = status);
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.change(|record| record.sent += bytes);
    }

    /// The first outcome holds.
    pub(super) fn end(&self, outcome: Outcome) {
        self.change(|record| {
            if record.outcome == Outcome::Running {
                record.outcome = outcome;
            }
        });
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.end(Outcome::ClientGone);
    }
}

/// What it saw.
impl Upstream {
    /// All requests so far, in order of arrival.
    pub fn requests(&self) -> Vec<Recorded> {
        self.inner.log.snapshot()
    }

    /// The requests of a kind.
    pub fn requests_of(&self, matcher: &Match) -> Vec<Recorded> {
        self.requests()
            .into_iter()
            .filter(|record| matcher.matches(&record.asked))
            .collect()
    }

    /// How many requests had this method and a path that passes.
    pub fn count(&self, method: Method, path: impl Fn(&str) -> bool) -> usize {
        let counts = move |record: &&Recorded| *record.method() == method && path(record.path());
        self.inner
            .log
            .with(|records| records.iter().filter(counts).count())
    }

    /// How many requests were of this kind.
    pub fn count_of(&self, matcher: &Match) -> usize {
        let counts = |record: &&Recorded| matcher.matches(&record.asked);
        self.inner
            .log
            .with(|records| records.iter().filter(counts).count())
    }

    /// GETs of this blob, here or by a signed URL of this server.
    pub fn blob_gets(&self, digest: &str) -> usize {
        self.count_of(&blob(digest).get())
    }

    /// GETs of manifests.
    pub fn manifest_gets(&self) -> usize {
        self.count_of(&manifests().get())
    }

    /// HEADs of manifests.
    pub fn manifest_heads(&self) -> usize {
        self.count_of(&manifests().head())
    }

    /// Requests to the token service here.
    pub fn token_requests(&self) -> usize {
        self.count_of(&tokens())
    }

    /// Bytes of bodies handed to connections.
    pub fn bytes_sent(&self) -> u64 {
        self.inner
            .log
            .with(|records| records.iter().map(|record| record.sent).sum())
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        *locked(&self.inner.connections)
    }

    /// Counts from here on.
    pub fn forget_requests(&self) {
        self.inner.log.forget();
    }

    /// Waits until the predicate holds; it is asked again after every event (a request, a head, bytes, an end).
    pub async fn wait_for(&self, holds: impl Fn(&Self) -> bool) {
        let mut events = self.inner.log.watch();
        let wait = async {
            while !holds(self) {
                if events.changed().await.is_err() {
                    return;
                }
            }
        };
        let came = tokio::time::timeout(PATIENCE, wait).await.is_ok();
        assert!(
            came,
            "waited for an event that did not come; the requests so far: {:#?}",
            self.summary()
        );
    }

    /// One line per request, for messages of failed tests.
    pub fn summary(&self) -> Vec<String> {
        let line = |record: &Recorded| {
            let (method, path, range) = (record.method(), record.path(), record.header("range"));
            format!(
                "{method} {path} {range} -> {} {:?} {} bytes",
                record.status, record.outcome, record.sent
            )
        };
        self.inner.log.with(|records| records.iter().map(line).collect())
    }
}
