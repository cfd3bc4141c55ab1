//! Reading a blob that is still arriving: how far it got, and bytes up to there.
//!
//! The last byte is withheld until the digest matches, so that a wrong blob never arrives whole. One [`Growing`] is
//! shared by the ingest that writes and every client that reads.

use std::fs::File;
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use crate::mapped::MappedFile;

use super::reader::ReadError;

/// How far an ingest has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// The size of the whole, once known.
    pub(super) size: Option<u64>,
    /// Bytes in the file.
    pub(super) written: u64,
    /// How it ended: verified, or why not.
    pub(super) end: Option<Result<(), Arc<str>>>,
}

impl Progress {
    /// Up to where readers may read.
    fn readable(&self) -> u64 {
        match (&self.end, self.size) {
            (Some(Ok(())), _) => self.written,
            (_, Some(size)) => self.written.min(size.saturating_sub(1)),
            // Which byte is the last is not known: any may be.
            (_, None) => self.written.saturating_sub(1),
        }
    }
}

/// A file that grows.
pub struct Growing {
    pub(super) file: Arc<File>,
    pub(super) progress: watch::Sender<Progress>,
    mapped: OnceLock<Option<Arc<MappedFile>>>,
}

impl Growing {
    pub(super) fn new(file: Arc<File>) -> Arc<Self> {
        Arc::new(Self {
            file,
            progress: watch::Sender::default(),
            mapped: OnceLock::new(),
        })
    }

    /// The file mapped at its final size, once for all readers; `None` where it cannot be.
    pub(super) fn mapped(&self, size: u64) -> Option<&Arc<MappedFile>> {
        self.mapped
            .get_or_init(|| MappedFile::new(self.file.clone(), size).ok())
            .as_ref()
    }

    /// Whether the ingest was given up.
    pub fn has_failed(&self) -> bool {
        matches!(self.progress.borrow().end, Some(Err(_)))
    }

    /// A new reader.
    pub fn tail(self: &Arc<Self>) -> Tail {
        Tail {
            receiver: self.progress.subscribe(),
            growing: self.clone(),
        }
    }
}

/// One reader of a growing file.
pub struct Tail {
    pub(super) growing: Arc<Growing>,
    receiver: watch::Receiver<Progress>,
}

impl Tail {
    /// The size of the whole, when it is known.
    pub fn size(&self) -> Option<u64> {
        self.receiver.borrow().size
    }

    /// Whether all bytes are here and verified.
    pub fn is_verified(&self) -> bool {
        matches!(self.receiver.borrow().end, Some(Ok(())))
    }

    /// Waits until the size is known; that may take until the end.
    pub async fn settle_size(&mut self) -> Result<u64, ReadError> {
        let progress = self.wait(|progress| progress.size.is_some()).await?;
        progress
            .size
            .ok_or_else(|| ReadError::Broken("ended without a size".into()))
    }

    /// Waits until bytes at `position` may be read: up to where, or `None` at the end.
    pub(super) async fn readable_from(
        &mut self,
        position: u64,
    ) -> Result<Option<(u64, Option<u64>)>, ReadError> {
        let progress = self
            .wait(|progress| progress.readable() > position || matches!(progress.end, Some(Ok(()))))
            .await?;
        let until = progress.readable();
        Ok((until > position).then_some((until, progress.size)))
    }

    async fn wait(&mut self, ready: impl Fn(&Progress) -> bool) -> Result<Progress, ReadError> {
        let reached = self
            .receiver
            .wait_for(|progress| matches!(progress.end, Some(Err(_))) || ready(progress))
            .await;
        // The sender lives in `growing`, which we hold, so the channel cannot close; an abandoned ingest says so.
        let progress = reached
            .map_err(|_| ReadError::Broken("the download was given up".into()))?
            .clone();
        match progress.end {
            Some(Err(reason)) => Err(ReadError::Broken(reason)),
            _ => Ok(progress),
        }
    }
}
