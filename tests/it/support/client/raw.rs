//! A client over a bare TCP stream: it writes what it is told, reads as slowly as it is told, and says
//! exactly how a response ended.

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::soon;

/// How an HTTP/1.1 response ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All of Content-Length, or the final chunk, has come.
    Complete,
    /// The body ended with the connection, as a body without length does: nobody knows whether it is whole.
    UntilClose,
    /// Closed with this many bytes of Content-Length missing.
    Short(u64),
    /// Closed without the final chunk.
    NoFinalChunk,
    /// The connection was reset.
    Reset(String),
}

/// The status line and headers of a response.
#[derive(Clone, Debug)]
pub struct Head {
    pub status: u16,
    pub headers: HeaderMap,
    /// As it was on the wire.
    pub text: String,
}

impl Head {
    /// The value of the first header line of this name, or "".
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

/// How the rest of the body is delimited.
#[derive(Clone, Copy, Debug)]
enum Framing {
    Length(u64),
    /// Bytes left of this chunk, its line break included; 0 before the line with the next size.
    Chunk(u64),
    UntilClose,
    Done,
}

/// One connection with at most one response being read.
pub struct Raw {
    stream: TcpStream,
    unread: BytesMut,
    framing: Framing,
    broken: Option<String>,
    is_head: bool,
}

impl Raw {
    /// Connects to the host of a URL.
    pub async fn connect(url: &str) -> Self {
        Self::connect_with_buffer(url, None).await
    }

    /// Connects with a receive buffer so small that whoever sends soon feels that nobody reads.
    pub async fn connect_slow(url: &str) -> Self {
        Self::connect_with_buffer(url, Some(4096)).await
    }

    async fn connect_with_buffer(url: &str, buffer: Option<u32>) -> Self {
        let uri: http::Uri = url.parse().expect("a valid URL");
        let authority = uri.authority().expect("a URL with a host").as_str();
        let address = authority.parse().expect("an address and a port");
        let socket = TcpSocket::new_v4().expect("a socket");
        if let Some(bytes) = buffer {
            socket.set_recv_buffer_size(bytes).expect("a socket option");
        }
        let stream = soon("a connection", socket.connect(address))
            .await
            .expect("a connection");
        Self {
            stream,
            unread: BytesMut::new(),
            framing: Framing::Done,
            broken: None,
            is_head: false,
        }
    }

    /// Connects, and sends a GET of the URL.
    pub async fn get(url: &str) -> Self {
        let mut raw = Self::connect(url).await;
        raw.ask("GET", url, &[]).await;
        raw
    }

    /// Sends a request without body.
    pub async fn ask(&mut self, method: &str, url: &str, headers: &[(&str, &str)]) {
        let uri: http::Uri = url.parse().expect("a valid URL");
        let host = uri.authority().map(ToString::to_string).unwrap_or_default();
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
        for (name, value) in headers {
            text.extend([name, ": ", value, "\r\n"]);
        }
        text.push_str("\r\n");
        self.write(&text).await;
        self.is_head = method == "HEAD";
    }

    /// Sends any text.
    pub async fn write(&mut self, text: &str) {
        assert!(self.try_write(text.as_bytes()).await, "an open connection");
    }

    /// Sends bytes; false when the other end takes no more of them.
    pub async fn try_write(&mut self, bytes: &[u8]) -> bool {
        soon("bytes to go out", self.stream.write_all(bytes))
            .await
            .is_ok()
    }

    /// Reads up to the end of the head. None when the connection ends before.
    pub async fn head(&mut self) -> Option<Head> {
        let end = loop {
            if let Some(at) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill().await {
                return None;
            }
        };
        let text = String::from_utf8_lossy(&self.unread.split_to(end)).into_owned();
        let mut lines = text.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let mut headers = HeaderMap::new();
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a valid header name");
            headers.append(
                name,
                HeaderValue::from_str(value.trim()).expect("a valid header value"),
            );
        }
        let head = Head {
            status,
            headers,
            text,
        };
        let length = head.header("content-length").parse().ok();
        self.framing = match (status, length) {
            (100..=199 | 204 | 304, _) => Framing::Done,
            _ if self.is_head => Framing::Done,
            _ if head.header("transfer-encoding").eq_ignore_ascii_case("chunked") => Framing::Chunk(0),
            (_, Some(length)) => Framing::Length(length),
            _ => Framing::UntilClose,
        };
        Some(head)
    }

