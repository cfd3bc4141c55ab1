//! Blob uploads (distribution spec, "Pushing Blobs"): in one request, in chunks, streamed, or mounted from another
//! repository.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::api::Asking;
use crate::api::body::Content;
use crate::api::confirmation::Lasting;
use crate::api::incoming::{Incoming, announced};
use crate::api::query;
use crate::api::reply::{DigestHeaders, Reply};
use crate::api::rescue::Failure;
use crate::api::route::{Target, UploadStep};
use crate::auth::action::Action;
use crate::oci::{Algorithm, Digest, RepositoryName};
use crate::registry::{Asked, Door, HostedRepository, Intent, Located, Upload, UploadId, Uploader};

/// "Pushing a blob in chunks".
static MIN_CHUNK: HeaderName = HeaderName::from_static("oci-chunk-min-length");
static UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// POST: begins a session, takes the whole blob, or mounts it.
pub(in crate::api) async fn begin(
    asking: &mut Asking<'_>,
    repository: &HostedRepository,
    target: &Target<'_>,
) -> Result<Reply, Failure> {
    let query = asking.uri.query().unwrap_or_default();
    if let Some(digest) = query::get(query, "mount") {
        let digest = digest.parse().map_err(Failure::Digest)?;
        if let Some(source) = mount(asking, repository, &digest).await? {
            asking.exchange.digest = Some(digest);
            asking.note_about(format!("mounted from {source}"));
            return Ok(created(target, &digest));
        }
    }
    let whole = match query::get(query, "digest") {
        Some(digest) => Some(digest.parse::<Digest>().map_err(Failure::Digest)?),
        None => None,
    };
    let algorithm = match (&whole, query::get(query, "digest-algorithm").as_deref()) {
        (Some(digest), _) => digest.algorithm(),
        (None, Some("sha512")) => Algorithm::Sha512,
        (None, Some("sha256") | None) => Algorithm::Sha256,
        (None, Some(_)) => return Err(Failure::Algorithm),
    };
    let hosted = asking.shared.registry.hosted();
    let uploader = Uploader {
        owner: asking.caller.key(),
        counted: asking.caller.counted(asking.from()).unwrap_or_default(),
    };
    if let Some(digest) = whole {
        asking.exchange.digest = Some(digest);
        let begun = hosted.begin_whole(repository, uploader, &digest, announced(asking));
        let upload = begun.await.map_err(Failure::Hosted)?;
        let upload = take_in(asking, repository, upload, (None, Some(&digest))).await?;
        return finish(asking, target, upload, &digest).await;
    }
    let begun = hosted.begin_upload(repository, uploader, algorithm);
    let upload = begun.await.map_err(Failure::Hosted)?;
    let mut reply = going_on(StatusCode::ACCEPTED, target, &upload);
    if hosted.min_chunk() > 0 {
        let least = HeaderValue::from(hosted.min_chunk());
        reply.headers.insert(&MIN_CHUNK, least);
    }
    hosted.rest_upload(upload).await.map_err(Failure::Hosted)?;
    Ok(reply)
}

