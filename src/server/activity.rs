//! What a connection does, for whoever decides whether it is stuck: noted by the streams under hyper and by the bodies
//! above it, read by `connection`.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use hyper::rt::{Read as _, ReadBufCursor};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, ReadBuf};

/// Length of the HTTP/2 preface, and of what has to come before a connection is known to be HTTP/1 or HTTP/2.
pub(super) const PREFACE: u64 = 24;

/// What has moved on a connection so far.
#[derive(Debug, Default)]
pub(super) struct Activity {
    received: AtomicU64,
    sent: AtomicU64,
    blocked: AtomicBool,
    handed_over: AtomicUsize,
}

impl Activity {
    /// Grows with whatever comes in: the bytes exactly up to [`PREFACE`], from there on one for each read and the
    /// bytes of bodies.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes that went out.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether there is something to send that the client does not take: the socket is full, or an HTTP/2 client
    /// gives a response no window.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed) || self.handed_over.load(Ordering::Relaxed) > 0
    }

    /// Bytes of a request's body arrived.
    pub(super) fn took(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A write came to this.
    pub(super) fn wrote(&self, sent: &Poll<io::Result<usize>>) {
        self.waits(sent.is_pending());
        if let Poll::Ready(Ok(sent)) = sent {
            self.sent.fetch_add(*sent as u64, Ordering::Relaxed);
        }
    }

    /// Whether the socket takes nothing more.
    pub(super) fn waits(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    /// A response gave a piece of its body, and is not asked for the next one yet; or is, when `false`.
    pub(super) fn hands_over(&self, waiting: bool) {
        if waiting {
            self.handed_over.fetch_add(1, Ordering::Relaxed);
        } else {
            self.handed_over.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Reads from `stream` for hyper, and notes it.
    pub(super) fn poll_read<S: AsyncRead + Unpin>(
        &self,
        stream: &mut TokioIo<S>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.received() >= PREFACE {
            ready!(Pin::new(stream).poll_read(cx, cursor))?;
            self.took(1);
            return Poll::Ready(Ok(()));
        }
        // Filling hyper's cursor and learning how much it was takes `unsafe` or a copy: copy the first bytes.
        let mut scratch = [MaybeUninit::uninit(); PREFACE as usize];
        let space = cursor.remaining().min(scratch.len());
        let mut buffer = ReadBuf::uninit(&mut scratch[..space]);
        ready!(Pin::new(stream.inner_mut()).poll_read(cx, &mut buffer))?;
        cursor.put_slice(buffer.filled());
        self.took(buffer.filled().len() as u64);
        Poll::Ready(Ok(()))
    }
}
