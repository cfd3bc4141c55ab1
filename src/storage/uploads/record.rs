//! What is known of an upload session beside its bytes, in a file next to them. Read at the start, written by `session`.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::oci::Algorithm;
use crate::storage::error::Error;
use crate::storage::partial::{beside, boot};

use super::NewUpload;

/// What is known of a session beside its bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) repository: String,
    pub(super) owner: String,
    /// Whom it is counted for; an older version wrote none.
    #[serde(default)]
    counted: Option<String>,
    pub(super) algorithm: String,
    /// Bytes, all of them hashed into `hash`.
    pub(super) size: u64,
    pub(super) hash: String,
    /// Of them, what was synced, and the hash of that.
    pub(super) synced: u64,
    pub(super) synced_hash: String,
    pub(super) boot: String,
    /// Where the last chunk that came whole ended.
    #[serde(default)]
    pub(super) chunks_end: u64,
    /// It was too short to be followed by another one.
    #[serde(default)]
    pub(super) short: bool,
    began_at: Timestamp,
    /// When bytes last came.
    pub(super) at: Timestamp,
}

impl Record {
    /// That of a session that begins.
    pub(super) fn new(new: NewUpload) -> Self {
        let now = Timestamp::now();
        Self {
            repository: new.repository,
            owner: new.owner,
            counted: Some(new.counted),
            algorithm: new.algorithm.name().to_owned(),
            size: 0,
            hash: String::new(),
            synced: 0,
            synced_hash: String::new(),
            boot: boot().to_owned(),
            chunks_end: 0,
            short: false,
            began_at: now,
            at: now,
        }
    }

    pub(super) fn counted(&self) -> &str {
        self.counted.as_ref().unwrap_or(&self.owner)
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        match self.algorithm.as_str() {
            "sha512" => Algorithm::Sha512,
            _ => Algorithm::Sha256,
        }
    }

    /// The record beside a session's file, brought to what the disk has for certain; `None` when that is nothing.
    pub(super) fn read(path: &Path, length: u64) -> Option<Self> {
        let text = fs::read(beside(path, "json")).ok()?;
        let mut record: Self = serde_json::from_slice(&text).ok()?;
        if record.boot != boot() || record.boot.is_empty() {
            record.size = record.synced;
            record.hash.clone_from(&record.synced_hash);
            boot().clone_into(&mut record.boot);
            if record.chunks_end > record.size {
                // The rest of it comes again.
                (record.chunks_end, record.short) = (record.size, false);
            }
        }
        (record.size <= length).then_some(record)
    }

    /// Not synced itself: a torn one is as good as none.
    pub(super) fn save(&self, path: &Path) -> Result<(), Error> {
        let (target, draft) = (beside(path, "json"), beside(path, "draft"));
        let text = serde_json::to_vec(self).unwrap_or_default();
        File::create(&draft)
            .and_then(|mut file| file.write_all(&text))
            .and_then(|()| fs::rename(&draft, &target))
            .map_err(Error::at(&target))
    }
}
