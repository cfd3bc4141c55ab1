//! One accepted connection from its first byte (behind TLS, if any) to its last: HTTP/1 or HTTP/2, time-outs, the end
//! of a drain.

use std::convert::Infallible;
use std::error::Error;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::time::{Instant, sleep};

use super::Limits;
use super::activity::{Activity, PREFACE};
use super::bodies::{RequestBody, ResponseBody};
use super::drain::Watch;

/// The least that hyper takes for a buffer.
const MIN_BUFFER: usize = 8 * 1024;

/// Concurrent requests of one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;

/// What an HTTP/2 client may send before it has to wait for us to take it: for one request, and for all.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// What hyper holds of one HTTP/2 response that the client does not take yet.
const STREAM_SEND_BUFFER: usize = 256 * 1024;

/// What has to move within a `stall_timeout` while a client has something to take: less is no reading, but an attempt to
/// hold a place.
const LEAST_MOVED: u64 = 4 * 1024;

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

/// Serves `stream` until its client closes it, it is stuck, or the drain ends it. `stream` notes what it does in
/// `activity`.
pub(super) async fn serve<I, S, B>(
    stream: I,
    activity: Arc<Activity>,
    builder: &auto::Builder<TokioExecutor>,
    service: S,
    limits: &Limits,
    watch: &Watch,
) where
    I: Read + Write + Unpin + 'static,
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
{
    let patience = limits.body_timeout;
    let noted = Arc::clone(&activity);
    let service = service_fn(move |request: Request<Incoming>| {
        let activity = Arc::clone(&noted);
        let request = request.map(|body| RequestBody::new(body, Arc::clone(&activity), Some(patience)));
        let response = service.call(request);
        async move { Ok::<_, Infallible>(response.await?.map(|body| ResponseBody::new(body, activity))) }
    });
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
                let now = activity.received() + activity.sent();
                if let Some(moved) = before.replace(now).map(|before| now - before) {
                    // A client that does not take what it asked for is cut, also when it keeps the connection
                    // lively otherwise (PINGs, a byte now and then). Else, without a byte in either direction, this is
                    // an idle HTTP/2 connection, or a response that waits for its body: both may end properly, once.
                    let blocked = activity.is_blocked();
                    if (blocked && moved < LEAST_MOVED) || (ending && moved == 0) {
                        tracing::debug!(blocked, "connection is stuck");
                        return;
                    }
                    if moved == 0 {
                        connection.as_mut().graceful_shutdown();
                        ending = true;
                    }
                }
                timer.as_mut().reset(Instant::now() + limits.stall_timeout);
            }
        }
    }
}
