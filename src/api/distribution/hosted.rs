//! What clients read of hosted repositories, push to them as manifests, and delete. Uploads are in `uploads`.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};

use super::{blobs, manifests, referrers, tags};
use crate::api::Asking;
use crate::api::body::Content;
use crate::api::confirmation::Lasting;
use crate::api::incoming;
use crate::api::query;
use crate::api::reply::{DigestHeaders, JSON, Reply};
use crate::api::rescue::Failure;
use crate::api::route::{Page, Target};
use crate::oci::{Digest, MAX_MANIFEST_SIZE, MediaType, Reference, RepositoryName, Tag};
use crate::registry::{BlobReader, HostedRepository, Pushing};

static SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
static TAG: HeaderName = HeaderName::from_static("oci-tag");

/// Tags, referrers or repositories told at a time, when the client does not say.
const PAGE: usize = 1000;
/// And the most, whatever it says.
const MOST: usize = 10_000;
/// Tags that one push may set beside the one in its path (the spec asks for ten at the least).
const MOST_TAGS: usize = 100;

/// GET and HEAD of a manifest.
pub(in crate::api) async fn manifest(
    asking: &mut Asking<'_>,
    repository: &HostedRepository,
    reference: &Reference,
) -> Result<Reply, Failure> {
    manifests::note(asking, reference);
    let found = asking
        .shared
        .registry
        .hosted()
        .manifest(repository, reference)
        .await;
    let stored = found.map_err(Failure::Hosted)?;
    Ok(manifests::reply(asking, &stored))
}

/// GET and HEAD of a blob.
pub(in crate::api) async fn blob(
    asking: &mut Asking<'_>,
    repository: &HostedRepository,
    digest: &Digest,
) -> Result<Reply, Failure> {
    asking.exchange.digest = Some(*digest);
    let found = asking.shared.registry.hosted().blob(repository, digest).await;
    let stored = found.map_err(Failure::Hosted)?;
    blobs::reply(asking, BlobReader::Stored(stored), digest).await
}

/// PUT of a manifest.
pub(in crate::api) async fn put_manifest(
    asking: &mut Asking<'_>,
    target: &Target<'_>,
    reference: &Reference,
) -> Result<Reply, Failure> {
    manifests::note(asking, reference);
    let query = asking.uri.query().unwrap_or_default();
    let tags: Vec<Tag> = query::all(query, "tag")
        .map(|tag| tag.parse().map_err(Failure::NewTag))
        .collect::<Result<_, _>>()?;
    if tags.len() > MOST_TAGS {
        return Err(Failure::TooManyTags(MOST_TAGS));
    }
    let bytes = incoming::whole(asking, MAX_MANIFEST_SIZE).await;
    let bytes = bytes.map_err(Failure::Body)?;
    let media_type = asking.headers.get(header::CONTENT_TYPE);
    let media_type = media_type
        .and_then(|value| value.to_str().ok())
        .map(MediaType::new);
    let pushing = Pushing {
        reference: reference.clone(),
        tags: tags.clone(),
        media_type,
        bytes,
    };
    let repository = asking.confirm_push(Lasting::ToTheEnd).await?;
    let hosted = asking.shared.registry.hosted();
    let pushed = hosted.push_manifest(&repository, pushing).await;
    let pushed = pushed.map_err(Failure::Hosted)?;
    asking.exchange.digest = Some(pushed.digest);
    let mut reply = Reply::new(StatusCode::CREATED, Content::Empty)
        .digest(DigestHeaders::new(&pushed.digest))
        .located(&target.path(&format!("manifests/{}", pushed.digest)));
    if let Some(subject) = &pushed.subject {
        reply
            .headers
            .extend(value(&subject.to_string()).map(|value| (SUBJECT.clone(), value)));
    }
    for tag in &tags {
        if let Some(value) = value(tag.as_str()) {
            reply.headers.append(&TAG, value);
        }
    }
    Ok(reply)
}

fn value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok()
}

/// DELETE of a tag or a manifest.
pub(in crate::api) async fn delete_manifest(
    asking: &mut Asking<'_>,
    repository: &HostedRepository,
    reference: &Reference,
) -> Result<Reply, Failure> {
    manifests::note(asking, reference);
    let hosted = asking.shared.registry.hosted();
    let deleted = match reference {
        Reference::Tag(tag) => hosted.delete_tag(repository, tag).await,
        Reference::Digest(digest) => hosted.delete_manifest(repository, digest).await,
    };
    deleted.map_err(Failure::Hosted)?;
    Ok(Reply::new(StatusCode::ACCEPTED, Content::Empty))
}

