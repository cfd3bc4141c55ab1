//! Room on the disk: what `storage.max_size`, `storage.hosted_max_size` and `storage.min_free` leave, reserved before bytes
//! are accepted.
//!
//! There are two accounts: what is cached and may be evicted, and what is hosted, with the uploads under way. A blob that
//! hosted repositories and caches share is on the hosted one. The cap of the cached one holds for the allocated blocks of blobs and partial files. The index, which holds the manifests, counts with
//! its files and one growth step, since nobody can tell when redb takes it.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::layout::Layout;

/// What a file system allocates at a time.
const BLOCK: u64 = 4096;

/// The least that the index may grow by at once, in bytes.
const LEAST_STEP: u64 = 1024 * 1024;

/// The most that it grows by at once.
const MOST_STEP: u64 = 512 * 1024 * 1024;

/// The room that a file of `size` bytes takes up.
pub fn allocated(size: u64) -> u64 {
    size.div_ceil(BLOCK).saturating_mul(BLOCK)
}

/// There is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// Bytes that would have to go first; 0 when no eviction helps, since the disk or the cap is too small.
    pub missing: u64,
}

/// On whose account room is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// What may be evicted.
    Cached,
    /// What hosted repositories hold, and uploads.
    Hosted,
}

/// How full it is, in bytes.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Usage {
    /// Cached blobs and partial files, allocated or reserved.
    pub used: u64,
    /// Hosted blobs and uploads, allocated or reserved.
    pub hosted: u64,
    /// `storage.hosted_max_size`.
    pub hosted_limit: Option<u64>,
    /// The index's files.
    pub index: u64,
    /// `storage.max_size`.
    pub limit: Option<u64>,
    /// What blobs and partial files may take up under the limit.
    pub limit_for_blobs: Option<u64>,
    /// Free space of the disk.
    pub disk_free: u64,
}

#[derive(Default)]
struct State {
    /// Cached blobs and partial files, and what is reserved for them.
    used: u64,
    /// The same of hosted ones and uploads.
    hosted: u64,
    /// Reserved, and not yet taken from the disk's free space.
    promised: u64,
}

impl State {
    fn of(&mut self, account: Account) -> &mut u64 {
        match account {
            Account::Cached => &mut self.used,
            Account::Hosted => &mut self.hosted,
        }
    }

    fn give_back(&mut self, account: Account, bytes: u64) {
        let used = self.of(account);
        *used = used.saturating_sub(bytes);
    }
}

/// What the room of a data folder is bounded by, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bounds {
    /// `storage.max_size`.
    pub(super) max_size: Option<u64>,
    /// `storage.hosted_max_size`.
    pub(super) hosted_max_size: Option<u64>,
    /// `storage.min_free`.
    pub(super) min_free: u64,
}

/// The room of one data folder.
pub struct Space {
    max_size: Option<u64>,
    hosted_max_size: Option<u64>,
    min_free: u64,
    root: PathBuf,
    index: PathBuf,
    journal: PathBuf,
    ballast: PathBuf,
    partials: PathBuf,
    state: Mutex<State>,
}

