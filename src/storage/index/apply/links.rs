//! Tags, and which repository may serve what: the reverse rows, and what hosted repositories hold. Called by `apply`
//! and `upgrade`.

use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::storage::error::Error;

use super::super::keys::{content_key, is_hosted, split_tag, tag_key, with_digest};
use super::super::records::{BlobRow, LinkRow, ManifestRow, Record, TagRow, UnitRow, allocated};
use super::super::upgrade::outline_of;
use super::{Applier, read_usage};

impl Applier<'_> {
    /// Removes the links to content that is not here, and that no manifest here names: what one names may still be
    /// served, and is only to be fetched again.
    pub(super) fn forget_links(&mut self, digest: &Digest) -> Result<(), Error> {
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

    pub(super) fn put_tag(&mut self, key: &[u8], row: &TagRow) -> Result<(), Error> {
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

    pub(in crate::storage::index) fn derive_tag(&mut self, key: &[u8], row: &TagRow) -> Result<(), Error> {
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

    pub(super) fn remove_tag(&mut self, key: &[u8]) -> Result<bool, Error> {
        if let Some(old) = self.tags.get::<TagRow>(key)? {
            self.remove_tagged(key, &old)?;
        }
        self.tags.remove(key)
    }

    pub(super) fn put_link(&mut self, repository: &str, digest: &Digest, row: &LinkRow) -> Result<(), Error> {
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

    pub(in crate::storage::index) fn derive_link(
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

    pub(super) fn remove_link(&mut self, repository: &str, digest: &Digest) -> Result<bool, Error> {
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

    pub(super) fn remove_hosted(&mut self, repository: &str, digest: &Digest) -> Result<(), Error> {
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
}
