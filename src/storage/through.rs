//! A fetch of one's own, for a reader whom the memory window has left behind: bytes pass through to it alone.
//!
//! Storage knows no network, so `cache` implements [`Refetch`]. With the hash of what came before, the last byte is
//! withheld until the digest matches, like for everybody else.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::oci::Digest;

use super::hasher::Hasher;
use super::reader::{PIECE, ReadError};
use super::window::Foothold;

/// What [`Pieces::next`] gives.
pub type NextPiece<'a> = Pin<Box<dyn Future<Output = Result<Option<Bytes>, Arc<str>>> + Send + 'a>>;

/// Fetches parts of one blob once more.
pub trait Refetch: Send + Sync {
    /// The bytes from `start` on, before `end` if there is one. Asks when the first piece is.
    fn fetch(&self, start: u64, end: Option<u64>) -> Box<dyn Pieces>;
}

/// Bytes as they come.
pub trait Pieces: Send {
    /// The next ones; `None` after the last.
    fn next(&mut self) -> NextPiece<'_>;
}

/// One reader's own fetch.
pub(super) struct Own {
    pieces: Box<dyn Pieces>,
    digest: Digest,
    /// Hashes what arrives, where everything before is hashed.
    hasher: Option<Hasher>,
    /// Where the next piece to arrive begins.
    arrived: u64,
    size: Option<u64>,
    /// Arrived, and not read yet.
    pending: Bytes,
    ended: bool,
}

impl Own {
    /// From `position` on; with the hash of what is before `foothold`, from there.
    pub(super) fn open(
        refetch: &dyn Refetch,
        digest: Digest,
        size: Option<u64>,
        position: u64,
        end: Option<u64>,
        foothold: Option<Foothold>,
    ) -> Self {
        let (arrived, hasher) = match foothold {
            Some(foothold) => (foothold.position, Some(foothold.hasher)),
            None => (position, None),
        };
        // To verify takes everything to the end.
        let end = end.filter(|_| hasher.is_none());
        Self {
            pieces: refetch.fetch(arrived, end),
            digest,
            hasher,
            arrived,
            size,
            pending: Bytes::new(),
            ended: false,
        }
    }

    /// Bytes at `position`, which follows what was read before; `None` at the end.
    pub(super) async fn read(&mut self, position: u64, end: Option<u64>) -> Result<Option<Bytes>, ReadError> {
        loop {
            let start = self.arrived - self.pending.len() as u64;
            if position < start {
                return Err(ReadError::Broken(
                    "bytes that were passed over cannot be read".into(),
                ));
            }
            let passed = (position - start).min(self.pending.len() as u64);
            let _ = self.pending.split_to(passed as usize);
            let last_held = u64::from(self.hasher.is_some());
            let most = (self.pending.len() as u64)
                .saturating_sub(last_held)
                .min(PIECE)
                .min(end.unwrap_or(u64::MAX).saturating_sub(position));
            if most > 0 && self.arrived - self.pending.len() as u64 == position {
                return Ok(Some(self.pending.split_to(most as usize)));
            }
            if self.ended {
                return Ok(None);
            }
            match self.pieces.next().await.map_err(ReadError::Broken)? {
                Some(piece) => self.take(piece),
                None => self.finish()?,
            }
        }
    }

    fn take(&mut self, piece: Bytes) {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&piece);
        }
        self.arrived += piece.len() as u64;
        self.pending = if self.pending.is_empty() {
            piece
        } else {
            // At most the one byte that was held back.
            [&self.pending[..], &piece[..]].concat().into()
        };
    }

    fn finish(&mut self) -> Result<(), ReadError> {
        self.ended = true;
        let Some(hasher) = self.hasher.take() else {
            return Ok(());
        };
        let whole = self.size.is_none_or(|size| size == self.arrived);
        if !whole || hasher.finish() != self.digest {
            return Err(ReadError::Broken("the upstream sent wrong content".into()));
        }
        Ok(())
    }
}
