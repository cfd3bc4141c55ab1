//! The one writer: a thread that takes what has gathered and commits it in one transaction.
//!
//! redb has no group commit of its own; while one commit waits for the disk, the next batch gathers here.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use redb::{Database, WriteTransaction};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::oneshot;

use crate::oci::{Digest, Tag};
use crate::storage::error::Error;

use super::records::{BlobRow, LinkRow, ManifestRow, Record, ReferrersRow, TagRow, content_key, tag_key};
use super::tables::{BLOBS, LINKS, MANIFESTS, REFERRERS, TAGS, Table};

/// Submissions that one transaction takes at the most, which bounds its memory and the wait of the first.
const MOST: usize = 1024;

/// Submissions that may wait for a slow disk. Beyond them those that nobody waits for are dropped: links, tags and
/// manifests can be had again.
const QUEUE: usize = 8192;

/// One row put or removed.
pub struct Change {
    table: Table,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

impl Change {
    fn put(table: Table, key: Vec<u8>, row: &impl Record) -> Self {
        Self {
            table,
            key,
            value: Some(row.encode()),
        }
    }

    fn remove(table: Table, key: Vec<u8>) -> Self {
        Self {
            table,
            key,
            value: None,
        }
    }

    /// A blob's file is in place.
    pub fn put_blob(digest: &Digest, row: &BlobRow) -> Self {
        Self::put(BLOBS, digest.to_key(), row)
    }

    /// A blob's file is to go, or is not there.
    pub fn remove_blob(digest: &Digest) -> Self {
        Self::remove(BLOBS, digest.to_key())
    }

    /// A manifest's bytes.
    pub fn put_manifest(digest: &Digest, row: &ManifestRow) -> Self {
        Self::put(MANIFESTS, digest.to_key(), row)
    }

    /// A manifest is to go.
    pub fn remove_manifest(digest: &Digest) -> Self {
        Self::remove(MANIFESTS, digest.to_key())
    }

    /// A tag points at a manifest.
    pub fn put_tag(repository: &str, tag: &Tag, row: &TagRow) -> Self {
        Self::put(TAGS, tag_key(repository, tag.as_str()), row)
    }

    /// A tag is gone.
    pub fn remove_tag(repository: &str, tag: &Tag) -> Self {
        Self::remove(TAGS, tag_key(repository, tag.as_str()))
    }

    /// A repository may serve some content.
    pub fn put_link(repository: &str, digest: &Digest, row: &LinkRow) -> Self {
        Self::put(LINKS, content_key(repository, digest), row)
    }

    /// Referrers as heard.
    pub fn put_referrers(repository: &str, subject: &Digest, row: &ReferrersRow) -> Self {
        Self::put(REFERRERS, content_key(repository, subject), row)
    }
}

struct Submission {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), Error>>,
}

pub(super) struct Writer {
    running: Mutex<Option<(Sender<Submission>, JoinHandle<()>)>>,
}

impl Writer {
    pub(super) fn start(database: Arc<Database>) -> Result<Self, Error> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("index-writer".to_owned())
            .spawn(move || work(&database, receiver))
            .map_err(|error| Error::Index(format!("no thread for the writer: {error}")))?;
        Ok(Self {
            running: Mutex::new(Some((sender, thread))),
        })
    }

    fn sender(&self) -> Option<Sender<Submission>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().map(|(sender, _)| sender.clone())
    }

    /// Queues changes that nobody waits for. Never blocks.
    pub(super) fn submit(&self, changes: Vec<Change>) {
        let (done, _) = oneshot::channel();
        if let Some(sender) = self.sender()
            && let Err(TrySendError::Full(_)) = sender.try_send(Submission { changes, done })
        {
            tracing::warn!("the disk is too slow for the index: a change was dropped");
        }
    }

    /// Queues changes and waits until they, and all that was queued before, are durable.
    pub(super) async fn commit(&self, changes: Vec<Change>) -> Result<(), Error> {
        let stopped = || Error::Index("the writer has stopped".to_owned());
        let (done, receiver) = oneshot::channel();
        let sender = self.sender().ok_or_else(stopped)?;
        sender
            .send(Submission { changes, done })
            .await
            .map_err(|_| stopped())?;
        drop(sender);
        receiver.await.unwrap_or_else(|_| Err(stopped()))
    }

    pub(super) fn close(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((sender, thread)) = running {
            drop(sender);
            // A panic of the writer was already told to those who waited.
            let _ = thread.join();
        }
    }
}

fn work(database: &Database, mut receiver: Receiver<Submission>) {
    while let Some(first) = receiver.blocking_recv() {
        let waiting = std::iter::from_fn(|| receiver.try_recv().ok());
        let batch: Vec<_> = std::iter::once(first).chain(waiting.take(MOST - 1)).collect();
        let result = write(database, &batch);
        if let Err(error) = &result {
            tracing::error!(%error, changes = batch.len(), "the index could not be written: if the disk is full, make room and restart");
        }
        for submission in batch {
            let _ = submission.done.send(result.clone());
        }
    }
}

fn write(database: &Database, batch: &[Submission]) -> Result<(), Error> {
    // Somebody only waits for what was submitted before.
    if batch.iter().all(|submission| submission.changes.is_empty()) {
        return Ok(());
    }
    let transaction = database.begin_write().map_err(Error::index)?;
    for change in batch.iter().flat_map(|submission| &submission.changes) {
        apply(&transaction, change)?;
    }
    transaction.commit().map_err(Error::index)
}

fn apply(transaction: &WriteTransaction, change: &Change) -> Result<(), Error> {
    let mut table = transaction.open_table(change.table).map_err(Error::index)?;
    match &change.value {
        Some(value) => table
            .insert(change.key.as_slice(), value.as_slice())
            .map_err(Error::index)?,
        None => table.remove(change.key.as_slice()).map_err(Error::index)?,
    };
    Ok(())
}
