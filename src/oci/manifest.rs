//! Manifests: what kind a document is and what it names. The bytes themselves are kept and served verbatim elsewhere.
//!
//! Unknown kinds pass (Helm, WASM, BuildKit caches, formats to come); Docker schema 1 is refused by name.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::descriptor::Descriptor;
use super::digest::Digest;
use super::media_type::MediaType;

/// Largest manifest that is taken, in bytes: what the spec asks both sides to support, and containerd's own limit.
pub const MAX_MANIFEST_SIZE: usize = 4 * 1024 * 1024;

/// What a manifest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Config and layers (OCI image manifest or Docker schema 2), or an artifact in that form.
    Image,
    /// A list of other manifests.
    Index,
    /// JSON of another kind that names nothing we know.
    Other,
}

/// Why a document is not accepted as a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Docker's first format, whose digest cannot be checked without its signature.
    #[error("Docker image manifest schema 1 is not supported: push the image again with a current client")]
    Schema1,
    /// Not a JSON object of a known form.
    #[error("not a manifest: {0}")]
    Malformed(String),
    /// The type that it came with is not the one that it says itself, or that its form is.
    #[error("the manifest is of the type {own}, and came as {given}")]
    OtherType {
        /// Its own.
        own: MediaType,
        /// What it came with.
        given: MediaType,
    },
    /// It can be read as an image and as an index: two clients would run different things by one digest.
    #[error("the manifest is ambiguous: it is of the type {0}, and has fields of another one")]
    Ambiguous(MediaType),
}

/// A manifest's outline: type, kind and what it names.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The type it is served with.
    pub media_type: MediaType,
    /// What it is.
    pub kind: Kind,
    /// Config and layers of an image; empty for an index.
    pub blobs: Vec<Descriptor>,
    /// Children of an index; empty for an image.
    pub manifests: Vec<Descriptor>,
    /// What this one refers to.
    pub subject: Option<Descriptor>,
    /// Its artifact type, else its config's media type (referrers lists say this).
    pub artifact_type: Option<String>,
    /// Its annotations (referrers lists repeat them).
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: Option<u64>,
    media_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default, deserialize_with = "lenient")]
    layers: Vec<Descriptor>,
    // OCI's withdrawn artifact manifest called its layers blobs.
    #[serde(default, deserialize_with = "lenient")]
    blobs: Vec<Descriptor>,
    #[serde(default, deserialize_with = "lenient_some")]
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
    fs_layers: Option<serde_json::Value>,
}

/// Go writes an empty list as null, and an entry that is no descriptor must not make the rest unservable.
fn lenient<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Vec<Descriptor>, D::Error> {
    Ok(lenient_some(input)?.unwrap_or_default())
}

fn lenient_some<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<Vec<Descriptor>>, D::Error> {
    let entries = Option::<Vec<serde_json::Value>>::deserialize(input)?;
    Ok(entries.map(|entries| {
        let read = |entry| serde_json::from_value(entry).ok();
        entries.into_iter().filter_map(read).collect()
    }))
}

