//! What is counted: of a phase, or of the whole day.

use std::collections::BTreeSet;

use crate::hub::Counts;

/// Figures of one contestant.
#[derive(Clone, Default)]
pub(crate) struct Tally {
    /// Jobs that ran.
    pub(crate) jobs: u64,
    /// That failed although the same reference was pulled for the same platform before.
    pub(crate) failed_seen: u64,
    /// That failed otherwise.
    pub(crate) failed_new: u64,
    /// Jobs by tag that succeeded.
    pub(crate) by_tag: u64,
    /// And got something else than what the tag pointed at upstream.
    pub(crate) stale: u64,
    /// Digests of the manifests that clients were told of, or asked for.
    pub(crate) asked: BTreeSet<String>,
    /// As [`Counts::pulls`].
    pub(crate) pulls: u64,
    /// As [`Counts::refused`].
    pub(crate) refused: u64,
    /// As [`Counts::requests`].
    pub(crate) requests: u64,
    /// As [`Counts::bytes`].
    pub(crate) bytes: u64,
}

impl Tally {
    /// Adds what the upstream was asked for between the two.
    pub(crate) fn add_upstream(&mut self, before: &Counts, after: &Counts) {
        self.pulls += after.pulls - before.pulls;
        self.refused += after.refused - before.refused;
        self.requests += after.requests - before.requests;
        self.bytes += after.bytes - before.bytes;
    }

    /// All of them together.
    pub(crate) fn total(parts: &[Self]) -> Self {
        parts.iter().fold(Self::default(), |mut total, part| {
            total.jobs += part.jobs;
            total.failed_seen += part.failed_seen;
            total.failed_new += part.failed_new;
            total.by_tag += part.by_tag;
            total.stale += part.stale;
            total.asked.extend(part.asked.iter().cloned());
            total.pulls += part.pulls;
            total.refused += part.refused;
            total.requests += part.requests;
            total.bytes += part.bytes;
            total
        })
    }

    /// Pulls counted upstream for each distinct manifest that was asked for.
    pub(crate) fn ratio(&self) -> f64 {
        self.pulls as f64 / (self.asked.len().max(1) as f64)
    }
}
