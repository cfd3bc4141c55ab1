//! The server over real sockets, with clients that write and read bytes themselves.

use std::convert::Infallible;
use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes};
use futures_util::{StreamExt as _, stream};
use http::{Request, Response, Version};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::service::service_fn;
use rustix::io::Errno;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

use super::{
    Bound, Connection, Drain, DrainOutcome, Limits, RequestBody, Server, Tls, bind, concerns_one_connection,
};
use crate::config::TlsConfig;
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

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.put_uint(payload.len() as u64, 3);
    frame.put_slice(&[kind, flags]);
    frame.put_u32(stream);
    frame.put_slice(payload);
    frame
}

/// What opens a connection, and a request: preface, SETTINGS, HEADERS of `GET /` as indexed fields (RFC
/// 7541).
fn http2_request() -> Vec<u8> {
    let headers = [&[0x82, 0x86, 0x84, 0x41, 0x04][..], b"test"].concat();
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, &[]),
        frame(1, 0x5, 1, &headers),
    ]
    .concat()
}

/// Reads frames until one of type `until` comes, and gives the types, flags and payloads of all on stream 1.
async fn frames_until(stream: &mut TcpStream, until: u8) -> Vec<(u8, u8, Vec<u8>)> {
    let mut seen = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let len = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; len];
        stream.read_exact(&mut payload).await.unwrap();
        if head[5..] == [0, 0, 0, 1] {
            seen.push((head[3], head[4], payload));
        }
        if head[3] == until {
            return seen;
        }
    }
}

#[tokio::test]
async fn a_failing_body_resets_the_http2_stream() {
    let address = start(Limits::default(), &Drain::new(), |request| {
        assert_eq!(request.version(), Version::HTTP_2);
        streamed(
            10,
            vec![
                Ok(Bytes::from_static(b"part")),
                Err(std::io::Error::other("upstream cut")),
            ],
        )
    });
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&http2_request()).await.unwrap();
    let seen = frames_until(&mut stream, 3).await;
    assert_eq!(seen.last().unwrap().0, 3, "RST_STREAM");
    assert!(
        seen.iter().all(|(_, flags, _)| flags & 1 == 0),
        "no END_STREAM: {seen:?}"
    );
}

#[tokio::test]
async fn http2_serves_mapped_slices() {
    let (_, content, mapping) = mapped(40_000);
    let address = start(Limits::default(), &Drain::new(), move |_| {
        streamed(40_000, slices(&mapping, 15_000))
    });
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&http2_request()).await.unwrap();
    let mut body = Vec::new();
    while body.len() < content.len() {
        let seen = frames_until(&mut stream, 0).await;
        body.extend(
            seen.into_iter()
                .filter(|(kind, ..)| *kind == 0)
                .flat_map(|(.., payload)| payload),
        );
    }
    assert!(body == content);
}

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

#[tokio::test]
async fn connections_of_one_address_are_counted() {
    let limits = Limits {
        max_connections_per_address: 2,
        ..Limits::default()
    };
    let address = start(limits.clone(), &Drain::new(), |_| full("hello"));
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        ask(&mut stream, "/").await;
        head(&mut stream).await;
        held.push(stream);
    }
    let mut beyond = TcpStream::connect(address).await.unwrap();
    assert!(rest(&mut beyond).await.is_empty());
    drop(held);
    loop {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
        if stream.write_all(request).await.is_ok() && rest(&mut stream).await.ends_with(b"hello") {
            break;
        }
    }
    // A proxy stands for many clients.
    let limits = Limits {
        trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
        ..limits
    };
    let address = start(limits, &Drain::new(), |_| full("hello"));
    let mut held = Vec::new();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        ask(&mut stream, "/").await;
        head(&mut stream).await;
        held.push(stream);
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let limits = Limits {
        max_connections: 1,
        ..Limits::default()
    };
    let address = start(limits, &Drain::new(), |_| full("hello"));
    let mut first = TcpStream::connect(address).await.unwrap();
    ask(&mut first, "/").await;
    head(&mut first).await;
    let mut second = TcpStream::connect(address).await.unwrap();
    ask(&mut second, "/").await;
    let mut byte = [0; 1];
    let early = tokio::time::timeout(Duration::from_millis(50), second.peek(&mut byte)).await;
    assert!(early.is_err(), "answered while the first connection was open");
    drop(first);
    assert!(head(&mut second).await.starts_with("HTTP/1.1 200 OK"));
}

/// A server whose one response goes on until the sender that is given out is dropped.
fn start_slow(drain: &Drain) -> (std::net::SocketAddr, mpsc::UnboundedSender<Bytes>, Arc<Notify>) {
    let (send, receive) = mpsc::unbounded_channel::<Bytes>();
    let receive = Arc::new(std::sync::Mutex::new(Some(receive)));
    let asked = Arc::new(Notify::new());
    let notify = Arc::clone(&asked);
    let address = start(Limits::default(), drain, move |_| {
        notify.notify_one();
        let Some(receive) = receive.lock().unwrap().take() else {
            return full("once");
        };
        let frames = stream::unfold(receive, |mut receive| async move {
            let data = receive.recv().await?;
            Some((Ok(Frame::data(data)), receive))
        });
        Response::new(BodyExt::boxed(StreamBody::new(frames)))
    });
    (address, send, asked)
}

#[tokio::test]
async fn drain_lets_responses_finish() {
    let drain = Drain::new();
    let (address, send, asked) = start_slow(&drain);
    let mut idle = TcpStream::connect(address).await.unwrap();
    ask(&mut idle, "/").await;
    asked.notified().await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    drain.start();
    assert!(drain.is_started());
    drain.started().await;
    let waiting = tokio::spawn({
        let drain = drain.clone();
        async move { drain.wait(Duration::from_hours(1)).await }
    });
    assert!(rest(&mut silent).await.is_empty());
    send.send(Bytes::from_static(b"last words")).unwrap();
    drop(send);
    let got = String::from_utf8(rest(&mut idle).await).unwrap();
    assert!(got.ends_with("last words\r\n0\r\n\r\n"), "{got}");
    assert_eq!(waiting.await.unwrap(), DrainOutcome::Finished);
    assert!(
        TcpStream::connect(address).await.is_err(),
        "nobody listens any more"
    );
}

#[tokio::test]
async fn drain_cuts_after_the_grace_period() {
    let drain = Drain::new();
    let (address, send, asked) = start_slow(&drain);
    let mut stream = TcpStream::connect(address).await.unwrap();
    ask(&mut stream, "/").await;
    asked.notified().await;
    send.send(Bytes::from_static(b"never ends")).unwrap();
    head(&mut stream).await;
    assert_eq!(
        drain.wait(Duration::from_millis(10)).await,
        DrainOutcome::Cut { connections: 1 }
    );
    assert!(!rest(&mut stream).await.ends_with(b"0\r\n\r\n"));
}
