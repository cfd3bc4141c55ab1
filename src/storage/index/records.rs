//! The rows of the index and their encodings: JSON for small ones, which new fields can join without a migration.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::oci::{Descriptor, Digest};

/// A row that knows its encoding.
pub(super) trait Record: Sized {
    fn encode(&self) -> Vec<u8>;
    fn decode(bytes: &[u8]) -> Option<Self>;
}

/// Marks rows that are kept as JSON.
trait Json: Serialize + DeserializeOwned {}

impl<R: Json> Record for R {
    fn encode(&self) -> Vec<u8> {
        // Plain structs of strings and numbers always serialize.
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// What a file of `size` bytes takes up on the disk.
pub(super) fn allocated(size: u64) -> u64 {
    const BLOCK: u64 = 4096;
    size.div_ceil(BLOCK).saturating_mul(BLOCK)
}

/// A blob whose file is whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BlobRow {
    /// Size in bytes.
    pub size: u64,
    /// When it was committed.
    pub stored_at: Timestamp,
}

impl Json for BlobRow {}

/// What a tag points at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRow {
    /// The manifest's digest.
    pub digest: String,
    /// When the upstream last confirmed it.
    pub validated_at: Timestamp,
    /// Since when a healthy upstream says that the tag does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_since: Option<Timestamp>,
}

impl Json for TagRow {}

/// How we know that a repository holds some content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// Its upstream sent the content for this repository.
    Fetched,
    /// A manifest of this repository names it.
    Named,
    /// Its upstream confirmed that it serves it.
    Confirmed,
    /// It came with a bundle that an operator brought for this repository.
    Imported,
    /// It was pushed to this repository, which is hosted.
    Pushed,
    /// A hosted repository mounted it from another one.
    Mounted,
}

/// Content that a repository may serve.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LinkRow {
    /// Size in bytes, as the descriptor or the upstream said.
    pub size: u64,
    /// How we know.
    pub proof: Proof,
    /// Whether it is a manifest: not to be had as a blob.
    #[serde(default)]
    pub manifest: bool,
    /// When it came to a hosted repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

impl Json for LinkRow {}

/// Referrers as last heard.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReferrersRow {
    /// The descriptors of the list.
    pub descriptors: Vec<Descriptor>,
    /// When the upstream told it.
    pub validated_at: Timestamp,
}

impl Json for ReferrersRow {}

/// A hosted repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryRow {
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// Its settings, which belong to `repository`: JSON.
    pub settings: serde_json::Value,
}

impl Json for RepositoryRow {}

/// A manifest, verbatim.
#[derive(Clone, Debug)]
pub struct ManifestRow {
    /// The type it is served with.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Bytes,
}

/// Length of the type (two bytes, little-endian), the type, the bytes.
impl Record for ManifestRow {
    fn encode(&self) -> Vec<u8> {
        let media_type = self.media_type.as_bytes();
        let media_type = &media_type[..media_type.len().min(usize::from(u16::MAX))];
        let mut row = Vec::with_capacity(2 + media_type.len() + self.bytes.len());
        row.extend_from_slice(&(media_type.len() as u16).to_le_bytes());
        row.extend_from_slice(media_type);
        row.extend_from_slice(&self.bytes);
        row
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let (length, rest) = row.split_first_chunk::<2>()?;
        let (media_type, bytes) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        let media_type = std::str::from_utf8(media_type).ok()?.to_owned();
        Some(Self {
            media_type,
            bytes: Bytes::copy_from_slice(bytes),
        })
    }
}

/// Why something is never evicted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinRow {
    /// Since when.
    pub pinned_at: Timestamp,
    /// What the operator said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// By which names it was pinned. The last that goes takes the pin with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<PinName>,
}

impl Json for PinRow {}

/// What clients pulled under a name, so that it is known after it has been evicted too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UseRow {
    /// When it was last pulled, within the hour.
    pub at: Timestamp,
    /// The manifest that it was.
    pub digest: Digest,
}

/// The time (eight bytes, big-endian), the digest's key.
impl Record for UseRow {
    fn encode(&self) -> Vec<u8> {
        [&self.at.0.to_be_bytes()[..], &self.digest.to_key()].concat()
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let (at, digest) = row.split_first_chunk::<8>()?;
        Some(Self {
            at: Timestamp(u64::from_be_bytes(*at)),
            digest: Digest::from_key(digest)?,
        })
    }
}

/// A name by which something is pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinName {
    /// `repository:tag`, which the pin follows when the tag moves, or `repository@digest`.
    pub name: String,
    /// Whether a list of the configuration pins it, rather than an operator.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub listed: bool,
    /// For which platforms it is to be here, as people write them; `all` for whatever there is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
}

/// What a unit of eviction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnitKind {
    /// A manifest with the blobs that it needs.
    Image,
    /// A list of manifests.
    Index,
    /// A blob that no manifest here needs.
    Blob,
}

/// A unit of eviction, as kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UnitRow {
    pub(super) kind: UnitKind,
    pub(super) last_used: Timestamp,
    pub(super) bytes: u64,
    pub(super) class: u8,
}

impl Json for UnitRow {}

impl UnitRow {
    pub(super) fn at(&self, digest: &Digest) -> Unit {
        Unit {
            key: self.key(digest),
            kind: self.kind,
            bytes: self.bytes,
        }
    }

    pub(super) fn key(&self, digest: &Digest) -> UnitKey {
        UnitKey {
            class: self.class,
            last_used: self.last_used,
            digest: *digest,
        }
    }
}

/// The place of a unit among those of its class: the least recently used first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitKey {
    /// Its class of value, 0 to 15.
    pub class: u8,
    /// When it was last used.
    pub last_used: Timestamp,
    /// The manifest, or the loose blob.
    pub digest: Digest,
}

/// A unit of eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its place.
    pub key: UnitKey,
    /// What it is.
    pub kind: UnitKind,
    /// Its size in bytes: of an image with all that it needs, whether here or not.
    pub bytes: u64,
}

/// What is here, counted. Kept exactly, transaction by transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Blobs.
    pub blobs: u64,
    /// The blocks that their files take up, in bytes.
    pub blob_bytes: u64,
    /// Of these, what a hosted repository may serve.
    #[serde(default)]
    pub hosted_blobs: u64,
    /// The blocks that they take up, in bytes.
    #[serde(default)]
    pub hosted_bytes: u64,
    /// Manifests.
    pub manifests: u64,
    /// Their bytes, without the index's own needs.
    pub manifest_bytes: u64,
}

impl Json for Totals {}
