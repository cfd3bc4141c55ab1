//! Bodies over HTTP/2, and what other tests need to speak it.

use bytes::{BufMut as _, Bytes};
use http::Version;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{mapped, slices, start, streamed};
use crate::server::{Drain, Limits};

/// A frame of HTTP/2 (RFC 9113, section 4.1).
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.put_uint(payload.len() as u64, 3);
    frame.put_slice(&[kind, flags]);
    frame.put_u32(stream);
    frame.put_slice(payload);
    frame
}

/// What opens a connection, and a request: preface, SETTINGS, HEADERS of `GET /` as indexed fields (RFC
/// 7541).
pub(super) fn http2_request() -> Vec<u8> {
    let headers = [&[0x82, 0x86, 0x84, 0x41, 0x04][..], b"test"].concat();
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, &[]),
        frame(1, 0x5, 1, &headers),
    ]
    .concat()
}

/// Reads frames until one of type `until` comes, and gives the types, flags and payloads of all on stream 1.
pub(super) async fn frames_until(stream: &mut TcpStream, until: u8) -> Vec<(u8, u8, Vec<u8>)> {
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
