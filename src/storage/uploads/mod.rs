//! Upload sessions: blobs on their way in from clients that push, across requests and restarts. Called by `repository`.
//!
//! A session is a file and a small record beside it. One request has it at a time; the hash goes along with the bytes,
//! so that a closing request reads nothing again. The record is written when a request lets go of the session, and says
//! what was synced: after a power cut that is all that counts.

mod id;
mod known;
mod record;
mod session;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

pub use id::UploadId;
pub use session::Upload;

use crate::clock::Timestamp;
use crate::oci::Algorithm;

use super::error::Error;
use super::hasher::Hasher;
use super::layout::Layout;
use super::partial;
use super::space::{Account, Reservation, Space};
use known::{Known, Rest, Slot};
use record::Record;

/// What a client begins.
#[derive(Clone, Debug)]
pub struct NewUpload {
    /// The key of the repository that it is for.
    pub repository: String,
    /// Who alone may go on with it.
    pub owner: String,
    /// Whom it is counted for.
    pub counted: String,
    /// What its blob is to be named by.
    pub algorithm: Algorithm,
    /// Its bytes, if the client said how many.
    pub size: Option<u64>,
}

/// What is asked of sessions.
#[derive(Clone, Copy, Debug, Default)]
pub struct UploadRules {
    /// How many may be open for one identity or address; zero is any number.
    pub most: usize,
    /// Bytes that each chunk but the last has at the least; zero is any number.
    pub min_chunk: u64,
}

/// Why a session cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotHad {
    /// There is none of this name in this repository, or none any more.
    Unknown,
    /// Another request has it.
    Busy,
}

/// A session, for status and collection.
#[derive(Clone, Debug)]
pub struct UploadState {
    /// Its name.
    pub id: UploadId,
    /// The key of the repository that it is for.
    pub repository: String,
    /// Bytes that are here.
    pub size: u64,
    /// When bytes last came, or else when it began: being asked about does not keep it.
    pub at: Timestamp,
}

/// All upload sessions. Clones share them.
#[derive(Clone)]
pub struct Uploads {
    shared: Arc<Shared>,
    rules: UploadRules,
}

struct Shared {
    layout: Arc<Layout>,
    space: Arc<Space>,
    known: Mutex<Known>,
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, id: UploadId) -> PathBuf {
        self.layout.uploads().join(id.to_string())
    }

    /// The file of a new session, and its room.
    fn make(&self, id: UploadId, size: Option<u64>) -> Result<(File, Reservation), Error> {
        let room = self.space.reserve(Account::Hosted, size.unwrap_or(0));
        let room = room.map_err(Error::NoRoom)?;
        let path = self.path(id);
        let mut new = File::options();
        let file = new.read(true).write(true).create_new(true).open(&path);
        Ok((file.map_err(Error::at(&path))?, room))
    }
}

