//! Builds the images that tests pull: deterministic bytes, real digests, every shape of manifest that
//! registries hold. What is built goes into an upstream with `Upstream::put`.

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// `size` pseudo-random bytes, the same for the same seed.
pub fn random(seed: u64, size: usize) -> Bytes {
    let mut bytes = vec![0; size];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes.into()
}

/// `sha256:<hex>` of the bytes.
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// `sha512:<hex>` of the bytes.
pub fn sha512(bytes: &[u8]) -> String {
    format!("sha512:{}", hex::encode(Sha512::digest(bytes)))
}

/// Bytes with the name and type under which they are asked for.
#[derive(Clone, Debug)]
pub struct Part {
    pub digest: String,
    pub media_type: String,
    pub bytes: Bytes,
}

impl Part {
    fn new(media_type: &str, bytes: Bytes, long: bool) -> Self {
        let digest = if long { sha512(&bytes) } else { sha256(&bytes) };
        Self {
            digest,
            media_type: media_type.to_owned(),
            bytes,
        }
    }

    fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len() })
    }
}

/// What an upstream can hold under one tag: a root manifest, the manifests below it, and their blobs.
pub trait Content {
    /// The manifest that the tag points at.
    fn root(&self) -> Part;
    /// All manifests below the root.
    fn children(&self) -> Vec<Part>;
    /// All blobs that any of the manifests names.
    fn blobs(&self) -> Vec<Part>;
    /// The digest of the root.
    fn digest(&self) -> String {
        self.root().digest
    }
}

/// One image of one platform, or any artifact: a config, layers, and maybe a subject.
#[derive(Clone, Debug)]
pub struct Image {
    docker: bool,
    long: bool,
    platform: (String, String),
    /// With the SHA-256 of each, which is worked out once.
    layers: Vec<(Bytes, String)>,
    artifact_type: Option<String>,
    subject: Option<Part>,
}

impl Image {
    /// An OCI image for linux/amd64 without layers.
    pub fn new() -> Self {
        Self {
            docker: false,
            long: false,
            platform: ("linux".to_owned(), "amd64".to_owned()),
            layers: Vec::new(),
            artifact_type: None,
            subject: None,
        }
    }

    /// An OCI image with one layer of `size` bytes: what most tests want.
    pub fn simple(seed: u64, size: usize) -> Self {
        Self::new().layer(random(seed, size))
    }

    /// Adds a layer of exactly these bytes (none makes the zero-byte blob).
    pub fn layer(mut self, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let digest = sha256(&bytes);
        self.layers.push((bytes, digest));
        self
    }

    /// Uses Docker's media types (schema 2) instead of OCI's.
    pub fn docker(mut self) -> Self {
        self.docker = true;
        self
    }

    /// Names everything by SHA-512 instead of SHA-256.
    pub fn sha512(mut self) -> Self {
        self.long = true;
        self
    }

    /// Sets the platform that the config states.
    pub fn platform(mut self, os: &str, architecture: &str) -> Self {
        self.platform = (os.to_owned(), architecture.to_owned());
        self
    }

    /// Makes it an artifact of this type that refers to `subject`.
    pub fn referring_to(mut self, subject: &impl Content, artifact_type: &str) -> Self {
        self.subject = Some(subject.root());
        self.artifact_type = Some(artifact_type.to_owned());
        self
    }

