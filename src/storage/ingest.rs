//! Taking a blob in: write, hash, verify, and publish by law 3's order. Called by `cache`'s fills.
//!
//! An ingest that ends early leaves its partial file for the next one; only wrong content is thrown away. All methods
//! block, for a moment (a piece) or longer (where they say so): fills run on threads of their own.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use rustix::fs::FallocateFlags;
use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::oci::Digest;

use super::error::Error;
use super::extents::Extents;
use super::growing::{Growing, Progress};
use super::hasher::Hasher;
use super::layout::{Layout, sync_folder};
use super::partial::{self, Partial, Partials, Record};
use super::space::{Account, NoRoom, Reservation, Space, allocated};
use super::steps;
use super::through::Refetch;
use super::window::{Foothold, WINDOW, Window};

/// Room that a blob of unknown size reserves at a time.
const STEP: u64 = 16 * 1024 * 1024;

/// Bytes hashed at a time, of those that are in the file already.
const CATCH_UP: u64 = 1024 * 1024;

/// Smaller blobs leave no record: fetching them again costs less.
const WORTH_A_RECORD: u64 = 1024 * 1024;

/// Between two records.
const RECORD_EVERY: std::time::Duration = std::time::Duration::from_millis(200);

/// Bytes after which what is there is synced, so that a power cut loses no more.
const SYNC_EVERY: u64 = 64 * 1024 * 1024;

/// What all ingests of a data folder share.
pub(super) struct Yard {
    pub(super) layout: Arc<Layout>,
    pub(super) space: Arc<Space>,
    pub(super) partials: Partials,
}

/// Where the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Destination {
    /// The partial file.
    Disk,
    /// Nowhere but to the readers.
    Window,
    /// It is in place.
    Published,
    /// It was not what it should be.
    Discarded,
}

/// A blob on its way in.
pub struct Ingest {
    yard: Arc<Yard>,
    digest: Digest,
    path: PathBuf,
    growing: Arc<Growing>,
    destination: Destination,
    hasher: Option<Hasher>,
    front: u64,
    record: Record,
    recorded: (Instant, u64),
    syncing: bool,
}

impl Ingest {
    /// A new partial file, with room reserved for `size` bytes.
    pub(super) fn create(
        yard: Arc<Yard>,
        digest: Digest,
        size: Option<u64>,
        repository: &str,
        refetch: Option<Arc<dyn Refetch>>,
    ) -> Result<Self, Error> {
        let room = yard.space.reserve(Account::Cached, size.unwrap_or(STEP));
        let room = room.map_err(Error::NoRoom)?;
        let path = yard.layout.partial(&digest);
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .and_then(|file| allocate(&file, size).map(|()| file));
        let file = match file {
            Ok(file) => file,
            Err(error) if is_full(&error) => {
                partial::remove(&path);
                let missing = room.bytes();
                return Err(Error::NoRoom(NoRoom { missing }));
            }
            Err(error) => return Err(Error::at(&path)(error)),
        };
        let record = Record::new(repository);
        Ok(Self::on_disk(
            yard, digest, path, file, record, size, room, refetch,
        ))
    }

