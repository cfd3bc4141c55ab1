//! The words of an OCI image layout (image spec, image-layout.md and annotations.md), and how a bundle says in them which
//! repository and tag an image belongs to. Pure; used by `plan` and `read`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cache::Place;
use crate::clock::Timestamp;
use crate::oci::{Descriptor, Digest, OCI_INDEX};

/// The file that says that it is a layout.
pub(super) const LAYOUT_FILE: &str = "oci-layout";
/// And what is in it.
pub(super) const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// The file that names what is in it.
pub(super) const INDEX_FILE: &str = "index.json";

/// The name by which skopeo and podman choose one image of several: we write the whole reference.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The name that `ctr images import` and `docker load` give to an image.
pub(super) const IMAGE_NAME: &str = "io.containerd.image.name";
/// Host and name of the repository; what refers to an image has this alone.
pub(super) const REPOSITORY: &str = "io.wharfinger.bundle.repository";
/// When the upstream last confirmed the tag, in milliseconds since 1970.
pub(super) const CONFIRMED: &str = "io.wharfinger.bundle.confirmed";

/// The file by which `docker load` without containerd, and `docker-archive:` of skopeo, find images. They convert what they
/// find, so they take images of Docker's own types too, which `oci-archive:` of skopeo does not.
pub(super) const DOCKER_FILE: &str = "manifest.json";

/// An entry of [`DOCKER_FILE`].
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerImage {
    config: String,
    repo_tags: [String; 1],
    layers: Vec<String>,
}

impl DockerImage {
    /// Of config and layers; `None` when there is no config.
    pub(super) fn new(name: String, parts: &[Digest]) -> Option<Self> {
        let (config, layers) = parts.split_first()?;
        Some(Self {
            config: blob_path(config),
            repo_tags: [name],
            layers: layers.iter().map(blob_path).collect(),
        })
    }
}

/// `oci-layout`
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LayoutDocument {
    pub(super) image_layout_version: String,
}

/// `index.json`
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IndexDocument {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    #[serde(default)]
    pub(super) manifests: Vec<Descriptor>,
}

impl IndexDocument {
    pub(super) fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(OCI_INDEX.to_owned()),
            manifests,
        }
    }
}

/// Where the content of a digest is.
pub(super) fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// Reads back [`blob_path`]: `None` for other files, an error for a name there that is no digest.
pub(super) fn digest_of(path: &str) -> Option<Result<Digest, String>> {
    let rest = path.strip_prefix("blobs/")?;
    let digest = rest
        .split_once('/')
        .map(|(algorithm, hex)| format!("{algorithm}:{hex}"));
    let digest = digest.unwrap_or_default().parse::<Digest>();
    Some(digest.map_err(|error| error.to_string()))
}

/// A repository as any cache understands it: its upstream's host, and its name there.
pub(super) fn repository(place: &Place) -> String {
    let config = place.upstream.config();
    let host = config.hosts.first().unwrap_or(&config.prefix);
    format!("{host}/{}", place.name)
}

/// The annotations of an image: `name` is tag or digest with the sign before it.
pub(super) fn annotations(
    repository: &str,
    name: &str,
    confirmed: Option<Timestamp>,
) -> BTreeMap<String, String> {
    let whole = format!("{repository}{name}");
    let mut annotations = BTreeMap::from([
        (REF_NAME.to_owned(), whole.clone()),
        (IMAGE_NAME.to_owned(), whole),
        (REPOSITORY.to_owned(), repository.to_owned()),
    ]);
    annotations.extend(confirmed.map(|at| (CONFIRMED.to_owned(), at.0.to_string())));
    annotations
}

/// Under which name an image is to be known, as a person would write it.
pub(super) fn name_of(named: &Descriptor) -> Option<String> {
    let is_whole = |text: &&String| text.contains('/') || text.contains(':') || text.contains('@');
    let note = |key| named.annotations.get(key);
    // Others write the tag alone into one, and the whole name into the other.
    let whole = note(IMAGE_NAME).or_else(|| note(REF_NAME).filter(is_whole));
    match (whole, note(REPOSITORY)) {
        (Some(whole), _) => Some(whole.clone()),
        (None, Some(repository)) => Some(format!("{repository}@{}", named.digest)),
        (None, None) => None,
    }
}

/// When its tag was last confirmed.
pub(super) fn confirmed(named: &Descriptor) -> Option<Timestamp> {
    let told = named.annotations.get(CONFIRMED)?.parse().ok()?;
    // A stamp of the future vouches for nothing.
    Some(Timestamp(told).min(Timestamp::now()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn paths_of_blobs() {
        for (algorithm, length) in [(Algorithm::Sha256, 32), (Algorithm::Sha512, 64)] {
            let digest = Digest::from_hash(algorithm, &vec![0xab; length]).unwrap();
            assert_eq!(digest_of(&blob_path(&digest)), Some(Ok(digest)));
        }
        assert_eq!(digest_of("index.json"), None);
        for wrong in ["blobs/x", "blobs/sha256/12", "blobs/md5/00", "blobs/sha256/a/b"] {
            assert!(digest_of(wrong).unwrap().is_err(), "{wrong}");
        }
    }

    #[test]
    fn names() {
        let named = |notes: &[(&str, &str)]| Descriptor {
            media_type: String::new(),
            digest: "sha256:00".to_owned(),
            size: 0,
            artifact_type: None,
            annotations: notes
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            urls: Vec::new(),
            platform: None,
        };
        let name = |notes: &[(&str, &str)]| name_of(&named(notes));
        // skopeo, docker save and buildx, ours, and one that says nothing.
        assert_eq!(
            name(&[(REF_NAME, "docker.io/a/b:1")]).as_deref(),
            Some("docker.io/a/b:1")
        );
        assert_eq!(name(&[(REF_NAME, "nginx:1")]).as_deref(), Some("nginx:1"));
        let both = [(REF_NAME, "1"), (IMAGE_NAME, "docker.io/a/b:1")];
        assert_eq!(name(&both).as_deref(), Some("docker.io/a/b:1"));
        assert_eq!(
            name(&[(REPOSITORY, "quay.io/a")]).as_deref(),
            Some("quay.io/a@sha256:00")
        );
        assert_eq!(name(&[(REF_NAME, "latest")]), None);
        assert_eq!(name(&[]), None);
        let ours = annotations("docker.io/a/b", ":1", Some(Timestamp(7)));
        assert_eq!((ours.len(), ours[REF_NAME].as_str()), (4, "docker.io/a/b:1"));
        assert_eq!(confirmed(&named(&[(CONFIRMED, "7")])), Some(Timestamp(7)));
        assert!(confirmed(&named(&[(CONFIRMED, "99999999999999999")])).unwrap() <= Timestamp::now());
    }
}
