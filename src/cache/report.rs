//! What the engine tells an operator: the JSON of the admin API, and what the subcommands print. Plain data.
//!
//! Points in time are milliseconds since 1970 (UTC), spans are whole seconds, sizes are bytes. Fields that do not apply
//! are absent. New fields may come; those that are here keep their meaning.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

use super::eviction::Evicted;

/// What a request would get now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expected {
    /// The copy that is here, without a question to the upstream.
    Hit,
    /// A copy is here and due: see `asks_upstream` for whether the upstream is asked before it is served.
    Stale,
    /// What the upstream sends: it is not here.
    Miss,
    /// A remembered "not found".
    Negative,
}

impl Expected {
    /// The word, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Miss => "miss",
            Self::Negative => "negative",
        }
    }
}

/// `GET /api/explain?ref=REF`: why a reference would now be a hit, stale, or a miss. Nothing is asked of the upstream,
/// and nothing counts as used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The reference as it was understood: `docker-hub/library/nginx:1.27`, or with `@sha256:...`.
    pub reference: String,
    /// The repository: upstream prefix and name there.
    pub repository: String,
    /// What a request for it would get now.
    pub expected: Expected,
    /// Whether that request would ask the upstream.
    pub asks_upstream: bool,
    /// Why, as a sentence.
    pub reason: String,
    /// Whether we are offline, so that nobody is asked.
    #[serde(default)]
    pub offline: bool,
    /// Its upstream.
    pub upstream: UpstreamReport,
    /// The tag, when it was pulled before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<TagReport>,
    /// How long "not found" is still believed of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_seconds: Option<u64>,
    /// The manifest that it means, when it is known which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<ManifestReport>,
    /// The blob, when the digest is that of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<BlobReport>,
    /// What of it is here.
    pub here: Here,
    /// What evicting it would cost.
    pub eviction: EvictionCost,
    /// Why it is never evicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<Pinned>,
}

/// The pin that keeps something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    /// By which names: `docker-hub/library/nginx:1.27`, or with `@sha256:...`.
    pub names: Vec<String>,
    /// Since when.
    pub since: Timestamp,
    /// The digest that is pinned, when it is that of an index which names this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// A tag as last confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagReport {
    /// Its name.
    pub name: String,
    /// The manifest that it points at.
    pub digest: String,
    /// When the upstream last confirmed that.
    pub validated_at: Timestamp,
    /// How long ago that was.
    pub age_seconds: u64,
    /// How long it is fresh for, as configured.
    pub ttl_seconds: u64,
    /// How long it is fresh for now, because few pulls are left; absent when it is as configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stretched_ttl_seconds: Option<u64>,
    /// The pattern of the `tag_rule` that says so; absent when it is the upstream's `tag_ttl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Since when the upstream says that it does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_since: Option<Timestamp>,
    /// Whether its revalidation failed a moment ago, so that the next clients do not wait for another.
    pub troubled: bool,
}

/// Whether some content is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// All of it, verified.
    Here,
    /// Some of it.
    Partial,
    /// Nothing.
    Absent,
}

impl State {
    /// The word, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Partial => "partial",
            Self::Absent => "absent",
        }
    }
}

/// A manifest and what it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestReport {
    /// Its digest.
    pub digest: String,
    /// `image`, `index`, or `other`; absent when it is not here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The platform that an index names it for: `linux/arm64/v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The type that it is served with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Whether it is here, for this repository.
    pub state: State,
    /// Its own size.
    pub size: u64,
    /// When it was last used, when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
    /// Config and layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<BlobReport>,
    /// The manifests of an index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<ManifestReport>,
}

/// A blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobReport {
    /// Its digest.
    pub digest: String,
    /// The type that its manifest gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Its size.
    pub size: u64,
    /// Whether it is here.
    pub state: State,
    /// Bytes that are here.
    pub present: u64,
    /// When it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_at: Option<Timestamp>,
    /// Other manifests here that need it, when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_with: Option<usize>,
    /// How long "not found" is still believed of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_seconds: Option<u64>,
}

/// How much of a reference is here, each content counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Here {
    /// Blobs that are here whole.
    pub blobs: u64,
    /// Blobs that are known of.
    pub of_blobs: u64,
    /// Bytes of manifests and blobs that are here.
    pub bytes: u64,
    /// Bytes that are known of.
    pub of_bytes: u64,
}

/// What it would cost to have it again after an eviction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvictionCost {
    /// Bytes that are here whole, and would have to be fetched again.
    pub bytes: u64,
    /// Of these, bytes that other images here need too, so that they would stay; when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_bytes: Option<u64>,
}

