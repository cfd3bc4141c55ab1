//! What the engine tells an operator: the JSON of the admin API, and what the subcommands print. Plain data.
//!
//! Points in time are milliseconds since 1970 (UTC), spans are whole seconds, sizes are bytes. Fields that do not apply
//! are absent. New fields may come; those that are here keep their meaning.

mod explanation;
mod pins;
mod upstreams;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

use super::eviction::Evicted;

pub use explanation::{
    BlobReport, EvictionCost, Expected, Explanation, Here, ManifestReport, Pinned, State, TagReport,
};
pub use pins::{Pin, PinTotals, Pins, Unpinned};
pub use upstreams::{
    BudgetReport, CredentialReport, EndpointReport, HeldReport, SlowedReport, UpstreamReport, UpstreamState,
};

/// `GET /api/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// How long it runs.
    pub uptime_seconds: u64,
    /// Whether nothing is asked of any upstream.
    #[serde(default)]
    pub offline: bool,
    /// Its data folder.
    pub data_dir: String,
    /// What it keeps.
    pub content: Content,
    /// The room that this takes.
    pub room: Room,
    /// What of it is pinned.
    #[serde(default)]
    pub pins: PinTotals,
    /// Requests that have ended since the start, by what the cache did for them.
    pub answers: Answers,
    /// Downloads in progress.
    pub fills: Vec<FillReport>,
    /// All upstreams, by prefix.
    pub upstreams: Vec<UpstreamReport>,
}

/// `GET` and `POST /api/offline`: whether anything is asked of any upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfflineReport {
    /// Whether nothing is.
    pub offline: bool,
    /// Whether an operator turned that on: then it stays so after a restart. Else it is the configuration's word.
    pub kept: bool,
    /// Since when, when an operator turned it on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// What is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Blobs that are here whole.
    pub blobs: u64,
    /// Manifests.
    pub manifests: u64,
    /// Tags.
    pub tags: u64,
}

/// Room on the disk, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// What blobs and partial files take up, or have reserved.
    pub used: u64,
    /// The index's file, which holds the manifests.
    pub index: u64,
    /// `storage.max_size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// What of the limit is for blobs and partial files: the rest is the index's, with what it may grow by at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_for_blobs: Option<u64>,
    /// Free space of the disk.
    pub disk_free: u64,
    /// Interrupted downloads that are kept to go on with.
    pub interrupted: u64,
    /// Rotten blobs that are put aside until they are fetched again.
    #[serde(default)]
    pub quarantined: u64,
}

/// Requests for content, by what the cache did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// From here, without a question to the upstream.
    pub hit: u64,
    /// From here, after the upstream confirmed it.
    pub revalidated: u64,
    /// From here although it was due.
    pub stale: u64,
    /// From the upstream.
    pub miss: u64,
    /// Remembered "not found"s.
    pub negative: u64,
}

/// A download in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FillReport {
    /// The blob.
    pub digest: String,
    /// The repository that it is fetched for.
    pub repository: String,
    /// Bytes that are here; 0 until the upstream has answered.
    pub present: u64,
    /// Its size, when it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Clients that read from it.
    pub readers: usize,
}

/// What a forced revalidation found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RefreshOutcome {
    /// It is as it was.
    Unchanged,
    /// The tag points at another manifest now, which is here.
    Moved,
    /// It was not here, and is now.
    New,
    /// The upstream does not have it.
    Gone,
    /// The upstream could not be asked.
    Failed,
}

impl RefreshOutcome {
    /// The word, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Moved => "moved",
            Self::New => "new",
            Self::Gone => "gone",
            Self::Failed => "failed",
        }
    }
}

/// `POST /api/refresh`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refreshed {
    /// The reference as it was understood.
    pub reference: String,
    /// What was found.
    pub outcome: RefreshOutcome,
    /// The manifest that was here before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The manifest that is served now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Why, where the upstream has a reason: it failed, or does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The upstream's status, where it explains the outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_status: Option<u16>,
}

/// `POST /api/purge`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    /// The reference as it was understood.
    pub reference: String,
    /// Whether there was anything to remove.
    pub removed: bool,
    /// The manifest that the tag pointed at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What went with it, when its content was to go too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freed: Option<Evicted>,
    /// Why its content stays although it was to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
}

/// A span of whole seconds as people say it: its two largest units.
pub fn span(seconds: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];
    let first = UNITS
        .iter()
        .position(|(_, size)| seconds >= *size)
        .unwrap_or(UNITS.len() - 1);
    let (unit, size) = UNITS[first];
    let mut text = format!("{}{unit}", seconds / size);
    if let Some((unit, smaller)) = UNITS.get(first + 1) {
        let rest = seconds % size / smaller;
        if rest > 0 {
            text = format!("{text} {rest}{unit}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        for (seconds, expected) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (258, "4m 18s"),
            (3600, "1h"),
            (3659, "1h"),
            (90_000, "1d 1h"),
            (2_592_000, "30d"),
        ] {
            assert_eq!(span(seconds), expected);
        }
    }
}
