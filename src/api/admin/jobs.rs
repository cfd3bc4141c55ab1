//! Jobs: started by a POST, told line by line while they run.

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::unfold;
use http::{HeaderValue, StatusCode, header};

use super::commands::guarded;
use super::request::{self, BadRequest};
use crate::api::Asking;
use crate::api::body::Content;
use crate::api::reply::Reply;
use crate::api::rescue::Failure;
use crate::job::StartError;

static LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// Starts the job of this name. Its client's leaving stops it.
pub(super) async fn start(asking: &mut Asking<'_>, name: &str) -> Result<Reply, Failure> {
    let options = request::bytes(asking).await?;
    let started = asking.shared.jobs.start(name, &options);
    let events = started.map_err(|error| {
        Failure::Request(match error {
            StartError::Unknown => BadRequest::Unknown,
            StartError::Running => BadRequest::Running(name.into()),
            StartError::Options(reason) => BadRequest::Body(reason),
        })
    })?;
    tracing::info!(job = name, "started by an operator");
    let lines = unfold(events, |mut events| async move {
        let event = events.next().await?;
        // Plain data always serializes.
        let mut line = serde_json::to_vec(&event).unwrap_or_default();
        line.push(b'\n');
        Some((Bytes::from(line), events))
    });
    let reply = Reply::new(StatusCode::OK, Content::Lines(lines.boxed()));
    Ok(guarded(reply).with(header::CONTENT_TYPE, LINES.clone()))
}
