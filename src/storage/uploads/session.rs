//! An upload session in the hands of one request: bytes are taken in and hashed, and in the end it becomes a blob.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::clock::Timestamp;
use crate::oci::{Algorithm, Digest};
use crate::storage::error::Error;
use crate::storage::hasher::Hasher;
use crate::storage::layout::sync_folder;
use crate::storage::partial;
use crate::storage::space::Reservation;
use crate::storage::steps;

use super::Shared;
use super::id::UploadId;
use super::known::{Rest, Slot};
use super::record::Record;

/// Room that a session of unknown length reserves at a time.
const STEP: u64 = 16 * 1024 * 1024;

/// Bytes after which what is there is synced, so that the closing request waits for little.
const SYNC_EVERY: u64 = 64 * 1024 * 1024;

/// What becomes of a session when its request lets go of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// It waits for the next request.
    Rests,
    /// It is gone: nobody was told its name.
    Goes,
    /// Its file is a blob now, or gone.
    Ended,
}

/// How far a session may go.
#[derive(Clone, Copy)]
struct Limit {
    most: u64,
    quota: u64,
}

/// A session in the hands of one request. Dropped, it waits for the next one.
pub struct Upload {
    shared: Arc<Shared>,
    id: UploadId,
    pub(super) path: PathBuf,
    file: Arc<File>,
    record: Record,
    hasher: Hasher,
    unsynced: u64,
    room: Option<Reservation>,
    limit: Option<Limit>,
    /// Whether there is more than its record says.
    changed: bool,
    end: End,
    /// Dropped last, it tells those who wait for the session.
    _holds: watch::Sender<()>,
}

impl Upload {
    /// One that a request takes up.
    pub(super) fn new(
        shared: Arc<Shared>,
        id: UploadId,
        file: File,
        hasher: Hasher,
        Rest { record, room }: Rest,
        holds: watch::Sender<()>,
    ) -> Self {
        Self {
            path: shared.path(id),
            shared,
            id,
            file: Arc::new(file),
            hasher,
            unsynced: record.size.saturating_sub(record.synced),
            // Of a new one nothing is written down yet.
            changed: record.hash.is_empty(),
            record,
            room: Some(room),
            limit: None,
            end: End::Rests,
            _holds: holds,
        }
    }

    /// Its name.
    pub fn id(&self) -> UploadId {
        self.id
    }

    /// Who began it.
    pub fn owner(&self) -> &str {
        &self.record.owner
    }

    /// Bytes that are here.
    pub fn size(&self) -> u64 {
        self.record.size
    }

    /// What its blob is to be named by.
    pub fn algorithm(&self) -> Algorithm {
        self.record.algorithm()
    }

    /// Nobody is told its name: once it is dropped, it is gone.
    pub fn make_nameless(&mut self) {
        self.end = End::Goes;
    }

    /// For as long as this request has it, it takes no more than `most` bytes in all: what `quota` leaves.
    pub fn limit(&mut self, most: u64, quota: u64) {
        self.limit = Some(Limit { most, quota });
    }

