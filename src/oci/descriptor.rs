//! Descriptors: what a manifest says of the content it names (image spec, descriptor.md).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A descriptor as manifests carry it. The digest stays text here: an unsupported algorithm in one descriptor must
/// not make the manifest around it unservable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the content.
    pub media_type: String,
    /// Digest of the content, as written.
    pub digest: String,
    /// Size of the content in bytes.
    pub size: u64,
    /// Type of the artifact, in indexes and referrers lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Annotations, ordered for stable output.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Where else the content may be had (foreign layers).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Platform of an index's entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// The platform of an index's entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// CPU architecture in Go's words: `amd64`.
    pub architecture: String,
    /// Operating system in Go's words: `linux`.
    pub os: String,
    /// Variant of the architecture: `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Version of the operating system (Windows).
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
}
