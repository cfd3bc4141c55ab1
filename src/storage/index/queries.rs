//! What can be asked of the index. Each is one snapshot, and blocks on the disk when a page is not cached.

use std::ops::Bound;

use redb::{ReadTransaction, ReadableTable as _, ReadableTableMetadata as _};

use crate::oci::{Digest, Reference, Tag};
use crate::storage::error::Error;

use super::Index;
use super::apply::{TOTALS, read_usage};
use super::keys::{
    HOSTED, content_key, order_key, split_digests, split_order, split_tag, split_use, tag_key, use_key,
    with_digest,
};
use super::records::{
    BlobRow, LinkRow, ManifestRow, PinRow, Record, ReferrersRow, RepositoryRow, TagRow, Totals, Unit,
    UnitKey, UnitRow, UseRow,
};
use super::tables::{
    BLOBS, HOLDERS, IDENTITIES, LINKS, MANIFESTS, META, NAMESPACES, NEEDS, ORDER, OUTLINES, PINS, REFERRERS,
    REPOSITORIES, TAGGED, TAGS, Table, UNITS, USAGE, USES,
};

/// How deep an index may lie in another one when pins are looked for.
const MOST_NESTED: usize = 4;

/// Parents that are looked at, at each step, when pins are looked for.
const MOST_PARENTS: usize = 1000;

impl Index {
    /// The row of a blob whose bytes are here.
    pub fn blob(&self, digest: &Digest) -> Result<Option<BlobRow>, Error> {
        self.get(BLOBS, &digest.to_key())
    }

    /// A manifest's bytes and type.
    pub fn manifest(&self, digest: &Digest) -> Result<Option<ManifestRow>, Error> {
        self.get(MANIFESTS, &digest.to_key())
    }

    /// What a tag points at.
    pub fn tag(&self, repository: &str, tag: &Tag) -> Result<Option<TagRow>, Error> {
        self.get(TAGS, &tag_key(repository, tag.as_str()))
    }

    /// What a repository may serve of a digest.
    pub fn link(&self, repository: &str, digest: &Digest) -> Result<Option<LinkRow>, Error> {
        self.get(LINKS, &content_key(repository, digest))
    }

    /// The referrers last heard of.
    pub fn referrers(&self, repository: &str, subject: &Digest) -> Result<Option<ReferrersRow>, Error> {
        self.get(REFERRERS, &content_key(repository, subject))
    }

    /// A hosted repository, if it exists.
    pub fn repository(&self, name: &str) -> Result<Option<RepositoryRow>, Error> {
        self.get(REPOSITORIES, name.as_bytes())
    }

    /// Hosted repositories after `after` in byte order, `most` at the most.
    pub fn repositories_after(
        &self,
        after: &str,
        most: usize,
    ) -> Result<Vec<(String, RepositoryRow)>, Error> {
        self.query(|transaction| {
            let table = open(transaction, REPOSITORIES)?;
            let bounds = (Bound::Excluded(after.as_bytes()), Bound::Unbounded);
            let mut found = Vec::new();
            for row in table.range::<&[u8]>(bounds).map_err(Error::index)?.take(most) {
                let (name, row) = row.map_err(Error::index)?;
                let name = std::str::from_utf8(name.value()).ok().map(str::to_owned);
                found.extend(name.zip(RepositoryRow::decode(row.value())));
            }
            Ok(found)
        })
    }

    /// All who can log in, by name, as `identities` encoded them.
    pub fn identities(&self) -> Result<Vec<(String, Vec<u8>)>, Error> {
        self.query(|transaction| {
            let table = open(transaction, IDENTITIES)?;
            let mut found = Vec::new();
            for row in table.iter().map_err(Error::index)? {
                let (name, row) = row.map_err(Error::index)?;
                let name = String::from_utf8_lossy(name.value()).into_owned();
                found.push((name, row.value().to_vec()));
            }
            Ok(found)
        })
    }

    /// How many hosted repositories there are.
    pub fn repository_count(&self) -> Result<u64, Error> {
        self.query(|transaction| open(transaction, REPOSITORIES)?.len().map_err(Error::index))
    }

    /// Whether a hosted repository has, or had, a name with this first component.
    pub fn is_namespace(&self, first: &str) -> Result<bool, Error> {
        let row = self.query(|transaction| raw(transaction, NAMESPACES, first.as_bytes()))?;
        Ok(row.is_some())
    }

