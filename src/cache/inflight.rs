//! Running fills by digest: a request leads a new one or joins the one that runs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::oci::Digest;
use crate::repository::Key;
use crate::storage::{BlobReader, Growing, StoredBlob};
use crate::upstream::SharedPurpose;

use super::error::Error;

/// What a fill has to read from, once its upstream has answered.
#[derive(Clone)]
pub(super) enum Opened {
    /// Bytes are arriving.
    Growing(Arc<Growing>),
    /// It turned out to be here already.
    Stored(Arc<StoredBlob>),
}

impl Opened {
    pub(super) fn reader(&self) -> BlobReader {
        match self {
            Self::Growing(growing) => BlobReader::Growing(growing.tail()),
            Self::Stored(blob) => BlobReader::Stored(blob.clone()),
        }
    }

    /// Whether the blob was here before the fill began.
    pub(super) fn is_stored(&self) -> bool {
        matches!(self, Self::Stored(_))
    }

    /// Whether nothing more will come of it.
    pub(super) fn has_failed(&self) -> bool {
        matches!(self, Self::Growing(growing) if growing.has_failed())
    }
}

/// A running fill, as those who join see it.
#[derive(Clone)]
pub(super) struct Fill {
    id: u64,
    /// The repository it is fetched for.
    pub(super) leader: Key,
    /// Raised by who joins.
    purpose: SharedPurpose,
    opened: watch::Receiver<Option<Result<Opened, Error>>>,
}

impl Fill {
    /// Waits until it has left the map.
    pub(super) async fn gone(mut self) {
        // The sender is dropped with its lead, after that has left.
        while self.opened.changed().await.is_ok() {}
    }

    /// Waits for the upstream's answer.
    pub(super) async fn opened(mut self) -> Result<Opened, Error> {
        let opened = self.opened.wait_for(Option::is_some).await;
        opened
            .ok()
            .and_then(|opened| opened.clone())
            .unwrap_or_else(|| Err(Error::internal("a fill was given up")))
    }
}

/// The fill's own end: tells when the upstream has answered, and leaves the map when it is dropped.
pub(super) struct Lead {
    running: Running,
    id: u64,
    digest: Digest,
    opened: watch::Sender<Option<Result<Opened, Error>>>,
}

impl Lead {
    /// Leaves the map before the end: who comes next starts a fill of its own.
    pub(super) fn leave(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.get(&self.digest).is_some_and(|fill| fill.id == self.id) {
            running.remove(&self.digest);
        }
    }

    /// Tells everybody what they can read from, or why there is nothing.
    pub(super) fn open(&self, opened: Result<Opened, Error>) {
        self.opened.send_replace(Some(opened));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.leave();
    }
}

type Running = Arc<Mutex<HashMap<Digest, Fill>>>;

/// All running fills.
#[derive(Default)]
pub(super) struct Inflight {
    running: Running,
    next: AtomicU64,
}

impl Inflight {
    /// The running fill of `digest`.
    pub(super) fn get(&self, digest: &Digest) -> Option<Fill> {
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(digest)
            .cloned()
    }

    /// All that run, in no order: the blob, the repository it is fetched for, and what there is to read from once the
    /// upstream has answered.
    pub(super) fn all(&self) -> Vec<(Digest, Key, Option<Opened>)> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let told = |fill: &Fill| {
            fill.opened
                .borrow()
                .as_ref()
                .and_then(|opened| opened.as_ref().ok().cloned())
        };
        running
            .iter()
            .map(|(digest, fill)| (*digest, fill.leader.clone(), told(fill)))
            .collect()
    }

    /// Joins the running fill of `digest`, or starts one by `start`, which spawns a task of its own.
    pub(super) fn lead_or_join(
        &self,
        digest: Digest,
        leader: &Key,
        purpose: SharedPurpose,
        start: impl FnOnce(Lead),
    ) -> (Fill, bool) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fill) = running.get(&digest) {
            fill.purpose.raise(purpose.get());
            return (fill.clone(), true);
        }
        let (sender, opened) = watch::channel(None);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let fill = Fill {
            id,
            leader: leader.clone(),
            purpose,
            opened,
        };
        running.insert(digest, fill.clone());
        start(Lead {
            running: self.running.clone(),
            id,
            digest,
            opened: sender,
        });
        (fill, false)
    }
}
