//! Blobs: counted for the cache or for hosted repositories, and units of their own while no manifest here needs them.
//! Called by `apply` and `upgrade`.

use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::storage::error::Error;

use super::super::keys::{HOSTED, with_digest};
use super::super::records::{BlobRow, Record, UnitKind, UnitRow, allocated};
use super::Applier;

impl Applier<'_> {
    pub(super) fn put_blob(&mut self, digest: &Digest, row: &BlobRow, uploaded: bool) -> Result<(), Error> {
        let new = !self.uncount_blob(digest)?;
        self.blobs.put(&digest.to_key(), &row.encode())?;
        self.derive_blob(digest, row)?;
        if new && uploaded != self.is_hosted(digest)? {
            self.turned(row, !uploaded);
        }
        Ok(())
    }

    /// Whether a hosted repository may serve it: then it is nothing that could be evicted.
    pub(super) fn is_hosted(&self, digest: &Digest) -> Result<bool, Error> {
        self.holders.has_prefix(&with_digest(digest, HOSTED.as_bytes()))
    }

    /// A blob has come from one account to the other.
    pub(super) fn turned(&mut self, row: &BlobRow, hosted: bool) {
        let bytes = allocated(row.size);
        if hosted {
            self.removed.hosted_bytes += bytes;
        } else {
            self.removed.unhosted_bytes += bytes;
        }
    }

    /// Counts a blob that is in its table, and makes it a unit unless a manifest needs it.
    pub(in crate::storage::index) fn derive_blob(
        &mut self,
        digest: &Digest,
        row: &BlobRow,
    ) -> Result<(), Error> {
        self.totals.blobs += 1;
        self.totals.blob_bytes += allocated(row.size);
        if self.is_hosted(digest)? {
            self.totals.hosted_blobs += 1;
            self.totals.hosted_bytes += allocated(row.size);
        }
        let needed = self.needs.has_prefix(&digest.to_key())?;
        if !needed {
            self.make_loose(digest, row, row.stored_at, 0)?;
        }
        Ok(())
    }

    fn uncount_blob(&mut self, digest: &Digest) -> Result<bool, Error> {
        let Some(old) = self.blobs.get::<BlobRow>(&digest.to_key())? else {
            return Ok(false);
        };
        self.totals.blobs = self.totals.blobs.saturating_sub(1);
        self.totals.blob_bytes = self.totals.blob_bytes.saturating_sub(allocated(old.size));
        if self.is_hosted(digest)? {
            self.totals.hosted_blobs = self.totals.hosted_blobs.saturating_sub(1);
            self.totals.hosted_bytes = self.totals.hosted_bytes.saturating_sub(allocated(old.size));
        }
        Ok(true)
    }

    pub(super) fn make_loose(
        &mut self,
        digest: &Digest,
        row: &BlobRow,
        used: Timestamp,
        class: u8,
    ) -> Result<(), Error> {
        let unit = UnitRow {
            kind: UnitKind::Blob,
            last_used: used,
            bytes: allocated(row.size),
            class,
        };
        match self.unit(digest)? {
            // The same bytes are a manifest here, whose unit it is.
            Some(old) if old.kind != UnitKind::Blob => Ok(()),
            Some(old) => {
                let unit = UnitRow {
                    last_used: old.last_used.max(used),
                    class: old.class.max(class),
                    ..unit
                };
                self.put_unit(digest, &unit)
            }
            None => self.put_unit(digest, &unit),
        }
    }

    pub(super) fn remove_blob(&mut self, digest: &Digest) -> Result<(), Error> {
        let key = digest.to_key();
        self.uncount_blob(digest)?;
        self.blobs.remove(&key)?;
        if self.unit(digest)?.is_some_and(|unit| unit.kind == UnitKind::Blob) {
            self.remove_unit(digest)?;
        }
        self.forget_links(digest)
    }
}
