//! A server's TCP stream that tells when all that was given to it has been written, so that a scripted
//! body can stall or cut at an exact byte: hyper flushes its transport only with an empty buffer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// The stream of one connection.
pub(in crate::support) struct Wire {
    stream: TcpStream,
    flushes: Flushes,
}

/// Counts the flushes of one connection.
#[derive(Clone)]
pub(in crate::support) struct Flushes(Arc<watch::Sender<u64>>);

impl Flushes {
    /// Waits until everything that hyper has taken so far is with the kernel.
    pub(super) async fn next(&self) {
        // Called from within the body, after hyper took its last frame: the next flush covers that frame.
        let _ = self.0.subscribe().changed().await;
    }
}

impl Wire {
    pub(in crate::support) fn new(stream: TcpStream) -> (Self, Flushes) {
        let flushes = Flushes(Arc::new(watch::Sender::new(0)));
        (
            Self {
                stream,
                flushes: flushes.clone(),
            },
            flushes,
        )
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            self.flushes.0.send_modify(|count| *count += 1);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