impl Space {
    pub(super) fn new(layout: &Layout, bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            max_size: bounds.max_size,
            hosted_max_size: bounds.hosted_max_size,
            min_free: bounds.min_free,
            root: layout.root().to_owned(),
            index: layout.index(),
            journal: layout.journal(),
            ballast: layout.ballast(),
            partials: layout.partials(),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the index takes up, with its journal and its ballast, and the records beside partial files.
    fn index_blocks(&self) -> u64 {
        let blocks = |file: std::fs::Metadata| file.blocks() * 512;
        let journal = std::fs::read_dir(&self.journal).into_iter().flatten();
        let journal: u64 = journal
            .flatten()
            .filter_map(|file| file.metadata().ok().map(blocks))
            .sum();
        let records = std::fs::read_dir(&self.partials).into_iter().flatten().flatten();
        let is_record = |file: &std::fs::DirEntry| file.path().extension().is_some_and(|end| end == "json");
        let records = records
            .filter(is_record)
            .filter_map(|file| file.metadata().ok().map(blocks));
        let files = [&self.index, &self.ballast].map(|path| std::fs::metadata(path).map_or(0, blocks));
        journal + files.iter().sum::<u64>() + records.sum::<u64>()
    }

    /// What the cap leaves for blobs and partial files.
    fn limit_for_blobs(&self) -> Option<u64> {
        let max = self.max_size?;
        let index = self.index_blocks();
        Some(max.saturating_sub(index + index.clamp(LEAST_STEP, MOST_STEP)))
    }

    fn disk_free(&self) -> u64 {
        // A file system that does not say is taken to have room: writing will tell.
        rustix::fs::statvfs(&self.root).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Reserves room for a file of `size` bytes.
    pub fn reserve(self: &Arc<Self>, account: Account, size: u64) -> Result<Reservation, NoRoom> {
        let mut reservation = self.reclaim(account, 0);
        reservation.grow(size)?;
        Ok(reservation)
    }

    fn take(&self, account: Account, bytes: u64) -> Result<(), NoRoom> {
        let limit = match account {
            Account::Cached => self.limit_for_blobs(),
            Account::Hosted => self.hosted_max_size,
        };
        let free = self.disk_free();
        let mut state = self.state();
        let over = |wanted: u64, room: u64| wanted.saturating_sub(room);
        let wanted = state.of(account).saturating_add(bytes);
        let over_limit = limit.map_or(0, |limit| over(wanted, limit));
        let on_disk = bytes.saturating_add(state.promised).saturating_add(self.min_free);
        let missing = over_limit.max(over(on_disk, free));
        if missing > 0 {
            let helps = match account {
                Account::Cached => limit.is_none_or(|limit| bytes <= limit),
                // Evictions make the disk emptier, not the account.
                Account::Hosted => over_limit == 0,
            };
            return Err(NoRoom {
                missing: if helps && missing <= state.used {
                    missing
                } else {
                    0
                },
            });
        }
        *state.of(account) = wanted;
        state.promised += bytes;
        Ok(())
    }

    /// Counts a file that is there already.
    pub(super) fn adopt(self: &Arc<Self>, account: Account, bytes: u64) -> Reservation {
        *self.state().of(account) += bytes;
        self.reclaim(account, bytes)
    }

    /// A reservation over room that is counted already: dropping it gives the room back.
    pub(super) fn reclaim(self: &Arc<Self>, account: Account, bytes: u64) -> Reservation {
        Reservation {
            space: self.clone(),
            account,
            bytes,
            promised: 0,
        }
    }

    /// Blobs of so many bytes have come from the one account to the other: what was cached is hosted, or what was hosted
    /// is no longer. Never refused: the bytes are here in any case.
    pub(super) fn transfer(&self, bytes: u64, to: Account) {
        let from = match to {
            Account::Cached => Account::Hosted,
            Account::Hosted => Account::Cached,
        };
        let mut state = self.state();
        state.give_back(from, bytes);
        *state.of(to) += bytes;
    }

    /// How full it is.
    pub fn usage(&self) -> Usage {
        let (used, hosted) = {
            let state = self.state();
            (state.used, state.hosted)
        };
        Usage {
            used,
            hosted,
            hosted_limit: self.hosted_max_size,
            index: self.index_blocks(),
            limit: self.max_size,
            limit_for_blobs: self.limit_for_blobs(),
            disk_free: self.disk_free(),
        }
    }

    /// Bytes above `percent` of the cap, or below `min_free` on the disk: what eviction has to bring.
    pub fn excess(&self, percent: u64) -> u64 {
        let used = self.state().used;
        let over = self.limit_for_blobs().map_or(0, |limit| {
            used.saturating_sub(limit.saturating_mul(percent) / 100)
        });
        let below = self.min_free.saturating_sub(self.disk_free());
        over.max(below.min(used))
    }
}

/// Room that is spoken for. Dropped, it is given back.
pub struct Reservation {
    space: Arc<Space>,
    account: Account,
    bytes: u64,
    promised: u64,
}

impl Reservation {
    /// Makes it enough for a file of `size` bytes.
    pub fn grow(&mut self, size: u64) -> Result<(), NoRoom> {
        let more = allocated(size).saturating_sub(self.bytes);
        self.space.take(self.account, more)?;
        self.bytes += more;
        self.promised += more;
        Ok(())
    }

    /// The blocks are allocated now: the disk's own count of free space has them.
    pub(super) fn is_allocated(&mut self) {
        let promised = std::mem::take(&mut self.promised);
        let mut state = self.space.state();
        state.promised = state.promised.saturating_sub(promised);
    }

    /// The file turned out to have `size` bytes: the rest is given back.
    pub(super) fn settle(&mut self, size: u64) {
        let rest = self.bytes.saturating_sub(allocated(size));
        let promised = self.promised.min(rest);
        self.bytes -= rest;
        self.promised -= promised;
        let mut state = self.space.state();
        state.give_back(self.account, rest);
        state.promised = state.promised.saturating_sub(promised);
    }

    /// The file stays: its room is counted until [`Space::reclaim`] takes it over.
    pub(super) fn keep(mut self) {
        self.is_allocated();
        self.bytes = 0;
    }

    /// Bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.space.state();
        state.give_back(self.account, self.bytes);
        state.promised = state.promised.saturating_sub(self.promised);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(max_size: Option<u64>) -> (tempfile::TempDir, Arc<Space>) {
        let root = tempfile::tempdir().unwrap();
        let bounds = Bounds {
            max_size,
            hosted_max_size: Some(20 * BLOCK),
            min_free: 0,
        };
        let space = Space::new(&Layout::new(root.path()), bounds);
        (root, space)
    }

    #[test]
    fn the_cap_holds_and_what_is_dropped_comes_back() {
        let (_root, space) = space(Some(LEAST_STEP + 10 * BLOCK));
        let five = space.reserve(Account::Cached, 5 * BLOCK - 1).unwrap();
        assert_eq!(five.bytes(), 5 * BLOCK);
        let missing = |size| {
            space
                .reserve(Account::Cached, size)
                .map(drop)
                .unwrap_err()
                .missing
        };
        assert_eq!(missing(6 * BLOCK), BLOCK);
        assert_eq!(missing(11 * BLOCK), 0, "nothing that could go makes room for it");
        let mut other = space.reserve(Account::Cached, BLOCK).unwrap();
        other.grow(5 * BLOCK).unwrap();
        assert_eq!(other.grow(6 * BLOCK), Err(NoRoom { missing: BLOCK }));
        drop(five);
        other.grow(10 * BLOCK).unwrap();
        other.settle(2 * BLOCK);
        assert_eq!(space.usage().used, 2 * BLOCK);
        other.keep();
        assert_eq!(space.usage().used, 2 * BLOCK);
        assert_eq!(space.excess(10), BLOCK);
        drop(space.reclaim(Account::Cached, 2 * BLOCK));
        assert_eq!((space.usage().used, space.excess(0)), (0, 0));
    }

    #[test]
    fn free_space_of_the_disk_counts_with_what_is_promised() {
        let (_root, open) = space(None);
        let free = open.disk_free();
        let root = tempfile::tempdir().unwrap();
        let bounds = Bounds {
            min_free: free / 2,
            ..Bounds::default()
        };
        let space = Space::new(&Layout::new(root.path()), bounds);
        assert_eq!(
            space.reserve(Account::Cached, free).map(drop),
            Err(NoRoom { missing: 0 })
        );
        let held = space.reserve(Account::Cached, free / 4).unwrap();
        assert!(space.reserve(Account::Cached, free / 3).is_err());
        drop(held);
        assert!(space.reserve(Account::Cached, free / 3).is_ok());
    }

    #[test]
    fn what_is_hosted_has_a_cap_of_its_own_and_what_is_shared_counts_there() {
        let (_root, space) = space(Some(LEAST_STEP + 10 * BLOCK));
        let cached = space.reserve(Account::Cached, 8 * BLOCK).unwrap();
        let upload = space.reserve(Account::Hosted, 15 * BLOCK).unwrap();
        // No eviction makes room on the hosted account.
        let refused = space.reserve(Account::Hosted, 6 * BLOCK).map(drop);
        assert_eq!(refused, Err(NoRoom { missing: 0 }));
        cached.keep();
        upload.keep();
        space.transfer(8 * BLOCK, Account::Hosted);
        let usage = space.usage();
        assert_eq!(
            (usage.used, usage.hosted),
            (0, 23 * BLOCK),
            "more than the cap: it was here"
        );
        assert!(space.reserve(Account::Cached, 10 * BLOCK).is_ok());
        space.transfer(8 * BLOCK, Account::Cached);
        drop(space.reclaim(Account::Hosted, 15 * BLOCK));
        let usage = space.usage();
        assert_eq!((usage.used, usage.hosted), (8 * BLOCK, 0));
    }
}
