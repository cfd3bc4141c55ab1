//! Reading a blob that is still arriving. One [`Tail`] is one client's.
//!
//! The last byte is withheld until the digest matches, so that a wrong blob never arrives whole; only a part that the
//! client bounded itself may be given before.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::oci::Span;

use super::growing::{Growing, Look, NEAR, Progress, Want};
use super::reader::ReadError;
use super::through::Own;
use super::window::Window;

/// One reader of a growing blob.
pub struct Tail {
    pub(super) growing: Arc<Growing>,
    receiver: watch::Receiver<Progress>,
    id: u64,
    /// Whether the blob's last byte waits for verification.
    withhold: bool,
    own: Option<Own>,
}

/// Readable bytes.
pub(super) enum Found {
    /// In the file, up to there.
    File { until: u64, size: Option<u64> },
    /// In memory.
    Memory(Bytes),
}

impl Tail {
    pub(super) fn new(growing: Arc<Growing>, receiver: watch::Receiver<Progress>, id: u64) -> Self {
        let tail = Self {
            growing,
            receiver,
            id,
            withhold: true,
            own: None,
        };
        // From now on the window waits for it.
        if tail.receiver.borrow().window.is_some() {
            tail.stand_at(Some(0));
        }
        tail
    }

    fn stand_at(&self, position: Option<u64>) {
        self.growing
            .update(self.id, true, |reader| reader.position = position);
    }

    /// The size of the whole, when it is known.
    pub fn size(&self) -> Option<u64> {
        self.receiver.borrow().size
    }

    /// Whether all bytes are here and verified.
    pub fn is_verified(&self) -> bool {
        matches!(self.receiver.borrow().end, Some(Ok(())))
    }

    /// Says what will be read next; `bounded` when the client named its end. Whether it may be sent unverified.
    pub fn want(&mut self, span: Span, bounded: bool) -> bool {
        // What we fetched for ourselves was for the part before.
        self.own = None;
        let progress = self.receiver.borrow();
        let verified = matches!(progress.end, Some(Ok(())));
        let to_the_end = progress.size.is_none_or(|size| span.end >= size);
        let passes_through = progress.window.is_some();
        // From the verified front to the end is what a whole blob ends with, and waits like one.
        self.withhold = to_the_end && !(bounded && span.start > progress.front);
        let far = span.start > progress.extents.end_from(progress.front).saturating_add(NEAR);
        drop(progress);
        if passes_through {
            self.stand_at(Some(span.start));
            return !verified && (span.start > 0 || !self.withhold);
        }
        if far && !verified {
            let want = Want {
                position: span.start,
                end: span.end,
            };
            self.ask(Some(want));
        }
        !verified && !self.withhold
    }

    fn ask(&self, want: Option<Want>) {
        self.growing.update(self.id, true, |reader| reader.want = want);
    }

    /// Waits until the blob is whole and verified, reading nothing; `tell` hears how much is here. Whether it is kept: when it
    /// turns out not to be, who reads nothing would only hold it up, and is told at once.
    pub async fn whole(&mut self, mut tell: impl FnMut(u64)) -> Result<bool, ReadError> {
        loop {
            {
                let progress = self.receiver.borrow_and_update();
                match &progress.end {
                    Some(Ok(())) => return Ok(progress.window.is_none()),
                    Some(Err(reason)) => return Err(ReadError::Broken(reason.clone())),
                    None if progress.window.is_some() => return Ok(false),
                    None => tell(progress.extents.total()),
                }
            }
            self.receiver.changed().await.map_err(|_| given_up())?;
        }
    }

    /// Waits until the size is known; that may take until the end.
    pub async fn settle_size(&mut self) -> Result<u64, ReadError> {
        let settled = |progress: &Progress| progress.size.is_some() || matches!(progress.end, Some(Err(_)));
        let progress = self.receiver.wait_for(settled).await.map_err(|_| given_up())?;
        match (&progress.end, progress.size) {
            (Some(Err(reason)), _) => Err(ReadError::Broken(reason.clone())),
            (_, Some(size)) => Ok(size),
            _ => Err(given_up()),
        }
    }

    /// Waits until bytes at `position` may be read; `None` at the end of the blob.
    pub(super) async fn find(&mut self, position: u64, end: Option<u64>) -> Result<Option<Found>, ReadError> {
        if let Some(own) = &mut self.own {
            return Ok(own.read(position, end).await?.map(Found::Memory));
        }
        let (look, head) = self.look(position);
        if let Some(head) = head {
            if position > head.saturating_add(NEAR) {
                return self.go_alone(position, end).await;
            }
            // Before we look again: what we stand at is not dropped.
            self.stand_at(Some(position));
        }
        let look = match look {
            Look::Wait => self.wait(position, end).await?,
            look => look,
        };
        match look {
            Look::File { until, size } => Ok(Some(Found::File { until, size })),
            Look::Memory(bytes) => Ok(Some(Found::Memory(bytes))),
            Look::End => Ok(None),
            Look::Broken(reason) => Err(ReadError::Broken(reason)),
            Look::Late => self.go_alone(position, end).await,
            Look::Wait => Err(given_up()),
        }
    }

    /// What is at `position`, and the head of the window, if that is what we read from there.
    fn look(&self, position: u64) -> (Look, Option<u64>) {
        let progress = self.receiver.borrow();
        let window = progress.window.as_ref().map(Window::head);
        let window = window.filter(|_| progress.extents.end_from(position) == position);
        (progress.look(position, self.withhold), window)
    }

    async fn wait(&mut self, position: u64, end: Option<u64>) -> Result<Look, ReadError> {
        let asked = {
            let progress = self.receiver.borrow();
            let front = progress.extents.end_from(progress.front);
            position > front.saturating_add(NEAR) && progress.window.is_none()
        };
        if asked {
            let end = end.or(self.size()).unwrap_or(u64::MAX);
            self.ask(Some(Want { position, end }));
        }
        let mut found = Look::Wait;
        let withhold = self.withhold;
        let something = |progress: &Progress| {
            found = progress.look(position, withhold);
            !matches!(found, Look::Wait)
        };
        // The sender lives in `growing`, which we hold, so the channel cannot close.
        self.receiver
            .wait_for(something)
            .await
            .map_err(|_| given_up())
            .map(drop)?;
        if asked {
            self.ask(None);
        }
        Ok(found)
    }

    /// The window has passed us: from here on we fetch for ourselves.
    async fn go_alone(&mut self, position: u64, end: Option<u64>) -> Result<Option<Found>, ReadError> {
        let left_behind = self.growing.update(self.id, true, |reader| {
            reader.position = None;
            reader.left_behind.take()
        });
        let (origin, size) = {
            let progress = self.receiver.borrow();
            let origin = progress.window.as_ref().map(Window::origin).cloned();
            (origin, progress.size)
        };
        let Some(refetch) = self.growing.refetch.clone() else {
            return Err(ReadError::Broken("this part is no longer here".into()));
        };
        // A part can only be verified by who has hashed all before it.
        let foothold = left_behind
            .or(origin.filter(|origin| origin.position == position))
            .filter(|foothold| self.withhold && foothold.position <= position);
        let digest = self.growing.digest;
        let mut own = Own::open(&*refetch, digest, size, position, end, foothold);
        let first = own.read(position, end).await?;
        self.own = Some(own);
        Ok(first.map(Found::Memory))
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.growing.leave(self.id);
    }
}

fn given_up() -> ReadError {
    ReadError::Broken("the download was given up".into())
}