    /// Reads `count` bytes of the body, fewer only when it ends before.
    pub async fn read(&mut self, count: usize) -> Bytes {
        let mut body = BytesMut::new();
        while body.len() < count {
            let Some(piece) = self.piece(count - body.len()).await else {
                break;
            };
            body.extend_from_slice(&piece);
        }
        body.freeze()
    }

    /// Reads the rest of the body, and says how it ended.
    pub async fn finish(&mut self) -> (Bytes, Ending) {
        let body = self.read(usize::MAX).await;
        let ending = match (self.framing, self.broken.take()) {
            (Framing::Done | Framing::Length(0), _) => Ending::Complete,
            (_, Some(error)) => Ending::Reset(error),
            (Framing::Length(missing), None) => Ending::Short(missing),
            (Framing::Chunk(_), None) => Ending::NoFinalChunk,
            (Framing::UntilClose, None) => Ending::UntilClose,
        };
        (body, ending)
    }

    /// Hangs up at once, in the midst of whatever comes (RST).
    pub fn abort(self) {
        let _ = self.stream.set_zero_linger();
    }

    /// Some bytes of the body, at most `limit`; None at its end, clean or not.
    async fn piece(&mut self, limit: usize) -> Option<Bytes> {
        loop {
            match self.framing {
                Framing::Done | Framing::Length(0) => return None,
                Framing::Chunk(0) => {
                    self.next_chunk().await?;
                    continue;
                }
                // The line break after a chunk's data is all that is left of it.
                Framing::Chunk(left @ 1..=2) => {
                    self.skip(left).await?;
                    continue;
                }
                _ => {}
            }
            if self.unread.is_empty() && !self.fill().await {
                return None;
            }
            let available = limit.min(self.unread.len());
            let (left, tail) = match self.framing {
                Framing::Length(left) => (left, 0),
                Framing::Chunk(left) => (left - 2, 2),
                _ => return Some(self.unread.split_to(available).freeze()),
            };
            let size = available.min(usize::try_from(left).unwrap_or(usize::MAX));
            let rest = left - size as u64 + tail;
            self.framing = if tail == 0 {
                Framing::Length(rest)
            } else {
                Framing::Chunk(rest)
            };
            return Some(self.unread.split_to(size).freeze());
        }
    }

    /// Reads the line with a chunk's size, and after the last one the end of the body.
    async fn next_chunk(&mut self) -> Option<()> {
        let end = loop {
            if let Some(at) = self.unread.windows(2).position(|window| window == b"\r\n") {
                break at;
            }
            if !self.fill().await {
                return None;
            }
        };
        let line = String::from_utf8_lossy(&self.unread[..end]).into_owned();
        let size = line
            .split(';')
            .next()
            .and_then(|size| u64::from_str_radix(size.trim(), 16).ok());
        let size = size.unwrap_or_else(|| panic!("not a chunk size: {line:?}"));
        self.unread.advance(end + 2);
        if size == 0 {
            self.skip(2).await?;
            self.framing = Framing::Done;
        } else {
            self.framing = Framing::Chunk(size + 2);
        }
        Some(())
    }

    async fn skip(&mut self, count: u64) -> Option<()> {
        while (self.unread.len() as u64) < count {
            if !self.fill().await {
                return None;
            }
        }
        self.unread.advance(count as usize);
        self.framing = Framing::Chunk(0);
        Some(())
    }

    /// Reads what is there; false at the end of the connection.
    async fn fill(&mut self) -> bool {
        match soon("bytes from a server", self.stream.read_buf(&mut self.unread)).await {
            Ok(count) => count > 0,
            Err(error) => {
                self.broken = Some(error.to_string());
                false
            }
        }
    }
}
