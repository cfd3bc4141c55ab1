//! The metrics of one upstream, looked up once and kept; and of one fill, which counts itself out however it ends.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use prometheus::{CounterVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::metrics::Word;

/// Most outcomes whose children are kept by index.
const OUTCOMES: usize = 8;

/// The families whose first label is the upstream.
pub(super) struct Upstreams {
    pub(super) response_bytes: IntCounterVec,
    pub(super) bytes_in: IntCounterVec,
    pub(super) fills: IntCounterVec,
    pub(super) requests: IntCounterVec,
    pub(super) limit: IntGaugeVec,
    pub(super) remaining: IntGaugeVec,
    pub(super) reset: IntGaugeVec,
    pub(super) empty: IntGaugeVec,
    pub(super) saved: IntCounterVec,
    pub(super) held: IntCounterVec,
    pub(super) slowdown: IntGaugeVec,
    pub(super) open: IntGaugeVec,
    pub(super) hedges: IntCounterVec,
    pub(super) moved_on: IntCounterVec,
    pub(super) bandwidth: IntGaugeVec,
    pub(super) waited: CounterVec,
    pub(super) set_aside: IntGaugeVec,
}

/// One upstream's children.
pub struct UpstreamMetrics {
    prefix: Box<str>,
    bytes_in: IntCounter,
    bytes_out: IntCounterVec,
    bytes_out_children: [OnceLock<IntCounter>; OUTCOMES],
    fills: IntCounterVec,
    health: Mutex<Health>,
}

/// What is known of the pulls that a credential has left.
#[derive(Clone, Copy, Debug, Default)]
pub struct PullsLeft {
    /// Pulls in a window.
    pub limit: Option<u64>,
    /// Pulls that are left.
    pub left: Option<u64>,
    /// When they are back, in seconds since 1970.
    pub back_at: Option<u64>,
    /// In how many seconds none are left.
    pub lasts: Option<u64>,
}

/// How an upstream was when it was last asked.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// When it last answered, whatever the answer was, but for those that count as failures.
    pub answered: Option<Instant>,
    /// When it last failed, and how: 429, a 5xx, or the word of why there was no status.
    pub failed: Option<(Instant, Box<str>)>,
}

impl Health {
    /// Whether the last that was heard of it was a failure.
    pub fn is_failing(&self) -> bool {
        let failed = self.failed.as_ref().map(|(at, _)| *at);
        failed.is_some() && failed > self.answered
    }
}

impl UpstreamMetrics {
    pub(super) fn new(prefix: &str, families: &Upstreams) -> Self {
        Self {
            prefix: prefix.into(),
            bytes_in: families.bytes_in.with_label_values(&[prefix]),
            bytes_out: families.response_bytes.clone(),
            bytes_out_children: [const { OnceLock::new() }; OUTCOMES],
            fills: families.fills.clone(),
            health: Mutex::default(),
        }
    }

    fn health_mut(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it was when it was last asked.
    pub fn health(&self) -> Health {
        self.health_mut().clone()
    }

    pub(super) fn request_ended(&self, status: &str) {
        // Words begin with a letter; of the numbers, a limit and trouble of its own are failures.
        let is_answer =
            status.starts_with(|c: char| c.is_ascii_digit()) && !status.starts_with('5') && status != "429";
        let now = Instant::now();
        let mut health = self.health_mut();
        if is_answer {
            health.answered = Some(now);
        } else {
            health.failed = Some((now, status.into()));
        }
    }

    /// So many bytes of content came from it.
    pub fn bytes_in(&self, bytes: u64) {
        self.bytes_in.inc_by(bytes);
    }

    /// So many bytes of its content were sent to a client.
    pub fn bytes_out(&self, outcome: Word, bytes: u64) {
        let labelled = || self.bytes_out.with_label_values(&[&*self.prefix, outcome.text]);
        match self.bytes_out_children.get(outcome.index) {
            Some(child) => child.get_or_init(labelled).inc_by(bytes),
            None => labelled().inc_by(bytes),
        }
    }

    fn fill_ended(&self, result: &str) {
        self.fills.with_label_values(&[&*self.prefix, result]).inc();
    }
}

/// A fill that runs.
pub struct FillMetrics {
    running: IntGauge,
    upstream: Arc<UpstreamMetrics>,
    result: &'static str,
}

impl FillMetrics {
    pub(super) fn new(running: IntGauge, upstream: Arc<UpstreamMetrics>) -> Self {
        running.inc();
        // What a panic, or the end of the process, leaves.
        let result = "abandoned";
        Self {
            running,
            upstream,
            result,
        }
    }

    /// It is stored.
    pub fn completed(mut self) {
        self.result = "completed";
    }

    /// Nothing of it is kept.
    pub fn failed(mut self) {
        self.result = "failed";
    }
}

impl Drop for FillMetrics {
    fn drop(&mut self) {
        self.running.dec();
        self.upstream.fill_ended(self.result);
    }
}
