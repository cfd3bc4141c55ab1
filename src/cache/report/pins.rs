//! What an operator is told of pins: `GET /api/pins`, and part of `GET /api/status`. Made by `pins`.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

use super::State;

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
