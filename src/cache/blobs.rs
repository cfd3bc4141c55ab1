//! Blobs: from disk, from a fill that runs, or by a new fill. A repository serves only what it links (law 8).

use crate::oci::Digest;
use crate::repository::Link;
use crate::storage::{BlobReader, Proof};

use super::error::{Error, ErrorKind};
use super::fill;
use super::negative::Missing;
use super::status::{Answer, CacheStatus, Outcome};
use super::{Cache, Place};

impl Cache {
    /// A reader of a blob. For a cold one it comes as soon as the upstream has answered.
    pub async fn blob(&self, place: &Place, digest: &Digest) -> Result<Answer<BlobReader>, Error> {
        let link = self.blob_link(place, digest).await?;
        if link.is_some() && !self.shared.is_known_open(place) {
            Box::pin(self.shared.visible_blob_though_here(place, digest)).await?;
        }
        // The warm path: memory only.
        if link.is_some()
            && let Some(blob) = self.shared.storage.blobs.opened(digest)
        {
            self.shared.access.touch(digest, &blob.last_use);
            return Ok(Answer::new(BlobReader::Stored(blob), CacheStatus::HIT));
        }
        Box::pin(self.blob_not_open(place, digest, link)).await
    }

    /// The same, of what is here alone.
    pub async fn blob_here(
        &self,
        place: &Place,
        digest: &Digest,
    ) -> Result<Option<Answer<BlobReader>>, Error> {
        if self.blob_link(place, digest).await?.is_none() {
            return Ok(None);
        }
        let stored = self.shared.storage.blobs.open(digest).await?;
        Ok(stored.map(|blob| {
            self.shared.access.touch(digest, &blob.last_use);
            Answer::new(BlobReader::Stored(blob), CacheStatus::HIT)
        }))
    }

    /// A blob that is not open: on disk, arriving, or to be fetched.
    async fn blob_not_open(
        &self,
        place: &Place,
        digest: &Digest,
        link: Option<Link>,
    ) -> Result<Answer<BlobReader>, Error> {
        let blobs = &self.shared.storage.blobs;
        let running = self.shared.fills.get(digest);
        let stored = if running.is_some() {
            None
        } else {
            blobs.open(digest).await?
        };
        if (link.is_none() || stored.is_none()) && self.shared.negative.knows(place, Missing::Blob(*digest)) {
            return Err(Error::remembered(
                ErrorKind::BlobUnknown,
                "blob unknown to the upstream",
            ));
        }
        let mut size = link.map(|link| link.size);
        if size.is_none() {
            self.visible_blob(place, digest).await?;
            // Here or arriving, but for others: our own upstream has to confirm that it is ours to read.
            let for_others = running.is_some_and(|fill| fill.leader != place.key);
            if for_others || stored.is_some() {
                size = Some(self.prove(place, digest).await?);
            }
        }
        if let Some(blob) = stored {
            self.shared.access.touch(digest, &blob.last_use);
            return Ok(Answer::new(BlobReader::Stored(blob), CacheStatus::HIT));
        }
        let (mut collapsed, mut again) = (false, true);
        loop {
            let (fill, joined) = fill::lead_or_join(&self.shared, place, *digest, size);
            let another = joined && fill.leader != place.key;
            match fill.clone().opened().await {
                // Joined between its failure and its end, by a client that asks again at once: the next may do better.
                Ok(opened) if joined && again && opened.has_failed() => {
                    again = false;
                    fill.gone().await;
                }
                Ok(opened) => {
                    // It began, or ended, for others since we looked.
                    if size.is_none() && (another || opened.is_stored()) {
                        self.prove(place, digest).await?;
                    }
                    let reader = opened.reader();
                    let status = CacheStatus {
                        stored: Some(reader.is_kept()),
                        ..CacheStatus::miss(joined || collapsed)
                    };
                    return Ok(Answer::new(reader, status));
                }
                // The other repository's upstream failed, which says nothing of ours.
                Err(_) if another => {
                    collapsed = true;
                    fill.gone().await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The size of a blob, without fetching it.
    pub async fn blob_size(&self, place: &Place, digest: &Digest) -> Result<Answer<u64>, Error> {
        if let Some(link) = self.blob_link(place, digest).await? {
            if !self.shared.is_known_open(place) {
                Box::pin(self.shared.visible_blob_though_here(place, digest)).await?;
            }
            return Ok(Answer::new(link.size, CacheStatus::HIT));
        }
        if self.shared.negative.knows(place, Missing::Blob(*digest)) {
            return Err(Error::remembered(
                ErrorKind::BlobUnknown,
                "blob unknown to the upstream",
            ));
        }
        Box::pin(self.visible_blob(place, digest)).await?;
        let size = Box::pin(self.confirm(place, digest)).await?;
        Ok(Answer::new(size, CacheStatus::of(Outcome::Miss)))
    }

    /// The same, of what is here alone.
    pub async fn blob_size_here(&self, place: &Place, digest: &Digest) -> Result<Option<Answer<u64>>, Error> {
        let link = self.blob_link(place, digest).await?;
        let stored = self.shared.storage.blobs.open(digest).await?;
        let size = link.filter(|_| stored.is_some()).map(|link| link.size);
        Ok(size.map(|size| Answer::new(size, CacheStatus::HIT)))
    }

    /// The keys of the repositories that may serve a blob, `most` at the most.
    pub async fn kept_for(&self, digest: &Digest, most: usize) -> Result<Vec<String>, Error> {
        let digest = *digest;
        let read = self
            .shared
            .storage
            .index
            .read(move |index| index.cached_holders(&digest, most));
        Ok(read.await?)
    }

    async fn blob_link(&self, place: &Place, digest: &Digest) -> Result<Option<Link>, Error> {
        let link = self.shared.repositories.link(&place.key, digest).await?;
        Ok(link.filter(|link| !link.manifest))
    }

    /// The size of a blob that is here or arriving, once it is sure that this repository may serve it.
    async fn prove(&self, place: &Place, digest: &Digest) -> Result<u64, Error> {
        // A fill for this very repository may have ended since we looked.
        if let Some(link) = self.blob_link(place, digest).await? {
            return Ok(link.size);
        }
        self.confirm(place, digest).await
    }

    /// Asks the upstream whether it serves this blob in this repository, and how large it is: one question for all.
    async fn confirm(&self, place: &Place, digest: &Digest) -> Result<u64, Error> {
        let (shared, its, digest) = (self.shared.clone(), place.clone(), *digest);
        let probe = || async move {
            match its.upstream.blob_probe(&its.name, &digest, &its.errand()).await {
                Ok(Some(size)) => {
                    let link = Link {
                        size,
                        proof: Proof::Confirmed,
                        manifest: false,
                    };
                    shared.repositories.put_link(&its.key, &digest, link);
                    Ok(size)
                }
                Ok(None) => Err(Error::upstream(
                    ErrorKind::UpstreamFailed,
                    &its,
                    "the upstream does not tell the size of the blob",
                )),
                Err(error) => {
                    shared.negative.learn(&its, Missing::Blob(digest), &error);
                    Err(Error::of_upstream(&its, &error, ErrorKind::BlobUnknown))
                }
            }
        };
        let (size, _) = self.shared.probes.run((place.key.clone(), digest), probe).await;
        size.unwrap_or_else(|| Err(Error::internal("a probe was given up")))
    }
}
