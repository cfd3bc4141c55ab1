//! Jobs: started by a POST, told line by line while they run. And what is taken away instead, byte by byte.

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::unfold;
use http::{HeaderName, HeaderValue, StatusCode, header};

use super::access::is_tar;
use super::commands::guarded;
use super::request::{self, BadRequest};
use crate::api::Asking;
use crate::api::body::Content;
use crate::api::reply::Reply;
use crate::api::rescue::Failure;
use crate::job::StartError;
use crate::transfer::TAR;

static ARCHIVE: HeaderValue = HeaderValue::from_static(TAR);
/// What is in an archive that is given.
static ABOUT: HeaderName = HeaderName::from_static("wharfinger-bundle");
static LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// Starts the job of this name. Its client's leaving stops it.
pub(super) async fn start(asking: &mut Asking<'_>, name: &str) -> Result<Reply, Failure> {
    asking.note_about(name);
    let shared = asking.shared;
    let transfers = &shared.options.transfers;
    // The job takes it when it starts; until then it is kept by this.
    let mut offered = None;
    let options = if is_tar(asking.headers) {
        let offer = transfers.uploads().offer(request::incoming(asking));
        let options = Bytes::from(serde_json::to_vec(&offer.upload).unwrap_or_default());
        offered = Some(offer);
        options
    } else {
        request::bytes(asking).await?
    };
    if transfers.knows(name) {
        return give(asking, name, &options).await;
    }
    let started = asking.shared.jobs.start(name, &options);
    let events = started.map_err(|error| {
        Failure::Request(match error {
            StartError::Unknown => BadRequest::Unknown,
            StartError::Running => BadRequest::Running(name.into()),
            StartError::Options(reason) => BadRequest::Body(reason),
        })
    })?;
    tracing::info!(job = name, "started by an operator");
    let lines = unfold((events, offered), |(mut events, offered)| async move {
        let event = events.next().await?;
        // Plain data always serializes.
        let mut line = serde_json::to_vec(&event).unwrap_or_default();
        line.push(b'\n');
        Some((Bytes::from(line), (events, offered)))
    });
    let reply = Reply::new(StatusCode::OK, Content::Lines(lines.boxed()));
    Ok(guarded(reply).with(header::CONTENT_TYPE, LINES.clone()))
}

/// Gives an export away.
async fn give(asking: &Asking<'_>, name: &str, options: &[u8]) -> Result<Reply, Failure> {
    let bad = |reason| Failure::Request(BadRequest::Body(reason));
    let opened = asking.shared.options.transfers.open(name, options).map_err(bad)?;
    let outgoing = opened
        .await
        .map_err(|reason| Failure::Request(BadRequest::Impossible(reason)))?;
    tracing::info!(export = name, bytes = outgoing.size, "taken away by an operator");
    let about = HeaderValue::try_from(outgoing.about);
    let content = Content::Archive(outgoing.size, outgoing.pieces);
    let mut reply = guarded(Reply::new(StatusCode::OK, content)).with(header::CONTENT_TYPE, ARCHIVE.clone());
    reply
        .headers
        .extend(about.ok().map(|about| (ABOUT.clone(), about)));
    Ok(reply)
}
