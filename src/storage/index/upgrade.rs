//! What is done to an index at its opening: missing tables are made, and an index of an older format gets the tables
//! that are derived from the others. Called by `Index::open`.

use redb::{ReadableTable as _, WriteTransaction};

use crate::clock::Timestamp;
use crate::oci::{Digest, Manifest, MediaType};
use crate::storage::error::Error;

use super::apply::{Applier, TOTALS};
use super::change::Outline;
use super::keys::split_content;
use super::records::{BlobRow, LinkRow, ManifestRow, TagRow, UnitKind};
use super::seat::Seat;
use super::tables::{self, DERIVED, META};

/// The format of the tables. 1 had neither derived tables nor this number.
const FORMAT: u8 = 2;
const FORMAT_KEY: &str = "index.format";

/// When the index was last closed in order.
pub(super) const CLOSED: &str = "index.closed";

/// There when the journal had all that the index holds when it was closed.
pub(super) const JOURNALED: &str = "index.journaled";

/// Rows that are in memory at a time. A manifest is 4 MiB at the worst.
const PAGE: usize = 64;

/// How the index was left.
pub(super) struct Left {
    /// When it was last closed in order; none after a crash.
    pub(super) closed: Option<Timestamp>,
    /// Whether the journal had all that it held.
    pub(super) journaled: bool,
}

/// Makes the tables ready for use, in one transaction. `anew`: the derived ones cannot be trusted.
pub(super) fn prepare(seat: &Seat, anew: bool) -> Result<Left, Error> {
    seat.write(|transaction| {
        tables::create(transaction)?;
        let (format, closed, journaled) = {
            let mut meta = transaction.open_table(META).map_err(Error::index)?;
            let format = meta.get(FORMAT_KEY.as_bytes()).map_err(Error::index)?;
            let format = format.and_then(|format| format.value().first().copied());
            let closed = meta.remove(CLOSED.as_bytes()).map_err(Error::index)?;
            let closed = closed.and_then(|closed| closed.value().try_into().ok().map(u64::from_be_bytes));
            let journaled = meta.remove(JOURNALED.as_bytes()).map_err(Error::index)?.is_some();
            (format, closed.map(Timestamp), journaled)
        };
        if anew || format != Some(FORMAT) {
            derive(transaction)?;
        }
        Ok(Left { closed, journaled })
    })
}

fn derive(transaction: &WriteTransaction) -> Result<(), Error> {
    for table in DERIVED {
        transaction.delete_table(table).map_err(Error::index)?;
    }
    {
        let mut meta = transaction.open_table(META).map_err(Error::index)?;
        meta.remove(TOTALS.as_bytes()).map_err(Error::index)?;
    }
    let mut applier = Applier::new(transaction)?;
    let mut rows = 0;
    // Links first: what a hosted repository holds is no unit of eviction.
    pages(
        &mut applier,
        |applier, after| applier.tags.page(after, PAGE),
        |applier, key, row: TagRow| applier.derive_tag(key, &row),
    )?;
    pages(
        &mut applier,
        |applier, after| applier.links.page(after, PAGE),
        |applier, key, row: LinkRow| match split_content(key) {
            Some((repository, digest)) => applier.derive_link(&repository, &digest, &row),
            None => Ok(()),
        },
    )?;
    // Then manifests, so that a blob knows whether one needs it. When each was used last nobody wrote down.
    let now = Timestamp::now();
    pages(
        &mut applier,
        |applier, after| applier.manifests.page(after, PAGE),
        |applier, key, row: ManifestRow| {
            let Some(digest) = Digest::from_key(key) else {
                return Ok(());
            };
            rows += 1;
            applier.derive_manifest(&digest, &row, &outline_of(&row), now)
        },
    )?;
    pages(
        &mut applier,
        |applier, after| applier.blobs.page(after, PAGE),
        |applier, key, row: BlobRow| {
            let Some(digest) = Digest::from_key(key) else {
                return Ok(());
            };
            rows += 1;
            applier.derive_blob(&digest, &row)
        },
    )?;
    if rows > 0 {
        tracing::info!(rows, "the index was brought to the present format");
    }
    applier.put_meta(FORMAT_KEY, &[FORMAT])?;
    applier.finish().map(drop)
}

/// Walks a table that `work` does not change.
fn pages<'t, R>(
    applier: &mut Applier<'t>,
    page: impl Fn(&Applier<'t>, &[u8]) -> Result<super::rows::Page<R>, Error>,
    mut work: impl FnMut(&mut Applier<'t>, &[u8], R) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut after = Vec::new();
    loop {
        let rows = page(applier, &after)?;
        let Some((last, _)) = rows.last() else {
            return Ok(());
        };
        after.clone_from(last);
        for (key, row) in rows {
            if let Some(row) = row {
                work(applier, &key, row)?;
            }
        }
    }
}

/// The outline of a manifest that is here. One that cannot be read needs nothing.
pub(in crate::storage) fn outline_of(row: &ManifestRow) -> Outline {
    let size = row.bytes.len() as u64;
    match Manifest::parse(&row.bytes, Some(&MediaType::new(&row.media_type))) {
        Ok(manifest) => Outline::of(&manifest, size),
        Err(_) => Outline {
            kind: UnitKind::Image,
            bytes: size,
            class: 0,
            needs: Vec::new(),
        },
    }
}
