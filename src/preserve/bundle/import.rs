//! `wharfinger bundle import`: takes a bundle into the running cache while it arrives. Asks no upstream, so it works behind an
//! air gap. What is wrong is refused with its reason; images that came whole are kept.

use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::job::{Job, Progress};
use crate::transfer::{Upload, Uploads};

use super::super::Finder;
use super::read::Intake;

/// The job.
#[derive(Clone)]
pub struct BundleImport {
    cache: Cache,
    finder: Finder,
    uploads: Uploads,
}

/// What was taken in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// Images that are here now.
    pub images: Vec<ImportedImage>,
    /// Their manifests, and those that refer to them.
    pub manifests: u64,
    /// Blobs that were not here before.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs of the bundle that were here already.
    pub present: u64,
    /// What was not taken in.
    pub refused: Vec<Refusal>,
    /// Whether it was stopped before its end.
    pub stopped: bool,
}

impl Imported {
    /// Whether all of the bundle is here.
    pub fn is_whole(&self) -> bool {
        !self.stopped && self.refused.is_empty()
    }
}

/// An image that came with a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedImage {
    /// As a person writes it: prefix, name, tag or digest.
    pub image: String,
    /// Its manifest.
    pub digest: String,
    /// Whether its tag stays where it was, because an upstream confirmed that later.
    #[serde(default)]
    pub tag_kept: bool,
}

/// What was not taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// An image, a blob, or the archive.
    pub what: String,
    /// Why.
    pub reason: String,
}

impl BundleImport {
    /// The job over `cache`; images are found by `finder`, the bundle comes through `uploads`.
    pub fn new(cache: Cache, finder: Finder, uploads: Uploads) -> Self {
        Self {
            cache,
            finder,
            uploads,
        }
    }
}

impl Job for BundleImport {
    const NAME: &'static str = "bundle-import";
    type Options = Upload;
    type Summary = Imported;

    async fn run(&self, options: Upload, progress: Progress) -> Result<Imported, String> {
        let incoming = self.uploads.take(options);
        let incoming = incoming.ok_or("send the bundle itself, as application/x-tar")?;
        let intake = Intake::new(&self.cache, &self.finder, incoming, progress);
        // What comes is written and hashed in place.
        let imported = self.cache.on_fill_threads(intake.run()).await;
        let imported = imported.map_err(|error| error.message)?;
        let Imported {
            manifests,
            blobs,
            bytes,
            ..
        } = imported;
        let (images, refused) = (imported.images.len(), imported.refused.len());
        tracing::info!(images, manifests, blobs, bytes, refused, "imported a bundle");
        for Refusal { what, reason } in &imported.refused {
            tracing::warn!(what, reason, "not imported");
        }
        Ok(imported)
    }
}
