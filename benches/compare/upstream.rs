//! The registry that the caches pull from: in the harness's own process, on threads of its own, serving generated
//! content from memory and counting what it is asked. It can be held to the speed of a network line.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::content::{Blob, Content, MANIFEST_TYPE};

type Body = UnsyncBoxBody<Bytes, Infallible>;

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
    /// Where it listens.
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    runtime: Option<tokio::runtime::Runtime>,
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
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("upstream")
            .enable_all()
            .build()
            .context("the upstream's runtime")?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context("the upstream's port")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            content,
            line,
            next_slot: Mutex::new(Instant::now()),
            gets: Mutex::new(BTreeMap::new()),
        });
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener)?
        };
        runtime.spawn(accept(listener, Arc::clone(&state)));
        Ok(Self {
            address,
            state,
            runtime: Some(runtime),
        })
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

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background(); // may be dropped inside the other runtime, where waiting panics
        }
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, Arc::clone(&state)));
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let _slower_without = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(answer(&request, &state)) }
    });
    // A cache that hangs up is its own business.
    let _hung_up = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
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
            let range = request
                .headers()
                .get(header::RANGE)
                .and_then(|value| range(value.to_str().ok()?, blob.size));
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

/// The half-open byte range that `bytes=a-b` or `bytes=a-` asks for; anything else gets the whole.
fn range(value: &str, size: u64) -> Option<(u64, u64)> {
    let (from, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    let from: u64 = from.parse().ok()?;
    let to = if last.is_empty() {
        size
    } else {
        last.parse::<u64>().ok()?.saturating_add(1).min(size)
    };
    (from < to).then_some((from, to))
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

fn empty() -> Body {
    Empty::new().boxed_unsync()
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
