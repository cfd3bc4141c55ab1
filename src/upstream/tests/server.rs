//! A server on loopback that does what a test's closure says, and writes down what it was asked.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;

pub(super) type Response = http::Response<BoxBody<Bytes, io::Error>>;

/// One request as it came in.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: http::HeaderMap,
    /// The server's own URL.
    pub(super) me: String,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(super) fn authorization(&self) -> Option<&str> {
        self.header("authorization")
    }
}

/// The server. It ends with the test's runtime.
pub(super) struct Server {
    pub(super) url: String,
    log: Arc<Mutex<Vec<Asked>>>,
    count: watch::Receiver<usize>,
}

impl Server {
    pub(super) async fn start<H, F>(handler: H) -> Self
    where
        H: Fn(Asked) -> F + Send + Sync + 'static,
        F: Future<Output = Response> + Send + 'static,
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let log: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (counter, count) = watch::channel(0);
        let (handler, counter) = (Arc::new(handler), Arc::new(counter));
        let (me, entries) = (url.clone(), log.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (handler, counter) = (handler.clone(), counter.clone());
                let (me, entries) = (me.clone(), entries.clone());
                let service = service_fn(move |request: http::Request<Incoming>| {
                    let asked = Asked {
                        method: request.method().to_string(),
                        path: request.uri().path().to_owned(),
                        query: request.uri().query().unwrap_or_default().to_owned(),
                        headers: request.headers().clone(),
                        me: me.clone(),
                    };
                    entries.lock().unwrap().push(asked.clone());
                    counter.send_modify(|count| *count += 1);
                    let answer = handler(asked);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { url, log, count }
    }

    /// Everything asked so far.
    pub(super) fn log(&self) -> Vec<Asked> {
        self.log.lock().unwrap().clone()
    }

    /// Everything asked so far as `METHOD path authorization`.
    pub(super) fn lines(&self) -> Vec<String> {
        let line = |asked: &Asked| {
            format!(
                "{} {} {}",
                asked.method,
                asked.path,
                asked.authorization().unwrap_or("-")
            )
        };
        self.log().iter().map(line).collect()
    }

    pub(super) fn count(&self, path: &str) -> usize {
        self.log().iter().filter(|asked| asked.path == path).count()
    }

    /// Waits until so many requests have come in.
    pub(super) async fn wait_for(&self, requests: usize) {
        let mut count = self.count.clone();
        count.wait_for(|count| *count >= requests).await.unwrap();
    }
}

/// An answer with headers and a body.
pub(super) fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response {
    let whole = Full::new(body.into()).map_err(|never| match never {});
    with_body(status, headers, whole.boxed())
}

/// An answer whose body goes out in pieces, without a length unless a header says one, and breaks off at the end.
pub(super) fn cut(status: u16, headers: &[(&str, &str)], pieces: &'static [&'static [u8]]) -> Response {
    let mut pieces = pieces.iter();
    let mut flushed = false;
    let body = stream::poll_fn(move |context| match pieces.next() {
        Some(piece) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(piece))))),
        None if flushed => Poll::Ready(Some(Err(io::Error::other("cut")))),
        // An error at once would take back what is not yet sent.
        None => {
            flushed = true;
            context.waker().wake_by_ref();
            Poll::Pending
        }
    });
    with_body(status, headers, StreamBody::new(body).boxed())
}

/// An answer whose body goes out in pieces and ends well (chunked).
pub(super) fn chunked(status: u16, headers: &[(&str, &str)], pieces: Vec<Bytes>) -> Response {
    let pieces = pieces.into_iter().map(|piece| Ok(Frame::data(piece)));
    with_body(status, headers, StreamBody::new(stream::iter(pieces)).boxed())
}

/// An answer whose body never goes on after its first piece.
pub(super) fn stalled(status: u16, headers: &[(&str, &str)], piece: &'static [u8]) -> Response {
    let mut first = Some(Ok(Frame::data(Bytes::from_static(piece))));
    let body = stream::poll_fn(move |_| match first.take() {
        None => Poll::Pending,
        piece => Poll::Ready(piece),
    });
    with_body(status, headers, StreamBody::new(body).boxed())
}

fn with_body(status: u16, headers: &[(&str, &str)], body: BoxBody<Bytes, io::Error>) -> Response {
    let mut builder = http::Response::builder().status(status);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(body).unwrap()
}

/// A Bearer challenge whose realm is `/token` of the server itself.
pub(super) fn challenge(asked: &Asked, scope: &str) -> Response {
    let line = format!(
        "Bearer realm=\"{}/token\",service=\"test\",scope=\"{scope}\"",
        asked.me
    );
    answer(401, &[("www-authenticate", &line)], "")
}

/// A token service's answer.
pub(super) fn token(token: &str) -> Response {
    answer(200, &[], format!("{{\"token\":\"{token}\",\"expires_in\":300}}"))
}
