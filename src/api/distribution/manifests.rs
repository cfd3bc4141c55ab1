//! GET and HEAD of manifests: the bytes and the type they came with, whatever `Accept` says (law 7). A type chosen by
//! `Accept` would be another document under the same tag.

use http::{HeaderValue, Method, StatusCode, header};

use crate::api::Asking;
use crate::api::body::Content;
use crate::api::reply::{DigestHeaders, Reply, is_known_to_client};
use crate::api::rescue::Failure;
use crate::oci::{MediaType, OCI_INDEX, Reference};
use crate::registry::{Repository, StoredManifest};

/// The types that nearly all manifests have, so that their header values need no copy.
const USUAL_TYPES: [&str; 4] = [
    OCI_INDEX,
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Answers with a manifest.
pub(in crate::api) async fn get(
    asking: &mut Asking<'_>,
    repository: &Repository,
    reference: &Reference,
) -> Result<Reply, Failure> {
    note(asking, reference);
    let found = asking.shared.registry.manifest(repository, reference).await;
    let answer = found.map_err(Failure::Registry)?;
    asking.note(answer.status);
    if asking.method == Method::GET && answer.status.saves_a_pull() {
        repository.pull_saved();
    }
    Ok(reply(asking, &answer.value))
}

/// Notes what is asked for.
pub(super) fn note(asking: &mut Asking<'_>, reference: &Reference) {
    match reference {
        Reference::Tag(tag) => asking.exchange.tag = Some(tag.clone()),
        Reference::Digest(digest) => asking.exchange.digest = Some(*digest),
    }
}

/// A manifest that is here, unless the client has it.
pub(super) fn reply(asking: &mut Asking<'_>, manifest: &StoredManifest) -> Reply {
    asking.exchange.digest = Some(manifest.digest);
    let digest = DigestHeaders::new(&manifest.digest);
    if is_known_to_client(asking.headers, digest.tag()) {
        return Reply::new(StatusCode::NOT_MODIFIED, Content::Empty).digest(digest);
    }
    Reply::new(StatusCode::OK, Content::Full(manifest.bytes.clone()))
        .with(header::CONTENT_TYPE, content_type(&manifest.media_type))
        .digest(digest)
}

fn content_type(media_type: &MediaType) -> HeaderValue {
    let text = media_type.as_str();
    match USUAL_TYPES.iter().find(|usual| **usual == text) {
        Some(usual) => HeaderValue::from_static(usual),
        None => HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("application/octet-stream")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_verbatim() {
        for text in [
            OCI_INDEX,
            "application/vnd.cncf.helm.config.v1+json",
            "application/x",
        ] {
            assert_eq!(content_type(&MediaType::new(text)), text);
        }
        assert_eq!(content_type(&MediaType::new("a\nb")), "application/octet-stream");
    }
}
