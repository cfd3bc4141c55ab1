//! The JSON body of an admin request, read whole and bounded.

use std::future::poll_fn;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::unfold;
use http::StatusCode;
use http_body::Body as _;
use serde::de::DeserializeOwned;

use crate::api::Asking;
use crate::api::incoming::{self, Broken};
use crate::api::rescue::Failure;
use crate::transfer::Incoming;

/// Bytes of a body at the most: a reference or some options.
const MOST: usize = 64 * 1024;

/// Why a request cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::api) enum BadRequest {
    #[error("the query parameter ref is missing: /api/explain?ref=docker.io/library/nginx:latest")]
    Reference,
    #[error("the body is not what is expected here: {0}")]
    Body(String),
    #[error("the body is larger than {MOST} bytes")]
    TooLarge,
    #[error("there is nothing at this path")]
    Unknown,
    #[error("{0} is running already")]
    Running(Box<str>),
    #[error("the query parameter name is missing: /api/repository?name=acme/app")]
    Name,
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Absent(String),
    #[error("{0}")]
    Impossible(String),
}

impl BadRequest {
    pub(in crate::api) fn status(&self) -> StatusCode {
        match self {
            Self::Reference | Self::Name | Self::Body(_) | Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unknown | Self::Absent(_) => StatusCode::NOT_FOUND,
            Self::Running(_) | Self::Impossible(_) => StatusCode::CONFLICT,
        }
    }
}

/// Reads the body of the request, whose sender has to be somebody who may do this when all of it is here.
pub(super) async fn bytes(asking: &mut Asking<'_>) -> Result<Bytes, Failure> {
    let bytes = incoming::whole(asking, MOST).await.map_err(|error| match error {
        Broken::TooLarge(_) => Failure::Request(BadRequest::TooLarge),
        Broken::Cut(reason) => Failure::Request(BadRequest::Body(reason)),
        Broken::Idle | Broken::Slow(_) => Failure::Body(error),
    })?;
    asking.confirm_operator().await?;
    Ok(bytes)
}

/// Reads the body of the request as JSON.
pub(super) async fn json<T: DeserializeOwned>(asking: &mut Asking<'_>) -> Result<T, Failure> {
    let bytes = bytes(asking).await?;
    serde_json::from_slice(&bytes).map_err(|error| Failure::Request(BadRequest::Body(error.to_string())))
}

/// The body of the request as a stream, however long.
pub(super) fn incoming(asking: &mut Asking<'_>) -> Incoming {
    let body = asking.body.take();
    let size = body.as_ref().and_then(|body| body.size_hint().exact());
    let pieces = unfold(body, |body| async move {
        let mut body = body?;
        loop {
            let frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await?;
            match frame.map(http_body::Frame::into_data) {
                Ok(Ok(piece)) => return Some((Ok(piece), Some(body))),
                // Trailers say nothing here.
                Ok(Err(_)) => {}
                Err(error) => return Some((Err(error.to_string()), None)),
            }
        }
    });
    Incoming {
        size,
        pieces: pieces.boxed(),
    }
}
