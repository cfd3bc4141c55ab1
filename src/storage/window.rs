//! The memory window of a blob that has no room on the disk: the last few MiB that arrived, for readers near its head.
//!
//! It remembers the hash before each piece, so that a reader who falls behind can verify what it fetches by itself.

use std::collections::VecDeque;

use bytes::Bytes;

use super::hasher::Hasher;

/// Bytes that a window holds at the most.
pub(super) const WINDOW: u64 = 4 * 1024 * 1024;

/// A place in a blob, with the hash of everything before it.
#[derive(Clone)]
pub(super) struct Foothold {
    pub(super) position: u64,
    pub(super) hasher: Hasher,
}

struct Piece {
    before: Foothold,
    bytes: Bytes,
}

/// Bytes `base..head` of a blob.
pub(super) struct Window {
    head: u64,
    pieces: VecDeque<Piece>,
    origin: Foothold,
}

impl Window {
    /// An empty window at `origin`.
    pub(super) fn new(origin: Foothold) -> Self {
        Self {
            head: origin.position,
            pieces: VecDeque::new(),
            origin,
        }
    }

    /// The first byte it holds.
    pub(super) fn base(&self) -> u64 {
        self.pieces
            .front()
            .map_or(self.head, |piece| piece.before.position)
    }

    /// One past the last byte it holds.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Where it began.
    pub(super) fn origin(&self) -> &Foothold {
        &self.origin
    }

    /// Adds bytes at the head; `hasher` has hashed all before them.
    pub(super) fn push(&mut self, bytes: Bytes, hasher: Hasher) {
        let position = self.head;
        self.head += bytes.len() as u64;
        let before = Foothold { position, hasher };
        self.pieces.push_back(Piece { before, bytes });
    }

    /// Bytes from `position` on, up to the end of their piece; `None` when the window does not hold them.
    pub(super) fn read(&self, position: u64) -> Option<Bytes> {
        let after = self
            .pieces
            .partition_point(|piece| piece.before.position <= position);
        let piece = self.pieces.get(after.checked_sub(1)?)?;
        let offset = usize::try_from(position - piece.before.position).ok()?;
        (offset < piece.bytes.len()).then(|| piece.bytes.slice(offset..))
    }

    /// Lets go of the oldest piece: where it began, and where it ended.
    pub(super) fn drop_oldest(&mut self) -> Option<(Foothold, u64)> {
        let piece = self.pieces.pop_front()?;
        let end = piece.before.position + piece.bytes.len() as u64;
        Some((piece.before, end))
    }

    /// Where the oldest piece ends.
    pub(super) fn oldest_end(&self) -> Option<u64> {
        let piece = self.pieces.front()?;
        Some(piece.before.position + piece.bytes.len() as u64)
    }
}
