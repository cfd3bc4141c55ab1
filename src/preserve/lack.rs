//! What would not be served of an image without its upstream, and why. Plain data, in the JSON of drills.

use serde::{Deserialize, Serialize};

use crate::oci::Digest;

/// What kind of thing lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// The tag: what it points at would not be told.
    Tag,
    /// A manifest: of the image, or of one of its platforms.
    Manifest,
    /// A config or a layer.
    Blob,
    /// The list of what refers to a manifest.
    Referrers,
    /// A manifest that refers to the image: a signature, an SBOM.
    Referrer,
}

impl What {
    /// The word, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tag => "tag",
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Referrers => "referrers",
            Self::Referrer => "referrer",
        }
    }
}

/// Why it would not be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It is not here: it was evicted, or never fetched.
    Absent,
    /// Some of it is here.
    Partial,
    /// Its bytes were wrong, and it was put aside.
    Rotten,
    /// Its file is missing or short.
    Lost,
    /// It is here, but it is not proved that this repository may serve it.
    Unlinked,
    /// The upstream confirmed it longer ago than `stale_if_error` allows.
    TooOld,
    /// The upstream has said for longer than `gone_ttl` that it does not exist.
    Gone,
    /// Its digest is of an algorithm that cannot be served.
    Unsupported,
}

impl Reason {
    /// The word, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Partial => "partial",
            Self::Rotten => "rotten",
            Self::Lost => "lost",
            Self::Unlinked => "unlinked",
            Self::TooOld => "too-old",
            Self::Gone => "gone",
            Self::Unsupported => "unsupported",
        }
    }
}

/// Something that lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lack {
    /// What kind of thing.
    pub what: What,
    /// Which one; of a tag, what it pointed at, when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Why it would not be served.
    pub reason: Reason,
    /// Bytes that would have to be fetched for it, as far as that is known.
    pub bytes: u64,
}

impl Lack {
    /// Whether bytes lack, and not just somebody's word about what is here.
    pub(super) fn is_of_content(&self) -> bool {
        !matches!(self.reason, Reason::TooOld | Reason::Gone)
    }

    pub(super) fn digest(&self) -> Option<Digest> {
        self.digest.as_ref()?.parse().ok()
    }
}
