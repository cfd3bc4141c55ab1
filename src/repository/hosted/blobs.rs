//! Blobs of hosted repositories: uploads, mounts, reads, and the lease that each of them is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use crate::clock::Timestamp;
use crate::oci::{Algorithm, Digest, RepositoryName};
use crate::repository::{Key, Link};
use crate::storage::{
    Change, Error as StorageError, HOSTED, Index, LinkRow, NotHad, Proof, Removed, StoredBlob, Upload,
    UploadId, UploadState, is_hosted,
};

use super::{Error, Hosted, HostedRepository};

/// Repositories that are looked at for a mount that names none.
const MOST_SOURCES: usize = 1000;

/// How long a request waits for another one to let go of its session.
const HAND_OVER: Duration = Duration::from_secs(3);

/// An upload that ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The blob.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

impl Hosted {
    /// Begins an upload session of `owner`. `size`, if the client says it, is reserved.
    pub async fn begin_upload(
        &self,
        repository: &HostedRepository,
        owner: &str,
        algorithm: Algorithm,
        size: Option<u64>,
    ) -> Result<Upload, Error> {
        self.within_quota(repository, size.unwrap_or(0)).await?;
        let (uploads, key) = (self.shared.uploads.clone(), repository.key.clone());
        let owner = owner.to_owned();
        blocking(move || Ok(uploads.begin(&key, &owner, algorithm, size)?)).await
    }

    /// Takes up a session of `owner`, and waits a little for another request that has it: a client that lost its connection
    /// may come back before we know. What is returned holds it until it is dropped.
    ///
    /// # Errors
    /// `UploadUnknown`, also for somebody else's; `UploadBusy`.
    pub async fn take_upload(
        &self,
        repository: &HostedRepository,
        owner: &str,
        id: UploadId,
    ) -> Result<Upload, Error> {
        let uploads = &self.shared.uploads;
        let given_up = Instant::now() + HAND_OVER;
        let taken = loop {
            let (its, key) = (uploads.clone(), repository.key.clone());
            let taken = blocking(move || Ok(its.take(&key, id)?)).await?;
            if !matches!(taken, Err(NotHad::Busy)) || Instant::now() > given_up {
                break taken;
            }
            // Its end is an error, since nothing is ever sent.
            if let Some(mut until) = uploads.until_released(id) {
                let _ = timeout_at(given_up, until.changed()).await;
            }
        };
        match taken {
            Ok(upload) if upload.owner() == owner => Ok(upload),
            Ok(others) => {
                self.rest_upload(others).await?;
                Err(Error::UploadUnknown)
            }
            Err(NotHad::Unknown) => Err(Error::UploadUnknown),
            Err(NotHad::Busy) => Err(Error::UploadBusy),
        }
    }

    /// Takes more bytes into a session.
    ///
    /// # Errors
    /// `NoRoom`, and those of the disk: the session waits with what came before.
    pub async fn append(&self, mut upload: Upload, bytes: Bytes) -> Result<Upload, Error> {
        blocking(move || {
            upload.append(&bytes)?;
            Ok(upload)
        })
        .await
    }

    /// Lets go of a session: the next request finds it as it is. Dropping it does the same, on the caller's thread.
    pub async fn rest_upload(&self, upload: Upload) -> Result<(), Error> {
        blocking(move || {
            drop(upload);
            Ok(())
        })
        .await
    }

    /// Ends a session: what came is the blob `digest`, and in the repository when this returns.
    ///
    /// # Errors
    /// `DigestInvalid`, when it is something else: then the session is over. `Quota`, `NoRoom`: it is not.
    pub async fn finish_upload(
        &self,
        repository: &HostedRepository,
        mut upload: Upload,
        digest: &Digest,
    ) -> Result<Finished, Error> {
        let (size, digest) = (upload.size(), *digest);
        if self.link(&repository.key, &digest).await?.is_none() {
            self.within_quota(repository, size).await?;
        }
        let upload = blocking(move || {
            upload.hash_by(digest.algorithm())?;
            match upload.confirm(&digest) {
                Ok(()) => Ok(upload),
                Err(error) => {
                    upload.cancel();
                    Err(error.into())
                }
            }
        })
        .await?;
        let (its, repository) = (self.clone(), repository.clone());
        // A task of its own: half of it must not be done because the client has left.
        let work = async move {
            its.lease(&repository.key, &digest).await;
            let link = its
                .link_change(&repository.key, &digest, size, Proof::Pushed)
                .await?;
            its.shared.blobs.publish_upload(upload, &digest, link).await?;
            its.linked(&repository.key, &digest, size, Proof::Pushed);
            Ok(Finished { digest, size })
        };
        detached(work).await
    }

    /// Ends a session without a blob.
    pub async fn cancel_upload(&self, upload: Upload) -> Result<(), Error> {
        blocking(move || {
            upload.cancel();
            Ok(())
        })
        .await
    }

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
        let (its, key, digest) = (self.clone(), repository.key.clone(), *digest);
        let work = async move {
            its.lease(&key, &digest).await;
            let link = its
                .link_change(&key, &digest, source.size, Proof::Mounted)
                .await?;
            let is_here = its.shared.blobs.link_if_here(&digest, link).await?;
            if is_here {
                its.linked(&key, &digest, source.size, Proof::Mounted);
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
            .read(move |index| index.holders(&digest, MOST_SOURCES))
            .await?;
        let names = holders.iter().filter(|key| is_hosted(key));
        Ok(names
            .filter_map(|key| key.strip_prefix(HOSTED)?.parse().ok())
            .collect())
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

    /// Sessions that no request has, for status and collection.
    pub fn resting_uploads(&self) -> Vec<UploadState> {
        self.shared.uploads.resting()
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

    /// The change that makes a blob the repository's. What is a manifest there stays one.
    async fn link_change(
        &self,
        key: &Key,
        digest: &Digest,
        size: u64,
        proof: Proof,
    ) -> Result<Change, Error> {
        let manifest = self.link(key, digest).await?.is_some_and(|link| link.manifest);
        let row = LinkRow {
            size,
            proof,
            manifest,
            at: Some(Timestamp::now()),
        };
        Ok(Change::put_link(key, digest, &row))
    }

    /// Memory hears of a link after the index.
    fn linked(&self, key: &Key, digest: &Digest, size: u64, proof: Proof) {
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

    /// # Errors
    /// `Quota`, when `more` bytes are too many.
    pub(super) async fn within_quota(&self, repository: &HostedRepository, more: u64) -> Result<(), Error> {
        let Some(quota) = repository.settings.quota else {
            return Ok(());
        };
        let key = repository.key.clone();
        let used = self.shared.index.read(move |index| index.usage(&key)).await?;
        if used.saturating_add(more) > quota {
            return Err(Error::Quota(quota));
        }
        Ok(())
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

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let work = tokio::task::spawn_blocking(work);
    work.await.unwrap_or_else(|panic| Err(broken(&panic)))
}

fn broken(panic: &tokio::task::JoinError) -> Error {
    Error::Storage(crate::storage::Error::Index(format!("a push failed: {panic}")))
}
