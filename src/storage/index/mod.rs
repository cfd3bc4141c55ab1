//! The index: rows in redb, read in snapshots and written by one batching writer. redb's types stay in this folder.
//!
//! Reads block on the disk when a page is not cached: call them on a blocking thread ([`Index::read`]).

mod admission;
mod apply;
mod backend;
mod ballast;
mod change;
mod keys;
mod pins;
mod queries;
mod records;
mod restore;
mod rows;
mod seat;
mod tables;
#[cfg(test)]
mod tests;
mod upgrade;
mod writer;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use redb::ReadTransaction;

pub use change::{Change, Outline, Removed};
pub use keys::{HOSTED, is_hosted};
pub use records::{
    BlobRow, LinkRow, ManifestRow, PinName, PinRow, Proof, ReferrersRow, RepositoryRow, TagRow, Totals, Unit,
    UnitKey, UnitKind, UseRow,
};

use crate::clock::Timestamp;

use super::error::Error;
use super::journal::Journal;
use super::layout::sync_folder;
use ballast::Ballast;
use seat::Seat;
use writer::Writer;

pub(super) use restore::restore;

/// The index's own files in the data folder.
pub(super) const FILE: &str = "index.redb";
pub(super) const BALLAST: &str = "ballast";
pub(super) const JOURNAL: &str = "journal";

/// The opened index.
pub struct Index {
    seat: Arc<Seat>,
    writer: Writer,
    last_closed: Option<Timestamp>,
}

/// A new index gets its name when it is whole: a kill before that leaves nothing that looks damaged.
fn create(path: &Path) -> Result<(), Error> {
    let new = path.with_extension("redb.new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::at(&new)(error)),
        _ => {}
    }
    let seat = Seat::open(backend::file(&new))?;
    upgrade::prepare(&seat, false)?;
    drop(seat);
    fs::rename(&new, path).map_err(Error::at(path))?;
    path.parent().map_or(Ok(()), sync_folder)
}

impl Index {
    /// Opens or creates the index in `folder`. `derive`: an older version may have written to it since it was brought to
    /// the present format, so what is derived is derived anew. `cap`, on all that is kept, bounds the ballast.
    ///
    /// # Errors
    /// `Damaged` when its file is not what it should be.
    pub fn open(folder: &Path, derive: bool, cap: Option<u64>) -> Result<Self, Error> {
        let path = folder.join(FILE);
        if !path.exists() && Journal::is_there(&folder.join(JOURNAL)) {
            return Err(Error::Damaged("it is missing".to_owned()));
        }
        if !path.exists() {
            create(&path)?;
        }
        Self::over(backend::file(&path), folder, derive, cap)
    }

    /// The same over any backend, with journal and ballast in `folder`.
    fn over(opener: backend::Opener, folder: &Path, derive: bool, cap: Option<u64>) -> Result<Self, Error> {
        let mut ballast = Ballast::new(&folder.join(BALLAST), cap);
        let seat = match Seat::open(opener.clone()) {
            // After a crash even opening writes.
            Err(Error::Index(_)) if ballast.release() => Seat::open(opener),
            seat => seat,
        }?;
        let seat = Arc::new(seat);
        let left = match upgrade::prepare(&seat, derive) {
            // Full, perhaps.
            Err(_) if ballast.release() => seat.renew().and_then(|()| upgrade::prepare(&seat, derive)),
            left => left,
        }?;
        let journal = Journal::open(&folder.join(JOURNAL), left.journaled)?;
        let writer = Writer::start(seat.clone(), ballast, journal)?;
        Ok(Self {
            seat,
            writer,
            last_closed: left.closed,
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

    fn query<T>(&self, query: impl Fn(&ReadTransaction) -> Result<T, Error>) -> Result<T, Error> {
        self.seat.read(query)
    }
}
