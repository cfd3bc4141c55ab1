//! `referrers/<digest>`: an index of what refers to a manifest; an empty one when nothing does.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::api::Asking;
use crate::api::body::Content;
use crate::api::query;
use crate::api::reply::{FILTERS_APPLIED, Reply};
use crate::api::rescue::Failure;
use crate::oci::{Descriptor, Digest, OCI_INDEX};
use crate::registry::Repository;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u8,
    media_type: &'static str,
    manifests: Vec<&'a Descriptor>,
}

/// Answers with the index.
pub(in crate::api) async fn list(
    asking: &mut Asking<'_>,
    repository: &Repository,
    digest: &Digest,
) -> Result<Reply, Failure> {
    asking.exchange.digest = Some(*digest);
    let found = asking.shared.registry.referrers(repository, digest).await;
    let answer = found.map_err(Failure::Registry)?;
    asking.note(answer.status);
    let wanted = query::get(asking.uri.query().unwrap_or_default(), "artifactType");
    let listed: Vec<_> = answer
        .value
        .iter()
        .filter(|one| wanted.is_none() || one.artifact_type.as_deref() == wanted.as_deref())
        .collect();
    Ok(reply(listed, wanted.is_some()))
}

/// The list of nothing.
pub(in crate::api) fn none() -> Reply {
    reply(&[], false)
}

/// The index of what refers to something. `filtered`: it is less than all, because the client asked for one type.
pub(super) fn reply<'a>(listed: impl IntoIterator<Item = &'a Descriptor>, filtered: bool) -> Reply {
    let body = Bytes::from(index(listed.into_iter().collect()));
    let mut reply = Reply::new(StatusCode::OK, Content::Full(body))
        .with(header::CONTENT_TYPE, HeaderValue::from_static(OCI_INDEX));
    if filtered {
        reply
            .headers
            .insert(&FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    reply
}

fn index(manifests: Vec<&Descriptor>) -> Vec<u8> {
    let index = Index {
        schema_version: 2,
        media_type: OCI_INDEX,
        manifests,
    };
    // Strings and numbers always serialize.
    serde_json::to_vec(&index).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_specification_writes_it() {
        let one = r#"{"mediaType":"m","digest":"sha256:1","size":1,"artifactType":"a/b+json","annotations":{"k":"v"}}"#;
        let two = r#"{"mediaType":"m","digest":"sha256:2","size":2}"#;
        let all: Vec<Descriptor> = [one, two]
            .iter()
            .map(|text| serde_json::from_str(text).unwrap())
            .collect();
        let head =
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":["#;
        let text = String::from_utf8(index(all.iter().collect())).unwrap();
        assert_eq!(text, format!("{head}{one},{two}]}}"));
        assert_eq!(index(Vec::new()), format!("{head}]}}").into_bytes());
    }
}
