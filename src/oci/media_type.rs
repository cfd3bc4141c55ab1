//! Media types: carried as they came, never normalised, because clients compare them with the manifest's own field.

use std::fmt;
use std::sync::Arc;

/// An OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The `Accept` that every upstream manifest request carries, whatever the client sent: a shorter list makes
/// registries answer with a downgraded manifest, which would then stand for the tag.
pub const ACCEPT_MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
application/vnd.docker.distribution.manifest.list.v2+json, \
application/vnd.oci.image.manifest.v1+json, \
application/vnd.docker.distribution.manifest.v2+json, \
application/vnd.oci.artifact.manifest.v1+json, */*;q=0.5";

/// A media type without parameters. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct MediaType(Arc<str>);

impl MediaType {
    /// Takes a `Content-Type` value or a manifest's field, and drops parameters such as `; charset=utf-8`.
    pub fn new(text: &str) -> Self {
        let bare = text.split_once(';').map_or(text, |(bare, _)| bare).trim();
        Self(bare.into())
    }

    /// The type as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is Docker's schema 1, signed or not.
    pub fn is_schema1(&self) -> bool {
        matches!(
            &*self.0,
            "application/vnd.docker.distribution.manifest.v1+json"
                | "application/vnd.docker.distribution.manifest.v1+prettyjws"
        )
    }

    /// Whether the type says no more than "bytes" or "text": then the manifest's own field is believed.
    pub fn is_vague(&self) -> bool {
        self.0.is_empty()
            || self.0.starts_with("text/")
            || matches!(
                &*self.0,
                "application/octet-stream" | "application/json" | "binary/octet-stream"
            )
    }

    /// Whether it is an image manifest's, OCI's or Docker's.
    pub fn is_image(&self) -> bool {
        matches!(
            &*self.0,
            OCI_MANIFEST | "application/vnd.docker.distribution.manifest.v2+json"
        )
    }

    /// Whether it is an index's, OCI's or Docker's.
    pub fn is_index(&self) -> bool {
        matches!(
            &*self.0,
            OCI_INDEX | "application/vnd.docker.distribution.manifest.list.v2+json"
        )
    }

    /// The type of an OCI image manifest.
    pub fn oci_manifest() -> Self {
        Self(OCI_MANIFEST.into())
    }

    /// The type of an OCI image index.
    pub fn oci_index() -> Self {
        Self(OCI_INDEX.into())
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
