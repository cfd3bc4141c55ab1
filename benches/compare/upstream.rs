//! The registry that the caches pull from: in the harness's own process, on threads of its own, serving generated
//! content from memory and counting what it is asked. It can be held to the speed of a network line.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use futures_util::stream;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::time::Instant;

use crate::content::{Blob, Content, MANIFEST_TYPE};
use crate::shared::serve::{Body, Serving, empty, range};

/// How fast the upstream's line is, over all connections together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// As fast as loopback and the CPU allow.
    Unlimited,
    /// 1 Gbit/s of payload: 125,000,000 bytes a second.
    Gigabit,
    /// 1 MB of payload a second.
    Slow,
}

impl Line {
    /// For the tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unlimited => "unlimited loopback",
            Self::Gigabit => "1 Gbit/s",
            Self::Slow => "1 MB/s",
        }
    }

    /// Bytes a second.
    fn rate(self) -> Option<f64> {
        match self {
            Self::Unlimited => None,
            Self::Gigabit => Some(125e6),
            Self::Slow => Some(1e6),
        }
    }
}

/// A running upstream; dropping it stops it and cuts its connections.
pub(crate) struct Upstream {
    state: Arc<State>,
    serving: Serving,
}

struct State {
    content: Content,
    line: Line,
    next_slot: Mutex<Instant>,
    /// GETs by path; HEADs are free for a registry's rate limit and are not counted.
    gets: Mutex<BTreeMap<String, u64>>,
}

impl Upstream {
    /// Listens on a free loopback port.
    pub(crate) fn start(content: Content, line: Line) -> Result<Self> {
        let state = Arc::new(State {
            content,
            line,
            next_slot: Mutex::new(Instant::now()),
            gets: Mutex::new(BTreeMap::new()),
        });
        let its = Arc::clone(&state);
        let serving = Serving::start(move |request| Some(answer(request, &its)))?;
        Ok(Self { state, serving })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.serving.address
    }

    /// What it serves.
    pub(crate) fn content(&self) -> &Content {
        &self.state.content
    }

    /// The GETs since the last call, by path.
    pub(crate) fn take_gets(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.state.gets.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The GETs so far, of every path.
    pub(crate) fn gets(&self) -> u64 {
        self.state
            .gets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .sum()
    }
}

fn answer(request: &Request<Incoming>, state: &Arc<State>) -> Response<Body> {
    let path = request.uri().path();
    if request.method() == Method::GET {
        let mut gets = state.gets.lock().unwrap_or_else(PoisonError::into_inner);
        *gets.entry(path.to_owned()).or_default() += 1;
    } else if request.method() != Method::HEAD {
        return status(StatusCode::METHOD_NOT_ALLOWED);
    }
    if path == "/v2/" {
        return status(StatusCode::OK);
    }
    let Some(rest) = path
        .strip_prefix("/v2/")
        .and_then(|rest| rest.strip_prefix(Content::REPOSITORY))
    else {
        return status(StatusCode::NOT_FOUND);
    };
    let wants_body = request.method() == Method::GET;
    let found = if let Some(reference) = rest.strip_prefix("/manifests/") {
        state.content.manifest(reference).map(|image| {
            let length = image.manifest.len() as u64;
            let body = if wants_body {
                Full::new(image.manifest.clone()).boxed_unsync()
            } else {
                empty()
            };
            reply(StatusCode::OK, MANIFEST_TYPE, &image.digest, length, None, body)
        })
    } else if let Some(digest) = rest.strip_prefix("/blobs/") {
        state.content.blob(digest).map(|blob| {
            let range = range(request, blob.size);
            let (from, to) = range.unwrap_or((0, blob.size));
            let body = if wants_body {
                stream_blob(blob.clone(), from, to, Arc::clone(state))
            } else {
                empty()
            };
            let (code, content_range) = match range {
                Some(_) => (
                    StatusCode::PARTIAL_CONTENT,
                    Some(format!("bytes {from}-{}/{}", to - 1, blob.size)),
                ),
                None => (StatusCode::OK, None),
            };
            reply(
                code,
                "application/octet-stream",
                &blob.digest,
                to - from,
                content_range,
                body,
            )
        })
    } else {
        None
    };
    found.unwrap_or_else(|| status(StatusCode::NOT_FOUND))
}

fn stream_blob(blob: Blob, from: u64, to: u64, state: Arc<State>) -> Body {
    let pieces = stream::unfold((blob, from, state), move |(blob, at, state)| async move {
        if at >= to {
            return None;
        }
        let mut piece = blob.piece(at);
        piece.truncate(usize::try_from(to - at).unwrap_or(usize::MAX));
        state.wait_for_line(piece.len()).await;
        let next = at + piece.len() as u64;
        Some((Ok(Frame::data(piece)), (blob, next, state)))
    });
    StreamBody::new(pieces).boxed_unsync()
}

impl State {
    /// Returns when the line is free for `bytes` more. Slots are handed out in order, so the average holds although
    /// timers are coarse.
    async fn wait_for_line(&self, bytes: usize) {
        let Some(rate) = self.line.rate() else { return };
        let slot = {
            let mut next = self.next_slot.lock().unwrap_or_else(PoisonError::into_inner);
            let slot = (*next).max(Instant::now());
            *next = slot + Duration::from_secs_f64(bytes as f64 / rate);
            *next
        };
        tokio::time::sleep_until(slot).await;
    }
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = code;
    let version = http::HeaderValue::from_static("registry/2.0");
    response
        .headers_mut()
        .insert("docker-distribution-api-version", version);
    response
}

fn reply(
    code: StatusCode,
    media_type: &'static str,
    digest: &str,
    length: u64,
    content_range: Option<String>,
    body: Body,
) -> Response<Body> {
    let mut response = Response::builder()
        .status(code)
        .header(header::CONTENT_TYPE, media_type)
        .header(header::CONTENT_LENGTH, length)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, format!("\"{digest}\""))
        .header("docker-content-digest", digest)
        .header("docker-distribution-api-version", "registry/2.0");
    if let Some(content_range) = content_range {
        response = response.header(header::CONTENT_RANGE, content_range);
    }
    response
        .body(body)
        .unwrap_or_else(|_| status(StatusCode::INTERNAL_SERVER_ERROR))
}
