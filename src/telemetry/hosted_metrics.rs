//! What is taken away from hosted repositories: collections, uploads that were given up, images that expired. Part of
//! [`Metrics`](super::Metrics).

use prometheus::{IntCounter, IntCounterVec};

use super::metrics::Families;

/// Metrics of hosted repositories.
pub struct HostedMetrics {
    collections: IntCounterVec,
    collected_blobs: IntCounter,
    collected_bytes: IntCounter,
    reaped_uploads: IntCounter,
    reaped_bytes: IntCounter,
    retention_runs: IntCounterVec,
    expired_images: IntCounter,
}

impl HostedMetrics {
    pub(super) fn new(family: &Families<'_>) -> Self {
        let metrics = Self {
            collections: family.counters(
                "wharfinger_collections_total",
                "Collections of hosted repositories that have ended: completed, stopped, failed, or held (asked for in the first grace period of the process).",
                &["result"],
            ),
            collected_blobs: family.counter(
                "wharfinger_collected_blobs_total",
                "Blobs that collections removed from the disk.",
            ),
            collected_bytes: family.counter(
                "wharfinger_collected_bytes_total",
                "Bytes of room that this freed.",
            ),
            reaped_uploads: family.counter(
                "wharfinger_reaped_uploads_total",
                "Uploads that nobody went on with, and that were given up.",
            ),
            reaped_bytes: family.counter("wharfinger_reaped_upload_bytes_total", "Bytes of these uploads."),
            retention_runs: family.counters(
                "wharfinger_retention_runs_total",
                "Runs over the lifecycle policies of hosted repositories, by whether all of them could be used.",
                &["result"],
            ),
            expired_images: family.counter(
                "wharfinger_expired_images_total",
                "Images that lifecycle policies deleted.",
            ),
        };
        // A series that is not there raises no alert.
        for result in ["completed", "stopped", "failed", "held"] {
            metrics.collections.with_label_values(&[result]);
        }
        for result in ["completed", "failed"] {
            metrics.retention_runs.with_label_values(&[result]);
        }
        metrics
    }

    /// A collection has ended.
    pub fn collection(&self, result: &str) {
        self.collections.with_label_values(&[result]).inc();
    }

    /// What it removed from the disk.
    pub fn collected(&self, blobs: u64, bytes: u64) {
        self.collected_blobs.inc_by(blobs);
        self.collected_bytes.inc_by(bytes);
    }

    /// Uploads were given up.
    pub fn reaped(&self, uploads: u64, bytes: u64) {
        self.reaped_uploads.inc_by(uploads);
        self.reaped_bytes.inc_by(bytes);
    }

    /// A run over lifecycle policies has ended.
    pub fn retention(&self, result: &str) {
        self.retention_runs.with_label_values(&[result]).inc();
    }

    /// Images were deleted by one.
    pub fn expired(&self, images: u64) {
        self.expired_images.inc_by(images);
    }
}
