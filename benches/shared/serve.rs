//! A scripted HTTP server in the benchmark's own process, on threads of its own, so that its work is no contestant's.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

/// A response's body.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A body of nothing.
pub(crate) fn empty() -> Body {
    Empty::new().boxed_unsync()
}

/// A running server; dropping it stops it and cuts its connections.
pub(crate) struct Serving {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

/// Hangs up without an answer.
#[derive(Debug, thiserror::Error)]
#[error("no answer")]
struct NoAnswer;

impl Serving {
    /// Listens on a free loopback port. Where `answer` has no response the connection is cut.
    pub(crate) fn start<A>(answer: A) -> Result<Self>
    where
        A: Fn(&Request<Incoming>) -> Option<Response<Body>> + Clone + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("upstream")
            .enable_all()
            .build()
            .context("the upstream's runtime")?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context("the upstream's port")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener)?
        };
        runtime.spawn(accept(listener, answer));
        Ok(Self {
            address,
            runtime: Some(runtime),
        })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background(); // may be dropped inside the other runtime, where waiting panics
        }
    }
}

async fn accept<A>(listener: TcpListener, answer: A)
where
    A: Fn(&Request<Incoming>) -> Option<Response<Body>> + Clone + Send + 'static,
{
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(connection(stream, answer.clone()));
    }
}

async fn connection<A>(stream: TcpStream, answer: A)
where
    A: Fn(&Request<Incoming>) -> Option<Response<Body>> + Send + 'static,
{
    let _slower_without = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |request| {
        let response = answer(&request).ok_or(NoAnswer);
        async move { response }
    });
    // A cache that hangs up is its own business.
    let _hung_up = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// The half-open byte range that `bytes=a-b` or `bytes=a-` asks for; anything else gets the whole.
pub(crate) fn range(request: &Request<Incoming>, size: u64) -> Option<(u64, u64)> {
    let value = request.headers().get(http::header::RANGE)?.to_str().ok()?;
    let (from, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    let from: u64 = from.parse().ok()?;
    let to = if last.is_empty() {
        size
    } else {
        last.parse::<u64>().ok()?.saturating_add(1).min(size)
    };
    (from < to).then_some((from, to))
}
