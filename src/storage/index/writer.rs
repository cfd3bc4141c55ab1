//! The one writer: a thread that takes what has gathered and commits it in one transaction.
//!
//! redb has no group commit of its own; while one commit waits for the disk, the next batch gathers here. When the disk
//! is full the ballast goes, the database is opened again, and the batch is tried once more; what nobody waits for is
//! kept until there is room.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::error::{TryRecvError, TrySendError};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::oneshot;

use crate::clock::Timestamp;
use crate::storage::error::Error;
use crate::storage::journal::{Entry, Journal};

use super::apply::Applier;
use super::ballast::Ballast;
use super::change::{Change, Removed};
use super::restore;
use super::seat::Seat;
use super::upgrade::{CLOSED, JOURNALED};

/// Submissions that one transaction takes at the most, which bounds its memory and the wait of the first.
const MOST: usize = 1024;

/// Submissions that may wait for a slow or full disk. Beyond them those that nobody waits for are dropped: links, tags
/// and manifests can be had again.
const QUEUE: usize = 8192;

/// How soon what could not be written is tried again.
const RETRY: Duration = Duration::from_millis(500);

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
    pub(super) fn start(seat: Arc<Seat>, ballast: Ballast, journal: Journal) -> Result<Self, Error> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let observers = Observers::default();
        let work = Work {
            seat,
            ballast,
            journal,
            compaction: None,
            observers: observers.clone(),
            kept: Vec::new(),
        };
        let thread = std::thread::Builder::new()
            .name("index-writer".to_owned())
            .spawn(move || work.run(receiver))
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

/// The writer's thread.
struct Work {
    seat: Arc<Seat>,
    ballast: Ballast,
    journal: Journal,
    compaction: Option<JoinHandle<()>>,
    observers: Observers,
    /// What could not be written yet, and nobody waits for.
    kept: Vec<Submission>,
}

impl Work {
    fn run(mut self, mut receiver: Receiver<Submission>) {
        while let Some(batch) = self.gather(&mut receiver) {
            self.commit(batch);
            self.ballast.restore();
            self.compact();
        }
        self.close();
    }

    /// The next batch: what was kept, and what has come. None when nothing more will.
    fn gather(&mut self, receiver: &mut Receiver<Submission>) -> Option<Vec<Submission>> {
        if self.kept.is_empty() {
            let mut batch = vec![receiver.blocking_recv()?];
            let waiting = std::iter::from_fn(|| receiver.try_recv().ok());
            batch.extend(waiting.take(MOST - 1));
            return Some(batch);
        }
        std::thread::sleep(RETRY);
        let mut batch = std::mem::take(&mut self.kept);
        loop {
            match receiver.try_recv() {
                Ok(submission) => batch.push(submission),
                Err(TryRecvError::Empty) => return Some(batch),
                Err(TryRecvError::Disconnected) => {
                    // Nothing more comes: a last try.
                    self.commit(batch);
                    return None;
                }
            }
        }
    }

    fn commit(&mut self, batch: Vec<Submission>) {
        let mut written = write(&self.seat, &batch);
        if let Err(error) = &written {
            // The rows whose removal makes room are among what it lets through.
            let released = self.ballast.release();
            tracing::warn!(%error, released, "the index could not be written: it is opened again");
            written = self.seat.renew().and_then(|()| write(&self.seat, &batch));
        }
        match written {
            Ok((outcomes, entries)) => {
                self.journal.append(&entries);
                tell(&self.observers, &outcomes);
                for (submission, outcome) in batch.into_iter().zip(outcomes) {
                    let _ = submission.done.send(outcome);
                }
            }
            Err(error) => {
                tracing::error!(%error, changes = batch.len(), "the index could not be written: what nobody waits for is tried again until there is room");
                let again = !self.seat.is_well();
                for submission in batch {
                    if !submission.done.is_closed() {
                        let _ = submission.done.send(Err(error.clone()));
                    } else if again && self.kept.len() < QUEUE {
                        self.kept.push(submission);
                    }
                }
            }
        }
    }

    fn compact(&mut self) {
        let Some(compaction) = self.journal.compact() else {
            return;
        };
        let seat = self.seat.clone();
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || compaction.run(|rows| restore::dump(&seat, rows)));
        match thread {
            Ok(thread) => self.compaction = Some(thread),
            Err(error) => tracing::warn!(%error, "no thread for compacting the journal"),
        }
    }

    fn close(mut self) {
        let journaled = self.journal.close();
        if let Some(thread) = self.compaction.take() {
            // It was told to stop, and tells of its failures itself.
            let _ = thread.join();
        }
        let closed = Timestamp::now().0.to_be_bytes().to_vec();
        let mut changes = vec![Change::put_meta(CLOSED, closed)];
        if journaled {
            changes.push(Change::put_meta(JOURNALED, Vec::new()));
        }
        let (done, _) = oneshot::channel();
        if let Err(error) = write(&self.seat, &[Submission { changes, done }]) {
            tracing::error!(%error, "the index could not be closed in order");
        }
    }
}

/// What one submission took away, or why nothing of it was applied.
type Outcome = Result<Removed, Error>;

fn tell(observers: &Observers, outcomes: &[Outcome]) {
    let observers = observers.lock().unwrap_or_else(PoisonError::into_inner);
    for removed in outcomes.iter().flatten().filter(|removed| !removed.is_empty()) {
        observers.iter().for_each(|observer| observer(removed));
    }
}

/// Writes a batch in one transaction: what came of each submission, and what the journal is to keep. One that is not
/// admitted is no failure of the others.
fn write(seat: &Seat, batch: &[Submission]) -> Result<(Vec<Outcome>, Vec<Entry>), Error> {
    // Somebody only waits for what was submitted before.
    if batch.iter().all(|submission| submission.changes.is_empty()) {
        let nothing = batch.iter().map(|_| Ok(Removed::default()));
        return Ok((nothing.collect(), Vec::new()));
    }
    seat.write(|transaction| {
        let mut applier = Applier::new(transaction)?;
        let mut outcomes = Vec::with_capacity(batch.len());
        for submission in batch {
            if let Err(refusal) = applier.admit(&submission.changes)? {
                outcomes.push(Err(refusal));
                continue;
            }
            for Change(action) in &submission.changes {
                applier.apply(action)?;
            }
            outcomes.push(Ok(applier.take_removed()));
        }
        Ok((outcomes, applier.finish()?))
    })
}
