//! The metrics of one upstream, looked up once and kept; and of one fill, which counts itself out however it ends.

use std::sync::{Arc, OnceLock};

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

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
}

/// One upstream's children.
pub struct UpstreamMetrics {
    prefix: Box<str>,
    bytes_in: IntCounter,
    bytes_out: IntCounterVec,
    bytes_out_children: [OnceLock<IntCounter>; OUTCOMES],
    fills: IntCounterVec,
}

impl UpstreamMetrics {
    pub(super) fn new(prefix: &str, families: &Upstreams) -> Self {
        Self {
            prefix: prefix.into(),
            bytes_in: families.bytes_in.with_label_values(&[prefix]),
            bytes_out: families.response_bytes.clone(),
            bytes_out_children: [const { OnceLock::new() }; OUTCOMES],
            fills: families.fills.clone(),
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