    /// Takes more bytes. Blocking.
    ///
    /// # Errors
    /// `Quota` or `NoRoom`, when they do not fit; what came before stays.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let end = self.record.size + bytes.len() as u64;
        if let Some(limit) = self.limit.filter(|limit| end > limit.most) {
            return Err(Error::Quota(limit.quota));
        }
        if let Some(room) = self.room.as_mut().filter(|room| room.bytes() < end) {
            // A whole step where there is one; at the end of the account, what is needed.
            let stepped = room.grow(end.next_multiple_of(STEP));
            stepped.or_else(|_| room.grow(end)).map_err(Error::NoRoom)?;
        }
        self.file
            .write_all_at(bytes, self.record.size)
            .map_err(Error::at(&self.path))?;
        self.hasher.update(bytes);
        self.changed = true;
        if !bytes.is_empty() {
            self.record.at = Timestamp::now();
        }
        self.record.size = end;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_EVERY {
            self.sync()?;
        }
        Ok(())
    }

    pub(super) fn sync(&mut self) -> Result<(), Error> {
        self.file.sync_data().map_err(Error::at(&self.path))?;
        self.unsynced = 0;
        self.record.synced = self.record.size;
        self.record.synced_hash = self.hasher.save();
        if self.end == End::Goes {
            // The next process would not know that nobody comes back for it.
            return Ok(());
        }
        self.save()
    }

    fn save(&mut self) -> Result<(), Error> {
        self.record.hash = self.hasher.save();
        self.record.save(&self.path)
    }

    /// A chunk has come whole, perhaps after parts of it that broke off. One that is shorter than `least` has to be the last.
    pub fn end_chunk(&mut self, least: u64) {
        let length = self.record.size - self.record.chunks_end.min(self.record.size);
        if length > 0 {
            self.record.short = length < least;
            self.record.chunks_end = self.record.size;
            self.changed = true;
        }
    }

    /// Whether the chunk before was too short for another one to follow.
    pub fn is_short(&self) -> bool {
        self.record.short
    }

    /// Hashes anew by `algorithm`, when the client names its blob by another than it said. Reads the file. Blocking.
    pub fn hash_by(&mut self, algorithm: Algorithm) -> Result<(), Error> {
        if algorithm == self.record.algorithm() {
            return Ok(());
        }
        let mut hasher = Hasher::new(algorithm);
        let (mut position, mut buffer) = (0, vec![0; 1 << 20]);
        while position < self.record.size {
            let length = (self.record.size - position).min(buffer.len() as u64) as usize;
            self.file
                .read_exact_at(&mut buffer[..length], position)
                .map_err(Error::at(&self.path))?;
            hasher.update(&buffer[..length]);
            position += length as u64;
        }
        self.hasher = hasher;
        self.changed = true;
        algorithm.name().clone_into(&mut self.record.algorithm);
        Ok(())
    }

    /// The digest of what is here.
    pub fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// # Errors
    /// `WrongDigest`, when something else is here than `digest`.
    pub fn confirm(&self, digest: &Digest) -> Result<(), Error> {
        let actual = self.digest();
        if actual == *digest {
            return Ok(());
        }
        Err(Error::WrongDigest {
            expected: (*digest).into(),
            actual: actual.into(),
        })
    }

    /// The client gives it up, or it turned out to be here already. Blocking.
    pub fn cancel(mut self) {
        self.forget();
    }

    fn forget(&mut self) {
        self.end = End::Ended;
        partial::remove(&self.path);
        self.shared.known().leave(self.id);
    }

    /// Puts the file in its place as the blob `digest`, durably, its room counted on the hosted account. Rows come after
    /// this. Blocking, and takes long.
    ///
    /// # Errors
    /// `WrongDigest`: then nothing was moved.
    pub(in crate::storage) fn place(&mut self, digest: &Digest) -> Result<Arc<File>, Error> {
        self.confirm(digest)?;
        let folder = self.shared.layout.ready_blob_folder(digest)?;
        let target = self.shared.layout.blob(digest);
        steps::before("publish: sync");
        // A request that broke off may have written more than was counted.
        let cut = self
            .file
            .set_len(self.record.size)
            .and_then(|()| self.file.sync_all());
        cut.map_err(Error::at(&self.path))?;
        steps::before("publish: rename");
        fs::rename(&self.path, &target).map_err(Error::at(&target))?;
        self.forget();
        if let Some(mut room) = self.room.take() {
            room.settle(self.record.size);
            room.keep();
        }
        steps::before("publish: sync folder");
        sync_folder(&folder)?;
        Ok(self.file.clone())
    }
}

impl Upload {
    /// Its client has left, perhaps, and this is a thread that must not wait for the disk.
    fn go(&mut self) {
        self.shared.known().leave(self.id);
        let (path, room) = (self.path.clone(), self.room.take());
        let remove = move || {
            partial::remove(&path);
            drop(room);
        };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        match self.end {
            End::Ended => return,
            End::Goes => return self.go(),
            End::Rests => {}
        }
        let Some(room) = self.room.take() else { return };
        if self.changed
            && let Err(error) = self.save()
        {
            tracing::warn!(%error, "what an upload holds could not be written down: it ends with this process");
        }
        let rest = Rest {
            record: self.record.clone(),
            room,
        };
        self.shared.known().put(self.id, Slot::Resting(Box::new(rest)));
    }
}
