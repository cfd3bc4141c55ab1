//! A plain HTTP/1.1 client over TCP that costs as little as it can: prepared requests in, bodies read into one
//! buffer and handed on as slices. Load, pulls, pushes and streams are built on it.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::content::Blob;

const BUFFER: usize = 256 << 10;

/// What every real client lists for manifests; docker-registry answers schema 1 without it.
const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, */*";

/// A GET, as bytes, for any number of repetitions.
pub(crate) fn get(address: SocketAddr, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: compare\r\nAccept: {ACCEPT}\r\n\r\n")
        .into_bytes()
}

/// The head of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    /// The status code.
    pub(crate) status: u16,
    /// The body's length; every registry states it.
    pub(crate) length: u64,
    /// Where `Location` points.
    pub(crate) location: Option<String>,
}

/// One keep-alive connection, opened again when the server closes it after an answer.
pub(crate) struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    remaining: u64,
    closing: bool,
}

impl Connection {
    /// Connects with the system's socket buffers.
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("connecting to {address}"))?;
        Self::over(address, stream, BUFFER)
    }

    /// Connects with small buffers, as a reader that holds back the server early.
    pub(crate) async fn open_narrow(address: SocketAddr) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(32 << 10)?;
        let stream = socket
            .connect(address)
            .await
            .with_context(|| format!("connecting to {address}"))?;
        Self::over(address, stream, 16 << 10)
    }

    fn over(address: SocketAddr, stream: TcpStream, buffer: usize) -> Result<Self> {
        stream.set_nodelay(true)?;
        let buffer = vec![0; buffer].into_boxed_slice();
        Ok(Self {
            address,
            stream,
            buffer,
            start: 0,
            end: 0,
            remaining: 0,
            closing: false,
        })
    }

    /// Sends a request without a body and reads the head of the answer.
    pub(crate) async fn send(&mut self, request: &[u8]) -> Result<Head> {
        ensure!(self.remaining == 0, "the body before was not read to its end");
        if self.closing {
            *self = Self::open(self.address).await?;
        }
        self.stream
            .write_all(request)
            .await
            .context("sending a request")?;
        self.head().await
    }

    /// Sends a request with a body: `bytes`, or a blob's.
    pub(crate) async fn send_with(
        &mut self,
        method: &str,
        path: &str,
        media_type: &str,
        body: Body<'_>,
    ) -> Result<Head> {
        let (address, length) = (self.address, body.length());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n"
        );
        self.stream.write_all(head.as_bytes()).await?;
        match body {
            Body::Bytes(bytes) => self.stream.write_all(bytes).await?,
            Body::Blob(blob) => {
                let mut at = 0;
                while at < blob.size {
                    let piece = blob.piece(at);
                    self.stream.write_all(&piece).await?;
                    at += piece.len() as u64;
                }
            }
        }
        self.head().await
    }

    /// The next bytes of the body, at most one buffer; empty at its end. Fails when the connection ends before.
    pub(crate) async fn piece(&mut self) -> Result<&[u8]> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        if self.start == self.end {
            let read = self
                .stream
                .read(&mut self.buffer)
                .await
                .context("reading a body")?;
            ensure!(
                read > 0,
                "the connection ended {} bytes before the body did",
                self.remaining
            );
            (self.start, self.end) = (0, read);
        }
        let take = (self.end - self.start).min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        let from = self.start;
        self.start += take;
        self.remaining -= take as u64;
        Ok(&self.buffer[from..from + take])
    }

    /// Reads the body to nowhere.
    pub(crate) async fn discard(&mut self) -> Result<()> {
        while !self.piece().await?.is_empty() {}
        Ok(())
    }

    /// A whole GET: 200 and `expected` bytes, or an error.
    pub(crate) async fn fetch(&mut self, request: &[u8], expected: u64) -> Result<()> {
        let head = self.send(request).await?;
        ensure!(head.status == 200, "status {} instead of 200", head.status);
        ensure!(
            head.length == expected,
            "{} bytes instead of {expected}",
            head.length
        );
        self.discard().await
    }

    async fn head(&mut self) -> Result<Head> {
        // What lies behind the body before belongs to nothing: requests are not pipelined.
        (self.start, self.end) = (0, 0);
        let size = loop {
            let read = self
                .stream
                .read(&mut self.buffer[self.end..])
                .await
                .context("reading an answer")?;
            ensure!(read > 0, "the connection ended before the answer");
            let from = self.end.saturating_sub(3);
            self.end += read;
            if let Some(found) = self.buffer[from..self.end]
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
            {
                break from + found + 4;
            }
            ensure!(
                self.end < self.buffer.len(),
                "an answer with a head beyond {} bytes",
                self.buffer.len()
            );
        };
        let (head, close) = parse(&self.buffer[..size])?;
        (self.start, self.remaining, self.closing) = (size, head.length, close);
        Ok(head)
    }
}

/// A request's body.
pub(crate) enum Body<'a> {
    /// Some bytes, or none.
    Bytes(&'a [u8]),
    /// A whole blob.
    Blob(&'a Blob),
}

impl Body<'_> {
    fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Blob(blob) => blob.size,
        }
    }
}

/// The head, and whether the server closes the connection after the body.
fn parse(bytes: &[u8]) -> Result<(Head, bool)> {
    let text = std::str::from_utf8(bytes).context("an answer's head")?;
    let mut lines = text.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let Some(status) = status else {
        bail!("no status in {status_line:?}")
    };
    let mut head = Head {
        status,
        length: 0,
        location: None,
    };
    let mut stated = status == 204;
    let mut close = false;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            head.length = value
                .parse()
                .with_context(|| format!("Content-Length {value:?}"))?;
            stated = true;
        } else if name.eq_ignore_ascii_case("connection") {
            close = value.eq_ignore_ascii_case("close");
        } else if name.eq_ignore_ascii_case("location") {
            head.location = Some(value.to_owned());
        }
    }
    ensure!(stated, "an answer (status {status}) without Content-Length");
    Ok((head, close))
}