    /// Goes on with a partial file of an earlier ingest; `None` when there is none, or no room for the rest of it. `refetch` is made for the
    /// repository that it was for.
    pub(super) fn resume(yard: Arc<Yard>, digest: Digest, refetch: Option<Arc<dyn Refetch>>) -> Option<Self> {
        let Partial { record, mut room } = yard.partials.take(&digest)?;
        let path = yard.layout.partial(&digest);
        let file = File::options().read(true).write(true).open(&path);
        // Not all file systems can allocate ahead, and copies have holes: then it takes up less than it will.
        let size = record.size;
        let fits = size.is_none_or(|size| room.bytes() >= allocated(size) || room.grow(size).is_ok());
        let file = file.and_then(|file| allocate(&file, size).map(|()| file));
        let Some(file) = file.ok().filter(|_| fits) else {
            partial::remove(&path);
            return None;
        };
        Some(Self::on_disk(
            yard, digest, path, file, record, size, room, refetch,
        ))
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one value")]
    fn on_disk(
        yard: Arc<Yard>,
        digest: Digest,
        path: PathBuf,
        file: File,
        record: Record,
        size: Option<u64>,
        mut room: Reservation,
        refetch: Option<Arc<dyn Refetch>>,
    ) -> Self {
        if size.is_some() {
            room.is_allocated();
        }
        let (hasher, front) = record.hasher(digest.algorithm());
        let progress = Progress {
            size,
            extents: record.extents.clone(),
            front,
            ..Progress::default()
        };
        let growing = Growing::new(digest, Some(Arc::new(file)), progress, refetch, Some(room));
        Self {
            yard,
            digest,
            path,
            growing,
            destination: Destination::Disk,
            hasher: Some(hasher),
            front,
            record,
            recorded: (Instant::now(), 0),
            syncing: false,
        }
    }

    /// An ingest that keeps nothing: its readers share a window of memory.
    pub(super) fn pass_through(
        yard: Arc<Yard>,
        digest: Digest,
        size: Option<u64>,
        refetch: Arc<dyn Refetch>,
    ) -> Self {
        let hasher = Hasher::new(digest.algorithm());
        let foothold = Foothold {
            position: 0,
            hasher: hasher.clone(),
        };
        let progress = Progress {
            size,
            window: Some(Window::new(foothold)),
            ..Progress::default()
        };
        let path = yard.layout.partial(&digest);
        Self {
            yard,
            digest,
            path,
            growing: Growing::new(digest, None, progress, Some(refetch), None),
            destination: Destination::Window,
            hasher: Some(hasher),
            front: 0,
            record: Record::new(""),
            recorded: (Instant::now(), 0),
            syncing: false,
        }
    }

    /// What readers read from, and side streams write to.
    pub fn growing(&self) -> &Arc<Growing> {
        &self.growing
    }

    /// Everything before is here and hashed.
    pub fn front(&self) -> u64 {
        self.front
    }

    /// The size of the whole, once announced.
    pub fn size(&self) -> Option<u64> {
        self.growing.size()
    }

    /// Whether bytes go to the disk.
    pub fn is_on_disk(&self) -> bool {
        self.destination == Destination::Disk
    }

    /// Tells the size of the whole, which was not known before.
    pub fn announce_size(&mut self, size: u64) {
        self.growing
            .progress
            .send_modify(|progress| progress.size = Some(size));
    }

    /// Takes more bytes at the front, in consecutive pieces; readers see them before they are hashed, but for the last one.
    /// When the disk has no room for them, they go to the window, like all that follow.
    pub fn append(&mut self, pieces: &[Bytes]) -> Result<(), Error> {
        let end = self.front + pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        if let Some(expected) = self.size()
            && end > expected
        {
            return Err(Error::WrongSize {
                expected,
                actual: end,
            });
        }
        if self.destination == Destination::Disk
            && let Err(error) = self.write(pieces, end)
        {
            tracing::warn!(digest = %self.digest, %error, "no room for the rest of a blob: it passes through");
            self.spill();
        }
        for piece in pieces {
            if self.destination == Destination::Window
                && let Some(hasher) = &self.hasher
            {
                let hasher = hasher.clone();
                self.growing.progress.send_modify(|progress| {
                    if let Some(window) = &mut progress.window {
                        window.push(piece.clone(), hasher);
                    }
                });
            }
            self.hash(piece);
        }
        Ok(())
    }

    fn write(&self, pieces: &[Bytes], end: u64) -> Result<(), Error> {
        if self.size().is_none() {
            let mut room = self.growing.room.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(room) = room.as_mut().filter(|room| room.bytes() < end) {
                room.grow(end.next_multiple_of(STEP)).map_err(Error::NoRoom)?;
            }
        }
        self.growing
            .write(self.front, pieces)
            .map_err(Error::at(&self.path))
    }

    fn hash(&mut self, bytes: &[u8]) {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.front += bytes.len() as u64;
        let front = self.front;
        // Nobody waits for this alone.
        self.growing.progress.send_if_modified(|progress| {
            progress.front = front;
            false
        });
    }

    /// From here on nothing goes to the file; what is in it stays readable for who has it open.
    fn spill(&mut self) {
        let Some(hasher) = self.hasher.clone() else { return };
        let foothold = Foothold {
            position: self.front,
            hasher,
        };
        self.destination = Destination::Window;
        partial::remove(&self.path);
        self.growing
            .progress
            .send_modify(|progress| progress.window = Some(Window::new(foothold)));
    }

    /// Whether the window takes `length` more bytes. `None` when it is full; else whether anybody reads.
    pub fn window_takes(&self, length: u64) -> Option<bool> {
        self.growing.make_room_in_window(length, WINDOW)
    }

    /// Hashes some of what is in the file beyond the front; whether there may be more.
    pub fn catch_up(&mut self) -> Result<bool, Error> {
        let end = self.growing.end_from(self.front);
        let (Some(file), true) = (&self.growing.file, end > self.front && self.is_on_disk()) else {
            return Ok(false);
        };
        let mut buffer = vec![0; (end - self.front).min(CATCH_UP) as usize];
        file.read_exact_at(&mut buffer, self.front)
            .map_err(Error::at(&self.path))?;
        self.hash(&buffer);
        Ok(true)
    }

    /// Whether [`Ingest::save_record`] has something to say.
    pub fn record_is_due(&self) -> bool {
        self.recorded.0.elapsed() >= RECORD_EVERY && self.is_unrecorded()
    }

    /// Whether more is here than is written down.
    pub fn is_unrecorded(&self) -> bool {
        self.is_on_disk()
            && self.recorded.1 != self.growing.present()
            && self.size().is_none_or(|size| size >= WORTH_A_RECORD)
    }

    /// Writes down what is here, for the next ingest.
    pub fn save_record(&mut self) {
        self.recorded = (Instant::now(), self.growing.present());
        let (size, extents) = {
            let progress = self.growing.progress.borrow();
            (progress.size, progress.extents.clone())
        };
        let hash = self.hasher.as_ref().map(Hasher::save).unwrap_or_default();
        self.record = Record {
            size,
            extents,
            front: self.front,
            hash,
            at: Timestamp::now(),
            ..self.record.clone()
        };
        if let Err(error) = self.record.save(&self.path) {
            tracing::warn!(%error, "what a partial file holds could not be written down");
        }
    }

    /// Work for a blocking thread when enough has come to be synced; its result goes to [`Ingest::synced`]. It may
    /// take long.
    pub fn sync_due(&mut self) -> Option<impl FnOnce() -> Option<Extents> + Send + 'static> {
        let unsynced = self.growing.present() - self.record.synced.total().min(self.growing.present());
        if self.syncing || !self.is_on_disk() || unsynced < SYNC_EVERY {
            return None;
        }
        self.syncing = true;
        let file = self.growing.file.clone()?;
        let extents = self.growing.progress.borrow().extents.clone();
        Some(move || file.sync_data().ok().map(|()| extents))
    }

