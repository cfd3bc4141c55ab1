//! Garbage collection, online: blobs that no manifest of their repository names go, and uploads that nobody went on with.
//!
//! What a client was told that it is here is leased for the grace period, and nothing goes in the first grace period of a
//! process, since leases do not outlive one. A push that comes meanwhile waits for a link that is about to go, and then
//! hears that it is gone; it never relies on one that goes.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::oci::Digest;

use super::blobs::detached;
use super::{Error, Hosted, HostedRepository};

/// What a collection did, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Collected {
    /// Blobs that left a repository.
    pub unlinked: u64,
    /// Blobs that left the disk; in a dry run those that would, unless another repository holds them.
    pub removed: u64,
    /// The bytes that this freed.
    pub bytes: u64,
    /// Upload sessions that were given up.
    pub uploads: u64,
}

impl Hosted {
    /// Collects one repository. `dry`: only says what would go.
    pub async fn collect(&self, repository: &HostedRepository, dry: bool) -> Result<Collected, Error> {
        let mut collected = Collected::default();
        let now = Timestamp::now();
        if !dry && now.since(self.shared.leases_since) < self.shared.grace {
            return Ok(collected);
        }
        let mut after = None;
        loop {
            let page = self.links(&repository.key, after).await?;
            let Some((last, ..)) = page.last() else {
                return Ok(collected);
            };
            after = Some(*last);
            for (digest, manifest, at) in page {
                if manifest || now.since(at) < self.shared.grace {
                    continue;
                }
                self.collect_blob(repository, digest, dry, &mut collected).await?;
            }
        }
    }

    async fn collect_blob(
        &self,
        repository: &HostedRepository,
        digest: Digest,
        dry: bool,
        collected: &mut Collected,
    ) -> Result<(), Error> {
        let pair = (repository.key.clone(), digest);
        if self.shared.leases.contains_key(&pair) || self.is_needed(&repository.key, &digest).await? {
            return Ok(());
        }
        if dry {
            collected.unlinked += 1;
            let alone = self.is_alone(digest).await?;
            if let (true, Some(blob)) = (alone, self.shared.blobs.open(&digest).await?) {
                collected.removed += 1;
                collected.bytes += crate::storage::allocated(blob.size());
            }
            return Ok(());
        }
        let its = self.clone();
        let (unlinked, freed) = detached(async move {
            let turn = its.shared.condemned.claim(&pair).await;
            // Looked at again: who leased it before it was condemned relies on it, who comes now waits.
            if its.shared.leases.contains_key(&pair) || its.is_needed(&pair.0, &digest).await? {
                return Ok((false, None));
            }
            its.unlink(&pair.0, &digest).await?;
            drop(turn);
            let freed = its.shared.blobs.remove_unheld(&digest).await?;
            Ok((true, freed))
        })
        .await?;
        collected.unlinked += u64::from(unlinked);
        if let Some(bytes) = freed {
            collected.removed += 1;
            collected.bytes += bytes;
        }
        Ok(())
    }

    /// Whether one repository holds it, and no other.
    async fn is_alone(&self, digest: Digest) -> Result<bool, Error> {
        let read = self.shared.index.read(move |index| index.holders(&digest, 2));
        Ok(read.await?.len() < 2)
    }

    /// Gives up the sessions that nobody went on with for `idle`.
    pub async fn reap_uploads(&self, idle: Duration, now: Timestamp) -> u64 {
        let old: Vec<_> = self
            .resting_uploads()
            .into_iter()
            .filter(|upload| now.since(upload.at) >= idle)
            .collect();
        let uploads = self.shared.uploads.clone();
        let reaped = tokio::task::spawn_blocking(move || {
            let gone = old.iter().filter(|upload| uploads.discard(upload.id));
            gone.count() as u64
        });
        reaped.await.unwrap_or_default()
    }

    /// Takes everything out of a repository that no longer exists.
    pub(super) async fn clear(&self, repository: &HostedRepository) -> Result<(), Error> {
        let (its, repository) = (self.clone(), repository.clone());
        detached(async move {
            loop {
                let page = its.links(&repository.key, None).await?;
                if page.is_empty() {
                    return Ok(());
                }
                for (digest, manifest, _) in page {
                    if manifest {
                        its.delete_manifest(&repository, &digest).await.or_else(gone)?;
                    }
                    // A manifest that is lost has a link all the same.
                    its.unlink(&repository.key, &digest).await?;
                    its.shared.blobs.remove_unheld(&digest).await?;
                }
            }
        })
        .await
    }
}

fn gone(error: Error) -> Result<(), Error> {
    match error {
        Error::ManifestUnknown => Ok(()),
        other => Err(other),
    }
}
