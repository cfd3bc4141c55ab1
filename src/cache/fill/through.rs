//! A part of a blob fetched for one reader alone, whom the shared window has left behind. Cuts are continued.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::cache::Place;
use crate::oci::Digest;
use crate::storage::{NextPiece, Pieces, Refetch};
use crate::upstream::BlobBody;

/// Cuts in a row without a byte between them after which it is given up.
const MOST_CUTS: u32 = 4;

/// The wait before the first continuation; doubled for each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Asks for a blob once more, where it is pulled from.
pub(super) struct Again {
    pub(super) place: Place,
    pub(super) digest: Digest,
}

impl Refetch for Again {
    fn fetch(&self, start: u64, end: Option<u64>) -> Box<dyn Pieces> {
        Box::new(Through {
            place: self.place.clone(),
            digest: self.digest,
            position: start,
            end,
            body: None,
            cuts: 0,
        })
    }
}

struct Through {
    place: Place,
    digest: Digest,
    position: u64,
    end: Option<u64>,
    body: Option<BlobBody>,
    cuts: u32,
}

impl Through {
    async fn advance(&mut self) -> Result<Option<Bytes>, Arc<str>> {
        loop {
            if self.end.is_some_and(|end| self.position >= end) {
                return Ok(None);
            }
            match self.attempt().await {
                Ok(piece) => {
                    self.cuts = 0;
                    self.position += piece.as_ref().map_or(0, |piece| piece.len() as u64);
                    return Ok(piece);
                }
                Err(reason) => {
                    self.body = None;
                    self.cuts += 1;
                    if self.cuts > MOST_CUTS || self.place.upstream.offline().is_on() {
                        return Err(reason.into());
                    }
                    let pause = FIRST_PAUSE * 2u32.saturating_pow(self.cuts - 1);
                    tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
                }
            }
        }
    }

    /// The next piece of the running body, or of a new one.
    async fn attempt(&mut self) -> Result<Option<Bytes>, String> {
        let body = match &mut self.body {
            Some(body) => body,
            none => {
                let (upstream, name) = (&self.place.upstream, &self.place.name);
                let part = (self.position, self.end);
                let body = upstream
                    .blob(name, &self.digest, part, &self.place.errand())
                    .await;
                none.insert(body.map_err(|error| error.to_string())?)
            }
        };
        loop {
            let Some(mut piece) = body.chunk().await.map_err(|error| error.to_string())? else {
                return Ok(None);
            };
            // An upstream that ignores ranges starts over: what we have is passed over, and so is what nobody wants.
            let over = self.position.saturating_sub(body.offset).min(piece.len() as u64);
            body.offset += piece.len() as u64;
            let mut piece = piece.split_off(over as usize);
            let most = self.end.map_or(u64::MAX, |end| end - self.position);
            piece.truncate(usize::try_from(most).unwrap_or(usize::MAX));
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
    }
}

impl Pieces for Through {
    fn next(&mut self) -> NextPiece<'_> {
        Box::pin(self.advance())
    }
}