impl Manifest {
    /// Reads the outline of `bytes`, which came with `content_type` (the document's own field wins over a vague one).
    pub fn parse(bytes: &[u8], content_type: Option<&MediaType>) -> Result<Self, ManifestError> {
        if content_type.is_some_and(MediaType::is_schema1) {
            return Err(ManifestError::Schema1);
        }
        let document: Document =
            serde_json::from_slice(bytes).map_err(|e| ManifestError::Malformed(e.to_string()))?;
        if document.schema_version == Some(1) || document.fs_layers.is_some() {
            return Err(ManifestError::Schema1);
        }
        let kind = if document.manifests.is_some() {
            Kind::Index
        } else if document.config.is_some() || !document.layers.is_empty() || !document.blobs.is_empty() {
            Kind::Image
        } else {
            Kind::Other
        };
        let media_type = match (content_type, &document.media_type) {
            (Some(given), _) if !given.is_vague() => given.clone(),
            (_, Some(own)) => MediaType::new(own),
            (_, None) if kind == Kind::Index => MediaType::oci_index(),
            (_, None) if kind == Kind::Image => MediaType::oci_manifest(),
            // A bare `{}` of a proxy or a portal is no manifest because it is JSON.
            (_, None) => return Err(ManifestError::Malformed("no media type".to_owned())),
        };
        if media_type.is_schema1() {
            return Err(ManifestError::Schema1);
        }
        let artifact_type = document
            .artifact_type
            .filter(|t| !t.is_empty())
            .or_else(|| document.config.as_ref().map(|config| config.media_type.clone()));
        let mut blobs = Vec::with_capacity(document.layers.len() + document.blobs.len() + 1);
        blobs.extend(document.config);
        blobs.extend(document.layers);
        blobs.extend(document.blobs);
        Ok(Self {
            media_type,
            kind,
            blobs,
            manifests: document.manifests.unwrap_or_default(),
            subject: document.subject,
            artifact_type,
            annotations: document.annotations.unwrap_or_default(),
        })
    }
}

impl Manifest {
    /// Reads the outline of a manifest that a client pushes, whose type follows from its bytes alone: two repositories
    /// that hold the same bytes serve them as the same. (Distribution spec, "Pushing Manifests": clients must send the
    /// document's own type.)
    ///
    /// # Errors
    /// Those of [`Manifest::parse`], and `OtherType` and `Ambiguous`.
    pub fn of_its_word(bytes: &[u8], content_type: Option<&MediaType>) -> Result<Self, ManifestError> {
        if content_type.is_some_and(MediaType::is_schema1) {
            return Err(ManifestError::Schema1);
        }
        let manifest = Self::parse(bytes, None)?;
        let own = &manifest.media_type;
        let same = |given: &MediaType| given.as_str().eq_ignore_ascii_case(own.as_str());
        if let Some(given) = content_type.filter(|given| !given.is_vague() && !same(given)) {
            return Err(ManifestError::OtherType {
                own: own.clone(),
                given: given.clone(),
            });
        }
        let as_index = manifest.kind == Kind::Index;
        let as_image = manifest.kind == Kind::Image || !manifest.blobs.is_empty();
        if (as_index && own.is_image()) || (as_image && own.is_index()) {
            return Err(ManifestError::Ambiguous(own.clone()));
        }
        Ok(manifest)
    }
}

/// The tag under which clients list referrers where the registry has no referrers API (distribution spec, "Referrers Tag
/// Schema"): algorithm cut to 32 and hash to 64 characters.
pub fn referrers_fallback_tag(digest: &Digest) -> String {
    let hex = digest.hex();
    format!("{}-{}", digest.algorithm().name(), &hex[..hex.len().min(64)])
}

#[cfg(test)]
mod tests {
    use super::*;

    const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

    fn descriptor(letter: char) -> String {
        let hex = letter.to_string().repeat(64);
        format!(r#"{{"mediaType":"application/x","digest":"sha256:{hex}","size":3}}"#)
    }

    #[test]
    fn kinds_and_types() {
        let image = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
            descriptor('a'),
            descriptor('b')
        );
        let parsed = Manifest::parse(image.as_bytes(), Some(&MediaType::new(OCI))).unwrap();
        assert_eq!((parsed.kind, parsed.blobs.len()), (Kind::Image, 2));
        assert_eq!(parsed.artifact_type.as_deref(), Some("application/x"));
        // A CDN's vague type does not stand: the document's form decides.
        let vague = Manifest::parse(
            image.as_bytes(),
            Some(&MediaType::new("text/plain; charset=utf-8")),
        )
        .unwrap();
        assert_eq!(vague.media_type.as_str(), OCI);

        let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, descriptor('c'));
        let parsed = Manifest::parse(index.as_bytes(), None).unwrap();
        assert_eq!((parsed.kind, parsed.manifests.len()), (Kind::Index, 1));
        assert_eq!(parsed.media_type, MediaType::oci_index());
        assert_eq!(parsed.artifact_type, None);

