//! What is served: blobs that are generated, not stored, and images made of them. The upstream serves it, static
//! servers get it written out, and clients know from it which length and digest to expect.

use std::collections::BTreeMap;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::shared::content::manifest;
pub(crate) use crate::shared::content::{Blob, MANIFEST_TYPE, digest_name};

/// One MiB.
pub(crate) const MIB: u64 = 1 << 20;

/// One image: a config, layers, and the manifest that names them; its tag is `latest`.
#[derive(Clone)]
pub(crate) struct Image {
    /// The manifest's digest.
    pub(crate) digest: String,
    /// The manifest's bytes.
    pub(crate) manifest: Bytes,
    /// The config first, then the layers.
    pub(crate) blobs: Vec<Blob>,
}

impl Image {
    /// An image of `layers` layers of `size` bytes each.
    pub(crate) fn new(seed: u64, layers: u64, size: u64) -> Self {
        let config = Blob::new(seed, 2048);
        let layers: Vec<Blob> = (1..=layers)
            .map(|layer| Blob::new(seed * 1000 + layer, size))
            .collect();
        let text = manifest(&config, &layers);
        let digest = digest_name(Sha256::new_with_prefix(&text));
        let blobs = std::iter::once(config).chain(layers).collect();
        Self {
            digest,
            manifest: text.into(),
            blobs,
        }
    }
}

/// Everything that one upstream holds, all in one repository.
#[derive(Default)]
pub(crate) struct Content {
    blobs: BTreeMap<String, Blob>,
    image: Option<Image>,
}

impl Content {
    /// The repository that holds it.
    pub(crate) const REPOSITORY: &str = "library/bench/image";

    /// An image and its blobs.
    pub(crate) fn image(image: &Image) -> Self {
        Self {
            image: Some(image.clone()),
            ..Self::blobs(&image.blobs)
        }
    }

    /// Blobs that no manifest names.
    pub(crate) fn blobs(blobs: &[Blob]) -> Self {
        let blobs = blobs
            .iter()
            .map(|blob| (blob.digest.clone(), blob.clone()))
            .collect();
        Self { blobs, image: None }
    }

    /// The blob of that digest.
    pub(crate) fn blob(&self, digest: &str) -> Option<&Blob> {
        self.blobs.get(digest)
    }

    /// Every blob.
    pub(crate) fn every_blob(&self) -> impl Iterator<Item = &Blob> {
        self.blobs.values()
    }

    /// The image, if there is one.
    pub(crate) fn the_image(&self) -> Option<&Image> {
        self.image.as_ref()
    }

    /// The image's manifest by tag or digest.
    pub(crate) fn manifest(&self, reference: &str) -> Option<&Image> {
        self.image
            .as_ref()
            .filter(|image| reference == "latest" || reference == image.digest)
    }
}

/// The path of a manifest.
pub(crate) fn manifest_path(reference: &str) -> String {
    format!("/v2/{}/manifests/{reference}", Content::REPOSITORY)
}

/// The path of a blob.
pub(crate) fn blob_path(digest: &str) -> String {
    format!("/v2/{}/blobs/{digest}", Content::REPOSITORY)
}
