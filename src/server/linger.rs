//! The end of a connection whose client still sends: closing a socket with unread input resets the connection, and the
//! reset overtakes an answer that the client has not read yet (a 431, say). So what comes is read and dropped, for a
//! moment. Used by the streams under hyper.

use std::future::Future as _;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// How long, and how much, a closing connection reads what its client still sends.
const LINGER_TIME: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// How far a connection has closed.
#[derive(Default)]
pub(super) enum Closing {
    #[default]
    No,
    Lingering {
        deadline: Pin<Box<Sleep>>,
        left: usize,
    },
    Done,
}

impl Closing {
    /// Whether it has not begun.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::No)
    }

    /// Reads and drops what the client still sends, until nothing comes or it was enough.
    pub(super) fn poll(&mut self, stream: &mut TcpStream, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [MaybeUninit::uninit(); 8 * 1024];
        while !matches!(self, Self::Done) {
            let mut buffer = ReadBuf::uninit(&mut scratch);
            let read = Pin::new(&mut *stream).poll_read(cx, &mut buffer);
            let got = buffer.filled().len();
            match (&mut *self, read) {
                (_, Poll::Ready(Ok(()))) if got == 0 => break,
                // Nothing came after the answer (the usual case), or nothing can come.
                (Self::No, Poll::Pending) | (Self::Done, _) | (_, Poll::Ready(Err(_))) => break,
                (Self::No, Poll::Ready(Ok(()))) => {
                    *self = Self::Lingering {
                        deadline: Box::pin(tokio::time::sleep(LINGER_TIME)),
                        left: LINGER_BYTES,
                    };
                }
                (Self::Lingering { left, .. }, Poll::Ready(Ok(()))) => match left.checked_sub(got) {
                    Some(less) => *left = less,
                    None => break,
                },
                (Self::Lingering { deadline, .. }, Poll::Pending) => {
                    ready!(deadline.as_mut().poll(cx));
                    break;
                }
            }
        }
        *self = Self::Done;
        Poll::Ready(())
    }
}
