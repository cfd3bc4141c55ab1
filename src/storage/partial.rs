//! Partial files that no fill holds: after a cut that lasted, a stop, or a kill, for the next fill to go on with.
//!
//! Beside each lies a small record of what is in it. It is written often without waiting for the disk, which is enough
//! as long as the machine runs, and says apart from that what was synced, which is all that counts after a power cut.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::oci::{Algorithm, Digest};

use super::error::Error;
use super::extents::Extents;
use super::hasher::Hasher;
use super::layout::{Layout, digest_of};
use super::space::{Account, Reservation, Space};

/// What is in a partial file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// The repository that it is fetched for.
    pub(super) repository: String,
    pub(super) size: Option<u64>,
    /// The machine's boot: as long as it lasts, what was written is there.
    pub(super) boot: String,
    /// What was written.
    pub(super) extents: Extents,
    /// What was synced.
    pub(super) synced: Extents,
    /// Everything before is hashed, with this state.
    pub(super) front: u64,
    pub(super) hash: String,
    pub(super) at: Timestamp,
}

impl Record {
    pub(super) fn new(repository: &str) -> Self {
        Self {
            repository: repository.to_owned(),
            size: None,
            boot: boot().to_owned(),
            extents: Extents::default(),
            synced: Extents::default(),
            front: 0,
            hash: String::new(),
            at: Timestamp::now(),
        }
    }

    /// Replaces the record beside `partial`. Not synced: a torn one is as good as none.
    pub(super) fn save(&self, partial: &Path) -> Result<(), Error> {
        let (path, draft) = (beside(partial, "json"), beside(partial, "draft"));
        let text = serde_json::to_vec(self).unwrap_or_default();
        File::create(&draft)
            .and_then(|mut file| file.write_all(&text))
            .and_then(|()| fs::rename(&draft, &path))
            .map_err(Error::at(&path))
    }

    fn read(partial: &Path) -> Option<Self> {
        let text = fs::read(beside(partial, "json")).ok()?;
        let mut record: Self = serde_json::from_slice(&text).ok()?;
        // An id that cannot be read proves nothing about what the disk has.
        if record.boot != boot() || record.boot.is_empty() {
            record.extents = record.synced.clone();
            boot().clone_into(&mut record.boot);
        }
        record.extents.is_sound(record.size).then_some(record)
    }

    /// The hash to go on from, and where; from the start when what it covered is not there.
    pub(super) fn hasher(&self, algorithm: Algorithm) -> (Hasher, u64) {
        let restored = Hasher::restore(algorithm, &self.hash);
        restored
            .filter(|_| self.front <= self.extents.end_from(0))
            .map_or_else(|| (Hasher::new(algorithm), 0), |hasher| (hasher, self.front))
    }
}

/// The file of `partial`'s name with another ending.
pub(super) fn beside(partial: &Path, ending: &str) -> PathBuf {
    partial.with_extension(ending)
}

/// Removes a partial file and its record.
pub(super) fn remove(partial: &Path) {
    for path in [
        partial.to_owned(),
        beside(partial, "json"),
        beside(partial, "draft"),
    ] {
        // What cannot be removed is found again at the next start.
        let _ = fs::remove_file(path);
    }
}

pub(super) fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        id.trim().to_owned()
    })
}

/// A partial file at rest.
pub(super) struct Partial {
    pub(super) record: Record,
    pub(super) room: Reservation,
}

/// A partial file at rest, for status and resumption.
#[derive(Clone, Debug)]
pub struct Interrupted {
    /// The blob.
    pub digest: Digest,
    /// The repository that it was fetched for: upstream prefix and name.
    pub repository: String,
    /// Its size, if known.
    pub size: Option<u64>,
    /// Bytes that are here.
    pub present: u64,
    /// When it was last written.
    pub at: Timestamp,
}

/// All partial files at rest.
pub(super) struct Partials {
    layout: Arc<Layout>,
    known: Mutex<HashMap<Digest, Partial>>,
}

impl Partials {
    /// Takes in what an earlier process left: files with a sound record; the others are removed.
    pub(super) fn recover(layout: Arc<Layout>, space: &Arc<Space>) -> Result<Self, Error> {
        let mut known = HashMap::new();
        let folder = layout.partials();
        for entry in fs::read_dir(&folder).map_err(Error::at(&folder))? {
            let path = entry.map_err(Error::at(&folder))?.path();
            match path.extension().and_then(|ending| ending.to_str()) {
                // Judged with its file.
                Some("json") if path.with_extension("").exists() => continue,
                Some(_) => {
                    let _ = fs::remove_file(&path);
                    continue;
                }
                None => {}
            }
            let (blocks, length) =
                fs::metadata(&path).map_or((0, 0), |file| (file.blocks() * 512, file.len()));
            match digest_of(&path).zip(Record::read(&path)) {
                Some((digest, record))
                    if record.extents.total() > 0 && record.extents.is_sound(Some(length)) =>
                {
                    let room = space.adopt(Account::Cached, blocks);
                    known.insert(digest, Partial { record, room });
                }
                _ => remove(&path),
            }
        }
        Ok(Self {
            layout,
            known: Mutex::new(known),
        })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Digest, Partial>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a partial file to a fill.
    pub(super) fn take(&self, digest: &Digest) -> Option<Partial> {
        self.known().remove(digest)
    }

    /// Takes one back.
    pub(super) fn put(&self, digest: Digest, partial: Partial) {
        self.known().insert(digest, partial);
    }

    /// All, oldest first.
    pub(super) fn list(&self) -> Vec<Interrupted> {
        let known = self.known();
        let mut all: Vec<_> = known
            .iter()
            .map(|(digest, partial)| Interrupted {
                digest: *digest,
                repository: partial.record.repository.clone(),
                size: partial.record.size,
                present: partial.record.extents.total(),
                at: partial.record.at,
            })
            .collect();
        drop(known);
        all.sort_by_key(|partial| partial.at);
        all
    }

    /// Removes one that no fill holds: bytes of room that this gave back.
    pub(super) fn discard(&self, digest: &Digest) -> Option<u64> {
        let mut known = self.known();
        let partial = known.remove(digest)?;
        // Still locked: a fill that finds none makes a new one.
        remove(&self.layout.partial(digest));
        drop(known);
        Some(partial.room.bytes())
    }
}
