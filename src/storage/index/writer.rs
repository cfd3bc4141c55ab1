//! The one writer: a thread that takes what has gathered and commits it in one transaction.
//!
//! redb has no group commit of its own; while one commit waits for the disk, the next batch gathers here.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use redb::Database;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::oneshot;

use crate::clock::Timestamp;
use crate::storage::error::Error;

use super::apply::Applier;
use super::change::{Change, Removed};
use super::upgrade::CLOSED;

/// Submissions that one transaction takes at the most, which bounds its memory and the wait of the first.
const MOST: usize = 1024;

/// Submissions that may wait for a slow disk. Beyond them those that nobody waits for are dropped: links, tags and
/// manifests can be had again.
const QUEUE: usize = 8192;

struct Submission {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<Removed, Error>>,
}

/// Told of what each commit took away.
type Observer = Box<dyn Fn(&Removed) + Send + Sync>;
type Observers = Arc<Mutex<Vec<Observer>>>;

pub(super) struct Writer {
    running: Mutex<Option<(Sender<Submission>, JoinHandle<()>)>>,
    observers: Observers,
}

impl Writer {
    pub(super) fn start(database: Arc<Database>) -> Result<Self, Error> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let observers = Observers::default();
        let its = observers.clone();
        let thread = std::thread::Builder::new()
            .name("index-writer".to_owned())
            .spawn(move || work(&database, receiver, &its))
            .map_err(|error| Error::Index(format!("no thread for the writer: {error}")))?;
        Ok(Self {
            running: Mutex::new(Some((sender, thread))),
            observers,
        })
    }

    pub(super) fn on_removed(&self, observer: Observer) {
        let mut observers = self.observers.lock().unwrap_or_else(PoisonError::into_inner);
        observers.push(observer);
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
    pub(super) async fn commit(&self, changes: Vec<Change>) -> Result<Removed, Error> {
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

fn work(database: &Database, mut receiver: Receiver<Submission>, observers: &Observers) {
    while let Some(first) = receiver.blocking_recv() {
        let waiting = std::iter::from_fn(|| receiver.try_recv().ok());
        let batch: Vec<_> = std::iter::once(first).chain(waiting.take(MOST - 1)).collect();
        match write(database, &batch) {
            Ok(removed) => {
                tell(observers, &removed);
                for (submission, removed) in batch.into_iter().zip(removed) {
                    let _ = submission.done.send(Ok(removed));
                }
            }
            Err(error) => {
                tracing::error!(%error, changes = batch.len(), "the index could not be written: if the disk is full, make room and restart");
                for submission in batch {
                    let _ = submission.done.send(Err(error.clone()));
                }
            }
        }
    }
    let closed = Timestamp::now().0.to_be_bytes().to_vec();
    let (done, _) = oneshot::channel();
    let last = Submission {
        changes: vec![Change::put_meta(CLOSED, closed)],
        done,
    };
    if let Err(error) = write(database, &[last]) {
        tracing::error!(%error, "the index could not be closed in order");
    }
}

fn tell(observers: &Observers, removed: &[Removed]) {
    let observers = observers.lock().unwrap_or_else(PoisonError::into_inner);
    for removed in removed.iter().filter(|removed| !removed.is_empty()) {
        observers.iter().for_each(|observer| observer(removed));
    }
}

/// Writes a batch in one transaction: what each submission took away.
fn write(database: &Database, batch: &[Submission]) -> Result<Vec<Removed>, Error> {
    // Somebody only waits for what was submitted before.
    if batch.iter().all(|submission| submission.changes.is_empty()) {
        return Ok(vec![Removed::default(); batch.len()]);
    }
    let transaction = database.begin_write().map_err(Error::index)?;
    let mut applier = Applier::new(&transaction)?;
    let mut removed = Vec::with_capacity(batch.len());
    for submission in batch {
        for Change(action) in &submission.changes {
            applier.apply(action)?;
        }
        removed.push(applier.take_removed());
    }
    applier.finish()?;
    transaction.commit().map_err(Error::index)?;
    Ok(removed)
}
