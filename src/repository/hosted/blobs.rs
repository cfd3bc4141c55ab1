//! Blobs of hosted repositories: mounts, reads, and the lease that each of them is. How they come is in `uploads`.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::oci::{Digest, RepositoryName};
use crate::repository::{Key, Link};
use crate::storage::{Change, Error as StorageError, Index, LinkRow, Proof, Removed, StoredBlob};

use super::{Error, Hosted, HostedRepository};

/// Repositories that are looked at for a mount that names none.
const MOST_SOURCES: usize = 1000;

impl Hosted {
    /// Takes a blob into a repository that another one holds, of which the caller may read. Whether it was there.
    pub async fn mount(
        &self,
        repository: &HostedRepository,
        from: &Key,
        digest: &Digest,
    ) -> Result<bool, Error> {
        let Some(source) = self.link(from, digest).await? else {
            return Ok(false);
        };
        if self.link(&repository.key, digest).await?.is_none() {
            self.within_quota(repository, source.size).await?;
        }
        let (its, repository, digest) = (self.clone(), repository.clone(), *digest);
        let work = async move {
            its.lease(&repository.key, &digest).await;
            let links = its
                .linking(&repository, &digest, source.size, Proof::Mounted)
                .await?;
            let is_here = its.shared.blobs.link_if_here(&digest, links).await?;
            if is_here {
                its.linked(&repository.key, &digest, source.size, Proof::Mounted);
            }
            Ok(is_here)
        };
        detached(work).await
    }

