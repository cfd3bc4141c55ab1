//! The server over real sockets, with clients that write and read bytes themselves. Here is what all of them share, and
//! bodies over HTTP/1.

mod connections;
mod http2;
mod stuck;

use std::convert::Infallible;
use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Request, Response, Version};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::service::service_fn;
use rustix::io::Errno;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Connection, Drain, Limits, RequestBody, Server, bind, concerns_one_connection};
use crate::mapped::MappedFile;

type TestBody = BoxBody<Bytes, std::io::Error>;

fn full(content: &'static str) -> Response<TestBody> {
    Response::new(
        Full::new(Bytes::from_static(content.as_bytes()))
            .map_err(|never| match never {})
            .boxed(),
    )
}

/// A body of `frames`, under the Content-Length that is told.
fn streamed(length: usize, frames: Vec<std::io::Result<Bytes>>) -> Response<TestBody> {
    let body = StreamBody::new(stream::iter(frames).map(|frame| frame.map(Frame::data)));
    let length = length.to_string();
    Response::builder()
        .header("content-length", length)
        .body(BodyExt::boxed(body))
        .unwrap()
}

/// Starts a server that answers with what `answer` says, and gives its address.
fn start<A>(limits: Limits, drain: &Drain, answer: A) -> std::net::SocketAddr
where
    A: Fn(&Request<RequestBody>) -> Response<TestBody> + Clone + Send + Sync + 'static,
{
    let bound = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = bound.local_addr();
    let server = Server::new(limits, drain.clone());
    let make = move |connection: Connection| {
        assert!(connection.plain && connection.peer.address().is_some());
        let answer = answer.clone();
        service_fn(move |request| {
            let response = answer(&request);
            async move { Ok::<_, Infallible>(response) }
        })
    };
    tokio::spawn(async move { server.serve(bound, make).await });
    address
}

async fn ask(stream: &mut TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

/// Reads the head of a response; what follows stays in the socket.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Reads to the end of the connection, however it ends.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    rest
}

/// A mapped file of `len` bytes that differ from place to place.
fn mapped(len: usize) -> (File, Vec<u8>, Arc<MappedFile>) {
    let content: Vec<u8> = (0..len).map(|at| (at / 256 + at * 7) as u8).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&content).unwrap();
    let mapping = MappedFile::new(Arc::new(file.try_clone().unwrap()), len as u64).unwrap();
    (file, content, mapping)
}

fn slices(mapping: &Arc<MappedFile>, step: u64) -> Vec<std::io::Result<Bytes>> {
    let len = mapping.len();
    let starts = (0..len).step_by(usize::try_from(step).unwrap());
    starts.map(|at| mapping.slice(at..(at + step).min(len))).collect()
}

/// KiB of `mapping` that this process has touched, as the kernel counts them.
fn touched(mapping: &Arc<MappedFile>) -> String {
    let first = mapping.slice(0..1).unwrap();
    let start = format!("{:x}-", first.as_ptr().addr());
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = maps.lines().skip_while(|line| !line.starts_with(&start));
    lines.find(|line| line.starts_with("Rss:")).unwrap().to_owned()
}

#[test]
fn accept_errors_are_told_apart() {
    for errno in [Errno::CONNABORTED, Errno::INTR, Errno::PERM] {
        assert!(concerns_one_connection(&errno.into()), "{errno}");
    }
    for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
        assert!(!concerns_one_connection(&errno.into()), "{errno}");
    }
    assert!(!concerns_one_connection(&std::io::Error::other("unknown")));
}

#[test]
fn mapped_slices_only_for_plain_http1() {
    let plain = Connection {
        peer: super::Peer::Local,
        plain: true,
        certificate: None,
    };
    assert!(plain.takes_mapped(Version::HTTP_10) && plain.takes_mapped(Version::HTTP_11));
    assert!(!plain.takes_mapped(Version::HTTP_2));
    assert!(
        !Connection {
            plain: false,
            ..plain
        }
        .takes_mapped(Version::HTTP_11)
    );
}

