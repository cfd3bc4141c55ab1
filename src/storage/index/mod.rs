//! The index: rows in redb, read in snapshots and written by one batching writer. redb's types stay in this folder.
//!
//! Reads block on the disk when a page is not cached: call them on a blocking thread ([`Index::read`]).

mod records;
mod tables;
mod writer;

use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTableMetadata as _};

pub use records::{BlobRow, LinkRow, ManifestRow, Proof, ReferrersRow, TagRow};
pub use writer::Change;

use crate::oci::{Digest, Tag};

use super::error::Error;
use super::space::allocated;
use records::{Record, content_key, tag_key};
use tables::{BLOBS, LINKS, MANIFESTS, REFERRERS, TAGS, Table};
use writer::Writer;

/// Memory for redb's own page cache: hot rows are kept decoded above, so this stays small.
const PAGE_CACHE: usize = 32 * 1024 * 1024;

/// The opened index.
pub struct Index {
    database: Arc<Database>,
    writer: Writer,
}

impl Index {
    /// Opens or creates the file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let database = Database::builder()
            .set_cache_size(PAGE_CACHE)
            .create(path)
            .map_err(Error::index)?;
        tables::create(&database)?;
        let database = Arc::new(database);
        let writer = Writer::start(database.clone())?;
        Ok(Self { database, writer })
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
        self.writer.commit(changes).await
    }

    /// Ends the writer after everything submitted so far. Blocking.
    pub fn close(&self) {
        self.writer.close();
    }

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

    /// Blobs, manifests and tags: how many rows there are of each. Takes the time of a look, however many there are.
    pub fn counts(&self) -> Result<[u64; 3], Error> {
        let transaction = self.database.begin_read().map_err(Error::index)?;
        let mut counts = [0; 3];
        for (count, table) in counts.iter_mut().zip([BLOBS, MANIFESTS, TAGS]) {
            let table = transaction.open_table(table).map_err(Error::index)?;
            *count = table.len().map_err(Error::index)?;
        }
        Ok(counts)
    }

    /// Tags of a repository in byte order, `most` at the most.
    pub fn tags(&self, repository: &str, most: usize) -> Result<Vec<String>, Error> {
        let transaction = self.database.begin_read().map_err(Error::index)?;
        let table = transaction.open_table(TAGS).map_err(Error::index)?;
        let start = tag_key(repository, "");
        let mut tags = Vec::new();
        for row in table.range(start.as_slice()..).map_err(Error::index)?.take(most) {
            let (key, _) = row.map_err(Error::index)?;
            let Some(tag) = key.value().strip_prefix(start.as_slice()) else {
                break;
            };
            tags.extend(std::str::from_utf8(tag).map(str::to_owned));
        }
        Ok(tags)
    }

    /// The room that all blobs take up, in bytes.
    pub fn blob_bytes(&self) -> Result<u64, Error> {
        let transaction = self.database.begin_read().map_err(Error::index)?;
        let table = transaction.open_table(BLOBS).map_err(Error::index)?;
        let mut total = 0;
        for row in redb::ReadableTable::iter(&table).map_err(Error::index)? {
            let (_, value) = row.map_err(Error::index)?;
            total += BlobRow::decode(value.value()).map_or(0, |row| allocated(row.size));
        }
        Ok(total)
    }

    fn get<R: Record>(&self, table: Table, key: &[u8]) -> Result<Option<R>, Error> {
        let transaction = self.database.begin_read().map_err(Error::index)?;
        let table = transaction.open_table(table).map_err(Error::index)?;
        let Some(value) = table.get(key).map_err(Error::index)? else {
            return Ok(None);
        };
        R::decode(value.value())
            .map(Some)
            .ok_or_else(|| Error::Index(format!("unreadable row {}", hex::encode(key))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::oci::Algorithm;

    #[tokio::test]
    async fn rows_come_back_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index.redb");
        let digest = Digest::from_hash(Algorithm::Sha256, &[7; 32]).unwrap();
        let tag: Tag = "latest".parse().unwrap();
        let row = TagRow {
            digest: digest.to_string(),
            validated_at: Timestamp(5),
            gone_since: None,
        };
        let manifest = ManifestRow {
            media_type: "a/b".into(),
            bytes: bytes::Bytes::from_static(b"{}"),
        };
        {
            let index = Index::open(&path).unwrap();
            let changes = vec![
                Change::put_manifest(&digest, &manifest),
                Change::put_tag("hub/a", &tag, &row),
                Change::put_tag("hub/a", &"v1".parse().unwrap(), &row),
                Change::put_tag("hub/ab", &tag, &row),
                Change::put_blob(
                    &digest,
                    &BlobRow {
                        size: 9,
                        stored_at: Timestamp(1),
                    },
                ),
            ];
            index.commit(changes).await.unwrap();
            index.close();
        }
        let index = Arc::new(Index::open(&path).unwrap());
        assert_eq!(
            index.tag("hub/a", &tag).unwrap().unwrap().validated_at,
            Timestamp(5)
        );
        assert_eq!(index.tags("hub/a", 10).unwrap(), ["latest", "v1"]);
        assert_eq!(index.tags("hub/a", 1).unwrap(), ["latest"]);
        let read = index
            .read(move |index| index.manifest(&digest))
            .await
            .unwrap()
            .unwrap();
        assert_eq!((read.media_type.as_str(), &read.bytes[..]), ("a/b", &b"{}"[..]));
        assert_eq!(index.blob(&digest).unwrap().unwrap().size, 9);
        index
            .commit(vec![
                Change::remove_tag("hub/a", &tag),
                Change::remove_blob(&digest),
            ])
            .await
            .unwrap();
        assert!(index.tag("hub/a", &tag).unwrap().is_none());
        assert!(index.blob(&digest).unwrap().is_none());
    }
}
