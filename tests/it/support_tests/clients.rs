//! The clients: what they say about the end of a response is what was on the wire.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http::Response;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::prelude::*;

/// Answers each connection with these bytes and closes it, whatever was asked.
async fn canned(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("a bound socket"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    url
}

#[tokio::test]
async fn the_raw_client_names_every_ending() {
    for (answer, body, ending) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd",
            "abcd",
            Ending::Complete,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabcd",
            "abcd",
            Ending::Short(5),
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "",
            Ending::Complete,
        ),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
            "",
            Ending::Complete,
        ),
        ("HTTP/1.0 200 OK\r\n\r\nabcd", "abcd", Ending::UntilClose),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3;x=y\r\ncde\r\n0\r\n\r\n",
            "abcde",
            Ending::Complete,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
            "ab",
            Ending::NoFinalChunk,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            "ab",
            Ending::NoFinalChunk,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n",
            "ab",
            Ending::NoFinalChunk,
        ),
    ] {
        let mut raw = Raw::get(&canned(answer).await).await;
        let head = raw.head().await.expect("a head");
        assert!(answer.starts_with(&head.text), "{answer}");
        assert_eq!(raw.finish().await, (Bytes::from(body), ending), "{answer}");
    }
}

#[tokio::test]
async fn the_raw_client_keeps_a_connection_reads_slowly_and_aborts() {
    let upstream = Upstream::start().await;
    let content = random(5, 32 << 20);
    let url = format!(
        "{}/v2/a/blobs/{}",
        upstream.url(),
        upstream.put_blob("a", content.clone())
    );
    let mut raw = Raw::connect_slow(&url).await;
    raw.ask("HEAD", &url, &[]).await;
    assert_eq!(raw.head().await.map(|head| head.status), Some(200));
    assert_eq!(raw.finish().await, (Bytes::new(), Ending::Complete));
    raw.ask("GET", &url, &[("Range", "bytes=0-9")]).await;
    assert_eq!(raw.head().await.map(|head| head.status), Some(206));
    assert_eq!(raw.finish().await, (content.slice(..10), Ending::Complete));
    raw.write(&format!(
        "GET {} HTTP/1.1\r\nHost: any\r\n\r\n",
        &url[upstream.url().len()..]
    ))
    .await;
    raw.head().await.expect("a head");
    assert_eq!(raw.read(1000).await, content[..1000]);
    // What nobody reads is not sent: the socket buffers are smaller than the blob.
    assert!(upstream.bytes_sent() < content.len() as u64);
    assert_eq!(raw.read(1000).await, content[1000..2000]);
    raw.abort();
    upstream
        .wait_for(|up| up.requests()[2].outcome == Outcome::ClientGone)
        .await;
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_reset_connection_is_not_a_short_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("a bound socket"));
    let mut raw = Raw::get(&url).await;
    let (mut stream, _) = listener.accept().await.expect("a connection");
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabcd")
        .await
        .expect("a client");
    raw.head().await.expect("a head");
    assert_eq!(raw.read(4).await, "abcd");
    stream.set_zero_linger().expect("a socket option");
    drop(stream);
    assert!(matches!(raw.finish().await, (_, Ending::Reset(_))));
}

#[tokio::test]
async fn the_plain_client_keeps_what_came_before_the_break() {
    let url = canned("HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Encoding: gzip\r\n\r\nabcd").await;
    let mut open = open_with(&url, &[("accept", "*/*")]).await;
    assert_eq!((open.status(), open.read(2).await.len() >= 2), (200, true));
    let answer = open.finish().await;
    assert_eq!(
        (answer.body.as_ref(), answer.is_complete()),
        (&b"abcd"[..], false)
    );
    assert_eq!(answer.header("content-encoding"), "gzip");
}

/// Speaks HTTP/2: `/ok` ends cleanly, `/reset` breaks off, `/gone` loses the connection.
async fn h2_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("a bound socket"));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let gone = shared_notify();
            let service_gone = gone.clone();
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let path = request.uri().path().to_owned();
                let range = request.headers().get("range").cloned();
                let gone = service_gone.clone();
                async move {
                    let frames = stream::unfold(0, move |step| {
                        let (path, gone) = (path.clone(), gone.clone());
                        async move {
                            match (step, path.as_str()) {
                                (0, _) => Some((Ok(Frame::data(Bytes::from("abcd"))), 1)),
                                (1, "/ok") => None,
                                (1, "/reset") => Some((Err(std::io::Error::other("broken off")), 2)),
                                _ => {
                                    gone.notify_one();
                                    std::future::pending().await
                                }
                            }
                        }
                    });
                    let mut response = Response::new(StreamBody::new(frames));
                    if let Some(range) = range {
                        response.headers_mut().insert("x-range", range);
                    }
                    Ok::<_, Infallible>(response)
                }
            });
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move {
                tokio::select! {
                    _ = connection => {}
                    () = gone.notified() => {}
                }
            });
        }
    });
    url
}

fn shared_notify() -> std::sync::Arc<tokio::sync::Notify> {
    std::sync::Arc::default()
}

#[tokio::test]
async fn the_http2_client_tells_a_reset_from_a_clean_end() {
    let url = h2_server().await;
    let clean = h2_get_with(&format!("{url}/ok"), &[("range", "bytes=0-")]).await;
    assert_eq!(
        (clean.status, clean.body.as_ref(), clean.end),
        (200, &b"abcd"[..], H2End::Clean)
    );
    assert_eq!(clean.headers["x-range"], "bytes=0-");
    let reset = h2_get(&format!("{url}/reset")).await;
    assert_eq!(reset.end, H2End::Reset("INTERNAL_ERROR".to_owned()));
    assert!(matches!(
        h2_get(&format!("{url}/gone")).await.end,
        H2End::Broken(_)
    ));
}
