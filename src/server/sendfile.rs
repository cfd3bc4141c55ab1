//! The socket under hyper, which sends slices of mapped files with sendfile(2).
//!
//! hyper hands response bodies down as the byte slices that they are. A slice that lies in a [`MappedFile`]
//! is known by its address and sent from the file, so that neither the daemon nor the kernel copies it and a
//! disk error is an error instead of SIGBUS. Everything else is written as ever.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use tokio::io::{AsyncRead as _, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::mapped::{self, MappedFile};

/// Bytes that one sendfile call may send: how long one connection can hold its thread.
const SENDFILE_MAX: usize = 1024 * 1024;

/// How long, and how much, a closing connection reads what its client still sends.
const LINGER_TIME: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// Length of the HTTP/2 preface, and of what has to come before a connection is known to be HTTP/1 or HTTP/2.
pub(super) const PREFACE: u64 = 24;

/// What a connection has done, for whoever decides whether it is stuck.
#[derive(Debug, Default)]
pub(super) struct Activity {
    received: AtomicU64,
    sent: AtomicU64,
    blocked: AtomicBool,
}

impl Activity {
    /// Grows with whatever comes in: the bytes exactly up to [`PREFACE`], from there on one for each read.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes that went out.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether there is something to send that the client does not take.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }
}

/// A TCP connection as hyper sees it.
pub(super) struct SendfileStream {
    stream: TokioIo<TcpStream>,
    activity: Arc<Activity>,
    /// The mapping that the last mapped slice lay in, with its addresses: most slices lie in the same one,
    /// and the table of all mappings need not be locked. Weak, so that an idle connection keeps no removed
    /// file on the disk.
    last: Option<Recent>,
    closing: Closing,
}

struct Recent {
    base: usize,
    mapping: Weak<MappedFile>,
}

enum Closing {
    No,
    Lingering { deadline: Pin<Box<Sleep>>, left: usize },
    Done,
}

/// What the first of some buffers are.
#[derive(Debug)]
enum Run {
    /// This much of a file from this offset.
    Mapped {
        mapping: Arc<MappedFile>,
        offset: u64,
        len: usize,
    },
    /// So many buffers of ordinary memory, a mapped one behind them.
    Memory { count: usize },
    /// Ordinary memory all of it.
    AllMemory,
}

