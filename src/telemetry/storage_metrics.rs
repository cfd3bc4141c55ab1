//! What happens to what is kept: room, evictions, scrubbing. Part of [`Metrics`](super::Metrics).

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::metrics::Families;

/// Metrics of the data folder.
pub struct StorageMetrics {
    evicted_bytes: IntCounter,
    evicted_manifests: IntCounter,
    room_used: IntGauge,
    room_limit: IntGauge,
    scrubbed_bytes: IntCounter,
    rotten: IntCounterVec,
}

impl StorageMetrics {
    pub(super) fn new(family: &Families<'_>) -> Self {
        let metrics = Self {
            evicted_bytes: family.counter(
                "wharfinger_evicted_bytes_total",
                "Bytes of room that evictions freed.",
            ),
            evicted_manifests: family.counter(
                "wharfinger_evicted_manifests_total",
                "Images and indexes that were evicted.",
            ),
            room_used: family.gauge(
                "wharfinger_storage_used_bytes",
                "Room that blobs and partial files take up, or have reserved.",
            ),
            room_limit: family.gauge(
                "wharfinger_storage_limit_bytes",
                "Room that storage.max_size leaves for blobs and partial files; 0 without a limit.",
            ),
            scrubbed_bytes: family.counter(
                "wharfinger_scrubbed_bytes_total",
                "Bytes of blobs and manifests that were hashed again.",
            ),
            rotten: family.counters(
                "wharfinger_rotten_total",
                "Blobs and manifests that were not what their digest says, and whether they were fetched again at once.",
                &["kind", "healed"],
            ),
        };
        // Zero is worth an alert's while: a series that is not there raises none.
        for kind in ["blob", "manifest"] {
            for healed in ["true", "false"] {
                metrics.rotten.with_label_values(&[kind, healed]);
            }
        }
        metrics
    }

    /// An eviction has ended.
    pub fn evicted(&self, bytes: u64, manifests: u64) {
        self.evicted_bytes.inc_by(bytes);
        self.evicted_manifests.inc_by(manifests);
    }

    /// How full it is, in bytes.
    pub fn room(&self, used: u64, limit: Option<u64>) {
        let number = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.room_used.set(number(used));
        self.room_limit.set(number(limit.unwrap_or(0)));
    }

    /// So many bytes were hashed again.
    pub fn scrubbed(&self, bytes: u64) {
        self.scrubbed_bytes.inc_by(bytes);
    }

    /// A `kind` (`blob` or `manifest`) was rotten.
    pub fn rotten(&self, kind: &str, healed: bool) {
        let healed = if healed { "true" } else { "false" };
        self.rotten.with_label_values(&[kind, healed]).inc();
    }
}
