//! How many connections there may be, and how they end when the server does.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

use super::{ask, full, head, rest, start};
use crate::server::{Drain, DrainOutcome, Limits};

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
