//! Files of rotten blobs, put aside until the blob is here again: evidence, in case it cannot be had.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::oci::Digest;

use super::error::Error;
use super::layout::{Layout, digest_of};
use super::space::{Account, Reservation, Space};

/// The files that are aside, with the room that they take.
pub(super) struct Quarantine {
    layout: Arc<Layout>,
    files: Mutex<HashMap<Digest, Reservation>>,
}

impl Quarantine {
    /// Takes in what earlier processes put aside.
    pub(super) fn recover(layout: Arc<Layout>, space: &Arc<Space>) -> Result<Self, Error> {
        let folder = layout.quarantine();
        let mut files = HashMap::new();
        for entry in fs::read_dir(&folder).map_err(Error::at(&folder))? {
            let entry = entry.map_err(Error::at(&folder))?;
            let blocks = entry.metadata().map_or(0, |file| file.blocks() * 512);
            if let Some(digest) = digest_of(&entry.path()) {
                files.insert(digest, space.adopt(Account::Cached, blocks));
            }
        }
        let files = Mutex::new(files);
        Ok(Self { layout, files })
    }

    fn files(&self) -> MutexGuard<'_, HashMap<Digest, Reservation>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, digest: Digest, room: Reservation) {
        self.files().insert(digest, room);
    }

    /// The blob is here again: its rotten file goes.
    pub(super) fn release(&self, digest: &Digest) {
        let room = self.files().remove(digest);
        if room.is_some() {
            // What cannot be removed is found again at the next start.
            let _ = fs::remove_file(self.layout.quarantined(digest));
        }
    }

    /// What is aside.
    pub(super) fn list(&self) -> Vec<Digest> {
        self.files().keys().copied().collect()
    }
}
