//! A blob on its way: pieces as they were received, without a copy, and the knowledge of whether all came. The fill in
//! `cache` reads it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::bandwidth::Pace;
use super::endpoint::Endpoint;
use super::errand::Errand;
use super::error::{Error, ErrorKind, Failure};
use super::floor::Floor;
use super::manners::Source;
use super::observer::RequestKind;
use super::reply::{ReadError, Reply};

/// The body of a blob, from `offset` on. Dropping it ends the download.
pub struct BlobBody {
    /// Where it starts: what was asked for, or 0 when the upstream ignored the range.
    pub offset: u64,
    /// The size of the whole blob, if the upstream told.
    pub size: Option<u64>,
    /// The host that sends the bytes, for the log: the registry's, or its CDN's.
    pub host: String,
    /// Whether it comes from a mirror.
    pub is_mirrored: bool,
    reply: Reply,
    endpoint: Arc<Endpoint>,
    /// Where there is a bandwidth cap.
    pace: Option<Pace>,
    /// What is still to come, if the upstream told.
    left: Option<u64>,
    floor: Option<Floor>,
    /// Since when nothing has come.
    silent: Option<Instant>,
    /// It came too slowly, as last judged.
    crawls: bool,
    /// Somebody else can be asked.
    others: bool,
}

impl std::fmt::Debug for BlobBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobBody")
            .field("offset", &self.offset)
            .field("size", &self.size)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl BlobBody {
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        reply: Reply,
        offset: u64,
        size: Option<u64>,
        left: Option<u64>,
    ) -> Self {
        Self {
            offset,
            size,
            host: reply.host().to_owned(),
            is_mirrored: endpoint.is_mirror,
            reply,
            endpoint,
            pace: None,
            left,
            floor: None,
            silent: None,
            crawls: false,
            others: false,
        }
    }

    /// Under the upstream's bandwidth cap, as urgent as what it is for.
    pub(super) fn at_the_pace_of(mut self, errand: &Errand) -> Self {
        let bandwidth = self.endpoint.transport.manners().bandwidth.clone();
        self.pace = bandwidth.map(|bandwidth| Pace::new(bandwidth, errand.purpose.clone()));
        self
    }

    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Where it comes from.
    pub fn source(&self) -> Source {
        Source::new(self.endpoint.clone(), self.host.clone())
    }

    /// It ends as cut when it comes more slowly than `least` bytes per second and another connection may do better.
    pub(super) fn keep_above(&mut self, least: u64, others: bool) {
        self.others = others;
        self.floor = Floor::new(least, self.endpoint.floor_span);
    }

    /// The next piece, never empty; `None` at a clean end, which comes only when all bytes came that were announced. Waits
    /// first until the bandwidth cap allows one. May be dropped and called again.
    ///
    /// # Errors
    /// `Unavailable` when the connection breaks, or nothing comes for the idle time-out: another [`super::Upstream::blob`]
    /// from where this one stopped may go on. `Protocol` when more comes than was announced.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(pace) = &mut self.pace {
            tokio::select! {
                () = pace.permit() => {}
                // The next look tells.
                () = self.endpoint.transport.offline().until(true) => {}
            }
        }
        let chunk = self.next_chunk().await;
        if chunk
            .as_ref()
            .is_err_and(|error| *error.kind() != ErrorKind::Offline)
        {
            self.avoid();
        }
        chunk
    }

    /// The endpoint that sends this is asked last for a while: what lacks may come from another.
    pub fn avoid(&self) {
        self.endpoint.breaker.avoid();
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let chunk = self.wait().await?;
            match (chunk, &mut self.left) {
                (Some(chunk), _) if chunk.is_empty() => {}
                (Some(chunk), left) => {
                    let length = chunk.len() as u64;
                    if let Some(left) = left {
                        *left = left.checked_sub(length).ok_or_else(|| {
                            let message = "it sends more than it announced";
                            self.endpoint
                                .transport
                                .error(&self.host, ErrorKind::Protocol, message)
                        })?;
                    }
                    if let Some(pace) = &mut self.pace {
                        pace.took(length);
                    }
                    let observer = self.endpoint.transport.observer();
                    observer.bytes_in(self.endpoint.transport.prefix(), RequestKind::Blob, length);
                    return Ok(Some(chunk));
                }
                (None, Some(left @ 1..)) => {
                    let message = format!("the body ended {left} bytes early");
                    let kind = ErrorKind::Unavailable(Failure::Cut);
                    return Err(self.endpoint.transport.error(&self.host, kind, message));
                }
                (None, _) => return Ok(None),
            }
        }
    }

    /// What comes next on the wire. May be dropped and called again.
    async fn wait(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if std::mem::take(&mut self.crawls) && self.moves_on() {
                let kind = ErrorKind::Unavailable(Failure::Slow);
                let message = "it comes too slowly, going on elsewhere";
                return Err(self.endpoint.transport.error(&self.host, kind, message));
            }
            let now = Instant::now();
            let idle = *self.silent.get_or_insert(now) + self.reply.idle_timeout();
            let due = self.floor.as_mut().map(|floor| floor.wait(now));
            let read = self.reply.chunk_until(due.unwrap_or(idle).min(idle)).await;
            let came = match &read {
                Some(Ok(Some(chunk))) => chunk.len() as u64,
                Some(Ok(None) | Err(_)) | None => 0,
            };
            if let Some(floor) = &mut self.floor {
                self.crawls = floor.judge(Instant::now(), came);
            }
            // What came is not thrown away.
            if let Some(read) = read {
                self.silent = None;
                return read.map_err(|error| self.explain(error));
            }
            if Instant::now() >= idle {
                return Err(self.explain(self.reply.silence()));
            }
        }
    }

    /// Whether another connection may do better. Where there is nobody else, the same endpoint may, once in a while: its
    /// name often leads to another machine. Not where each begins with the first byte: that would never end.
    fn moves_on(&mut self) -> bool {
        let alone = || self.endpoint.may_reconnect() && !self.endpoint.ignores_ranges();
        let moves = self.others || alone();
        if moves && !self.others {
            self.endpoint.reconnects();
        }
        if moves {
            let observer = self.endpoint.transport.observer();
            observer.moved_on(self.endpoint.prefix());
        }
        moves
    }

    fn explain(&self, error: ReadError) -> Error {
        let (kind, message) = error.explain();
        self.endpoint.transport.error(&self.host, kind, message)
    }
}
