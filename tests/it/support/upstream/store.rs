//! What an upstream holds, in memory: repositories with manifests, blobs and tags, referrers worked out
//! from the manifests, and the signed URLs of a server that plays CDN.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::support::image::Part;

/// The media type of what the referrers API answers.
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[derive(Default)]
pub(super) struct Store {
    pub(super) repos: BTreeMap<String, Repo>,
    pub(super) signed: HashMap<String, Signed>,
    signatures: usize,
}

#[derive(Default)]
pub(super) struct Repo {
    pub(super) manifests: BTreeMap<String, Part>,
    pub(super) blobs: HashMap<String, Bytes>,
    pub(super) tags: BTreeMap<String, String>,
}

/// Content behind one signed URL.
pub(super) struct Signed {
    bytes: Bytes,
    uses: usize,
}

impl Store {
    pub(super) fn repo(&mut self, name: &str) -> &mut Repo {
        self.repos.entry(name.to_owned()).or_default()
    }

    /// Keeps `bytes` behind a new URL, and gives its path.
    pub(super) fn sign(&mut self, digest: &str, bytes: Bytes, uses: usize) -> String {
        self.signatures += 1;
        let path = format!("/signed/{digest}/{}", self.signatures);
        self.signed.insert(path.clone(), Signed { bytes, uses });
        path
    }

    /// Uses a signed URL once; None when it is unknown or used up.
    pub(super) fn redeem(&mut self, path: &str) -> Option<Bytes> {
        let signed = self.signed.get_mut(path)?;
        signed.uses = signed.uses.checked_sub(1)?;
        Some(signed.bytes.clone())
    }
}

impl Repo {
    /// The manifest of a tag or digest.
    pub(super) fn manifest(&self, reference: &str) -> Option<&Part> {
        self.manifests
            .get(self.tags.get(reference).map_or(reference, String::as_str))
    }

    /// An index of all manifests whose subject is `digest`.
    pub(super) fn referrers(&self, digest: &str, artifact_type: Option<&str>) -> Value {
        let of_type =
            |descriptor: &Value| artifact_type.is_none_or(|wanted| descriptor["artifactType"] == wanted);
        let found: Vec<Value> = self
            .manifests
            .values()
            .filter_map(|part| referrer(part, digest))
            .filter(of_type)
            .collect();
        json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": found })
    }
}

/// The descriptor of `part` as a referrer of `digest`, when it is one.
fn referrer(part: &Part, digest: &str) -> Option<Value> {
    let manifest: Value = serde_json::from_slice(&part.bytes).ok()?;
    if manifest["subject"]["digest"] != digest {
        return None;
    }
    let mut descriptor =
        json!({ "mediaType": part.media_type, "digest": part.digest, "size": part.bytes.len() });
    for key in ["artifactType", "annotations"] {
        if let Some(value) = manifest.get(key) {
            descriptor[key] = value.clone();
        }
    }
    Some(descriptor)
}
