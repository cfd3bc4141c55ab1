//! The socket under hyper, which sends slices of mapped files with sendfile(2).
//!
//! hyper hands response bodies down as the byte slices that they are. A slice that lies in a [`MappedFile`]
//! is known by its address and sent from the file, so that neither the daemon nor the kernel copies it and a
//! disk error is an error instead of SIGBUS. Everything else is written as ever.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::activity::Activity;
use super::linger::Closing;
use crate::mapped::{self, MappedFile};

/// Bytes that one sendfile call may send: how long one connection can hold its thread.
const SENDFILE_MAX: usize = 1024 * 1024;

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
            closing: Closing::default(),
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
}

impl Read for SendfileStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.activity.poll_read(&mut this.stream, cx, cursor)
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
        self.activity.wrote(&sent);
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
        let this = &mut *self;
        if this.closing.is_open() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        this.closing.poll(this.stream.inner_mut(), cx).map(Ok)
    }
}
