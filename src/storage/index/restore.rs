//! The index to the journal, and back: `writer` dumps its rows when the journal is compacted, `rebuild` makes a new index of
//! them.

use std::collections::HashSet;
use std::ops::Bound;
use std::path::Path;

use crate::oci::Digest;
use crate::storage::error::Error;
use crate::storage::hasher::Hasher;
use crate::storage::journal::{self, Compacted, Entry, Kept};

use super::apply::Applier;
use super::backend;
use super::records::{BlobRow, ManifestRow, Record as _, TagRow};
use super::seat::Seat;
use super::tables::{
    self, BLOBS, IDENTITIES, LINKS, MANIFESTS, NAMESPACES, PINS, REFERRERS, REPOSITORIES, TAGS, Table,
};
use super::upgrade;

/// Rows that are in memory at a time. A manifest is 4 MiB at the worst.
const PAGE: usize = 64;

/// Rows that one transaction takes.
const BATCH: usize = 4096;

fn table_of(kept: Kept) -> Table {
    match kept {
        Kept::Manifest => MANIFESTS,
        Kept::Tag => TAGS,
        Kept::Link => LINKS,
        Kept::Referrers => REFERRERS,
        Kept::Pin => PINS,
        Kept::Repository => REPOSITORIES,
        Kept::Identity => IDENTITIES,
        Kept::Namespace => NAMESPACES,
    }
}

/// Gives all that the journal keeps of an index, a page at a time, each a snapshot of its own: what changes meanwhile
/// is in the journal's next file.
pub(super) fn dump(seat: &Seat, rows: &mut Compacted<'_>) -> Result<(), Error> {
    each(seat, |entries| rows.add(entries))
}

fn each(seat: &Seat, mut give: impl FnMut(&[Entry]) -> Result<(), Error>) -> Result<(), Error> {
    for kept in Kept::ALL {
        let mut after = Vec::new();
        loop {
            let page = page(seat, kept, &after)?;
            let Some(last) = page.last() else { break };
            after.clone_from(&last.key);
            give(&page)?;
        }
    }
    Ok(())
}

fn page(seat: &Seat, kept: Kept, after: &[u8]) -> Result<Vec<Entry>, Error> {
    seat.read(|transaction| {
        let table = transaction.open_table(table_of(kept)).map_err(Error::index)?;
        let bounds = (Bound::Excluded(after), Bound::Unbounded);
        let mut entries = Vec::new();
        for row in table.range::<&[u8]>(bounds).map_err(Error::index)?.take(PAGE) {
            let (key, value) = row.map_err(Error::index)?;
            entries.push(Entry {
                table: kept,
                key: key.value().to_vec(),
                value: Some(value.value().to_vec()),
            });
        }
        Ok(entries)
    })
}

/// What a new index was made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::storage) struct Restored {
    /// Whether the old index could be read; else it is the journal.
    pub(in crate::storage) of_index: bool,
    pub(in crate::storage) manifests: u64,
    pub(in crate::storage) tags: u64,
    pub(in crate::storage) links: u64,
    pub(in crate::storage) blobs: u64,
    /// Records of the journal, or stretches of it, that cannot be read.
    pub(in crate::storage) damaged: u64,
    /// Manifests with other bytes than their digest says, left out.
    pub(in crate::storage) wrong: u64,
    /// Tags whose manifest is not there, left out.
    pub(in crate::storage) dangling: u64,
}

/// Makes a new index at `new` of what `folder` has: the rows of the old index if all of it can be read, else those of the
/// journal; and a row for each blob that `blobs` gives.
pub(in crate::storage) fn restore(
    folder: &Path,
    new: &Path,
    blobs: impl Iterator<Item = Result<(Digest, BlobRow), Error>>,
) -> Result<Restored, Error> {
    let old = old_index(&folder.join(super::FILE));
    let seat = Seat::open(backend::file(new))?;
    upgrade::prepare(&seat, false)?;
    let mut restored = Restored {
        of_index: old.is_some(),
        ..Restored::default()
    };
    let mut batch = Batch {
        seat: &seat,
        entries: Vec::new(),
        bytes: 0,
        wrong: 0,
    };
    match &old {
        Some(old) => each(old, |entries| {
            entries.iter().try_for_each(|entry| batch.add(entry.clone()))
        })?,
        None => restored.damaged = journal::replay(&folder.join(super::JOURNAL), |entry| batch.add(entry))?,
    }
    batch.write()?;
    restored.wrong = batch.wrong;
    drop(old);
    let mut rows = Vec::new();
    for blob in blobs {
        rows.push(blob?);
        if rows.len() == BATCH {
            put_blobs(&seat, &std::mem::take(&mut rows))?;
        }
    }
    put_blobs(&seat, &rows)?;
    restored.dangling = drop_dangling(&seat)?;
    upgrade::prepare(&seat, true)?;
    for (table, count) in [
        (MANIFESTS, &mut restored.manifests),
        (TAGS, &mut restored.tags),
        (LINKS, &mut restored.links),
        (BLOBS, &mut restored.blobs),
    ] {
        *count = seat.read(|transaction| {
            let table = transaction.open_table(table).map_err(Error::index)?;
            redb::ReadableTableMetadata::len(&table).map_err(Error::index)
        })?;
    }
    Ok(restored)
}

