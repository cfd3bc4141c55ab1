//! What is done so that things are here before anybody asks, and stay: warm lists, tags refreshed ahead, pins. Part of
//! [`Metrics`](super::Metrics).

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

use super::metrics::Families;

/// Metrics of what is preserved.
pub struct PreserveMetrics {
    warm_runs: IntCounterVec,
    warm_images: IntCounterVec,
    warm_success: IntGaugeVec,
    refreshed_ahead: IntCounterVec,
    pins: IntGauge,
    pinned_bytes: IntGauge,
}

impl PreserveMetrics {
    pub(super) fn new(family: &Families<'_>) -> Self {
        Self {
            warm_runs: family.counters(
                "wharfinger_warm_runs_total",
                "Runs of the lists of images that are kept warm, by list and whether all of its images are here.",
                &["list", "result"],
            ),
            warm_images: family.counters(
                "wharfinger_warm_images_total",
                "Images of these runs: fetched, here already, stale (the upstream could not say whether it is new), or failed.",
                &["list", "result"],
            ),
            warm_success: family.gauges(
                "wharfinger_warm_last_success_timestamp_seconds",
                "When a run last ended with all images here, in seconds since 1970; 0 for never.",
                &["list"],
            ),
            refreshed_ahead: family.counters(
                "wharfinger_refreshed_ahead_total",
                "Tags that were asked for often, and so asked about before they fell due, by what came of it; skipped: the upstream was in trouble.",
                &["upstream", "result"],
            ),
            pins: family.gauge("wharfinger_pins", "Images and indexes that are pinned, as last counted."),
            pinned_bytes: family.gauge(
                "wharfinger_pinned_bytes",
                "Bytes here that pins keep, as last counted.",
            ),
        }
    }

    /// There is a list of this number, whose images were last all here then (in seconds since 1970).
    pub fn warm_list(&self, list: &str, last_success: Option<u64>) {
        for result in ["completed", "failed"] {
            self.warm_runs.with_label_values(&[list, result]);
        }
        self.warm_success
            .with_label_values(&[list])
            .set(signed(last_success.unwrap_or(0)));
    }

    /// A run of a list has ended.
    pub fn warm_run(&self, list: &str, completed: bool) {
        let result = if completed { "completed" } else { "failed" };
        self.warm_runs.with_label_values(&[list, result]).inc();
    }

    /// A run has done with an image.
    pub fn warm_image(&self, list: &str, result: &str) {
        self.warm_images.with_label_values(&[list, result]).inc();
    }

    /// A hot tag was asked about.
    pub fn refreshed_ahead(&self, upstream: &str, result: &str) {
        self.refreshed_ahead.with_label_values(&[upstream, result]).inc();
    }

    /// What is pinned.
    pub fn pinned(&self, pins: u64, bytes: u64) {
        self.pins.set(signed(pins));
        self.pinned_bytes.set(signed(bytes));
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
