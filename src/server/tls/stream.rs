//! A TLS connection as hyper sees it. Nothing here knows mapped files: TLS reads all that it sends, so bodies are made of
//! reads of the file (`Connection::takes_mapped`).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::server::activity::Activity;
use crate::server::linger::Closing;

/// A connection after its handshake.
pub(in crate::server) struct SecureStream {
    stream: TokioIo<TlsStream<TcpStream>>,
    activity: Arc<Activity>,
    closing: Closing,
}

impl SecureStream {
    pub(in crate::server) fn new(stream: TlsStream<TcpStream>, activity: Arc<Activity>) -> Self {
        Self {
            stream: TokioIo::new(stream),
            activity,
            closing: Closing::default(),
        }
    }
}

impl Read for SecureStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.activity.poll_read(&mut this.stream, cx, cursor)
    }
}

impl Write for SecureStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write(cx, buffer);
        self.activity.wrote(&sent);
        sent
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write_vectored(cx, buffers);
        self.activity.wrote(&sent);
        sent
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// A write only fills rustls' buffer: this is where the socket is found full.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.activity.waits(flushed.is_pending());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.closing.is_open() {
            // Our last words, and then the end of what we write.
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        let (socket, _) = this.stream.inner_mut().get_mut();
        this.closing.poll(socket, cx).map(Ok)
    }
}