    /// The hosted repositories that hold a blob: whoever may read one of them may mount it.
    pub async fn holders(&self, digest: &Digest) -> Result<Vec<RepositoryName>, Error> {
        let digest = *digest;
        let holders = self
            .shared
            .index
            .read(move |index| index.hosted_holders(&digest, MOST_SOURCES))
            .await?;
        Ok(holders.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// A blob of the repository. Whoever hears that it is here may rely on that for the grace period.
    pub async fn blob(
        &self,
        repository: &HostedRepository,
        digest: &Digest,
    ) -> Result<Arc<StoredBlob>, Error> {
        self.lease(&repository.key, digest).await;
        let Some(link) = self.link(&repository.key, digest).await? else {
            self.forget_lease(&repository.key, digest);
            return Err(Error::BlobUnknown);
        };
        match self.shared.blobs.open(digest).await? {
            Some(blob) => Ok(blob),
            // Manifests are no files.
            None if link.manifest => Err(Error::BlobUnknown),
            None => {
                tracing::error!(
                    repository = %repository.name,
                    %digest,
                    "a blob that was pushed here is lost: push it again, or restore the data folder"
                );
                Err(Error::BlobUnknown)
            }
        }
    }

    /// Removes a blob from the repository.
    ///
    /// # Errors
    /// `BlobUnknown`, and `BlobNeeded` while a manifest of the repository names it.
    pub async fn delete_blob(&self, repository: &HostedRepository, digest: &Digest) -> Result<(), Error> {
        let (its, key, digest) = (self.clone(), repository.key.clone(), *digest);
        detached(async move {
            let pair = (key.clone(), digest);
            // Who names it from here on waits, and finds it gone; who named it before is seen.
            let turn = its.shared.condemned.claim(&pair).await;
            let link = its.link(&key, &digest).await?;
            if link.is_none_or(|link| link.manifest) {
                return Err(Error::BlobUnknown);
            }
            if its.shared.naming.names(&pair) || its.is_needed(&key, &digest).await? {
                return Err(Error::BlobNeeded);
            }
            its.unlink(&key, &digest).await?;
            drop(turn);
            its.shared.blobs.remove_unheld(&digest).await?;
            Ok(())
        })
        .await
    }

    /// Promises that a collection leaves it, and waits for one that is about to take it.
    pub(super) async fn lease(&self, key: &Key, digest: &Digest) {
        let pair = (key.clone(), *digest);
        self.shared.leases.insert(pair.clone(), ());
        self.shared.condemned.settled(&pair).await;
    }

    /// What is not here needs no lease: nobody can fill the memory with questions. Who links it at this moment has its
    /// grace by the link's age.
    pub(super) fn forget_lease(&self, key: &Key, digest: &Digest) {
        self.shared.leases.invalidate(&(key.clone(), *digest));
    }

    pub(super) async fn link(&self, key: &Key, digest: &Digest) -> Result<Option<Link>, Error> {
        Ok(self.shared.repositories.link(key, digest).await?)
    }

    /// The changes that make a blob the repository's, if they are let in. What is a manifest there stays one.
    pub(super) async fn linking(
        &self,
        repository: &HostedRepository,
        digest: &Digest,
        size: u64,
        proof: Proof,
    ) -> Result<Vec<Change>, Error> {
        let key = &repository.key;
        let manifest = self.link(key, digest).await?.is_some_and(|link| link.manifest);
        let row = LinkRow {
            size,
            proof,
            manifest,
            at: Some(Timestamp::now()),
        };
        Ok(vec![repository.admission(), Change::put_link(key, digest, &row)])
    }

    /// Memory hears of a link after the index.
    pub(super) fn linked(&self, key: &Key, digest: &Digest, size: u64, proof: Proof) {
        let links = &self.shared.repositories.memory.links;
        let pair = (key.clone(), *digest);
        let manifest = links.get(&pair).is_some_and(|link| link.manifest);
        links.insert(
            pair,
            Link {
                size,
                proof,
                manifest,
            },
        );
    }

    /// Takes a link away, durably.
    pub(super) async fn unlink(&self, key: &Key, digest: &Digest) -> Result<(), Error> {
        let change = Change::remove_link(key, digest);
        self.shared.index.commit(vec![change]).await?;
        // A reader that still has the row must not bring it back to memory.
        self.shared.repositories.memory.forget(&Removed {
            links: vec![(key.to_string(), *digest)],
            ..Removed::default()
        });
        Ok(())
    }

    /// Whether a manifest of the repository names it.
    pub(super) async fn is_needed(&self, key: &Key, digest: &Digest) -> Result<bool, Error> {
        let (key, digest) = (key.clone(), *digest);
        let needed = self.shared.index.read(move |index| needed(index, &key, &digest));
        Ok(needed.await?)
    }

    /// What the quota of a repository leaves at the moment, and the quota, if it has one. Whether something fits is
    /// decided when it is committed ([`HostedRepository::admission`]); this spares the way there.
    pub(super) async fn left(&self, repository: &HostedRepository) -> Result<Option<(u64, u64)>, Error> {
        let Some(quota) = repository.settings.quota else {
            return Ok(None);
        };
        let key = repository.key.clone();
        let used = self.shared.index.read(move |index| index.usage(&key)).await?;
        Ok(Some((quota.saturating_sub(used), quota)))
    }

    /// # Errors
    /// `Quota`, when `more` bytes are too many at the moment.
    pub(super) async fn within_quota(&self, repository: &HostedRepository, more: u64) -> Result<(), Error> {
        match self.left(repository).await? {
            Some((left, quota)) if more > left => Err(Error::Quota(quota)),
            _ => Ok(()),
        }
    }
}

/// Whether a manifest of the repository of this key names it.
pub(super) fn needed(index: &Index, key: &str, digest: &Digest) -> Result<bool, StorageError> {
    for manifest in index.needed_by(digest, usize::MAX)? {
        if index.link(key, &manifest)?.is_some_and(|link| link.manifest) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Work that goes on when its client has left.
pub(super) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    tokio::spawn(work)
        .await
        .unwrap_or_else(|panic| Err(broken(&panic)))
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let work = tokio::task::spawn_blocking(work);
    work.await.unwrap_or_else(|panic| Err(broken(&panic)))
}

fn broken(panic: &tokio::task::JoinError) -> Error {
    Error::Storage(crate::storage::Error::Index(format!("a push failed: {panic}")))
}