    /// The config blob.
    pub fn config(&self) -> Part {
        let diff_ids: Vec<&String> = self.layers.iter().map(|(_, digest)| digest).collect();
        let (os, architecture) = &self.platform;
        let config = json!({
            "architecture": architecture, "os": os, "config": {},
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let media_type = if self.docker {
            "application/vnd.docker.container.image.v1+json"
        } else {
            "application/vnd.oci.image.config.v1+json"
        };
        Part::new(media_type, config.to_string().into(), self.long)
    }

    /// The layers, in order.
    pub fn layers(&self) -> Vec<Part> {
        let media_type = if self.docker {
            "application/vnd.docker.image.rootfs.diff.tar.gzip"
        } else {
            "application/vnd.oci.image.layer.v1.tar+gzip"
        };
        let part = |(bytes, digest): &(Bytes, String)| Part {
            digest: if self.long { sha512(bytes) } else { digest.clone() },
            media_type: media_type.to_owned(),
            bytes: bytes.clone(),
        };
        self.layers.iter().map(part).collect()
    }

    /// The digest of layer `index`.
    pub fn layer_digest(&self, index: usize) -> String {
        self.layers()[index].digest.clone()
    }
}

impl Content for Image {
    fn root(&self) -> Part {
        let layers: Vec<Value> = self.layers().iter().map(Part::descriptor).collect();
        let media_type = if self.docker {
            DOCKER_MANIFEST
        } else {
            OCI_MANIFEST
        };
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": media_type,
            "config": self.config().descriptor(), "layers": layers,
        });
        if let Some(subject) = &self.subject {
            manifest["subject"] = subject.descriptor();
        }
        if let Some(artifact_type) = &self.artifact_type {
            manifest["artifactType"] = json!(artifact_type);
            manifest["annotations"] = json!({ "org.example.kind": artifact_type });
        }
        Part::new(media_type, manifest.to_string().into(), self.long)
    }

    fn children(&self) -> Vec<Part> {
        Vec::new()
    }

    fn blobs(&self) -> Vec<Part> {
        let mut blobs = self.layers();
        blobs.push(self.config());
        blobs
    }
}

/// An index (manifest list) over images of several platforms.
#[derive(Clone, Debug, Default)]
pub struct Index {
    docker: bool,
    images: Vec<Image>,
}

impl Index {
    /// An OCI index of `count` small images, each for a platform of its own.
    pub fn of_platforms(count: usize) -> Self {
        const ARCHITECTURES: [&str; 6] = ["amd64", "arm64", "ppc64le", "riscv64", "s390x", "386"];
        (0..count).fold(Self::default(), |index, number| {
            let image = Image::simple(number as u64 + 1, 2000 + number);
            index.image(image.platform("linux", ARCHITECTURES[number % ARCHITECTURES.len()]))
        })
    }

    /// Adds an image.
    pub fn image(mut self, image: Image) -> Self {
        self.images.push(image);
        self
    }

    /// Uses Docker's manifest list instead of OCI's index.
    pub fn docker(mut self) -> Self {
        self.docker = true;
        self
    }

    /// The images in it, in order.
    pub fn images(&self) -> &[Image] {
        &self.images
    }
}

impl Content for Index {
    fn root(&self) -> Part {
        let manifests: Vec<Value> = self.images.iter().map(platform_descriptor).collect();
        let media_type = if self.docker { DOCKER_LIST } else { OCI_INDEX };
        let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests });
        Part::new(media_type, index.to_string().into(), false)
    }

    fn children(&self) -> Vec<Part> {
        self.images.iter().map(Content::root).collect()
    }

    fn blobs(&self) -> Vec<Part> {
        self.images.iter().flat_map(Content::blobs).collect()
    }
}

fn platform_descriptor(image: &Image) -> Value {
    let (os, architecture) = &image.platform;
    let mut descriptor = image.root().descriptor();
    descriptor["platform"] = json!({ "os": os, "architecture": architecture });
    descriptor
}

/// A manifest of exactly these bytes and this type, whatever they are.
#[derive(Clone, Debug)]
pub struct RawManifest(Part);

impl RawManifest {
    /// Keeps `bytes` as they are.
    pub fn new(media_type: &str, bytes: impl Into<Bytes>) -> Self {
        Self(Part::new(media_type, bytes.into(), false))
    }

    /// A manifest of Docker's schema 1, as the oldest repositories still hold.
    pub fn schema_1(name: &str, tag: &str) -> Self {
        let empty = "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4";
        let manifest = json!({
            "schemaVersion": 1, "name": name, "tag": tag, "architecture": "amd64",
            "fsLayers": [{ "blobSum": empty }],
            "history": [{ "v1Compatibility": "{\"id\":\"0\"}" }],
            "signatures": [{ "header": { "alg": "ES256" }, "signature": "", "protected": "" }],
        });
        Self::new(SCHEMA_1, manifest.to_string())
    }
}

impl Content for RawManifest {
    fn root(&self) -> Part {
        self.0.clone()
    }

    fn children(&self) -> Vec<Part> {
        Vec::new()
    }

    fn blobs(&self) -> Vec<Part> {
        Vec::new()
    }
}
