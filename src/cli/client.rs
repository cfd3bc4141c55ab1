//! The way to a running daemon: HTTP/1 over the unix socket in its data folder.

use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::app::ADMIN_SOCKET;
use crate::config::Config;
use crate::job::Event;
use crate::server::connect_local;
use crate::transfer::TAR;

/// Why a command got no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens at the socket.
    #[error("the daemon is not running: nobody listens at {}", .0.display())]
    NotRunning(PathBuf),
    /// The socket is another user's.
    #[error("{}: permission denied: run this as the daemon's user", .0.display())]
    Denied(PathBuf),
    /// The daemon says no.
    #[error("{message}")]
    Refused {
        /// The status of its answer.
        status: StatusCode,
        /// Its reason.
        message: String,
    },
    /// A file here cannot be read or written.
    #[error("{0}")]
    Local(io::Error),
    /// The connection failed, or the answer is not understood.
    #[error("{}: {reason}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
}

/// A daemon, by its socket.
pub(super) struct Client {
    path: PathBuf,
}

impl Client {
    /// The daemon that runs with this configuration.
    pub(super) fn new(config: &Config) -> Self {
        Self {
            path: config.storage.data_dir.join(ADMIN_SOCKET),
        }
    }

    fn broken(&self, reason: &(impl ToString + ?Sized)) -> CallError {
        CallError::Broken {
            path: self.path.clone(),
            reason: reason.to_string(),
        }
    }

    /// GETs `path`: the JSON text of the answer.
    pub(super) async fn get(&self, path: &str) -> Result<String, CallError> {
        let request = Request::get(path).body(Sending::text(String::new()));
        self.text(request.map_err(|error| self.broken(&error))?).await
    }

    /// POSTs `body` to `path`: the JSON text of the answer.
    pub(super) async fn post(&self, path: &str, body: &impl Serialize) -> Result<String, CallError> {
        self.text(self.posting(path, body)?).await
    }

    /// Starts the job `name` and gives each of its events to `told`, the last one too.
    pub(super) async fn job(
        &self,
        name: &str,
        options: &impl Serialize,
        told: impl FnMut(&str, Event),
    ) -> Result<(), CallError> {
        self.events(self.posting(&format!("/api/{name}"), options)?, told)
            .await
    }

    /// Brings an archive to the job `name`: its pieces come from `pieces`, `size` bytes when that is known.
    pub(super) async fn bring(
        &self,
        name: &str,
        size: Option<u64>,
        pieces: mpsc::Receiver<std::io::Result<Bytes>>,
        told: impl FnMut(&str, Event),
    ) -> Result<(), CallError> {
        let request = Request::post(format!("/api/{name}"))
            .header(header::CONTENT_TYPE, TAR)
            .body(Sending::Archive(pieces, size))
            .map_err(|error| self.broken(&error))?;
        self.events(request, told).await
    }

    /// Takes the export `name` away: what it is about, its size, and its pieces, each given to `take`.
    pub(super) async fn take_away(
        &self,
        name: &str,
        options: &impl Serialize,
        begun: impl FnOnce(&str, Option<u64>),
        mut take: impl FnMut(Bytes) -> io::Result<()>,
    ) -> Result<(), CallError> {
        let (mut answer, _connection) = self.send(self.posting(&format!("/api/{name}"), options)?).await?;
        let size = answer.body().size_hint().exact();
        let about = answer.headers().get("wharfinger-bundle");
        let about = about.and_then(|about| about.to_str().ok()).unwrap_or_default();
        begun(about, size);
        while let Some(piece) = self.piece(&mut answer).await? {
            take(piece).map_err(CallError::Local)?;
        }
        Ok(())
    }

