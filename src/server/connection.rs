//! One accepted connection from its first byte to its last: HTTP/1 or HTTP/2, time-outs, the end of a drain.

use std::convert::Infallible;
use std::error::Error;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::Limits;
use super::drain::Watch;
use super::sendfile::{Activity, PREFACE, SendfileStream};

/// The least that hyper takes for a buffer.
const MIN_BUFFER: usize = 8 * 1024;

/// Concurrent requests of one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;

/// What an HTTP/2 client may send before it has to wait for us to take it: for one request, and for all.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// What hyper holds of one HTTP/2 response that the client does not take yet.
const STREAM_SEND_BUFFER: usize = 256 * 1024;

/// How hyper is to serve connections, made once for all of them.
pub(super) fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Left as they are: `pipeline_flush`, which would copy mapped slices into one buffer, and `half_close`: a
    // client that closes its side has gone, and its request must be dropped although there is nothing to
    // write yet.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.max_header_bytes.max(MIN_BUFFER))
        .writev(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(STREAM_SEND_BUFFER);
    builder
}

/// Serves `stream` until its client closes it, it is stuck, or the drain ends it.
pub(super) async fn serve<S, B>(
    stream: TcpStream,
    builder: &auto::Builder<TokioExecutor>,
    service: S,
    limits: &Limits,
    watch: Watch,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let activity = Arc::new(Activity::default());
    let stream = SendfileStream::new(stream, Arc::clone(&activity));
    let mut connection = pin!(builder.serve_connection(stream, service));
    let mut timer = pin!(sleep(limits.header_timeout));
    let mut ending = false;
    let mut before = None;
    loop {
        tokio::select! {
            biased;
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(error = &*error as &dyn Error, "connection ended");
                }
                return;
            }
            () = watch.stopped(), if !ending => {
                connection.as_mut().graceful_shutdown();
                ending = true;
            }
            () = watch.cut(), if ending => return,
            () = &mut timer => {
                // hyper does not watch the time until it knows the protocol.
                if activity.received() < PREFACE && activity.sent() == 0 {
                    tracing::debug!("no request came");
                    return;
                }
                let now = (activity.received(), activity.sent());
                if before.replace(now) == Some(now) {
                    // Not a byte in either direction. A client that does not take what it asked for is cut.
                    // Else this is an idle HTTP/2 connection, or a response that waits for its body: both may
                    // end properly, once.
                    if activity.is_blocked() || ending {
                        tracing::debug!(blocked = activity.is_blocked(), "connection is stuck");
                        return;
                    }
                    connection.as_mut().graceful_shutdown();
                    ending = true;
                }
                timer.as_mut().reset(Instant::now() + limits.stall_timeout);
            }
        }
    }
}
