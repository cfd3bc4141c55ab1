//! What each change does to the tables: the row itself, and all that is derived from it, in one transaction.
//!
//! Everything here reads before it writes, so that no caller can forget a reverse row, a unit or a total. Called by
//! `writer` and `upgrade`.

mod blobs;
mod links;
mod manifests;
mod units;

use redb::WriteTransaction;

use crate::clock::Timestamp;
use crate::oci::{Descriptor, Digest};
use crate::storage::error::Error;
use crate::storage::journal::{Entry, Kept};

use super::change::{Action, Removed};
use super::keys::{content_key, tag_key, use_key};
use super::records::{BlobRow, Record, ReferrersRow, Totals};
use super::rows::Rows;
use super::tables::{
    BLOBS, HOLDERS, IDENTITIES, LINKS, MANIFESTS, META, NAMESPACES, NEEDS, ORDER, OUTLINES, PINS, REFERRERS,
    REPOSITORIES, TAGGED, TAGS, UNITS, USAGE, USES,
};

/// The name of the totals in `meta.v1`.
pub(super) const TOTALS: &str = "index.totals";

/// A row of [`USAGE`].
pub(super) fn read_usage(row: &[u8]) -> u64 {
    row.try_into().map_or(0, u64::from_be_bytes)
}

/// All tables, open for one transaction.
pub(super) struct Applier<'t> {
    pub(super) blobs: Rows<'t>,
    pub(super) manifests: Rows<'t>,
    pub(super) tags: Rows<'t>,
    pub(super) links: Rows<'t>,
    referrers: Rows<'t>,
    pub(super) pins: Rows<'t>,
    uses: Rows<'t>,
    pub(super) repositories: Rows<'t>,
    identities: Rows<'t>,
    namespaces: Rows<'t>,
    pub(super) usage: Rows<'t>,
    units: Rows<'t>,
    order: Rows<'t>,
    outlines: Rows<'t>,
    needs: Rows<'t>,
    holders: Rows<'t>,
    tagged: Rows<'t>,
    meta: Rows<'t>,
    totals: Totals,
    removed: Removed,
}

impl<'t> Applier<'t> {
    pub(super) fn new(transaction: &'t WriteTransaction) -> Result<Self, Error> {
        let open = |table| Rows::open(transaction, table);
        let meta = open(META)?;
        let totals = meta.get(TOTALS.as_bytes())?.unwrap_or_default();
        Ok(Self {
            blobs: open(BLOBS)?,
            manifests: open(MANIFESTS)?.kept(Kept::Manifest),
            tags: open(TAGS)?.kept(Kept::Tag),
            links: open(LINKS)?.kept(Kept::Link),
            referrers: open(REFERRERS)?.kept(Kept::Referrers),
            pins: open(PINS)?.kept(Kept::Pin),
            uses: open(USES)?,
            usage: open(USAGE)?,
            repositories: open(REPOSITORIES)?.kept(Kept::Repository),
            identities: open(IDENTITIES)?.kept(Kept::Identity),
            namespaces: open(NAMESPACES)?.kept(Kept::Namespace),
            units: open(UNITS)?,
            order: open(ORDER)?,
            outlines: open(OUTLINES)?,
            needs: open(NEEDS)?,
            holders: open(HOLDERS)?,
            tagged: open(TAGGED)?,
            meta,
            totals,
            removed: Removed::default(),
        })
    }

    /// Writes what was counted, and lets go of the tables: the transaction can be committed. Gives what the journal is
    /// to keep of it.
    pub(super) fn finish(mut self) -> Result<Vec<Entry>, Error> {
        self.meta.put(TOTALS.as_bytes(), &self.totals.encode())?;
        let mut entries = Vec::new();
        for rows in [
            self.manifests,
            self.tags,
            self.links,
            self.referrers,
            self.pins,
            self.repositories,
            self.identities,
            self.namespaces,
        ] {
            entries.extend(rows.done());
        }
        Ok(entries)
    }

    /// Puts back a row as the journal kept it; what is derived from it is not.
    pub(super) fn restore(&mut self, entry: &Entry) -> Result<(), Error> {
        let rows = match entry.table {
            Kept::Manifest => &mut self.manifests,
            Kept::Tag => &mut self.tags,
            Kept::Link => &mut self.links,
            Kept::Referrers => &mut self.referrers,
            Kept::Pin => &mut self.pins,
            Kept::Repository => &mut self.repositories,
            Kept::Identity => &mut self.identities,
            Kept::Namespace => &mut self.namespaces,
        };
        rows.restore(&entry.key, entry.value.as_deref())
    }

    /// Puts back the row of a blob; what is derived from it is not.
    pub(super) fn restore_blob(&mut self, digest: &Digest, row: &BlobRow) -> Result<(), Error> {
        self.blobs.put(&digest.to_key(), &row.encode())
    }

