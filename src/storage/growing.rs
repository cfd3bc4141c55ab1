//! A blob that is still arriving, as its fill and its readers share it: which bytes are here, how far they are
//! verified, who reads where, and what the readers wait for.
//!
//! Bytes are in the partial file or, when the disk has no room for the blob, in a window of memory.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use crate::mapped::MappedFile;
use crate::oci::Digest;

use super::blocks;
use super::extents::Extents;
use super::held::StoredBlob;
use super::space::Reservation;
use super::tail::Tail;
use super::through::Refetch;
use super::window::{Foothold, Window};

/// A reader this close to bytes that are on their way waits for them; further ahead it gets a request of its own.
pub const NEAR: u64 = 1024 * 1024;

/// How far an ingest has come.
#[derive(Default)]
pub(super) struct Progress {
    /// The size of the whole, once known.
    pub(super) size: Option<u64>,
    /// What is in the file.
    pub(super) extents: Extents,
    /// Everything before is hashed.
    pub(super) front: u64,
    /// The last that arrived, when nothing more goes to the file.
    pub(super) window: Option<Window>,
    /// How it ended: verified, or why not.
    pub(super) end: Option<Result<(), Arc<str>>>,
}

/// What a reader finds at its position.
pub(super) enum Look {
    /// Bytes in the file, up to there.
    File { until: u64, size: Option<u64> },
    /// Bytes in memory.
    Memory(Bytes),
    /// Nothing yet.
    Wait,
    /// The window has passed it.
    Late,
    /// The blob ends here.
    End,
    /// Nothing more comes.
    Broken(Arc<str>),
}

impl Progress {
    /// What is at `position`. `withhold`: the blob's last byte only once it is verified.
    pub(super) fn look(&self, position: u64, withhold: bool) -> Look {
        let verified = match &self.end {
            Some(Err(reason)) => return Look::Broken(reason.clone()),
            Some(Ok(())) => true,
            None => false,
        };
        let most = if verified || !withhold {
            u64::MAX
        } else {
            match (self.size, &self.window) {
                (Some(size), _) => size.saturating_sub(1),
                // Which byte is the last is not known: any may be.
                (None, Some(window)) => window.head().saturating_sub(1),
                (None, None) => self.extents.end_from(self.front).saturating_sub(1),
            }
        };
        let until = self.extents.end_from(position).min(most);
        if until > position {
            let size = self.size;
            return Look::File { until, size };
        }
        if let Some(window) = &self.window
            && self.extents.end_from(position) == position
        {
            if position < window.base() {
                return Look::Late;
            }
            if let Some(mut bytes) = window.read(position) {
                bytes.truncate(usize::try_from(most.saturating_sub(position)).unwrap_or(usize::MAX));
                if !bytes.is_empty() {
                    return Look::Memory(bytes);
                }
            }
        }
        if verified { Look::End } else { Look::Wait }
    }
}

/// Bytes that a reader waits for, far from where any are arriving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// Where it is.
    pub position: u64,
    /// Up to where it reads.
    pub end: u64,
}

/// One reader, as the fill sees it.
#[derive(Default)]
pub(super) struct Reader {
    /// Where it reads in the window; `None` when it does not.
    pub(super) position: Option<u64>,
    pub(super) want: Option<Want>,
    /// The window went on without it: from where it can fetch for itself.
    pub(super) left_behind: Option<Foothold>,
}

#[derive(Default)]
struct Readers {
    next: u64,
    all: HashMap<u64, Reader>,
}

/// A blob on its way.
pub struct Growing {
    pub(super) digest: Digest,
    pub(super) file: Option<Arc<File>>,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) refetch: Option<Arc<dyn Refetch>>,
    mapped: OnceLock<Option<Arc<MappedFile>>>,
    readers: Mutex<Readers>,
    attention: Notify,
    moved: Notify,
    /// Whether nothing is written any more: the file is verified, or the next fill's. Read for the time of a write.
    sealed: RwLock<bool>,
    /// What it has become: who reads from here reads that.
    stored: OnceLock<Arc<StoredBlob>>,
    /// Held as long as anybody has the file open, which takes up its blocks even when it is unlinked.
    pub(super) room: Mutex<Option<Reservation>>,
}

impl Growing {
    pub(super) fn new(
        digest: Digest,
        file: Option<Arc<File>>,
        progress: Progress,
        refetch: Option<Arc<dyn Refetch>>,
        room: Option<Reservation>,
    ) -> Arc<Self> {
        Arc::new(Self {
            digest,
            file,
            progress: watch::Sender::new(progress),
            refetch,
            mapped: OnceLock::new(),
            readers: Mutex::default(),
            attention: Notify::new(),
            moved: Notify::new(),
            sealed: RwLock::default(),
            stored: OnceLock::new(),
            room: Mutex::new(room),
        })
    }

    /// The file mapped at its final size, once for all readers; `None` where it cannot be.
    pub(super) fn mapped(&self, size: u64) -> Option<&Arc<MappedFile>> {
        let map = || MappedFile::new(self.file.clone()?, size).ok();
        self.mapped.get_or_init(map).as_ref()
    }

    /// A new reader.
    pub fn tail(self: &Arc<Self>) -> Tail {
        let mut readers = self.readers();
        readers.next += 1;
        let id = readers.next;
        readers.all.insert(id, Reader::default());
        drop(readers);
        Tail::new(self.clone(), self.progress.subscribe(), id)
    }

    /// Whether the ingest was given up.
    pub fn has_failed(&self) -> bool {
        matches!(self.progress.borrow().end, Some(Err(_)))
    }

