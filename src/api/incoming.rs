//! The body of a request that pushes: read whole where it is small, else piece by piece.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body::Body as _;

use super::Asking;
use crate::server::{RequestBody, RequestBodyError};

/// Bytes that are handed on at a time.
const PIECE: usize = 1024 * 1024;
/// Bytes of a refused request's body that are read all the same: a manifest of any size, a chunk of usual ones.
const SPENT: u64 = 8 * 1024 * 1024;
/// And for how long.
const SPENDING: Duration = Duration::from_secs(5);
/// How long a client may send nothing, and what it has to send in that time.
const IDLE: Duration = Duration::from_mins(1);
const LEAST: u64 = 16 * 1024;

/// Why a body cannot be read to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("the request's body is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the request's body broke off: {0}")]
    Cut(String),
    #[error("next to nothing of the request's body came for a minute")]
    Idle,
    #[error("the request's body did not come within {0:?}")]
    Slow(Duration),
}

/// The whole body, `most` bytes of it, within `server.body_timeout`: who sends a byte now and then holds nothing up for long.
pub(super) async fn whole(asking: &mut Asking<'_>, most: usize) -> Result<Bytes, Broken> {
    let limit = asking.shared.options.body_timeout;
    if announced(asking).is_some_and(|size| size > most as u64) {
        return Err(Broken::TooLarge(most));
    }
    let mut body = Incoming::of(asking);
    let gathering = async {
        let mut all = BytesMut::new();
        while let Some(piece) = body.frame().await? {
            if all.len() + piece.len() > most {
                return Err(Broken::TooLarge(most));
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    };
    let gathered = tokio::time::timeout(limit, gathering).await;
    gathered.unwrap_or(Err(Broken::Slow(limit)))
}

/// Reads and drops the body of a request that was refused before anybody read it: a client that is still sending would
/// find the connection closed, and lose the answer, which may be the challenge that it is to answer with. For a while, and
/// not for a body of any size; and not for one that the client keeps until it is asked for (RFC 9110, section 10.1.1).
pub(super) async fn spend(asking: &mut Asking<'_>) {
    if asking.headers.contains_key(http::header::EXPECT) {
        return;
    }
    if announced(asking).is_some_and(|size| size > SPENT) {
        return;
    }
    let mut body = Incoming::of(asking);
    let spending = async {
        let mut spent = 0;
        while let Ok(Some(piece)) = body.frame().await {
            spent += piece.len() as u64;
            if spent > SPENT {
                return;
            }
        }
    };
    // Who does not come to an end meanwhile is cut.
    let _ = tokio::time::timeout(SPENDING, spending).await;
}

/// Its length, if the client said it. What is refused for that is refused before the body is taken, so that it is
/// [spent](spend).
pub(super) fn announced(asking: &Asking<'_>) -> Option<u64> {
    asking.body.as_ref().and_then(|body| body.size_hint().exact())
}

/// Whether a client keeps sending: a byte now and then holds a session, its file and a connection as nothing does.
#[derive(Debug, Default)]
struct Pace {
    /// How long we waited for it: what a slow disk costs is no client's fault.
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// So much has come after we waited so long. Whether that is enough.
    fn keeps_up(&mut self, bytes: u64, waited: Duration) -> bool {
        self.bytes += bytes;
        self.waited += waited;
        if self.waited < IDLE {
            return true;
        }
        let enough = self.bytes >= LEAST;
        *self = Self::default();
        enough
    }
}

/// A body that comes in pieces.
pub(super) struct Incoming {
    body: Option<RequestBody>,
    pace: Pace,
    /// A failure that comes after what was read before it.
    broken: Option<Broken>,
}

impl Incoming {
    pub(super) fn of(asking: &mut Asking<'_>) -> Self {
        Self {
            body: asking.body.take(),
            pace: Pace::default(),
            broken: None,
        }
    }

    async fn frame(&mut self) -> Result<Option<Bytes>, Broken> {
        loop {
            let Some(body) = &mut self.body else {
                return Ok(None);
            };
            let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
            let began = Instant::now();
            match tokio::time::timeout(IDLE, frame).await {
                Err(_) | Ok(Some(Err(RequestBodyError::Idle(_)))) => return Err(Broken::Idle),
                Ok(None) => self.body = None,
                Ok(Some(Err(error))) => return Err(Broken::Cut(error.to_string())),
                Ok(Some(Ok(frame))) => {
                    // Trailers say nothing here.
                    if let Ok(bytes) = frame.into_data() {
                        if !self.pace.keeps_up(bytes.len() as u64, began.elapsed()) {
                            return Err(Broken::Idle);
                        }
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// The next piece, about a MiB where there is as much. What came before a failure is given first.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, Broken> {
        if let Some(broken) = self.broken.take() {
            return Err(broken);
        }
        let Some(first) = self.frame().await? else {
            return Ok(None);
        };
        if first.len() >= PIECE {
            return Ok(Some(first));
        }
        let mut piece = BytesMut::with_capacity(PIECE);
        piece.extend_from_slice(&first);
        while piece.len() < PIECE {
            match self.frame().await {
                Ok(Some(more)) => piece.extend_from_slice(&more),
                Ok(None) => break,
                Err(broken) => {
                    self.broken = Some(broken);
                    break;
                }
            }
        }
        Ok(Some(piece.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sends_a_byte_now_and_then_does_not_keep_up() {
        // Bytes every so many seconds, and whether that goes on for an hour.
        let table = [
            (5, 50, false),
            (1, 1, false),
            (200, 1, false),
            (300, 1, true),
            (16 * 1024, 59, true),
            (1024 * 1024, 10, true),
        ];
        for (bytes, seconds, goes_on) in table {
            let (mut pace, waited) = (Pace::default(), Duration::from_secs(seconds));
            let all = (0..3600 / seconds).all(|_| pace.keeps_up(bytes, waited));
            assert_eq!(all, goes_on, "{bytes} every {seconds} s");
        }
    }
}