impl Uploads {
    /// Takes in what an earlier process left: sessions with a sound record; the others are removed.
    pub(in crate::storage) fn recover(layout: Arc<Layout>, space: Arc<Space>) -> Result<Self, Error> {
        let mut known = Known::default();
        let folder = layout.uploads();
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
            let id = path.file_name().and_then(|name| UploadId::parse(name.to_str()?));
            let (blocks, length) =
                fs::metadata(&path).map_or((0, 0), |file| (file.blocks() * 512, file.len()));
            match id.zip(Record::read(&path, length)) {
                Some((id, record)) => {
                    let room = space.adopt(Account::Hosted, blocks);
                    let counted = record.counted().to_owned();
                    known.enter(id, &counted, Slot::Resting(Box::new(Rest { record, room })), 0);
                }
                None => partial::remove(&path),
            }
        }
        let shared = Shared {
            layout,
            space,
            known: Mutex::new(known),
        };
        Ok(Self {
            shared: Arc::new(shared),
            rules: UploadRules::default(),
        })
    }

    /// The same ones, held to `rules`.
    #[must_use]
    pub fn held_to(self, rules: UploadRules) -> Self {
        Self { rules, ..self }
    }

    /// What they are held to.
    pub fn rules(&self) -> UploadRules {
        self.rules
    }

    /// Begins a session. Blocking.
    ///
    /// # Errors
    /// `TooManyUploads`, when as many are open for the same; `NoRoom` when its size, if the client said it, does not fit.
    pub fn begin(&self, new: NewUpload) -> Result<Upload, Error> {
        let (shared, id) = (self.shared.clone(), UploadId::random());
        let (holds, until) = watch::channel(());
        let taken = Slot::Taken {
            repository: new.repository.clone(),
            until,
        };
        let most = self.rules.most;
        if !shared.known().enter(id, &new.counted, taken, most) {
            return Err(Error::TooManyUploads(most));
        }
        let made = shared.make(id, new.size);
        let (file, room) = made.inspect_err(|_| shared.known().leave(id))?;
        let hasher = Hasher::new(new.algorithm);
        let record = Record::new(new);
        Ok(Upload::new(
            shared,
            id,
            file,
            hasher,
            Rest { record, room },
            holds,
        ))
    }

    /// Takes a session of `repository` up, until what is returned is dropped. Blocking.
    ///
    /// # Errors
    /// When there is none, another request has it, or its file cannot be opened.
    pub fn take(&self, repository: &str, id: UploadId) -> Result<Result<Upload, NotHad>, Error> {
        let shared = self.shared.clone();
        let (holds, until) = watch::channel(());
        let rest = {
            let mut known = shared.known();
            match known.get(id) {
                Some(Slot::Resting(rest)) if rest.record.repository == repository => {}
                Some(Slot::Taken { repository: its, .. }) if its == repository => {
                    return Ok(Err(NotHad::Busy));
                }
                _ => return Ok(Err(NotHad::Unknown)),
            }
            let taken = Slot::Taken {
                repository: repository.to_owned(),
                until,
            };
            match known.put(id, taken) {
                Some(Slot::Resting(rest)) => *rest,
                _ => return Ok(Err(NotHad::Unknown)),
            }
        };
        let path = shared.path(id);
        let opened = File::options().read(true).write(true).open(&path);
        let algorithm = rest.record.algorithm();
        let hasher = match rest.record.size {
            0 => Some(Hasher::new(algorithm)),
            _ => Hasher::restore(algorithm, &rest.record.hash),
        };
        let Some((file, hasher)) = opened.ok().zip(hasher) else {
            shared.known().leave(id);
            partial::remove(&path);
            return Ok(Err(NotHad::Unknown));
        };
        Ok(Ok(Upload::new(shared, id, file, hasher, rest, holds)))
    }

    /// What ends when the request that has the session lets go of it; `None` when none has it.
    pub fn until_released(&self, id: UploadId) -> Option<watch::Receiver<()>> {
        match self.shared.known().get(id) {
            Some(Slot::Taken { until, .. }) => Some(until.clone()),
            _ => None,
        }
    }

    /// All sessions that no request has.
    pub fn resting(&self) -> Vec<UploadState> {
        let known = self.shared.known();
        let resting = known.resting().map(|(id, record)| UploadState {
            id,
            repository: record.repository.clone(),
            size: record.size,
            at: record.at,
        });
        resting.collect()
    }

    /// Removes a session that no request has, and that nobody wrote to after `since`: its bytes, if it was such a one.
    /// Blocking.
    pub fn discard(&self, id: UploadId, since: Timestamp) -> Option<u64> {
        let mut known = self.shared.known();
        let size = match known.get(id)? {
            Slot::Resting(rest) if rest.record.at <= since => rest.record.size,
            Slot::Resting(_) | Slot::Taken { .. } => return None,
        };
        known.leave(id);
        drop(known);
        partial::remove(&self.shared.path(id));
        Some(size)
    }
}