    /// Keys of hosted repositories that hold content, after `after` in byte order, `most` at the most: also of such as no
    /// longer exist.
    pub fn holding_after(&self, after: &str, most: usize) -> Result<Vec<String>, Error> {
        self.query(|transaction| {
            let table = open(transaction, USAGE)?;
            let bounds = (Bound::Excluded(after.as_bytes()), Bound::Unbounded);
            let mut found = Vec::new();
            for row in table.range::<&[u8]>(bounds).map_err(Error::index)?.take(most) {
                let (key, _) = row.map_err(Error::index)?;
                found.extend(std::str::from_utf8(key.value()).ok().map(str::to_owned));
            }
            Ok(found)
        })
    }

    /// The bytes that a hosted repository holds, by its key; what it shares counts whole.
    pub fn usage(&self, repository: &str) -> Result<u64, Error> {
        let row = self.query(|transaction| raw(transaction, USAGE, repository.as_bytes()))?;
        Ok(row.as_deref().map_or(0, read_usage))
    }

    /// What a repository may serve, after `after` in the order of digests, `most` at the most.
    pub fn links_after(
        &self,
        repository: &str,
        after: Option<Digest>,
        most: usize,
    ) -> Result<Vec<(Digest, LinkRow)>, Error> {
        self.query(|transaction| {
            let table = open(transaction, LINKS)?;
            let prefix = tag_key(repository, "");
            let start = match &after {
                Some(after) => Bound::Excluded(content_key(repository, after)),
                None => Bound::Included(prefix.clone()),
            };
            let bounds = (start.as_ref().map(Vec::as_slice), Bound::Unbounded);
            let mut found = Vec::new();
            for row in table.range::<&[u8]>(bounds).map_err(Error::index)? {
                let (key, row) = row.map_err(Error::index)?;
                let Some(digest) = key.value().strip_prefix(prefix.as_slice()) else {
                    break;
                };
                if found.len() == most {
                    break;
                }
                found.extend(Digest::from_key(digest).zip(LinkRow::decode(row.value())));
            }
            Ok(found)
        })
    }

    /// Tags of a repository after `after` in byte order, `most` at the most.
    pub fn tags_after(
        &self,
        repository: &str,
        after: &str,
        most: usize,
    ) -> Result<Vec<(String, TagRow)>, Error> {
        self.query(|transaction| {
            let table = open(transaction, TAGS)?;
            let (prefix, start) = (tag_key(repository, ""), tag_key(repository, after));
            let bounds = (Bound::Excluded(start.as_slice()), Bound::Unbounded);
            let mut found = Vec::new();
            for row in table.range::<&[u8]>(bounds).map_err(Error::index)? {
                let (key, row) = row.map_err(Error::index)?;
                let Some(tag) = key.value().strip_prefix(prefix.as_slice()) else {
                    break;
                };
                if found.len() == most {
                    break;
                }
                let tag = std::str::from_utf8(tag).ok().map(str::to_owned);
                found.extend(tag.zip(TagRow::decode(row.value())));
            }
            Ok(found)
        })
    }

