//! Taking in what a body brings several pieces at a time. Called by the front and by the streams beside it.
//!
//! A line slower than we are wakes us for every packet or TLS record, and each piece that is written and told to the
//! readers by itself costs as much as a large one. So what is there is taken together, and in the middle of a blob a
//! moment is left for more to come: the kernel receives meanwhile.

use std::mem;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::time::Instant;

use crate::upstream::{BlobBody, Error};

use super::parallel::Traffic;

/// Bytes that are worth a write. Where as much comes at once, the line is fast and nothing waits.
const ENOUGH: u64 = 256 * 1024;

/// Pieces taken together, however small they are.
const MOST_PIECES: usize = 64;

/// The moment: at 1 Gbit/s some 600 KiB for all downloads together, for which receive buffers grow by themselves.
const MOMENT: Duration = Duration::from_millis(5);

/// Who waited less for the first piece is kept back by itself and not by the line, and would lose by a pause.
const WAITED: Duration = Duration::from_micros(200);

/// So far from both ends of a blob nothing waits: a small one, and the last bytes of a large one, are there sooner.
const MARGIN: u64 = 1024 * 1024;

/// Consecutive bytes of a body.
pub(super) struct Gathered {
    pub(super) pieces: Vec<Bytes>,
    /// How the body ended behind them, if it did.
    pub(super) ending: Option<Result<(), Error>>,
}

impl From<Bytes> for Gathered {
    fn from(piece: Bytes) -> Self {
        Self {
            pieces: vec![piece],
            ending: None,
        }
    }
}

impl Gathered {
    /// The bytes in all.
    pub(super) fn length(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }

    /// Takes off the first `skip` bytes, and leaves `most` of what is behind.
    pub(super) fn cut(&mut self, mut skip: u64, mut most: u64) {
        for piece in &mut self.pieces {
            let over = skip.min(piece.len() as u64);
            *piece = piece.split_off(over as usize);
            skip -= over;
            piece.truncate(usize::try_from(most).unwrap_or(usize::MAX));
            most -= piece.len() as u64;
        }
        self.pieces.retain(|piece| !piece.is_empty());
    }
}

/// Whether more may be waited for at `position`, where the first piece was asked for at `asked` and has just come.
pub(super) fn has_time(asked: Instant, position: u64, size: Option<u64>) -> bool {
    let left = size.map_or(0, |size| size.saturating_sub(position));
    position >= MARGIN && left >= MARGIN && asked.elapsed() >= WAITED
}

impl Traffic {
    /// What comes with `first`: what is there already, and with `patience` what comes within a moment.
    pub(super) async fn gather(&self, first: Bytes, body: &mut BlobBody, mut patience: bool) -> Gathered {
        let mut gathered = Gathered::from(first);
        loop {
            self.drain(&mut gathered, body).await;
            let enough = gathered.ending.is_some() || gathered.length() >= ENOUGH;
            if enough || !mem::take(&mut patience) {
                return gathered;
            }
            // The network is what we wait for.
            self.next(tokio::time::sleep(MOMENT)).await;
        }
    }

    /// Adds what is there.
    async fn drain(&self, gathered: &mut Gathered, body: &mut BlobBody) {
        let mut asked = false;
        while gathered.length() < ENOUGH && gathered.pieces.len() < MOST_PIECES {
            match body.chunk().now_or_never() {
                Some(Ok(Some(piece))) => {
                    gathered.pieces.push(piece);
                    asked = false;
                }
                Some(Ok(None)) => {
                    gathered.ending = Some(Ok(()));
                    return;
                }
                Some(Err(error)) => {
                    gathered.ending = Some(Err(error));
                    return;
                }
                // The connection's own task has to look first.
                None if !mem::replace(&mut asked, true) => tokio::task::yield_now().await,
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_wherever_pieces_begin() {
        let whole = b"0123456789";
        for (skip, most) in (0..12).flat_map(|skip| (0..12).map(move |most| (skip, most))) {
            let pieces = [0..3, 3..4, 4..8, 8..10].map(|part| Bytes::from_static(&whole[part]));
            let mut gathered = Gathered {
                pieces: pieces.into(),
                ending: None,
            };
            gathered.cut(skip as u64, most as u64);
            let expected: Vec<u8> = whole.iter().copied().skip(skip).take(most).collect();
            assert_eq!(gathered.pieces.concat(), expected);
            assert_eq!(gathered.length(), expected.len() as u64);
            assert!(gathered.pieces.iter().all(|piece| !piece.is_empty()));
        }
    }
}
