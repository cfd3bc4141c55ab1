//! A client that speaks HTTP/2 from the first byte (prior knowledge), and tells a reset stream from a
//! clean end and from a lost connection.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::support::soon;

/// How an HTTP/2 response ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum H2End {
    /// END_STREAM.
    Clean,
    /// RST_STREAM from the server, with its reason.
    Reset(String),
    /// Anything else: the connection was lost, or the client found a fault.
    Broken(String),
}

/// An HTTP/2 response as far as it came.
#[derive(Clone, Debug)]
pub struct H2Answer {
    /// 0 when not even the head came.
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub end: H2End,
}

/// GETs a URL over HTTP/2.
pub async fn h2_get(url: &str) -> H2Answer {
    h2_get_with(url, &[]).await
}

/// GETs a URL over HTTP/2, with request headers.
pub async fn h2_get_with(url: &str, headers: &[(&str, &str)]) -> H2Answer {
    soon(&format!("HTTP/2 GET {url}"), exchange(url, headers)).await
}

async fn exchange(url: &str, headers: &[(&str, &str)]) -> H2Answer {
    let uri: http::Uri = url.parse().expect("a valid URL");
    let authority = uri.authority().expect("a URL with a host").to_string();
    let stream = TcpStream::connect(&authority).await.expect("a connection");
    exchange_over(stream, url, headers).await
}

/// GETs a URL over a connection that is there.
pub(super) async fn exchange_over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    url: &str,
    headers: &[(&str, &str)],
) -> H2Answer {
    let io = TokioIo::new(stream);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
    let (mut sender, connection) = handshake.expect("an HTTP/2 handshake");
    tokio::spawn(connection);
    let mut request = Request::get(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::<Bytes>::new()).expect("a valid request");
    let mut answer = H2Answer {
        status: 0,
        headers: HeaderMap::new(),
        body: Bytes::new(),
        end: H2End::Clean,
    };
    let response = match sender.send_request(request).await {
        Ok(response) => response,
        Err(error) => {
            answer.end = ending(&error);
            return answer;
        }
    };
    answer.status = response.status().as_u16();
    answer.headers = response.headers().clone();
    let (mut incoming, mut body) = (response.into_body(), BytesMut::new());
    while let Some(frame) = incoming.frame().await {
        match frame {
            Ok(frame) => body.extend(frame.into_data().ok()),
            Err(error) => {
                answer.end = ending(&error);
                break;
            }
        }
    }
    answer.body = body.freeze();
    answer
}

/// hyper hides the error of its HTTP/2 library, but that one's debug form names the frame and its sender.
fn ending(error: &hyper::Error) -> H2End {
    let text = format!("{error:?}");
    let reset = text
        .split_once("Reset(")
        .map(|(_, inner)| inner.split(')').collect::<Vec<_>>());
    match reset.as_deref() {
        // Reset(StreamId(1), INTERNAL_ERROR, Remote)
        Some([_, reason, ..]) if reason.ends_with("Remote") => {
            let reason = reason.trim_start_matches(", ").trim_end_matches(", Remote");
            H2End::Reset(reason.to_owned())
        }
        _ => H2End::Broken(text),
    }
}
