//! Manifests: what each needs, and what becomes of that when it goes. Called by `apply` and `upgrade`.

use std::collections::HashSet;

use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::storage::error::Error;

use super::super::change::Outline;
use super::super::keys::{HOSTED, digests_key, split_digests, split_tag, with_digest};
use super::super::records::{BlobRow, ManifestRow, Record, UnitKind, UnitRow};
use super::Applier;

impl Applier<'_> {
    pub(super) fn put_manifest(
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
    pub(in crate::storage::index) fn derive_manifest(
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

    pub(super) fn remove_manifest(&mut self, digest: &Digest) -> Result<(), Error> {
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
    pub(super) fn remove_cached_share(&mut self, digest: &Digest) -> Result<(), Error> {
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
}