#[tokio::test]
async fn keep_alive_and_small_answers() {
    let address = start(Limits::default(), &Drain::new(), |_| full("hello"));
    let mut stream = TcpStream::connect(address).await.unwrap();
    for _ in 0..3 {
        ask(&mut stream, "/").await;
        assert!(head(&mut stream).await.starts_with("HTTP/1.1 200 OK"));
        let mut body = [0; 5];
        stream.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"hello");
    }
}

#[tokio::test]
async fn mapped_slices_arrive_and_are_never_touched() {
    let (_, content, mapping) = mapped(5_000_001);
    // Awkward sizes too: down to slices of a few bytes, where copying would be tempting.
    for (step, len) in [(1 << 20, content.len()), (65_537, content.len()), (100, 20_000)] {
        let shown = Arc::clone(&mapping);
        let address = start(Limits::default(), &Drain::new(), move |_| {
            let frames = slices(&shown, step)
                .into_iter()
                .take(len.div_ceil(step as usize))
                .collect();
            streamed(len, frames)
        });
        let mut stream = TcpStream::connect(address).await.unwrap();
        for _ in 0..2 {
            ask(&mut stream, "/").await;
            head(&mut stream).await;
            let mut body = vec![0; len];
            stream.read_exact(&mut body).await.unwrap();
            assert!(body == content[..len], "slices of {step}");
        }
    }
    assert_eq!(touched(&mapping).split_whitespace().nth(1), Some("0"));
}

#[tokio::test]
async fn memory_and_mapped_slices_mix() {
    let (_, content, mapping) = mapped(300_000);
    let shown = Arc::clone(&mapping);
    let address = start(Limits::default(), &Drain::new(), move |_| {
        let frames = vec![
            Ok(Bytes::from_static(b"before")),
            shown.slice(0..100_000),
            Ok(Bytes::from_static(b"between")),
            shown.slice(100_000..200_000),
            shown.slice(200_000..300_000),
            Ok(Bytes::from_static(b"after")),
        ];
        let body = StreamBody::new(stream::iter(frames).map(|frame| frame.map(Frame::data)));
        Response::builder()
            .header("connection", "close")
            .body(BodyExt::boxed(body))
            .unwrap()
    });
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    head(&mut stream).await;
    let expected = [
        b"before",
        &content[..100_000],
        b"between",
        &content[100_000..],
        b"after",
    ]
    .concat();
    assert!(rest(&mut stream).await == expected);
    assert_eq!(touched(&mapping).split_whitespace().nth(1), Some("0"));
}

#[tokio::test]
async fn a_file_made_shorter_breaks_the_response() {
    let (file, content, mapping) = mapped(3_000_000);
    let frames = Arc::new(
        slices(&mapping, 1 << 20)
            .into_iter()
            .map(Result::unwrap)
            .collect::<Vec<_>>(),
    );
    file.set_len(1_500_000).unwrap();
    let address = start(Limits::default(), &Drain::new(), move |_| {
        streamed(3_000_000, frames.iter().cloned().map(Ok).collect())
    });
    let mut stream = TcpStream::connect(address).await.unwrap();
    ask(&mut stream, "/").await;
    head(&mut stream).await;
    assert!(rest(&mut stream).await == content[..1_500_000]);
}

#[tokio::test]
async fn a_failing_body_breaks_http1() {
    let address = start(Limits::default(), &Drain::new(), |request| {
        let frames = vec![
            Ok(Bytes::from_static(b"part")),
            Err(std::io::Error::other("upstream cut")),
        ];
        if request.uri().path() == "/length" {
            return streamed(10, frames);
        }
        Response::new(BodyExt::boxed(StreamBody::new(
            stream::iter(frames).map(|frame| frame.map(Frame::data)),
        )))
    });
    let mut stream = TcpStream::connect(address).await.unwrap();
    ask(&mut stream, "/length").await;
    let got = String::from_utf8(rest(&mut stream).await).unwrap();
    assert!(got.is_empty() || got.contains("content-length: 10"), "{got}");
    assert!(
        got.split_once("\r\n\r\n").is_none_or(|(_, body)| body.len() < 10),
        "{got}"
    );

    let mut stream = TcpStream::connect(address).await.unwrap();
    ask(&mut stream, "/chunked").await;
    let got = String::from_utf8(rest(&mut stream).await).unwrap();
    assert!(!got.ends_with("0\r\n\r\n"), "no final chunk: {got}");
}