    /// What was removed since the last call.
    pub(super) fn take_removed(&mut self) -> Removed {
        std::mem::take(&mut self.removed)
    }

    pub(super) fn apply(&mut self, action: &Action) -> Result<(), Error> {
        match action {
            // Judged before the first change of its submission.
            Action::Admit(_) => Ok(()),
            Action::PutBlob(digest, row) => self.put_blob(digest, row, false),
            Action::PutUploaded(digest, row) => self.put_blob(digest, row, true),
            Action::RemoveHosted(repository, digest) => self.remove_hosted(repository, digest),
            Action::RemoveUnheld(digest) if self.holders.has_prefix(&digest.to_key())? => Ok(()),
            Action::RemoveBlob(digest) | Action::RemoveUnheld(digest) => self.remove_blob(digest),
            Action::PutManifest(digest, row, outline, at) => self.put_manifest(digest, row, outline, *at),
            Action::RemoveManifest(digest) if self.is_hosted(digest)? => self.remove_cached_share(digest),
            Action::RemoveManifest(digest) => self.remove_manifest(digest),
            Action::PutTag(repository, tag, row) => self.put_tag(&tag_key(repository, tag.as_str()), row),
            Action::RemoveTag(repository, tag) => {
                self.remove_tag(&tag_key(repository, tag.as_str())).map(drop)
            }
            Action::PutLink(repository, digest, row) => self.put_link(repository, digest, row),
            Action::RemoveLink(repository, digest) => self.remove_link(repository, digest).map(drop),
            Action::PutReferrers(repository, subject, row) => self
                .referrers
                .put(&content_key(repository, subject), &row.encode()),
            Action::RemoveReferrers(repository, subject) => {
                self.referrers.remove(&content_key(repository, subject)).map(drop)
            }
            Action::AddReferrer(repository, subject, referrer) => {
                self.change_referrers(repository, subject, &referrer.digest, Some(referrer))
            }
            Action::RemoveReferrer(repository, subject, referrer) => {
                self.change_referrers(repository, subject, &referrer.to_string(), None)
            }
            Action::PutRepository(name, row) => {
                if !self.namespaces.has(name.namespace().as_bytes())? {
                    self.namespaces.put(name.namespace().as_bytes(), &[])?;
                }
                self.repositories.put(name.as_str().as_bytes(), &row.encode())
            }
            Action::RemoveRepository(name) => self.repositories.remove(name.as_str().as_bytes()).map(drop),
            Action::PutIdentity(name, row) => self.identities.put(name.as_bytes(), row),
            Action::RemoveIdentity(name) => self.identities.remove(name.as_bytes()).map(drop),
            Action::Touch(digest, at) => {
                self.change_unit(digest, |unit| unit.last_used = unit.last_used.max(*at))
            }
            Action::Classify(digest, class) => self.change_unit(digest, |unit| unit.class = *class),
            Action::PutUse(repository, reference, row) => {
                self.uses.put(&use_key(repository, reference), &row.encode())
            }
            Action::RemoveUse(repository, reference) => {
                self.uses.remove(&use_key(repository, reference)).map(drop)
            }
            Action::PutPin(digest, row) => self.pins.put(&digest.to_key(), &row.encode()),
            Action::RemovePin(digest) => self.pins.remove(&digest.to_key()).map(drop),
            Action::PinTag(repository, tag, name, at) => self.pin_tag(repository, tag, name, *at),
            Action::PinDigest(digest, name, at) => self.pin(digest, name.clone(), *at),
            Action::Unpin(name) => self.unpin(name),
            Action::PutMeta(name, value) => self.put_meta(name, value),
        }
    }

    pub(super) fn put_meta(&mut self, name: &str, value: &[u8]) -> Result<(), Error> {
        self.meta.put(name.as_bytes(), value)
    }

    /// Replaces the entry of `referrer` in the list of `subject`, or takes it out.
    fn change_referrers(
        &mut self,
        repository: &str,
        subject: &Digest,
        referrer: &str,
        entry: Option<&Descriptor>,
    ) -> Result<(), Error> {
        let key = content_key(repository, subject);
        let old = self.referrers.get::<ReferrersRow>(&key)?;
        let mut descriptors = old.map(|row| row.descriptors).unwrap_or_default();
        descriptors.retain(|known| known.digest != referrer);
        descriptors.extend(entry.cloned());
        if descriptors.is_empty() {
            return self.referrers.remove(&key).map(drop);
        }
        let row = ReferrersRow {
            descriptors,
            validated_at: Timestamp::now(),
        };
        self.referrers.put(&key, &row.encode())
    }
}