/// Takes the blob from another repository that the caller may read, if there is one: its name.
async fn mount(
    asking: &Asking<'_>,
    repository: &HostedRepository,
    digest: &Digest,
) -> Result<Option<RepositoryName>, Failure> {
    let query = asking.uri.query().unwrap_or_default();
    let (registry, hosted) = (&asking.shared.registry, asking.shared.registry.hosted());
    let names = if let Some(from) = query::get(query, "from") {
        from.parse().into_iter().collect()
    } else {
        let mut names = hosted.holders(digest).await.map_err(Failure::Hosted)?;
        names.extend(registry.cached_in(digest).await.map_err(Failure::Registry)?);
        names
    };
    for name in names {
        let Some(source) = source(asking, &name, digest).await else {
            continue;
        };
        if hosted
            .mount(repository, &source, digest)
            .await
            .map_err(Failure::Hosted)?
        {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// What the content of a repository is kept under from which the caller may take a blob.
async fn source(asking: &Asking<'_>, name: &RepositoryName, digest: &Digest) -> Option<Arc<str>> {
    let asked = Asked {
        door: Door::Main,
        host: None,
        ns: None,
        name,
    };
    let registry = &asking.shared.registry;
    let source = registry.locate(&asked, Intent::Read).await.ok()?;
    if !may_take(asking, &source, name.as_str()) {
        return None;
    }
    match source {
        Located::Hosted(source) => Some(source.key.clone()),
        // What the cache keeps of an upstream's repository may be given to whoever may pull from it, too: by the same
        // door, which knows what is denied there, and what is private.
        Located::PullThrough(cached) => {
            registry.blob_size(&cached, digest).await.ok()?;
            Some(cached.key().clone())
        }
        Located::Absent(_) => None,
    }
}

/// Whether the caller may pull blobs from there.
fn may_take(asking: &Asking<'_>, source: &Located, asked: &str) -> bool {
    asking.may(Action::GetDownloadUrlForLayer, source, asked, "pull")
}

/// GET, PATCH, PUT and DELETE of a session.
pub(in crate::api) async fn step(
    asking: &mut Asking<'_>,
    repository: &HostedRepository,
    target: &Target<'_>,
    (step, id): (UploadStep, UploadId),
) -> Result<Reply, Failure> {
    let hosted = asking.shared.registry.hosted();
    let upload = hosted
        .take_upload(repository, &asking.caller.key(), id)
        .await
        .map_err(Failure::Hosted)?;
    match step {
        UploadStep::Status => {
            let reply = going_on(StatusCode::NO_CONTENT, target, &upload);
            hosted.rest_upload(upload).await.map_err(Failure::Hosted)?;
            Ok(reply)
        }
        UploadStep::Cancel => {
            hosted.cancel_upload(upload).await.map_err(Failure::Hosted)?;
            Ok(Reply::new(StatusCode::NO_CONTENT, Content::Empty))
        }
        UploadStep::Append => {
            let end = check_range(asking, target, &upload)?;
            let upload = take_in(asking, repository, upload, (end, None)).await?;
            let reply = going_on(StatusCode::ACCEPTED, target, &upload);
            hosted.end_chunk(upload).await.map_err(Failure::Hosted)?;
            Ok(reply)
        }
        UploadStep::Finish => {
            let query = asking.uri.query().unwrap_or_default();
            let digest = query::get(query, "digest").ok_or(Failure::NoDigest)?;
            let digest = digest.parse().map_err(Failure::Digest)?;
            asking.exchange.digest = Some(digest);
            let end = check_range(asking, target, &upload)?;
            let upload = take_in(asking, repository, upload, (end, Some(&digest))).await?;
            finish(asking, target, upload, &digest).await
        }
    }
}

/// `Content-Range: <first>-<last>`, without a unit: the chunk has to go on where the session is. Where it is to end, when
/// the client says so.
fn check_range(asking: &Asking<'_>, target: &Target<'_>, upload: &Upload) -> Result<Option<u64>, Failure> {
    let Some(range) = asking.headers.get(header::CONTENT_RANGE) else {
        return Ok(None);
    };
    let text = range.to_str().unwrap_or_default();
    let text = text.strip_prefix("bytes ").unwrap_or(text);
    let text = text.split('/').next().unwrap_or_default();
    let (first, end) = positions(text).ok_or(Failure::ContentRange)?;
    if first != upload.size() {
        let at = target.path(&format!("blobs/uploads/{}", upload.id()));
        return Err(Failure::Chunk(upload.size(), at));
    }
    if announced(asking).is_some_and(|size| size != end - first) {
        return Err(Failure::ContentRange);
    }
    Ok(Some(end))
}

/// `<first>-<last>` as the first byte and the one after the last.
fn positions(text: &str) -> Option<(u64, u64)> {
    // `parse` alone would take a sign.
    let number = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse::<u64>().ok())?
    };
    let (first, last) = text.split_once('-')?;
    let (first, end) = (number(first)?, number(last)?.checked_add(1)?);
    (end > first).then_some((first, end))
}

/// Takes the body in, up to `end` and no less where that is given, for the blob `digest` where the client says so. What came
/// of one that breaks off stays.
async fn take_in(
    asking: &mut Asking<'_>,
    repository: &HostedRepository,
    upload: Upload,
    (end, digest): (Option<u64>, Option<&Digest>),
) -> Result<Upload, Failure> {
    let hosted = asking.shared.registry.hosted();
    let more = announced(asking).or_else(|| end?.checked_sub(upload.size()));
    if more != Some(0)
        && let Err(error) = hosted.may_follow(&upload)
    {
        hosted.rest_upload(upload).await.map_err(Failure::Hosted)?;
        return Err(Failure::Hosted(error));
    }
    let expected = hosted.expect(repository, upload, more, digest).await;
    let mut upload = expected.map_err(Failure::Hosted)?;
    let mut body = Incoming::of(asking);
    while let Some(piece) = body.piece().await.map_err(Failure::Body)? {
        if end.is_some_and(|end| upload.size() + piece.len() as u64 > end) {
            return Err(Failure::ContentRange);
        }
        upload = hosted.append(upload, piece).await.map_err(Failure::Hosted)?;
    }
    if end.is_some_and(|end| upload.size() < end) {
        return Err(Failure::ContentRange);
    }
    Ok(upload)
}

/// Publishes what came.
async fn finish(
    asking: &mut Asking<'_>,
    target: &Target<'_>,
    upload: Upload,
    digest: &Digest,
) -> Result<Reply, Failure> {
    let hosted = asking.shared.registry.hosted();
    let repository = match asking.confirm_push(Lasting::FromTheHead).await {
        Ok(repository) => repository,
        Err(failure) => {
            hosted.rest_upload(upload).await.map_err(Failure::Hosted)?;
            return Err(failure);
        }
    };
    let finished = hosted.finish_upload(&repository, upload, digest).await;
    finished.map_err(Failure::Hosted)?;
    Ok(created(target, digest))
}

fn created(target: &Target<'_>, digest: &Digest) -> Reply {
    Reply::new(StatusCode::CREATED, Content::Empty)
        .digest(DigestHeaders::new(digest))
        .located(&target.path(&format!("blobs/{digest}")))
}

/// Where the session goes on, and at which byte.
fn going_on(status: StatusCode, target: &Target<'_>, upload: &Upload) -> Reply {
    let id = upload.id().to_string();
    let last = upload.size().saturating_sub(1);
    let mut reply = Reply::new(status, Content::Empty).located(&target.path(&format!("blobs/uploads/{id}")));
    let headers = [(header::RANGE, format!("0-{last}")), (UPLOAD_UUID.clone(), id)];
    for (name, text) in headers {
        reply
            .headers
            .extend(HeaderValue::try_from(text).ok().map(|value| (name, value)));
    }
    reply
}
