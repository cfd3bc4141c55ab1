//! The index: rows in redb, read in snapshots and written by one batching writer. redb's types stay in this folder.
//!
//! Reads block on the disk when a page is not cached: call them on a blocking thread ([`Index::read`]).

mod apply;
mod change;
mod keys;
mod queries;
mod records;
mod tables;
#[cfg(test)]
mod tests;
mod upgrade;
mod writer;

use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadTransaction, ReadableDatabase};

pub use change::{Change, Outline, Removed};
pub use records::{
    BlobRow, LinkRow, ManifestRow, PinRow, Proof, ReferrersRow, TagRow, Totals, Unit, UnitKey, UnitKind,
};

use crate::clock::Timestamp;

use super::error::Error;
use writer::Writer;

/// Memory for redb's own page cache: hot rows are kept decoded above, so this stays small.
const PAGE_CACHE: usize = 32 * 1024 * 1024;

/// The opened index.
pub struct Index {
    database: Arc<Database>,
    writer: Writer,
    last_closed: Option<Timestamp>,
}

impl Index {
    /// Opens or creates the file. `derive`: an older version may have written to it since it was brought to the
    /// present format, so what is derived is derived anew.
    pub fn open(path: &Path, derive: bool) -> Result<Self, Error> {
        let database = Database::builder()
            .set_cache_size(PAGE_CACHE)
            .create(path)
            .map_err(Error::index)?;
        let last_closed = upgrade::prepare(&database, derive)?;
        let database = Arc::new(database);
        let writer = Writer::start(database.clone())?;
        Ok(Self {
            database,
            writer,
            last_closed,
        })
    }

    /// Runs `query` on a blocking thread.
    pub async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        query: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let index = self.clone();
        tokio::task::spawn_blocking(move || query(&index))
            .await
            .unwrap_or_else(|panic| Err(Error::Index(format!("a read failed: {panic}"))))
    }

    /// Hands changes to the writer: they become durable together. The receiver tells when; it may be dropped.
    pub fn submit(&self, changes: Vec<Change>) {
        self.writer.submit(changes);
    }

    /// Submits and waits until the changes are durable.
    pub async fn commit(&self, changes: Vec<Change>) -> Result<(), Error> {
        self.remove(changes).await.map(drop)
    }

    /// [`Index::commit`], and says what these changes took away.
    pub async fn remove(&self, changes: Vec<Change>) -> Result<Removed, Error> {
        self.writer.commit(changes).await
    }

    /// Calls `forget` with what each commit took away, before those who wait for it hear of it. It runs on the writer's
    /// thread, so it must not block, nor wait for the index.
    pub fn on_removed(&self, forget: impl Fn(&Removed) + Send + Sync + 'static) {
        self.writer.on_removed(Box::new(forget));
    }

    /// When the index had last been closed before it was opened; none after a crash, and of a new one.
    pub fn last_closed(&self) -> Option<Timestamp> {
        self.last_closed
    }

    /// Ends the writer after everything submitted so far. Blocking.
    pub fn close(&self) {
        self.writer.close();
    }

    fn query<T>(&self, query: impl FnOnce(&ReadTransaction) -> Result<T, Error>) -> Result<T, Error> {
        query(&self.database.begin_read().map_err(Error::index)?)
    }
}