    async fn events(
        &self,
        request: Request<Sending>,
        mut told: impl FnMut(&str, Event),
    ) -> Result<(), CallError> {
        let (mut answer, _connection) = self.send(request).await?;
        let mut text = Vec::new();
        loop {
            let piece = self.piece(&mut answer).await?;
            let last = piece.is_none();
            text.extend_from_slice(&piece.unwrap_or_default());
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                let event: Event = self.parse(&line)?;
                let is_end = matches!(event, Event::Done { .. } | Event::Failed { .. });
                told(line.trim_end(), event);
                if is_end {
                    return Ok(());
                }
            }
            if last {
                return Err(self.broken("the daemon ended before the job did"));
            }
        }
    }

    /// Reads an answer.
    pub(super) fn parse<T: DeserializeOwned>(&self, text: &str) -> Result<T, CallError> {
        let other = |error| {
            self.broken(&format!(
                "the daemon's answer is not understood ({error}): is it of another version?"
            ))
        };
        serde_json::from_str(text).map_err(other)
    }

    fn posting(&self, path: &str, body: &impl Serialize) -> Result<Request<Sending>, CallError> {
        let body = serde_json::to_string(body).map_err(|error| self.broken(&error))?;
        Request::post(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Sending::text(body))
            .map_err(|error| self.broken(&error))
    }

    async fn text(&self, request: Request<Sending>) -> Result<String, CallError> {
        let (mut answer, _connection) = self.send(request).await?;
        let mut text = Vec::new();
        while let Some(piece) = self.piece(&mut answer).await? {
            text.extend_from_slice(&piece);
        }
        String::from_utf8(text).map_err(|error| self.broken(&error))
    }

    async fn piece(&self, answer: &mut Response<Incoming>) -> Result<Option<bytes::Bytes>, CallError> {
        loop {
            let body = Pin::new(answer.body_mut());
            let mut body = body;
            let frame = poll_fn(|context| body.as_mut().poll_frame(context)).await;
            let Some(frame) = frame else { return Ok(None) };
            if let Ok(piece) = frame.map_err(|error| self.broken(&error))?.into_data() {
                return Ok(Some(piece));
            }
        }
    }

    /// Sends a request; an answer that is not a success becomes an error. The second value keeps the connection.
    async fn send(
        &self,
        mut request: Request<Sending>,
    ) -> Result<(Response<Incoming>, Connection), CallError> {
        let stream = connect_local(&self.path)
            .await
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    CallError::NotRunning(self.path.clone())
                }
                io::ErrorKind::PermissionDenied => CallError::Denied(self.path.clone()),
                _ => self.broken(&error),
            })?;
        let host = http::HeaderValue::from_static("localhost");
        request.headers_mut().insert(header::HOST, host);
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.broken(&error))?;
        let connection = Connection(tokio::spawn(async move {
            // What goes wrong is told by the request.
            let _ = connection.await;
        }));
        let mut answer = sender
            .send_request(request)
            .await
            .map_err(|error| self.broken(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok((answer, connection));
        }
        let mut text = Vec::new();
        while let Some(piece) = self.piece(&mut answer).await? {
            text.extend_from_slice(&piece);
        }
        let told: Option<serde_json::Value> = serde_json::from_slice(&text).ok();
        let message = told
            .as_ref()
            .and_then(|told| told["errors"][0]["message"].as_str())
            .map_or_else(|| format!("the daemon answered {status}"), str::to_owned);
        Err(CallError::Refused { status, message })
    }
}

/// The task that moves a connection's bytes.
struct Connection(tokio::task::JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The body of a request.
enum Sending {
    Text(Option<Bytes>),
    /// From somewhere else, so many bytes.
    Archive(mpsc::Receiver<io::Result<Bytes>>, Option<u64>),
}

impl Sending {
    fn text(text: String) -> Self {
        Self::Text(Some(text.into()))
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = match self.get_mut() {
            Self::Text(text) => text.take().map(Ok),
            Self::Archive(pieces, left) => {
                let piece = ready!(pieces.poll_recv(context));
                if let (Some(left), Some(Ok(piece))) = (left, &piece) {
                    *left = left.saturating_sub(piece.len() as u64);
                }
                piece
            }
        };
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Archive(_, left) => left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}