/// DELETE of a blob.
pub(in crate::api) async fn delete_blob(
    asking: &mut Asking<'_>,
    repository: &HostedRepository,
    digest: &Digest,
) -> Result<Reply, Failure> {
    asking.exchange.digest = Some(*digest);
    let deleted = asking
        .shared
        .registry
        .hosted()
        .delete_blob(repository, digest)
        .await;
    deleted.map_err(Failure::Hosted)?;
    Ok(Reply::new(StatusCode::ACCEPTED, Content::Empty))
}

/// A page of tags.
pub(in crate::api) async fn tags(
    asking: &mut Asking<'_>,
    repository: &HostedRepository,
    target: &Target<'_>,
    page: Page,
) -> Result<Reply, Failure> {
    let (after, count) = asked_page(asking);
    let count = if page == Page::Nothing { 0 } else { count };
    let found = asking
        .shared
        .registry
        .hosted()
        .tags(repository, &after, count + 1)
        .await;
    let mut tags = found.map_err(Failure::Hosted)?;
    let next = cut(&mut tags, count);
    let next = next.map(|last| format!("n={count}&last={last}"));
    Ok(tags::reply(asking, target, &tags, next.as_deref()))
}

/// A page of what refers to a manifest.
pub(in crate::api) async fn referrers(
    asking: &mut Asking<'_>,
    repository: &HostedRepository,
    target: &Target<'_>,
    digest: &Digest,
) -> Result<Reply, Failure> {
    asking.exchange.digest = Some(*digest);
    let found = asking
        .shared
        .registry
        .hosted()
        .referrers(repository, digest)
        .await;
    let mut all = found.map_err(Failure::Hosted)?;
    let query = asking.uri.query().unwrap_or_default();
    let wanted = query::get(query, "artifactType");
    if let Some(wanted) = &wanted {
        all.retain(|one| one.artifact_type.as_deref() == Some(&**wanted));
    }
    let (after, count) = asked_page(asking);
    if !after.is_empty() {
        let seen = all.iter().position(|one| one.digest == after);
        all.drain(..seen.map_or(0, |seen| seen + 1));
    }
    let count = count.max(1);
    let more = all.len() > count;
    all.truncate(count);
    let next = all.last().filter(|_| more).map(|last| {
        let filter = wanted.as_deref().map(|wanted| format!("artifactType={wanted}&"));
        format!("{}n={count}&last={}", filter.unwrap_or_default(), last.digest)
    });
    let mut reply = referrers::reply(&all, wanted.is_some());
    link(asking, &mut reply, next.as_deref(), target.ns.as_deref());
    Ok(reply)
}

/// A page of the repositories that the caller may see.
pub(in crate::api) async fn catalog(asking: &mut Asking<'_>) -> Result<Reply, Failure> {
    #[derive(serde::Serialize)]
    struct Catalog<'a> {
        repositories: Vec<&'a str>,
    }
    let (after, count) = asked_page(asking);
    let circumstances = asking.circumstances();
    let may_see = |repository: &HostedRepository| {
        let policy = repository.settings.policy.as_deref();
        asking.may_see(repository.name.as_str(), policy, &circumstances)
    };
    let hosted = asking.shared.registry.hosted();
    let found = hosted.catalog(&after, count + 1, may_see).await;
    let mut names = found.map_err(Failure::Hosted)?;
    let next = cut(&mut names, count);
    let catalog = Catalog {
        repositories: names.iter().map(RepositoryName::as_str).collect(),
    };
    // Strings always serialize.
    let body = Bytes::from(serde_json::to_vec(&catalog).unwrap_or_default());
    let mut reply = Reply::new(StatusCode::OK, Content::Full(body)).with(header::CONTENT_TYPE, JSON.clone());
    let next = next.map(|last| format!("n={count}&last={last}"));
    link(asking, &mut reply, next.as_deref(), None);
    Ok(reply)
}

/// What the client has seen, and how many more it wants.
fn asked_page(asking: &Asking<'_>) -> (String, usize) {
    let query = asking.uri.query().unwrap_or_default();
    let after = query::get(query, "last").unwrap_or_default().into_owned();
    let count = query::get(query, "n")
        .and_then(|n| n.parse().ok())
        .unwrap_or(PAGE);
    (after, count.min(MOST))
}

/// Cuts a list that was asked for with one more than wanted: the last one told, when there are more.
fn cut<T: ToString>(list: &mut Vec<T>, count: usize) -> Option<String> {
    let more = list.len() > count;
    list.truncate(count);
    list.last().filter(|_| more).map(ToString::to_string)
}

fn link(asking: &Asking<'_>, reply: &mut Reply, next: Option<&str>, ns: Option<&str>) {
    let link = next.map(|next| query::next_link(asking.uri.path(), next, ns));
    let value = link.and_then(|link| HeaderValue::try_from(link).ok());
    reply.headers.extend(value.map(|value| (header::LINK, value)));
}
