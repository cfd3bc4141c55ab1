//! A blob on its way: pieces as they were received, without a copy, and the knowledge of whether all came. The fill in
//! `cache` reads it.

use std::sync::Arc;

use bytes::Bytes;

use super::endpoints::Standing;
use super::error::{Error, ErrorKind, Failure};
use super::observer::RequestKind;
use super::reply::Reply;
use super::transport::Transport;

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
    transport: Arc<Transport>,
    standing: Arc<Standing>,
    /// What is still to come, if the upstream told.
    left: Option<u64>,
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
        transport: Arc<Transport>,
        standing: Arc<Standing>,
        is_mirrored: bool,
        reply: Reply,
        offset: u64,
        size: Option<u64>,
        left: Option<u64>,
    ) -> Self {
        Self {
            offset,
            size,
            host: reply.host().to_owned(),
            is_mirrored,
            reply,
            transport,
            standing,
            left,
        }
    }

    /// The next piece, never empty; `None` at a clean end, which comes only when all bytes came that were announced.
    ///
    /// # Errors
    /// `Unavailable` when the connection breaks, or nothing comes for the idle time-out: another [`super::Upstream::blob`]
    /// from where this one stopped may go on. `Protocol` when more comes than was announced.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let chunk = self.next_chunk().await;
        if chunk.is_err() {
            self.avoid();
        }
        chunk
    }

    /// The endpoint that sends this is asked last for a while: what lacks may come from another.
    pub fn avoid(&self) {
        self.standing.avoid();
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let chunk = self.reply.chunk().await.map_err(|error| {
                let (kind, message) = error.explain();
                self.transport.error(&self.host, kind, message)
            })?;
            match (chunk, &mut self.left) {
                (Some(chunk), _) if chunk.is_empty() => {}
                (Some(chunk), left) => {
                    let length = chunk.len() as u64;
                    if let Some(left) = left {
                        *left = left.checked_sub(length).ok_or_else(|| {
                            let message = "it sends more than it announced";
                            self.transport.error(&self.host, ErrorKind::Protocol, message)
                        })?;
                    }
                    let observer = self.transport.observer();
                    observer.bytes_in(self.transport.prefix(), RequestKind::Blob, length);
                    return Ok(Some(chunk));
                }
                (None, Some(left @ 1..)) => {
                    let message = format!("the body ended {left} bytes early");
                    let kind = ErrorKind::Unavailable(Failure::Cut);
                    return Err(self.transport.error(&self.host, kind, message));
                }
                (None, _) => return Ok(None),
            }
        }
    }
}
