//! Clients that send too much, nothing, or do not take what they asked for.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::http2::{frame, frames_until, http2_request};
use super::{ask, full, head, mapped, rest, slices, start, streamed};
use crate::config::TlsConfig;
use crate::server::{Bound, Connection, Drain, Limits, RequestBody, Server, Tls, bind};

#[tokio::test]
async fn too_long_a_head_is_answered() {
    let address = start(Limits::default(), &Drain::new(), |_| full("hello"));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let long = format!(
        "GET / HTTP/1.1\r\nhost: test\r\nx-long: {}\r\n\r\n",
        "x".repeat(500_000)
    );
    // The answer arrives although the request is far longer than what is read of it.
    stream.write_all(long.as_bytes()).await.unwrap();
    let got = String::from_utf8(rest(&mut stream).await).unwrap();
    assert!(got.starts_with("HTTP/1.1 431 "), "{got}");
}

#[tokio::test(start_paused = true)]
async fn silent_clients_are_closed() {
    let address = start(Limits::default(), &Drain::new(), |_| full("hello"));
    for sent in ["", "G", "GET / HTTP/1.1\r\nhost: te", "PRI * HTTP/2.0\r\n"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let got = String::from_utf8(rest(&mut stream).await).unwrap();
        assert!(
            got.is_empty() || got.starts_with("HTTP/1.1 408 "),
            "{sent}: {got}"
        );
    }
    // Idle after a request, on HTTP/1 and on HTTP/2.
    let mut stream = TcpStream::connect(address).await.unwrap();
    ask(&mut stream, "/").await;
    assert!(rest(&mut stream).await.ends_with(b"hello"));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&http2_request()).await.unwrap();
    frames_until(&mut stream, 7).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_cut() {
    let (_, _, mapping) = mapped(1 << 20);
    let limits = Limits {
        max_connections: 1,
        ..Limits::default()
    };
    let address = start(limits, &Drain::new(), move |request| {
        if request.uri().path() == "/" {
            return full("hello");
        }
        let one = mapping.slice(0..1 << 20).unwrap();
        streamed(1 << 30, std::iter::repeat_n(one, 1 << 10).map(Ok).collect())
    });
    let mut stuck = TcpStream::connect(address).await.unwrap();
    ask(&mut stuck, "/endless").await;
    head(&mut stuck).await;
    // There is one place, and it becomes free although the client is still there.
    let mut next = TcpStream::connect(address).await.unwrap();
    ask(&mut next, "/").await;
    assert!(head(&mut next).await.starts_with("HTTP/1.1 200 OK"));
    assert!(rest(&mut stuck).await.len() < 1 << 30);
}

/// Has `bound` speak TLS, and gives a client that trusts it.
fn secured(bound: Bound) -> (Bound, tokio_rustls::TlsConnector) {
    let folder = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, pair.cert.pem()).unwrap();
    std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    let tls = Tls::load(TlsConfig::of_pair(certificate, key)).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pair.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (bound.secured(tls.acceptor()), Arc::new(config).into())
}

#[tokio::test(start_paused = true)]
async fn a_tls_client_that_does_not_read_is_cut() {
    let limits = Limits {
        max_connections: 1,
        ..Limits::default()
    };
    let (bound, client) = secured(bind(([127, 0, 0, 1], 0).into()).unwrap());
    let address = bound.local_addr();
    let server = Server::new(limits, Drain::new());
    let make = |connection: Connection| {
        assert!(!connection.takes_mapped(Version::HTTP_11));
        service_fn(|request: Request<RequestBody>| async move {
            let piece = Bytes::from(vec![7; 1 << 16]);
            let response = match request.uri().path() {
                "/" => full("hello"),
                _ => streamed(1 << 30, std::iter::repeat_n(piece, 1 << 14).map(Ok).collect()),
            };
            Ok::<_, Infallible>(response)
        })
    };
    tokio::spawn(async move { server.serve(bound, make).await });
    let connect = async || {
        let stream = TcpStream::connect(address).await.unwrap();
        client
            .connect("localhost".try_into().unwrap(), stream)
            .await
            .unwrap()
    };
    let mut stuck = connect().await;
    stuck
        .write_all(b"GET /endless HTTP/1.1\r\nhost: test\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(stuck.read_u8().await.unwrap(), b'H');
    // There is one place, and it becomes free although the client is still there.
    let mut next = connect().await;
    let request = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    next.write_all(request).await.unwrap();
    let mut got = Vec::new();
    next.read_to_end(&mut got).await.unwrap();
    assert!(got.ends_with(b"hello"));
    let mut rest = Vec::new();
    assert!(stuck.read_to_end(&mut rest).await.is_err() && rest.len() < 1 << 30);
}

/// Reads a body to its end, and answers with how it ended.
fn start_reading() -> std::net::SocketAddr {
    let bound = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = bound.local_addr();
    let server = Server::new(Limits::default(), Drain::new());
    let make = |_| {
        service_fn(|request: Request<RequestBody>| async {
            let told = match request.into_body().collect().await {
                Ok(body) => body.to_bytes(),
                Err(error) => error.to_string().into(),
            };
            Ok::<_, Infallible>(Response::new(Full::new(told)))
        })
    };
    tokio::spawn(async move { server.serve(bound, make).await });
    address
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_within_a_body_is_not_waited_for() {
    let address = start_reading();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\n";
    stream.write_all(head).await.unwrap();
    // Slow is not stopped.
    for _ in 0..5 {
        stream.write_all(b"piece").await.unwrap();
        tokio::time::sleep(Duration::from_secs(50)).await;
    }
    let got = String::from_utf8(rest(&mut stream).await).unwrap();
    assert!(
        got.contains("nothing more of the body came within 60 seconds"),
        "{got}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_not_read_is_cut_however_lively_its_connection() {
    let (_, _, mapping) = mapped(1 << 20);
    let limits = Limits {
        max_connections: 1,
        ..Limits::default()
    };
    let address = start(limits, &Drain::new(), move |request| {
        if request.version() != Version::HTTP_2 {
            return full("hello");
        }
        streamed(1 << 20, slices(&mapping, 1 << 16))
    });
    let mut stuck = TcpStream::connect(address).await.unwrap();
    stuck.write_all(&http2_request()).await.unwrap();
    // All that its windows let through; no more of them is ever given.
    let mut got = 0;
    while got < 65_535 {
        let seen = frames_until(&mut stuck, 0).await;
        got += seen
            .iter()
            .filter(|(kind, ..)| *kind == 0)
            .map(|(.., payload)| payload.len())
            .sum::<usize>();
    }
    let (mut read, mut write) = stuck.into_split();
    let pings = tokio::spawn(async move {
        while write.write_all(&frame(6, 0, 0, b"12345678")).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(20)).await;
        }
    });
    let mut next = TcpStream::connect(address).await.unwrap();
    ask(&mut next, "/").await;
    assert!(head(&mut next).await.starts_with("HTTP/1.1 200 OK"));
    let mut rest = Vec::new();
    let _ = read.read_to_end(&mut rest).await;
    pings.abort();
}