impl SendfileStream {
    pub(super) fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self {
            stream: TokioIo::new(stream),
            activity,
            last: None,
            closing: Closing::No,
        }
    }

    /// The mapping that `buffer` lies in, and its place there.
    fn locate(&mut self, buffer: &[u8]) -> Option<(Arc<MappedFile>, u64)> {
        if buffer.is_empty() {
            return None;
        }
        let address = buffer.as_ptr().addr();
        if let Some(recent) = &self.last
            && let Some(offset) = address.checked_sub(recent.base)
            // As long as it lives, these addresses are its own.
            && let Some(mapping) = recent.mapping.upgrade()
            && (offset as u64).saturating_add(buffer.len() as u64) <= mapping.len()
        {
            return Some((mapping, offset as u64));
        }
        let (mapping, offset) = mapped::locate(buffer)?;
        self.last = Some(Recent {
            base: address - offset as usize,
            mapping: Arc::downgrade(&mapping),
        });
        Some((mapping, offset))
    }

    /// Tells what `buffers` begin with. Mapped slices that follow each other in memory are one run.
    fn first_run(&mut self, buffers: &[IoSlice<'_>]) -> Run {
        for (index, buffer) in buffers.iter().enumerate() {
            let Some((mapping, offset)) = self.locate(buffer) else {
                continue;
            };
            if buffers[..index].iter().any(|buffer| !buffer.is_empty()) {
                return Run::Memory { count: index };
            }
            let mut end = buffer.as_ptr_range().end;
            let mut len = buffer.len();
            for next in &buffers[index + 1..] {
                // The end of a mapping can touch the next one: stay within this one.
                let fits = offset + len as u64 + next.len() as u64 <= mapping.len();
                if len >= SENDFILE_MAX || next.as_ptr() != end || !fits {
                    break;
                }
                len += next.len();
                end = next.as_ptr_range().end;
            }
            return Run::Mapped {
                mapping,
                offset,
                len: len.min(SENDFILE_MAX),
            };
        }
        Run::AllMemory
    }

    /// Repeats `send` until the socket takes something or has to be waited for.
    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        send: impl Fn() -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.inner().poll_write_ready(cx))?;
            let sent = self
                .stream
                .inner()
                .try_io(Interest::WRITABLE, || Ok(rustix::io::retry_on_intr(&send)?));
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    fn poll_send_buffers(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.first_run(buffers) {
            Run::AllMemory => Pin::new(&mut self.stream).poll_write_vectored(cx, buffers),
            // MORE: the head of a response and the first bytes of its body share a packet.
            Run::Memory { count } => self.poll_send(cx, || {
                let flags = SendFlags::MORE | SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                let mut control = SendAncillaryBuffer::default();
                rustix::net::sendmsg(self.stream.inner(), &buffers[..count], &mut control, flags)
            }),
            Run::Mapped { mapping, offset, len } => {
                let sent = ready!(self.poll_send(cx, || {
                    let mut offset = offset;
                    rustix::fs::sendfile(self.stream.inner(), mapping.file(), Some(&mut offset), len)
                }))?;
                if sent == 0 {
                    let what = "the file ends before what was promised of it";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, what)));
                }
                Poll::Ready(Ok(sent))
            }
        }
    }

    /// Reads and drops what the client still sends, for a moment: closing a socket with unread input resets
    /// the connection, and the reset overtakes an answer that the client has not read yet (a 431, say).
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scratch = [MaybeUninit::uninit(); 8 * 1024];
        while !matches!(self.closing, Closing::Done) {
            let mut buffer = ReadBuf::uninit(&mut scratch);
            let read = Pin::new(self.stream.inner_mut()).poll_read(cx, &mut buffer);
            let got = buffer.filled().len();
            match (&mut self.closing, read) {
                (_, Poll::Ready(Ok(()))) if got == 0 => break,
                // Nothing came after the answer (the usual case), or nothing can come.
                (Closing::No, Poll::Pending) | (Closing::Done, _) | (_, Poll::Ready(Err(_))) => break,
                (Closing::No, Poll::Ready(Ok(()))) => {
                    let deadline = Box::pin(tokio::time::sleep(LINGER_TIME));
                    self.closing = Closing::Lingering {
                        deadline,
                        left: LINGER_BYTES,
                    };
                }
                (Closing::Lingering { left, .. }, Poll::Ready(Ok(()))) => match left.checked_sub(got) {
                    Some(less) => *left = less,
                    None => break,
                },
                (Closing::Lingering { deadline, .. }, Poll::Pending) => {
                    ready!(deadline.as_mut().poll(cx));
                    break;
                }
            }
        }
        self.closing = Closing::Done;
        Poll::Ready(Ok(()))
    }
}

impl Read for SendfileStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.activity.received() >= PREFACE {
            ready!(Pin::new(&mut self.stream).poll_read(cx, cursor))?;
            self.activity.received.fetch_add(1, Ordering::Relaxed);
            return Poll::Ready(Ok(()));
        }
        // Filling hyper's cursor and learning how much it was takes `unsafe` or a copy: copy the first bytes.
        let mut scratch = [MaybeUninit::uninit(); PREFACE as usize];
        let space = cursor.remaining().min(scratch.len());
        let mut buffer = ReadBuf::uninit(&mut scratch[..space]);
        ready!(Pin::new(self.stream.inner_mut()).poll_read(cx, &mut buffer))?;
        cursor.put_slice(buffer.filled());
        self.activity
            .received
            .fetch_add(buffer.filled().len() as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl Write for SendfileStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buffer)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = self.poll_send_buffers(cx, buffers);
        self.activity.blocked.store(sent.is_pending(), Ordering::Relaxed);
        if let Poll::Ready(Ok(sent)) = sent {
            self.activity.sent.fetch_add(sent as u64, Ordering::Relaxed);
        }
        sent
    }

    /// Makes hyper queue body slices instead of copying them together.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.closing, Closing::No) {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        self.poll_linger(cx)
    }
}
