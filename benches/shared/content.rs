//! Content that is generated, not stored: blobs of any size that cost no memory, and the manifests that name them.

use std::fmt::Write as _;
use std::sync::OnceLock;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// The media type of every image manifest here.
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

/// The manifest of an image of this config and these layers.
pub(crate) fn manifest(config: &Blob, layers: &[Blob]) -> String {
    let mut text = format!(
        "{{\n  \"schemaVersion\": 2,\n  \"mediaType\": \"{MANIFEST_TYPE}\",\n  \"config\": {},\n  \"layers\": [",
        descriptor("application/vnd.oci.image.config.v1+json", config)
    );
    for (number, layer) in layers.iter().enumerate() {
        let comma = if number == 0 { "" } else { "," };
        let entry = descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layer);
        let _infallible = write!(text, "{comma}\n    {entry}");
    }
    text.push_str("\n  ]\n}\n");
    text
}

fn descriptor(media_type: &str, blob: &Blob) -> String {
    format!(
        r#"{{"mediaType": "{media_type}", "digest": "{}", "size": {}}}"#,
        blob.digest, blob.size
    )
}
