//! What an operator is told of a reference: `GET /api/explain`. Made by `inspect`.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

use super::UpstreamReport;

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