/// The old index, if it can be relied on.
fn old_index(path: &Path) -> Option<Seat> {
    if !path.exists() {
        return None;
    }
    // redb checks much of what it reads by assertions: what is damaged may end in a panic.
    let checked = std::panic::catch_unwind(|| {
        let mut database = redb::Database::open(path)?;
        let sound = database.check_integrity();
        sound.map(drop)
    });
    match checked {
        Ok(Ok(())) => {
            let seat = Seat::open(backend::file(path)).ok()?;
            // The tables too must be those of an index. An old one may have fewer.
            seat.write(tables::create).ok()?;
            let read = Kept::ALL
                .iter()
                .try_for_each(|kept| page(&seat, *kept, &[]).map(drop));
            read.is_ok().then_some(seat)
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "the old index cannot be used");
            None
        }
        Err(_) => None,
    }
}

/// Rows on their way into a new index.
struct Batch<'a> {
    seat: &'a Seat,
    entries: Vec<Entry>,
    bytes: usize,
    wrong: u64,
}

impl Batch<'_> {
    fn add(&mut self, entry: Entry) -> Result<(), Error> {
        const MOST_BYTES: usize = 32 * 1024 * 1024;
        if !is_right(&entry) {
            self.wrong += 1;
            return Ok(());
        }
        self.bytes += entry.value.as_ref().map_or(0, Vec::len);
        self.entries.push(entry);
        if self.entries.len() == BATCH || self.bytes >= MOST_BYTES {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), Error> {
        let entries = std::mem::take(&mut self.entries);
        self.bytes = 0;
        self.seat.write(|transaction| {
            let mut applier = Applier::new(transaction)?;
            for entry in &entries {
                applier.restore(entry)?;
            }
            applier.finish().map(drop)
        })
    }
}

/// Whether a manifest is what its digest says; of other rows nothing can be said.
fn is_right(entry: &Entry) -> bool {
    let (Kept::Manifest, Some(value)) = (entry.table, &entry.value) else {
        return true;
    };
    let row = ManifestRow::decode(value);
    Digest::from_key(&entry.key)
        .zip(row)
        .is_some_and(|(digest, row)| Hasher::digest(digest.algorithm(), &row.bytes) == digest)
}

fn put_blobs(seat: &Seat, rows: &[(Digest, BlobRow)]) -> Result<(), Error> {
    seat.write(|transaction| {
        let mut applier = Applier::new(transaction)?;
        for (digest, row) in rows {
            applier.restore_blob(digest, row)?;
        }
        applier.finish().map(drop)
    })
}

/// Removes tags whose manifest is not there; says how many.
fn drop_dangling(seat: &Seat) -> Result<u64, Error> {
    seat.write(|transaction| {
        let mut applier = Applier::new(transaction)?;
        let (mut after, mut gone) = (Vec::new(), HashSet::new());
        loop {
            let page = applier.tags.page::<TagRow>(&after, BATCH)?;
            let Some((last, _)) = page.last() else { break };
            after.clone_from(last);
            for (key, row) in page {
                let digest = row.and_then(|row| row.digest.parse::<Digest>().ok());
                let there = match digest {
                    Some(digest) => applier.manifests.has(&digest.to_key())?,
                    None => false,
                };
                if !there {
                    gone.insert(key);
                }
            }
        }
        for key in &gone {
            applier.restore(&Entry {
                table: Kept::Tag,
                key: key.clone(),
                value: None,
            })?;
        }
        applier.finish()?;
        Ok(gone.len() as u64)
    })
}