        let other = Manifest::parse(
            br#"{"hello":1}"#,
            Some(&MediaType::new("application/vnd.future+json")),
        )
        .unwrap();
        assert_eq!(
            (other.kind, other.media_type.as_str()),
            (Kind::Other, "application/vnd.future+json")
        );
    }

    #[test]
    fn schema1_is_refused_by_field_and_by_type() {
        let by_field = Manifest::parse(br#"{"schemaVersion":1,"fsLayers":[]}"#, None);
        assert_eq!(by_field.unwrap_err(), ManifestError::Schema1);
        let jws = MediaType::new("application/vnd.docker.distribution.manifest.v1+prettyjws");
        assert_eq!(
            Manifest::parse(b"{}", Some(&jws)).unwrap_err(),
            ManifestError::Schema1
        );
        let own = br#"{"mediaType":"application/vnd.docker.distribution.manifest.v1+json"}"#;
        assert_eq!(Manifest::parse(own, None).unwrap_err(), ManifestError::Schema1);
    }

    #[test]
    fn a_push_is_what_its_bytes_say() {
        let (index, docker) = (
            MediaType::oci_index(),
            "application/vnd.docker.distribution.manifest.v2+json",
        );
        let image = |own: &str| format!(r#"{{{own}"config":{}}}"#, descriptor('a'));
        let list = |own: &str| format!(r#"{{{own}"manifests":[{}]}}"#, descriptor('a'));
        let typed = |own: &str| format!(r#""mediaType":"{own}","#);
        let read = |text: &str, given: &str| {
            let given = (!given.is_empty()).then(|| MediaType::new(given));
            let read = Manifest::of_its_word(text.as_bytes(), given.as_ref());
            read.map(|manifest| manifest.media_type.as_str().to_owned())
        };
        // Nothing said, something vague, or the same.
        for given in [
            "",
            "application/json",
            OCI,
            "Application/vnd.OCI.image.manifest.v1+JSON; a=b",
        ] {
            assert_eq!(read(&image(""), given).unwrap(), OCI);
            assert_eq!(read(&image(&typed(OCI)), given).unwrap(), OCI);
        }
        assert_eq!(read(&image(&typed(docker)), docker).unwrap(), docker);
        assert_eq!(read(r#"{"mediaType":"a/b"}"#, "a/b").unwrap(), "a/b");
        for (text, given) in [
            (image(""), docker),
            (image(&typed(OCI)), docker),
            (list(""), OCI),
            (r#"{"mediaType":"a/b"}"#.to_owned(), "a/c"),
        ] {
            let refused = read(&text, given);
            assert!(
                matches!(refused, Err(ManifestError::OtherType { .. })),
                "{text}: {refused:?}"
            );
        }
        let both = format!(r#"{{"config":{0},"manifests":[{0}]}}"#, descriptor('a'));
        for text in [
            list(&typed(OCI)),
            list(&typed(docker)),
            image(&typed(index.as_str())),
            both,
        ] {
            let refused = read(&text, "");
            assert!(
                matches!(refused, Err(ManifestError::Ambiguous(_))),
                "{text}: {refused:?}"
            );
        }
        assert!(matches!(read("{}", "a/b"), Err(ManifestError::Malformed(_))));
    }

    #[test]
    fn html_is_no_manifest() {
        assert!(matches!(
            Manifest::parse(b"<html>", None),
            Err(ManifestError::Malformed(_))
        ));
    }

    #[test]
    fn fallback_tags_are_cut_for_sha512() {
        let digest = Digest::from_hash(crate::oci::Algorithm::Sha512, &[0xab; 64]).unwrap();
        assert_eq!(
            referrers_fallback_tag(&digest),
            format!("sha512-{}", "ab".repeat(32))
        );
    }
}
