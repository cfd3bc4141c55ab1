//! What is served: blobs that are generated, not stored, and images made of them. The upstream serves it, static
//! servers get it written out, and clients know from it which length and digest to expect.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::OnceLock;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// One MiB.
pub(crate) const MIB: u64 = 1 << 20;
/// The media type of every manifest here.
pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const PATTERN: usize = 4 << 20;
const PIECE: usize = 256 << 10;
const HEAD: usize = 64;

/// Incompressible bytes that every blob repeats after its own first 64: a blob of any size costs no memory.
fn pattern() -> &'static Bytes {
    static BYTES: OnceLock<Bytes> = OnceLock::new();
    BYTES.get_or_init(|| {
        let mut bytes = vec![0; PATTERN];
        fastrand::Rng::with_seed(0x77_68_61_72).fill(&mut bytes);
        Bytes::from(bytes)
    })
}

/// One blob; equal seeds and sizes give equal bytes.
#[derive(Clone)]
pub(crate) struct Blob {
    /// `sha256:` and the hex digits.
    pub(crate) digest: String,
    /// In bytes.
    pub(crate) size: u64,
    head: Bytes,
}

impl Blob {
    /// A blob of `size` bytes (at least 64) of its own.
    pub(crate) fn new(seed: u64, size: u64) -> Self {
        let mut head = vec![0; HEAD];
        fastrand::Rng::with_seed(seed).fill(&mut head);
        let mut blob = Self {
            digest: String::new(),
            size,
            head: head.into(),
        };
        let mut hasher = Sha256::new();
        let mut at = 0;
        while at < size {
            let piece = blob.piece(at);
            hasher.update(&piece);
            at += piece.len() as u64;
        }
        blob.digest = digest_name(hasher);
        blob
    }

    /// The next bytes from `offset` on, at most 256 KiB, without copying; empty at the end.
    pub(crate) fn piece(&self, offset: u64) -> Bytes {
        if offset < HEAD as u64 {
            return self.head.slice(offset as usize..);
        }
        let from = (offset % PATTERN as u64) as usize;
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        pattern().slice(from..from + PIECE.min(PATTERN - from).min(left))
    }
}

/// `sha256:` and the digits of what was hashed.
pub(crate) fn digest_name(hasher: Sha256) -> String {
    format!("sha256:{}", hex::encode(hasher.finalize()))
}

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
        let mut text = format!(
            "{{\n  \"schemaVersion\": 2,\n  \"mediaType\": \"{MANIFEST_TYPE}\",\n  \"config\": {},\n  \"layers\": [",
            descriptor("application/vnd.oci.image.config.v1+json", &config)
        );
        for (number, layer) in layers.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            let entry = descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layer);
            let _infallible = write!(text, "{comma}\n    {entry}");
        }
        text.push_str("\n  ]\n}\n");
        let digest = digest_name(Sha256::new_with_prefix(&text));
        let blobs = std::iter::once(config).chain(layers).collect();
        Self {
            digest,
            manifest: text.into(),
            blobs,
        }
    }
}

fn descriptor(media_type: &str, blob: &Blob) -> String {
    format!(
        r#"{{"mediaType": "{media_type}", "digest": "{}", "size": {}}}"#,
        blob.digest, blob.size
    )
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
