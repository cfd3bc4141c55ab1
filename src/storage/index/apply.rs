//! What each change does to the tables: the row itself, and all that is derived from it, in one transaction.
//!
//! Everything here reads before it writes, so that no caller can forget a reverse row, a unit or a total. Called by
//! `writer` and `upgrade`.

use std::collections::HashSet;

use redb::WriteTransaction;

use crate::clock::Timestamp;
use crate::oci::{Descriptor, Digest};
use crate::storage::error::Error;
use crate::storage::journal::{Entry, Kept};

use super::change::{Action, Outline, Removed};
use super::keys::{
    HOSTED, content_key, digests_key, is_hosted, order_key, split_digests, split_tag, tag_key, use_key,
    with_digest,
};
use super::records::{
    BlobRow, LinkRow, ManifestRow, Record, ReferrersRow, TagRow, Totals, UnitKind, UnitRow, allocated,
};
use super::rows::Rows;
use super::tables::{
    BLOBS, HOLDERS, IDENTITIES, LINKS, MANIFESTS, META, NAMESPACES, NEEDS, ORDER, OUTLINES, PINS, REFERRERS,
    REPOSITORIES, TAGGED, TAGS, UNITS, USAGE, USES,
};
use super::upgrade::outline_of;

/// The name of the totals in `meta.v1`.
pub(super) const TOTALS: &str = "index.totals";

