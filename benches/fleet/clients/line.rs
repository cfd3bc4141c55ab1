//! One keep-alive connection of a client, opened when it is needed and again when the server has closed it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than any client waits for a manifest.
const PATIENCE: Duration = Duration::from_mins(1);

/// A connection.
pub(super) struct Line {
    address: SocketAddr,
    sender: Option<SendRequest<Empty<Bytes>>>,
}

/// An answer with its whole body.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Reply {
    /// The text of a header.
    pub(super) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Line {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            sender: None,
        }
    }

    /// Asks and reads the answer. An idle connection that turns out to be closed is opened again, as every client does.
    pub(super) async fn ask(
        &mut self,
        method: &Method,
        path: &str,
        headers: &[(HeaderName, String)],
    ) -> Result<Reply> {
        if let Some(sender) = &mut self.sender
            && sender.ready().await.is_ok()
            && let Ok(reply) = self.once(method, path, headers).await
        {
            return Ok(reply);
        }
        let stream = TcpStream::connect(self.address).await.context("connecting")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        self.sender = Some(sender);
        self.once(method, path, headers).await
    }

    async fn once(&mut self, method: &Method, path: &str, headers: &[(HeaderName, String)]) -> Result<Reply> {
        let sender = self.sender.as_mut().context("not connected")?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.to_string());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Empty::new())?;
        let asked = async {
            let response = sender.send_request(request).await?;
            let (head, body) = response.into_parts();
            let body = body.collect().await?.to_bytes();
            anyhow::Ok(Reply {
                status: head.status.as_u16(),
                headers: head.headers,
                body,
            })
        };
        let reply = timeout(PATIENCE, asked).await.context("no answer").flatten();
        if reply.is_err() {
            self.sender = None;
        }
        reply
    }
}
