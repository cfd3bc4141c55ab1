//! Blobs that somebody has open, and who of all that have one open reads it. Used by `blobs`; a blob that is being read
//! is no victim, and its blocks stay taken until its last reader lets go.

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use crate::clock::LastUse;
use crate::mapped::MappedFile;
use crate::oci::Digest;

use super::space::Reservation;

/// A blob that is here, whole and verified.
pub struct StoredBlob {
    digest: Digest,
    file: Arc<File>,
    size: u64,
    mapped: OnceLock<Option<Arc<MappedFile>>>,
    /// When its last use was noted.
    pub last_use: LastUse,
    suspect: AtomicBool,
    /// How many slots keep it, which are no readers.
    kept: AtomicUsize,
    /// These slots, and some that have let go of it.
    slots: Mutex<Vec<Weak<Slot>>>,
    /// Its room, once it is removed: the blocks are free when the last reader lets go.
    released: OnceLock<Reservation>,
    held: Arc<Held>,
}

impl StoredBlob {
    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reading it failed: it is looked at anew before it is served again.
    pub(super) fn suspect(&self) {
        self.suspect.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// The file mapped, once for all readers; `None` where it cannot be.
    pub(super) fn mapped(&self) -> Option<&Arc<MappedFile>> {
        self.mapped
            .get_or_init(|| MappedFile::new(self.file.clone(), self.size).ok())
            .as_ref()
    }

    /// It was removed: its last reader gives `room` back.
    pub(super) fn give_back(&self, room: Reservation) {
        // Set once: a blob is removed once.
        let _ = self.released.set(room);
    }

    /// No slot keeps it any longer.
    pub(super) fn leave_slots(&self) {
        let slots = std::mem::take(&mut *self.slots.lock().unwrap_or_else(PoisonError::into_inner));
        for slot in slots.iter().filter_map(Weak::upgrade) {
            slot.empty();
        }
    }
}

impl Drop for StoredBlob {
    fn drop(&mut self) {
        let mut open = self.held.open();
        // Perhaps another one by now, which came after this one was removed.
        if open
            .get(&self.digest)
            .is_some_and(|blob| blob.strong_count() == 0)
        {
            open.remove(&self.digest);
        }
    }
}

/// An opened blob in the cache of them, which lets go of what it has forgotten, or what was replaced in it, only in its own
/// time: a removed blob's blocks must not wait for that.
pub(super) struct Slot(Mutex<Option<Arc<StoredBlob>>>);

impl Slot {
    pub(super) fn new(blob: &Arc<StoredBlob>) -> Arc<Self> {
        blob.kept.fetch_add(1, Ordering::AcqRel);
        let slot = Arc::new(Self(Mutex::new(Some(blob.clone()))));
        let mut slots = blob.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|slot| slot.strong_count() > 0);
        slots.push(Arc::downgrade(&slot));
        drop(slots);
        slot
    }

    fn inner(&self) -> MutexGuard<'_, Option<Arc<StoredBlob>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self) -> Option<Arc<StoredBlob>> {
        self.inner().clone()
    }

    /// Lets go of the blob.
    pub(super) fn empty(&self) {
        let blob = self.inner().take();
        if let Some(blob) = blob {
            blob.kept.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.empty();
    }
}

/// The blobs that are open, by whomever. The cache of them forgets one that nobody asked for in a minute, which a slow
/// reader outlasts; and who came while a blob arrived has never asked the cache.
#[derive(Default)]
pub(super) struct Held {
    open: Mutex<HashMap<Digest, Weak<StoredBlob>>>,
}

impl Held {
    fn open(&self) -> MutexGuard<'_, HashMap<Digest, Weak<StoredBlob>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blob(self: &Arc<Self>, digest: &Digest, file: Arc<File>, size: u64) -> Arc<StoredBlob> {
        Arc::new(StoredBlob {
            digest: *digest,
            file,
            size,
            mapped: OnceLock::new(),
            last_use: LastUse::default(),
            suspect: AtomicBool::new(false),
            kept: AtomicUsize::new(0),
            slots: Mutex::default(),
            released: OnceLock::new(),
            held: self.clone(),
        })
    }

    /// A blob that has just come to its place: whatever was open of this name before is another file.
    pub(super) fn put(self: &Arc<Self>, digest: &Digest, file: Arc<File>, size: u64) -> Arc<StoredBlob> {
        let blob = self.blob(digest, file, size);
        self.open().insert(*digest, Arc::downgrade(&blob));
        blob
    }

    /// The blob that is open already, or `file` of `size` bytes.
    pub(super) fn join(self: &Arc<Self>, digest: &Digest, file: File, size: u64) -> Arc<StoredBlob> {
        let new = self.blob(digest, Arc::new(file), size);
        let mut open = self.open();
        let here = open.get(digest).and_then(Weak::upgrade);
        if here.is_none() {
            open.insert(*digest, Arc::downgrade(&new));
        }
        // First unlocked: dropping a blob looks here too.
        drop(open);
        here.unwrap_or(new)
    }

    /// Forgets a blob that was removed, and gives it if anybody has it open: no slot has it from here on.
    pub(super) fn take(&self, digest: &Digest) -> Option<Arc<StoredBlob>> {
        let blob = self.open().remove(digest);
        let blob = blob.and_then(|blob| blob.upgrade());
        if let Some(blob) = &blob {
            blob.leave_slots();
        }
        blob
    }

    /// Whether somebody reads it.
    pub(super) fn is_read(&self, digest: &Digest) -> bool {
        let blob = self.open().get(digest).and_then(Weak::upgrade);
        // One is ours.
        blob.is_some_and(|blob| Arc::strong_count(&blob) > 1 + blob.kept.load(Ordering::Acquire))
    }
}
