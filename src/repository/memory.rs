//! Rows kept decoded in memory, and how they are forgotten when the index loses them. Used by `repository` alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moka::sync::Cache;

use crate::oci::{Digest, Tag};
use crate::storage::Removed;

use super::tags::KnownTag;
use super::{Key, Link, StoredManifest};

const MOST_LINKS: u64 = 200_000;
const MOST_TAGS: u64 = 100_000;
const MANIFEST_BYTES: u64 = 64 * 1024 * 1024;

/// What is answered without the index.
pub(super) struct Memory {
    pub(super) links: Cache<(Key, Digest), Link>,
    pub(super) manifests: Cache<Digest, Arc<StoredManifest>>,
    pub(super) tags: Cache<(Key, Tag), KnownTag>,
    removals: AtomicU64,
}

impl Memory {
    pub(super) fn new() -> Self {
        let weigh = |_: &Digest, manifest: &Arc<StoredManifest>| {
            u32::try_from(manifest.bytes.len() + 256).unwrap_or(u32::MAX)
        };
        Self {
            links: Cache::new(MOST_LINKS),
            manifests: Cache::builder()
                .max_capacity(MANIFEST_BYTES)
                .weigher(weigh)
                .build(),
            tags: Cache::new(MOST_TAGS),
            removals: AtomicU64::new(0),
        }
    }

    /// A number that changes before anything is forgotten. Who remembers a row that it has read must look at it before
    /// the read and after remembering: if it differs, the row may be one that was removed meanwhile.
    pub(super) fn removals(&self) -> u64 {
        self.removals.load(Ordering::SeqCst)
    }

    /// Forgets what is no longer in the index.
    pub(super) fn forget(&self, removed: &Removed) {
        self.removals.fetch_add(1, Ordering::SeqCst);
        for digest in &removed.manifests {
            self.manifests.invalidate(digest);
        }
        for (repository, digest) in &removed.links {
            self.links.invalidate(&(Key::from(repository.as_str()), *digest));
        }
        for (repository, tag) in &removed.tags {
            self.tags
                .invalidate(&(Key::from(repository.as_str()), tag.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{LastUse, Timestamp};
    use crate::oci::{Algorithm, Manifest, MediaType};
    use crate::repository::Repositories;
    use crate::storage::{Change, Index, Proof};

    #[tokio::test]
    async fn what_the_index_loses_memory_loses() {
        let folder = tempfile::tempdir().unwrap();
        let index = Arc::new(Index::open(folder.path(), false, None).unwrap());
        let repositories = Repositories::new(index.clone());
        let (repository, tag) = (Key::from("hub/a"), "latest".parse().unwrap());
        let layer = Digest::from_hash(Algorithm::Sha256, &[1; 32]).unwrap();
        let bytes = format!(r#"{{"layers":[{{"mediaType":"x/y","digest":"{layer}","size":10}}]}}"#);
        let media_type = MediaType::oci_manifest();
        let outline = Manifest::parse(bytes.as_bytes(), Some(&media_type)).unwrap();
        let digest = Digest::from_hash(Algorithm::Sha256, &[9; 32]).unwrap();
        let stored = Arc::new(StoredManifest {
            bytes: bytes.into(),
            media_type,
            digest,
            last_use: LastUse::default(),
        });
        repositories.put_manifest(&repository, &stored, &outline, Some(&tag), |_| 0);
        let link = repositories.link(&repository, &layer).await.unwrap().unwrap();
        assert_eq!((link.size, link.proof), (10, Proof::Named));
        assert!(repositories.tag(&repository, &tag).await.unwrap().is_some());

        let removed = repositories.remove_manifest(&digest).await.unwrap();
        assert_eq!(removed.manifests, [digest]);
        assert_eq!(removed.links.len(), 2);
        assert!(repositories.manifest(&digest).await.unwrap().is_none());
        assert!(repositories.tag(&repository, &tag).await.unwrap().is_none());
        assert!(repositories.link(&repository, &layer).await.unwrap().is_none());

        // Whoever removes it, and whatever was read from the index before.
        repositories.put_manifest(&repository, &stored, &outline, Some(&tag), |_| 0);
        index
            .commit(vec![Change::touch(&digest, Timestamp(1))])
            .await
            .unwrap();
        index
            .commit(vec![Change::remove_manifest(&digest)])
            .await
            .unwrap();
        assert!(repositories.manifest(&digest).await.unwrap().is_none());
    }
}
