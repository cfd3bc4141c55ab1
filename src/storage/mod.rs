//! Bytes and index on this machine's disk, without network.
//!
//! The write order of law 3: bytes, fsync, rename, fsync of the folder, index commit; and to remove: index commit, then
//! unlink. A crash leaves a file without a row, never a row without bytes. Called by `repository` and `cache`.

mod audit;
mod blobs;
mod blocks;
mod error;
mod extents;
mod growing;
mod hasher;
mod held;
mod index;
mod ingest;
mod journal;
mod layout;
mod notes;
mod partial;
mod quarantine;
mod reader;
mod rebuild;
mod space;
mod steps;
mod tail;
#[cfg(test)]
mod tests;
mod through;
mod uploads;
mod window;

use std::fs::File;
use std::sync::Arc;

pub use audit::{Health, Inspection, Looked, Swept};
pub use blobs::Blobs;
pub use error::Error;
pub use extents::Extents;
pub use growing::{Growing, NEAR, Want};
pub use hasher::Hasher;
pub use held::StoredBlob;
pub use index::{
    BlobRow, Change, HOSTED, Index, LinkRow, ManifestRow, Outline, PinName, PinRow, Proof, ReferrersRow,
    Removed, RepositoryRow, TagRow, Totals, Unit, UnitKey, UnitKind, UseRow, is_hosted,
};
pub use ingest::Ingest;
pub use notes::Notes;
pub use partial::Interrupted;
pub use reader::{BlobReader, ReadError};
pub use rebuild::{Rebuilt, rebuild};
pub use space::{Account, NoRoom, Reservation, Space, Usage, allocated};
pub use tail::Tail;
pub use through::{NextPiece, Pieces, Refetch};
pub use uploads::{NewUpload, NotHad, Upload, UploadId, UploadRules, UploadState, Uploads};

use layout::Layout;
use partial::Partials;
use quarantine::Quarantine;
use space::Bounds;

use crate::config::StorageConfig;

/// The data folder, opened and locked: blobs and index.
pub struct Storage {
    /// Blob files.
    pub blobs: Blobs,
    /// Upload sessions.
    pub uploads: Uploads,
    /// Rows.
    pub index: Arc<Index>,
    notes: Notes,
    // Held for as long as the storage lives: one daemon per data folder.
    _lock: File,
}

impl Storage {
    /// Opens the folder, creating it when it is new or empty. Blocking: called once, before anything is served.
    pub fn open(config: &StorageConfig) -> Result<Self, Error> {
        let layout = Arc::new(Layout::new(&config.data_dir));
        let lock = layout.prepare()?;
        let outdated = layout.is_outdated()?;
        let index = Arc::new(Index::open(layout.root(), outdated, config.max_size)?);
        if outdated {
            // Last: until then the older version, too, can open the folder.
            layout.mark()?;
        }
        if !config.accept_loss {
            audit::check_samples(&layout, &index)?;
        }
        let bounds = Bounds {
            max_size: config.max_size,
            hosted_max_size: config.hosted_max_size,
            min_free: config.min_free,
        };
        let space = Space::new(&layout, bounds);
        // Blobs stay counted until they are removed.
        let totals = index.totals()?;
        let cached = totals.blob_bytes.saturating_sub(totals.hosted_bytes);
        space.adopt(Account::Cached, cached).keep();
        space.adopt(Account::Hosted, totals.hosted_bytes).keep();
        let its = space.clone();
        index.on_removed(move |removed| {
            its.transfer(removed.hosted_bytes, Account::Hosted);
            its.transfer(removed.unhosted_bytes, Account::Cached);
        });
        let partials = Partials::recover(layout.clone(), &space)?;
        let quarantine = Quarantine::recover(layout.clone(), &space)?;
        let uploads = Uploads::recover(layout.clone(), space.clone())?;
        let notes = Notes::new(&layout);
        let blobs = Blobs::new(layout, space, partials, quarantine, index.clone());
        Ok(Self {
            blobs,
            uploads,
            index,
            notes,
            _lock: lock,
        })
    }

    /// Small files of whoever keeps something across restarts.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Waits until everything that was submitted to the index is durable. Blocking.
    pub fn close(&self) {
        self.index.close();
    }
}
