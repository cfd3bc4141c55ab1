//! Bytes and index on this machine's disk, without network.
//!
//! The write order of law 3: bytes, fsync, rename, fsync of the folder, index commit; and to remove: index commit, then
//! unlink. A crash leaves a file without a row, never a row without bytes. Called by `repository` and `cache`.

mod blobs;
mod error;
mod hasher;
mod index;
mod ingest;
mod layout;
mod reader;
mod tail;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

pub use blobs::{Blobs, StoredBlob};
pub use error::Error;
pub use hasher::Hasher;
pub use index::{BlobRow, Change, Index, LinkRow, ManifestRow, Proof, ReferrersRow, TagRow};
pub use ingest::Ingest;
pub use reader::{BlobReader, ReadError};
pub use tail::{Growing, Tail};

use layout::Layout;

/// The data folder, opened and locked: blobs and index.
pub struct Storage {
    /// Blob files.
    pub blobs: Blobs,
    /// Rows.
    pub index: Arc<Index>,
    // Held for as long as the storage lives: one daemon per data folder.
    _lock: File,
}

impl Storage {
    /// Opens the folder, creating it when it is new or empty. Blocking: called once, before anything is served.
    pub fn open(data_dir: &Path) -> Result<Self, Error> {
        let layout = Arc::new(Layout::new(data_dir));
        let lock = layout.prepare()?;
        layout.clear_partials()?;
        let index = Arc::new(Index::open(&layout.index())?);
        let blobs = Blobs::new(layout, index.clone());
        Ok(Self {
            blobs,
            index,
            _lock: lock,
        })
    }

    /// Waits until everything that was submitted to the index is durable. Blocking.
    pub fn close(&self) {
        self.index.close();
    }
}