/// Classes of value are below this.
const CLASSES: u8 = 16;

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

    fn put_blob(&mut self, digest: &Digest, row: &BlobRow, uploaded: bool) -> Result<(), Error> {
        let new = !self.uncount_blob(digest)?;
        self.blobs.put(&digest.to_key(), &row.encode())?;
        self.derive_blob(digest, row)?;
        if new && uploaded != self.is_hosted(digest)? {
            self.turned(row, !uploaded);
        }
        Ok(())
    }

    /// Whether a hosted repository may serve it: then it is nothing that could be evicted.
    fn is_hosted(&self, digest: &Digest) -> Result<bool, Error> {
        self.holders.has_prefix(&with_digest(digest, HOSTED.as_bytes()))
    }

    /// A blob has come from one account to the other.
    fn turned(&mut self, row: &BlobRow, hosted: bool) {
        let bytes = allocated(row.size);
        if hosted {
            self.removed.hosted_bytes += bytes;
        } else {
            self.removed.unhosted_bytes += bytes;
        }
    }

    /// Counts a blob that is in its table, and makes it a unit unless a manifest needs it.
    pub(super) fn derive_blob(&mut self, digest: &Digest, row: &BlobRow) -> Result<(), Error> {
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

    fn make_loose(
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

    fn remove_blob(&mut self, digest: &Digest) -> Result<(), Error> {
        let key = digest.to_key();
        self.uncount_blob(digest)?;
        self.blobs.remove(&key)?;
        if self.unit(digest)?.is_some_and(|unit| unit.kind == UnitKind::Blob) {
            self.remove_unit(digest)?;
        }
        self.forget_links(digest)
    }

    fn put_manifest(
        &mut self,
        digest: &Digest,
        row: &ManifestRow,
        outline: &Outline,
        at: Timestamp,
    ) -> Result<(), Error> {
        let key = digest.to_key();
        self.uncount_manifest(&key)?;
        // Another version may have read the same bytes otherwise.
        let needs: HashSet<_> = outline.needs.iter().collect();
        for old in split_digests(&self.outlines.raw(&key)?.unwrap_or_default()) {
            if !needs.contains(&old) {
                self.needs.remove(&with_digest(&old, &key))?;
                self.release(&old, at, 0)?;
            }
        }
        self.manifests.put(&key, &row.encode())?;
        self.derive_manifest(digest, row, outline, at)
    }

    /// Counts a manifest that is in its table, makes it a unit, and writes down what it needs.
    pub(super) fn derive_manifest(
        &mut self,
        digest: &Digest,
        row: &ManifestRow,
        outline: &Outline,
        at: Timestamp,
    ) -> Result<(), Error> {
        let key = digest.to_key();
        self.totals.manifests += 1;
        self.totals.manifest_bytes += row.bytes.len() as u64;
        self.outlines.put(&key, &digests_key(&outline.needs))?;
        let mut last_used = at;
        for needed in &outline.needs {
            self.needs.put(&with_digest(needed, &key), &[])?;
            if let Some(unit) = self.unit(needed)?
                && unit.kind == UnitKind::Blob
            {
                last_used = last_used.max(unit.last_used);
                self.remove_unit(needed)?;
            }
        }
        if let Some(old) = self.unit(digest)? {
            last_used = last_used.max(old.last_used);
        }
        let unit = UnitRow {
            kind: outline.kind,
            last_used,
            bytes: outline.bytes,
            class: outline.class,
        };
        self.put_unit(digest, &unit)
    }

    fn uncount_manifest(&mut self, key: &[u8]) -> Result<bool, Error> {
        let Some(old) = self.manifests.get::<ManifestRow>(key)? else {
            return Ok(false);
        };
        self.totals.manifests = self.totals.manifests.saturating_sub(1);
        self.totals.manifest_bytes = self.totals.manifest_bytes.saturating_sub(old.bytes.len() as u64);
        Ok(true)
    }

    fn remove_manifest(&mut self, digest: &Digest) -> Result<(), Error> {
        let key = digest.to_key();
        if self.uncount_manifest(&key)? {
            self.removed.manifests.push(*digest);
        }
        self.manifests.remove(&key)?;
        for tag in self.tagged.suffixes(&key)? {
            if self.remove_tag(&tag)? {
                self.removed.tags.extend(split_tag(&tag));
            }
        }
        for repository in self.holders.suffixes(&key)? {
            self.referrers.remove(&[&repository, &b"\0"[..], &key].concat())?;
        }
        let unit = self.unit(digest)?;
        self.remove_unit(digest)?;
        let (used, class) = unit.map_or((Timestamp(0), 0), |unit| (unit.last_used, unit.class));
        let needs = split_digests(&self.outlines.raw(&key)?.unwrap_or_default());
        self.outlines.remove(&key)?;
        for needed in &needs {
            self.needs.remove(&with_digest(needed, &key))?;
            self.release(needed, used, class)?;
        }
        self.release(digest, used, class)?;
        for parent in self.needs.suffixes(&key)? {
            if let Some(parent) = Digest::from_key(&parent)
                && self
                    .unit(&parent)?
                    .is_some_and(|unit| unit.kind == UnitKind::Index)
                && !self.has_child(&parent)?
            {
                self.removed.childless.push(parent);
            }
        }
        Ok(())
    }

    /// Takes away what the cache has of a manifest that a hosted repository holds: nobody but that one's owner removes the
    /// manifest itself (law 3).
    fn remove_cached_share(&mut self, digest: &Digest) -> Result<(), Error> {
        let key = digest.to_key();
        let cached = |name: &Vec<u8>| !name.starts_with(HOSTED.as_bytes());
        for tag in self.tagged.suffixes(&key)?.into_iter().filter(cached) {
            if self.remove_tag(&tag)? {
                self.removed.tags.extend(split_tag(&tag));
            }
        }
        for repository in self.holders.suffixes(&key)?.into_iter().filter(cached) {
            self.referrers.remove(&[&repository, &b"\0"[..], &key].concat())?;
            let Ok(repository) = String::from_utf8(repository) else {
                continue;
            };
            if self.remove_link(&repository, digest)? {
                self.removed.links.push((repository, *digest));
            }
        }
        Ok(())
    }

    /// Whether a manifest that this one names is here.
    fn has_child(&self, digest: &Digest) -> Result<bool, Error> {
        for child in split_digests(&self.outlines.raw(&digest.to_key())?.unwrap_or_default()) {
            if self.manifests.has(&child.to_key())? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// One manifest less needs some content: what nobody needs becomes a unit of its own, or is forgotten.
    fn release(&mut self, digest: &Digest, used: Timestamp, class: u8) -> Result<(), Error> {
        let key = digest.to_key();
        if self.needs.has_prefix(&key)? {
            return Ok(());
        }
        match self.blobs.get::<BlobRow>(&key)? {
            Some(row) if !self.manifests.has(&key)? => {
                if !self.is_hosted(digest)? {
                    self.removed.loose.push(*digest);
                }
                self.make_loose(digest, &row, used, class)
            }
            _ => self.forget_links(digest),
        }
    }

    /// Removes the links to content that is not here, and that no manifest here names: what one names may still be
    /// served, and is only to be fetched again.
    fn forget_links(&mut self, digest: &Digest) -> Result<(), Error> {
        let key = digest.to_key();
        if self.blobs.has(&key)? || self.manifests.has(&key)? || self.needs.has_prefix(&key)? {
            return Ok(());
        }
        for repository in self.holders.suffixes(&key)? {
            // What was pushed here is not to be had again: that it was here is not forgotten.
            if let Ok(repository) = std::str::from_utf8(&repository)
                && !is_hosted(repository)
                && self.remove_link(repository, digest)?
            {
                self.removed.links.push((repository.to_owned(), *digest));
            }
        }
        Ok(())
    }

    fn put_tag(&mut self, key: &[u8], row: &TagRow) -> Result<(), Error> {
        let old = self.tags.get::<TagRow>(key)?;
        if let Some(old) = &old
            && old.digest != row.digest
        {
            self.remove_tagged(key, old)?;
        }
        if old.is_none_or(|old| old.digest != row.digest)
            && let (Some((repository, tag)), Ok(digest)) = (split_tag(key), row.digest.parse())
        {
            self.move_pin(&format!("{repository}:{tag}"), &digest)?;
        }
        self.tags.put(key, &row.encode())?;
        self.derive_tag(key, row)
    }

    pub(super) fn derive_tag(&mut self, key: &[u8], row: &TagRow) -> Result<(), Error> {
        match row.digest.parse() {
            Ok(digest) => self.tagged.put(&with_digest(&digest, key), &[]),
            Err(_) => Ok(()),
        }
    }

    fn remove_tagged(&mut self, key: &[u8], row: &TagRow) -> Result<(), Error> {
        match row.digest.parse() {
            Ok(digest) => self.tagged.remove(&with_digest(&digest, key)).map(drop),
            Err(_) => Ok(()),
        }
    }

    fn remove_tag(&mut self, key: &[u8]) -> Result<bool, Error> {
        if let Some(old) = self.tags.get::<TagRow>(key)? {
            self.remove_tagged(key, &old)?;
        }
        self.tags.remove(key)
    }

    fn put_link(&mut self, repository: &str, digest: &Digest, row: &LinkRow) -> Result<(), Error> {
        let turns = is_hosted(repository) && !self.is_hosted(digest)?;
        let key = content_key(repository, digest);
        if is_hosted(repository)
            && let Some(old) = self.links.get::<LinkRow>(&key)?
        {
            self.change_usage(repository, |used| used.saturating_sub(old.size))?;
        }
        self.links.put(&key, &row.encode())?;
        self.derive_link(repository, digest, row)?;
        if turns {
            self.remove_unit(digest)?;
            if let Some(row) = self.blobs.get::<BlobRow>(&digest.to_key())? {
                self.totals.hosted_blobs += 1;
                self.totals.hosted_bytes += allocated(row.size);
                self.turned(&row, true);
            }
        }
        Ok(())
    }

    pub(super) fn derive_link(
        &mut self,
        repository: &str,
        digest: &Digest,
        row: &LinkRow,
    ) -> Result<(), Error> {
        if is_hosted(repository) {
            self.change_usage(repository, |used| used.saturating_add(row.size))?;
        }
        self.holders.put(&with_digest(digest, repository.as_bytes()), &[])
    }

    /// How many bytes a hosted repository holds.
    fn change_usage(&mut self, repository: &str, change: impl FnOnce(u64) -> u64) -> Result<(), Error> {
        let key = repository.as_bytes();
        let used = self.usage.raw(key)?.as_deref().map_or(0, read_usage);
        match change(used) {
            0 => self.usage.remove(key).map(drop),
            used => self.usage.put(key, &used.to_be_bytes()),
        }
    }

    fn remove_link(&mut self, repository: &str, digest: &Digest) -> Result<bool, Error> {
        let was_held = self.holders.remove(&with_digest(digest, repository.as_bytes()))?;
        let key = content_key(repository, digest);
        if is_hosted(repository)
            && let Some(old) = self.links.get::<LinkRow>(&key)?
        {
            self.change_usage(repository, |used| used.saturating_sub(old.size))?;
        }
        if was_held && is_hosted(repository) && !self.is_hosted(digest)? {
            self.unhost(digest)?;
        }
        self.links.remove(&key)
    }

    /// No hosted repository holds it any more: like all that is cached it may be evicted.
    fn unhost(&mut self, digest: &Digest) -> Result<(), Error> {
        let key = digest.to_key();
        let now = Timestamp::now();
        if let Some(row) = self.blobs.get::<BlobRow>(&key)? {
            self.totals.hosted_blobs = self.totals.hosted_blobs.saturating_sub(1);
            self.totals.hosted_bytes = self.totals.hosted_bytes.saturating_sub(allocated(row.size));
            self.turned(&row, false);
            if !self.needs.has_prefix(&key)? {
                self.make_loose(digest, &row, now, 0)?;
            }
        }
        if let Some(row) = self.manifests.get::<ManifestRow>(&key)? {
            let outline = outline_of(&row);
            let unit = UnitRow {
                kind: outline.kind,
                last_used: now,
                bytes: outline.bytes,
                class: outline.class,
            };
            self.put_unit(digest, &unit)?;
        }
        Ok(())
    }

    fn remove_hosted(&mut self, repository: &str, digest: &Digest) -> Result<(), Error> {
        let key = digest.to_key();
        for tag in self
            .tagged
            .suffixes(&with_digest(digest, &tag_key(repository, "")))?
        {
            let tag = [&tag_key(repository, "")[..], &tag].concat();
            if self.remove_tag(&tag)? {
                self.removed.tags.extend(split_tag(&tag));
            }
        }
        if self.remove_link(repository, digest)? {
            self.removed.links.push((repository.to_owned(), *digest));
        }
        if self.holders.has_prefix(&key)? {
            return Ok(());
        }
        self.remove_manifest(digest)
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

    fn unit(&self, digest: &Digest) -> Result<Option<UnitRow>, Error> {
        self.units.get(&digest.to_key())
    }

    fn put_unit(&mut self, digest: &Digest, unit: &UnitRow) -> Result<(), Error> {
        self.remove_unit(digest)?;
        if self.is_hosted(digest)? {
            return Ok(());
        }
        let unit = UnitRow {
            class: unit.class.min(CLASSES - 1),
            ..unit.clone()
        };
        self.units.put(&digest.to_key(), &unit.encode())?;
        self.order.put(&order_key(&unit.key(digest)), &[])
    }

    fn remove_unit(&mut self, digest: &Digest) -> Result<(), Error> {
        if let Some(old) = self.unit(digest)? {
            self.order.remove(&order_key(&old.key(digest)))?;
            self.units.remove(&digest.to_key())?;
        }
        Ok(())
    }

    fn change_unit(&mut self, digest: &Digest, change: impl FnOnce(&mut UnitRow)) -> Result<(), Error> {
        let Some(mut unit) = self.unit(digest)? else {
            return Ok(());
        };
        let old = unit.clone();
        change(&mut unit);
        if unit == old {
            return Ok(());
        }
        self.put_unit(digest, &unit)
    }
}