    /// What was synced meanwhile.
    pub fn synced(&mut self, extents: Option<Extents>) {
        self.syncing = false;
        if let Some(extents) = extents {
            self.record.synced = extents;
            self.save_record();
        }
    }

    /// Compares size and digest; when they match, readers get the last byte. Gives the size.
    pub fn verify(&mut self) -> Result<u64, Error> {
        if let Some(expected) = self.size()
            && expected != self.front
        {
            return Err(Error::WrongSize {
                expected,
                actual: self.front,
            });
        }
        let Some(hasher) = self.hasher.take() else {
            return Ok(self.front);
        };
        self.growing.seal();
        let actual = hasher.finish();
        if actual != self.digest {
            return Err(Error::WrongDigest {
                expected: self.digest.into(),
                actual: actual.into(),
            });
        }
        let size = self.front;
        self.growing.progress.send_modify(|progress| {
            progress.size = Some(size);
            progress.end = Some(Ok(()));
        });
        Ok(size)
    }

    /// Puts the verified file in its place, durably. The index row comes after this. Takes long.
    pub(super) fn place(&mut self) -> Result<(), Error> {
        let size = self.verify()?;
        let folder = self.yard.layout.ready_blob_folder(&self.digest)?;
        let target = self.yard.layout.blob(&self.digest);
        steps::before("publish: sync");
        if let Some(file) = &self.growing.file {
            // An upstream that announced more once may have left it longer.
            let cut = file.set_len(size).and_then(|()| file.sync_all());
            cut.map_err(Error::at(&self.path))?;
        }
        steps::before("publish: rename");
        fs::rename(&self.path, &target).map_err(Error::at(&target))?;
        self.destination = Destination::Published;
        steps::before("publish: drop record");
        partial::remove(&self.path);
        if let Some(mut room) = self.take_room() {
            room.settle(size);
            room.keep();
        }
        steps::before("publish: sync folder");
        sync_folder(&folder)
    }

    fn take_room(&self) -> Option<Reservation> {
        let mut room = self.growing.room.lock().unwrap_or_else(PoisonError::into_inner);
        room.take()
    }

    /// Breaks readers off with `reason`. What is here waits for the next ingest.
    pub fn fail(&mut self, reason: &str) {
        self.growing.fail(reason);
    }

    /// Breaks readers off, and keeps nothing: it is not what it should be.
    pub fn discard(&mut self, reason: &str) {
        self.growing.fail(reason);
        if self.destination == Destination::Disk {
            partial::remove(&self.path);
        }
        self.destination = Destination::Discarded;
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        self.growing.fail("the download was given up");
        if self.destination != Destination::Disk {
            return;
        }
        let worth = self.hasher.is_some() && self.growing.present() > 0;
        if worth && let Some(room) = self.take_room() {
            self.save_record();
            let record = self.record.clone();
            self.yard.partials.put(self.digest, Partial { record, room });
        } else {
            // Readers that have the file open keep it.
            partial::remove(&self.path);
        }
    }
}

/// Takes the blocks from the disk before the first byte is accepted.
fn allocate(file: &File, size: Option<u64>) -> io::Result<()> {
    let Some(size) = size.filter(|size| *size > 0) else {
        return Ok(());
    };
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
        Ok(()) => Ok(()),
        // The file system cannot: running full is noticed when writing.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(size),
        Err(error) => Err(error.into()),
    }
}

/// Whether a disk or a quota is full.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