    /// The size of the whole, when it is known.
    pub fn size(&self) -> Option<u64> {
        self.progress.borrow().size
    }

    /// Bytes that are here.
    pub fn present(&self) -> u64 {
        let progress = self.progress.borrow();
        progress
            .window
            .as_ref()
            .map_or_else(|| progress.extents.total(), Window::head)
    }

    /// Whether it goes to the disk; else it is only passed through.
    pub fn is_kept(&self) -> bool {
        self.progress.borrow().window.is_none()
    }

    /// Up to where bytes are here without a hole from `position` on.
    pub fn end_from(&self, position: u64) -> u64 {
        self.progress.borrow().extents.end_from(position)
    }

    /// Where the next bytes after `position` are, behind a hole.
    pub fn next_start(&self, position: u64) -> Option<u64> {
        self.progress.borrow().extents.next_start(position)
    }

    /// Waits until bytes at `position` are here, or the ingest has ended.
    pub async fn arrived(&self, position: u64) {
        let mut receiver = self.progress.subscribe();
        let here =
            |progress: &Progress| progress.extents.end_from(position) > position || progress.end.is_some();
        // The sender is ours: the channel cannot close.
        let _ = receiver.wait_for(here).await;
    }

    /// Readers at the moment.
    pub fn readers_now(&self) -> usize {
        self.readers().all.len()
    }

    /// What readers wait for far from where bytes arrive.
    pub fn wants(&self) -> Vec<Want> {
        let readers = self.readers();
        readers.all.values().filter_map(|reader| reader.want).collect()
    }

    /// Waits until the readers' wants or positions change, or one leaves. For one waiter: the fill.
    pub async fn attention(&self) {
        self.attention.notified().await;
    }

    /// Makes the fill look at its readers again.
    pub fn nudge(&self) {
        self.attention.notify_one();
    }

    /// Waits until a reader of the window moves or leaves. For one waiter: the fill's front.
    pub async fn moved(&self) {
        self.moved.notified().await;
    }

    /// Writes consecutive pieces into the file at `position`; readers see them at once. Blocking.
    pub fn write(&self, position: u64, pieces: &[Bytes]) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Err(io::ErrorKind::StorageFull.into());
        };
        let sealed = self.sealed.read().unwrap_or_else(PoisonError::into_inner);
        if *sealed {
            return Err(io::Error::other("the download was given up"));
        }
        let end = blocks::write(file, position, pieces)?;
        self.progress.send_modify(|progress| {
            progress.extents.insert(position, end);
        });
        Ok(())
    }

    /// Ends all writing, by streams that are late too. Waits for one that is going on.
    pub(super) fn seal(&self) {
        *self.sealed.write().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// It is in its place.
    pub(super) fn has_become(&self, stored: Arc<StoredBlob>) {
        // Published once.
        let _ = self.stored.set(stored);
    }

    /// Nothing more comes: readers are broken off with `reason`, unless they already have a verified blob.
    pub(super) fn fail(&self, reason: &str) {
        self.seal();
        self.progress.send_modify(|progress| {
            progress.end.get_or_insert_with(|| Err(reason.into()));
        });
    }

    /// Changes what is known of a reader, and tells the fill if `notify`.
    pub(super) fn update<T>(&self, id: u64, notify: bool, change: impl FnOnce(&mut Reader) -> T) -> T {
        let value = change(self.readers().all.entry(id).or_default());
        if notify {
            self.attention.notify_one();
            self.moved.notify_one();
        }
        value
    }

    pub(super) fn leave(&self, id: u64) {
        self.readers().all.remove(&id);
        self.attention.notify_one();
        self.moved.notify_one();
    }

    /// Makes room for `length` bytes in the window, dropping what all its readers have passed. `None` when it is
    /// full; else whether anybody reads at all.
    pub(super) fn make_room_in_window(&self, length: u64, limit: u64) -> Option<bool> {
        let readers = self.readers();
        let slowest = readers.all.values().filter_map(|reader| reader.position).min();
        let anybody = !readers.all.is_empty();
        let mut fits = true;
        self.progress.send_if_modified(|progress| {
            let Some(window) = &mut progress.window else {
                return false;
            };
            while window
                .oldest_end()
                .is_some_and(|end| slowest.is_none_or(|slowest| end <= slowest))
                && window.head() - window.base() + length > limit
            {
                window.drop_oldest();
            }
            let held = window.head() - window.base();
            fits = held == 0 || held + length <= limit;
            // Readers behind the base find out when they look.
            false
        });
        fits.then_some(anybody)
    }

    /// Whether a reader has read all that the window holds, and waits.
    pub fn somebody_waits_at_the_head(&self) -> bool {
        let head = self.progress.borrow().window.as_ref().map(Window::head);
        let readers = self.readers();
        readers.all.values().any(|reader| reader.position == head)
    }

    /// Lets the oldest piece go although somebody reads it: those go on by themselves.
    pub fn leave_slowest_behind(&self) {
        let mut readers = self.readers();
        self.progress.send_if_modified(|progress| {
            let dropped = progress.window.as_mut().and_then(Window::drop_oldest);
            if let Some((foothold, end)) = dropped {
                let behind = readers
                    .all
                    .values_mut()
                    .filter(|reader| reader.position.is_some_and(|position| position < end));
                for reader in behind {
                    reader.position = None;
                    reader.left_behind = Some(foothold.clone());
                }
                return true;
            }
            false
        });
    }

    // Taken before the progress, where both are.
    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