    /// What was remembered under a name.
    pub fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        self.query(|transaction| raw(transaction, META, name.as_bytes()))
    }

    /// What is here, counted.
    pub fn totals(&self) -> Result<Totals, Error> {
        Ok(self.get(META, TOTALS.as_bytes())?.unwrap_or_default())
    }

    /// How many tags there are. Takes the time of a look, however many.
    pub fn tag_count(&self) -> Result<u64, Error> {
        self.query(|transaction| {
            let table = transaction.open_table(TAGS).map_err(Error::index)?;
            table.len().map_err(Error::index)
        })
    }

    /// Tags of a repository in byte order, `most` at the most.
    pub fn tags(&self, repository: &str, most: usize) -> Result<Vec<String>, Error> {
        let read = |tag: &[u8]| std::str::from_utf8(tag).ok().map(str::to_owned);
        self.suffixes(TAGS, &tag_key(repository, ""), most, read)
    }

    /// A unit of eviction: a manifest, or a blob that no manifest here needs.
    pub fn unit(&self, digest: &Digest) -> Result<Option<Unit>, Error> {
        let row = self.get::<UnitRow>(UNITS, &digest.to_key())?;
        Ok(row.map(|row| row.at(digest)))
    }

    /// Units of a class after `after`, the least recently used first, `most` at the most.
    pub fn oldest(&self, class: u8, after: Option<UnitKey>, most: usize) -> Result<Vec<Unit>, Error> {
        self.query(|transaction| {
            let (order, units) = (open(transaction, ORDER)?, open(transaction, UNITS)?);
            let start = after.map_or_else(|| vec![class], |after| order_key(&after));
            let bounds = (Bound::Excluded(start.as_slice()), Bound::Unbounded);
            let mut found = Vec::new();
            for row in order.range::<&[u8]>(bounds).map_err(Error::index)? {
                let (key, _) = row.map_err(Error::index)?;
                let Some(key) = split_order(key.value()) else {
                    continue;
                };
                if key.class != class || found.len() == most {
                    break;
                }
                let row = units.get(key.digest.to_key().as_slice()).map_err(Error::index)?;
                let row = row.and_then(|row| UnitRow::decode(row.value()));
                found.extend(row.map(|row| row.at(&key.digest)));
            }
            Ok(found)
        })
    }

    /// The manifests here that need a content, `most` at the most.
    pub fn needed_by(&self, digest: &Digest, most: usize) -> Result<Vec<Digest>, Error> {
        self.suffixes(NEEDS, &digest.to_key(), most, Digest::from_key)
    }

    /// What a manifest that is here needs: config and layers, or children.
    pub fn needs(&self, digest: &Digest) -> Result<Vec<Digest>, Error> {
        let outline = self.query(|transaction| raw(transaction, OUTLINES, &digest.to_key()))?;
        Ok(split_digests(&outline.unwrap_or_default()))
    }

    /// The first of `digest`'s children that is a manifest here.
    pub fn child(&self, digest: &Digest) -> Result<Option<Digest>, Error> {
        self.query(|transaction| {
            let manifests = open(transaction, MANIFESTS)?;
            let outline = raw(transaction, OUTLINES, &digest.to_key())?.unwrap_or_default();
            for child in split_digests(&outline) {
                if manifests
                    .get(child.to_key().as_slice())
                    .map_err(Error::index)?
                    .is_some()
                {
                    return Ok(Some(child));
                }
            }
            Ok(None)
        })
    }

    /// The repositories that link a content, `most` at the most.
    pub fn holders(&self, digest: &Digest, most: usize) -> Result<Vec<String>, Error> {
        let read = |repository: &[u8]| std::str::from_utf8(repository).ok().map(str::to_owned);
        self.suffixes(HOLDERS, &digest.to_key(), most, read)
    }

    /// The names of hosted repositories that link a content, `most` at the most.
    pub fn hosted_holders(&self, digest: &Digest, most: usize) -> Result<Vec<String>, Error> {
        let read = |name: &[u8]| std::str::from_utf8(name).ok().map(str::to_owned);
        self.suffixes(HOLDERS, &with_digest(digest, HOSTED.as_bytes()), most, read)
    }

    /// The keys of others, likewise.
    pub fn cached_holders(&self, digest: &Digest, most: usize) -> Result<Vec<String>, Error> {
        let read = |key: &[u8]| {
            let key = std::str::from_utf8(key)
                .ok()
                .filter(|key| !key.starts_with(HOSTED))?;
            Some(key.to_owned())
        };
        self.suffixes(HOLDERS, &digest.to_key(), most, read)
    }

    /// Whether a hosted repository may serve it.
    pub fn is_hosted(&self, digest: &Digest) -> Result<bool, Error> {
        let key = with_digest(digest, HOSTED.as_bytes());
        let held = self.suffixes(HOLDERS, &key, 1, |_| Some(()))?;
        Ok(!held.is_empty())
    }

    /// The tags that point at a manifest, `most` at the most.
    pub fn tagged(&self, digest: &Digest, most: usize) -> Result<Vec<(String, Tag)>, Error> {
        self.suffixes(TAGGED, &digest.to_key(), most, split_tag)
    }

    /// Whether a manifest or blob is pinned, or something here that needs it.
    pub fn is_pinned(&self, digest: &Digest) -> Result<bool, Error> {
        Ok(self.pinned_by(digest)?.is_some())
    }

    /// The pin that keeps a manifest or blob: its own, or that of something here that needs it.
    pub fn pinned_by(&self, digest: &Digest) -> Result<Option<(Digest, PinRow)>, Error> {
        let mut wanted = vec![*digest];
        for _ in 0..=MOST_NESTED {
            let mut parents = Vec::new();
            for digest in &wanted {
                if let Some(pin) = self.pin(digest)? {
                    return Ok(Some((*digest, pin)));
                }
                parents.extend(self.needed_by(digest, MOST_PARENTS)?);
            }
            parents.truncate(MOST_PARENTS);
            wanted = parents;
        }
        Ok(None)
    }

    /// The pin of a manifest or blob itself.
    pub fn pin(&self, digest: &Digest) -> Result<Option<PinRow>, Error> {
        self.get(PINS, &digest.to_key())
    }

    /// Pins after `after` in the order of digests, `most` at the most.
    pub fn pins_after(&self, after: Option<Digest>, most: usize) -> Result<Vec<(Digest, PinRow)>, Error> {
        self.page(PINS, after, most)
    }

    /// When and as what clients last pulled `reference`.
    pub fn last_use(&self, repository: &str, reference: &Reference) -> Result<Option<UseRow>, Error> {
        self.get(USES, &use_key(repository, reference))
    }

    /// What clients pulled of the repositories whose names begin with `prefix`, after `after`, `most` at the most:
    /// repository by repository.
    pub fn uses_after(
        &self,
        prefix: &str,
        after: Option<&(String, Reference)>,
        most: usize,
    ) -> Result<Vec<(String, Reference, UseRow)>, Error> {
        let after = after.map(|(repository, reference)| use_key(repository, reference));
        self.query(|transaction| {
            let table = open(transaction, USES)?;
            let start = match &after {
                Some(after) => Bound::Excluded(after.as_slice()),
                None => Bound::Included(prefix.as_bytes()),
            };
            let mut found = Vec::new();
            for row in table
                .range::<&[u8]>((start, Bound::Unbounded))
                .map_err(Error::index)?
            {
                let (key, value) = row.map_err(Error::index)?;
                if found.len() == most || !key.value().starts_with(prefix.as_bytes()) {
                    break;
                }
                let known = split_use(key.value()).zip(UseRow::decode(value.value()));
                found.extend(known.map(|((repository, reference), row)| (repository, reference, row)));
            }
            Ok(found)
        })
    }

    /// Blobs after `after` in the order of digests, `most` at the most.
    pub fn blobs_after(&self, after: Option<Digest>, most: usize) -> Result<Vec<(Digest, BlobRow)>, Error> {
        self.page(BLOBS, after, most)
    }

    /// Manifests after `after` in the order of digests, `most` at the most: each with its bytes, 4 MiB at the worst.
    pub fn manifests_after(
        &self,
        after: Option<Digest>,
        most: usize,
    ) -> Result<Vec<(Digest, ManifestRow)>, Error> {
        self.page(MANIFESTS, after, most)
    }

    fn get<R: Record>(&self, table: Table, key: &[u8]) -> Result<Option<R>, Error> {
        self.query(|transaction| {
            let table = open(transaction, table)?;
            let Some(value) = table.get(key).map_err(Error::index)? else {
                return Ok(None);
            };
            R::decode(value.value())
                .map(Some)
                .ok_or_else(|| Error::Index(format!("unreadable row {}", hex::encode(key))))
        })
    }

    /// Rows keyed by digest. Unreadable ones are left out.
    fn page<R: Record>(
        &self,
        table: Table,
        after: Option<Digest>,
        most: usize,
    ) -> Result<Vec<(Digest, R)>, Error> {
        let after = after.map(|after| after.to_key()).unwrap_or_default();
        self.query(|transaction| {
            let table = open(transaction, table)?;
            let bounds = (Bound::Excluded(after.as_slice()), Bound::Unbounded);
            let mut found = Vec::new();
            for row in table.range::<&[u8]>(bounds).map_err(Error::index)? {
                if found.len() == most {
                    break;
                }
                let (key, value) = row.map_err(Error::index)?;
                found.extend(Digest::from_key(key.value()).zip(R::decode(value.value())));
            }
            Ok(found)
        })
    }

    /// What follows `prefix` in the keys that begin with it, as `read` understands it.
    fn suffixes<T>(
        &self,
        table: Table,
        prefix: &[u8],
        most: usize,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        self.query(|transaction| {
            let table = open(transaction, table)?;
            let mut found = Vec::new();
            for row in table.range(prefix..).map_err(Error::index)? {
                let (key, _) = row.map_err(Error::index)?;
                let Some(rest) = key.value().strip_prefix(prefix) else {
                    break;
                };
                if found.len() == most {
                    break;
                }
                found.extend(read(rest));
            }
            Ok(found)
        })
    }
}

type Opened = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;

fn open(transaction: &ReadTransaction, table: Table) -> Result<Opened, Error> {
    transaction.open_table(table).map_err(Error::index)
}

fn raw(transaction: &ReadTransaction, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let table = open(transaction, table)?;
    let value = table.get(key).map_err(Error::index)?;
    Ok(value.map(|value| value.value().to_vec()))
}