/// How an upstream was when it was last asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamState {
    /// It was not asked since the start.
    Unasked,
    /// It answered.
    Well,
    /// It refused for its rate limit (429).
    Limited,
    /// It failed.
    Failing,
}

impl UpstreamState {
    /// The word, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unasked => "unasked",
            Self::Well => "well",
            Self::Limited => "limited",
            Self::Failing => "failing",
        }
    }
}

/// A registry or a mirror of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointReport {
    /// Its host, with the port if it is not the usual one.
    pub host: String,
    /// Its breaker: `closed` (asked as usual), `open` (left alone), `half-open` (tried by the next request).
    pub breaker: String,
}

/// An upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamReport {
    /// Its prefix.
    pub prefix: String,
    /// Where it is.
    pub url: String,
    /// How it was when it was last asked.
    pub state: UpstreamState,
    /// How long ago it last answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_seconds: Option<u64>,
    /// How long ago it last failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_seconds: Option<u64>,
    /// How it last failed: a status, or the word of why there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// How its endpoints stand, the registry first, then its mirrors.
    #[serde(default)]
    pub endpoints: Vec<EndpointReport>,
    /// Its limit on pulls, of all credentials in use together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Pulls that are left of it: as last told, less what was spent since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u64>,
    /// The bandwidth cap that holds now, in bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<u64>,
    /// Its credentials, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<CredentialReport>,
    /// How much longer tags are fresh than configured because few pulls are left, in percent; absent when they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_percent: Option<u64>,
    /// The limit by credential.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<BudgetReport>,
    /// Manifests that clients pulled without costing a pull, over all runs of the daemon.
    #[serde(default)]
    pub pulls_saved: u64,
    /// Requests that were not made because they would have cost a pull, since the start.
    #[serde(default)]
    pub held: HeldReport,
    /// Its hosts that are asked slowly because they refused too many requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slowed: Vec<SlowedReport>,
}

/// A credential of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialReport {
    /// What it is called.
    pub name: String,
    /// Where it comes from: `password`, `docker-config`, `helper`, `token-file`, `ecr`, or `anonymous` for none.
    pub kind: String,
    /// While it is set aside: for how long still, and then until it is tried with success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_aside_seconds: Option<u64>,
    /// Why it is set aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a credential may still pull.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetReport {
    /// Its name; `anonymous` for none.
    pub credential: String,
    /// Whose budget it is, as the registry tells: an address, a network or an account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Pulls in a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Pulls that are left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u64>,
    /// In how long all of them are back at the latest; when none are left, in how long some are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_seconds: Option<u64>,
    /// In how long none are left at the present rate; absent while they last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_seconds: Option<u64>,
    /// None are left, or the registry refuses.
    pub exhausted: bool,
}

/// Requests that were not made, by what they were for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldReport {
    /// Nobody waited for it.
    pub background: u64,
    /// A copy was here.
    pub refresh: u64,
    /// A client waited, and nothing was here.
    pub miss: u64,
}

/// A host that is asked slowly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowedReport {
    /// The host.
    pub host: String,
    /// The time between two requests to it, in milliseconds.
    pub interval_millis: u64,
    /// How long it is not asked at all.
    pub pause_seconds: u64,
}

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

/// `GET /api/pins`: what is never evicted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pins {
    /// All together.
    #[serde(flatten)]
    pub totals: PinTotals,
    /// Each, by its names.
    #[serde(rename = "pinned")]
    pub pins: Vec<Pin>,
}

/// All pins together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinTotals {
    /// Manifests and indexes that are pinned.
    pub pins: u64,
    /// Bytes here that they keep, each content counted once.
    pub bytes: u64,
    /// Bytes that all of it has.
    pub of_bytes: u64,
    /// The room that there is for blobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Whether all of it is more than that.
    pub too_large: bool,
}

/// A pinned image or index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// What is pinned.
    pub digest: String,
    /// By which names: a pin by tag follows the tag.
    pub names: Vec<String>,
    /// Whether only lists of the configuration (`[[warm]]` with `pin`) pin it.
    pub listed: bool,
    /// Since when.
    pub since: Timestamp,
    /// Whether it is here, with the config and layers of all its images that are here.
    pub state: State,
    /// Manifests that are here, an index's children among them.
    pub manifests: u64,
    /// Of the blobs that these name, those that are here.
    pub blobs: u64,
    /// Blobs that they name.
    pub of_blobs: u64,
    /// Bytes that are here.
    pub bytes: u64,
    /// Bytes that all of it has.
    pub of_bytes: u64,
}

/// `POST /api/unpin`: what was unpinned, for each reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpinned {
    /// The reference as it was understood.
    pub reference: String,
    /// Whether it was pinned by this name.
    pub unpinned: bool,
    /// The names that keep it pinned all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub still_by: Vec<String>,
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
