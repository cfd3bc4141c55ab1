//! What the scripted Docker Hub holds in the course of the day: forty repositories of multi-arch images, each with an
//! old version, a current one, and those that are released meanwhile. Generated from the seed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use fastrand::Rng;
use sha2::{Digest as _, Sha256};

use crate::shared::content::{Blob, MANIFEST_TYPE, digest_name, manifest};

/// The media type of a multi-arch image.
pub(crate) const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// What a repository holds before the day begins: an old version and the current one.
pub(crate) const HELD_AT_FIRST: usize = 2;

const OFFICIAL: [&str; 24] = [
    "alpine",
    "node",
    "python",
    "nginx",
    "postgres",
    "golang",
    "redis",
    "ubuntu",
    "debian",
    "docker",
    "busybox",
    "maven",
    "ruby",
    "php",
    "mysql",
    "rabbitmq",
    "mariadb",
    "rust",
    "httpd",
    "mongo",
    "memcached",
    "gradle",
    "traefik",
    "haproxy",
];
const OTHERS: [&str; 16] = [
    "acme/builder",
    "tools/helm",
    "scan/scanner",
    "acme/runner",
    "charts/kubectl",
    "mirror/minio",
    "qa/browsers",
    "infra/terraform",
    "data/spark",
    "qa/mailbox",
    "lint/linters",
    "acme/base",
    "data/kafka",
    "docs/site",
    "infra/vault",
    "obs/agent",
];

/// A manifest or index.
pub(crate) struct Document {
    /// `Content-Type`.
    pub(crate) media_type: &'static str,
    /// As it is served.
    pub(crate) bytes: Bytes,
}

/// One release of an image.
pub(crate) struct Version {
    /// The digest of its index.
    pub(crate) index: String,
    /// The tags that point at it from its release on, `latest` first and the most exact one last.
    pub(crate) tags: Vec<String>,
}

/// A repository with everything that it will ever hold.
pub(crate) struct Repository {
    /// As in the API: with `library/`.
    pub(crate) name: String,
    /// Architectures of all its versions.
    pub(crate) platforms: &'static [&'static str],
    /// The old one, the current one, and those to come.
    pub(crate) versions: Vec<Version>,
    /// By digest.
    pub(crate) documents: BTreeMap<String, Document>,
    /// By digest.
    pub(crate) blobs: BTreeMap<String, Blob>,
}

/// Everything, the most popular repository first.
pub(crate) struct Catalogue {
    /// Forty.
    pub(crate) repositories: Vec<Repository>,
}

impl Catalogue {
    /// The forty repositories of this seed.
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let official = OFFICIAL.iter().map(|name| format!("library/{name}"));
        let mut names: Vec<String> = official.chain(OTHERS.iter().map(ToString::to_string)).collect();
        rng.shuffle(&mut names);
        let repositories = names
            .into_iter()
            .map(|name| Repository::new(name, &mut rng))
            .collect();
        Self { repositories }
    }

    /// The repository of this name.
    pub(crate) fn named(&self, name: &str) -> Option<&Repository> {
        self.repositories
            .iter()
            .find(|repository| repository.name == name)
    }

    /// The blob of this digest, wherever it is.
    pub(crate) fn blob(&self, digest: &str) -> Option<&Blob> {
        self.repositories
            .iter()
            .find_map(|repository| repository.blobs.get(digest))
    }
}

/// The layers that a repository's versions have in common, for one platform.
struct Base {
    architecture: &'static str,
    layers: Vec<Blob>,
}

impl Repository {
    fn new(name: String, rng: &mut Rng) -> Self {
        let platforms: &[&str] = match rng.u8(0..3) {
            0 => &["amd64", "arm64", "arm"],
            _ => &["amd64", "arm64"],
        };
        let shared = rng.usize(2..5);
        let base = |architecture| Base {
            architecture,
            layers: Vec::with_capacity(shared),
        };
        let mut bases: Vec<Base> = platforms.iter().copied().map(base).collect();
        for base in &mut bases {
            base.layers.extend((0..shared).map(|_| layer(rng)));
        }
        let mut repository = Self {
            name,
            platforms,
            versions: Vec::new(),
            documents: BTreeMap::new(),
            blobs: BTreeMap::new(),
        };
        let attested = rng.bool();
        let (major, minor, mut patch) = (rng.u8(1..23), rng.u8(0..30), rng.u8(0..9));
        // Half of the images stay as they are for the day, some are released twice.
        let coming = match rng.u8(0..10) {
            0..5 => 0,
            5..9 => 1,
            _ => 2,
        };
        for number in 0..HELD_AT_FIRST + coming {
            // A rebuild on a new base keeps the version's name: even its exact tag moves.
            if number > 0 && (number < HELD_AT_FIRST || rng.u8(0..10) < 7) {
                patch += 1;
            }
            let exact = format!("{major}.{minor}.{patch}");
            let tags = if number == 0 {
                vec![exact]
            } else {
                let floating = ["latest".to_owned(), major.to_string(), format!("{major}.{minor}")];
                floating.into_iter().chain([exact]).collect()
            };
            let index = repository.add(&bases, attested, rng);
            repository.versions.push(Version { index, tags });
        }
        repository
    }

    /// Adds an image: the base's layers and one of its own for each platform. Returns the digest of its index.
    fn add(&mut self, bases: &[Base], attested: bool, rng: &mut Rng) -> String {
        let mut entries = Vec::new();
        let mut attestations = Vec::new();
        for base in bases {
            let own = layer(rng);
            let layers: Vec<Blob> = base.layers.iter().cloned().chain([own]).collect();
            let child = self.add_image(Blob::new(rng.u64(..), 2048), layers);
            entries.push(self.entry(&child, base.architecture, "linux"));
            if attested {
                let statement = Blob::new(rng.u64(..), 4096);
                let attestation = self.add_image(Blob::new(rng.u64(..), 512), vec![statement]);
                attestations.push(self.entry(&attestation, "unknown", "unknown"));
            }
        }
        entries.append(&mut attestations);
        let text = format!(
            "{{\n  \"schemaVersion\": 2,\n  \"mediaType\": \"{INDEX_TYPE}\",\n  \"manifests\": [\n    {}\n  ]\n}}\n",
            entries.join(",\n    ")
        );
        self.add_document(INDEX_TYPE, text)
    }

    fn add_image(&mut self, config: Blob, layers: Vec<Blob>) -> String {
        let text = manifest(&config, &layers);
        for blob in layers.into_iter().chain([config]) {
            self.blobs.insert(blob.digest.clone(), blob);
        }
        self.add_document(MANIFEST_TYPE, text)
    }

    fn add_document(&mut self, media_type: &'static str, text: String) -> String {
        let digest = digest_name(Sha256::new_with_prefix(&text));
        let bytes = text.into();
        self.documents
            .insert(digest.clone(), Document { media_type, bytes });
        digest
    }

    fn entry(&self, digest: &str, architecture: &str, os: &str) -> String {
        let size = self.documents.get(digest).map_or(0, |it| it.bytes.len());
        let mut text =
            format!("{{\"mediaType\": \"{MANIFEST_TYPE}\", \"digest\": \"{digest}\", \"size\": {size}, ");
        let _infallible = write!(
            text,
            "\"platform\": {{\"architecture\": \"{architecture}\", \"os\": \"{os}\"}}}}"
        );
        text
    }
}

/// Small, so that the day moves some hundred megabytes at the most.
fn layer(rng: &mut Rng) -> Blob {
    Blob::new(rng.u64(..), rng.u64(8 << 10..96 << 10))
}
