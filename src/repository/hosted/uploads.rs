//! Uploads to hosted repositories, from the session that a client begins to the blob that it becomes.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use crate::oci::{Algorithm, Digest};
use crate::storage::{NewUpload, NotHad, Proof, Upload, UploadId, UploadState};

use super::blobs::{blocking, detached};
use super::{Error, Hosted, HostedRepository};

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

/// Who uploads.
#[derive(Clone, Debug)]
pub struct Uploader {
    /// Who alone may go on with the session.
    pub owner: String,
    /// For whom open sessions are counted: the same, or of nobody in particular the address.
    pub counted: String,
}

impl Hosted {
    /// Begins an upload session.
    ///
    /// # Errors
    /// `TooManyUploads`.
    pub async fn begin_upload(
        &self,
        repository: &HostedRepository,
        uploader: Uploader,
        algorithm: Algorithm,
    ) -> Result<Upload, Error> {
        self.begin(repository, uploader, algorithm, None).await
    }

    async fn begin(
        &self,
        repository: &HostedRepository,
        uploader: Uploader,
        algorithm: Algorithm,
        size: Option<u64>,
    ) -> Result<Upload, Error> {
        let new = NewUpload {
            repository: repository.key.to_string(),
            owner: uploader.owner,
            counted: uploader.counted,
            algorithm,
            size,
        };
        let uploads = self.shared.uploads.clone();
        blocking(move || Ok(uploads.begin(new)?)).await
    }

    /// Begins one that is never told to its client, since this request brings all of it: dropped, it is gone. `size`, if
    /// the client says it, is reserved.
    ///
    /// # Errors
    /// `TooManyUploads`; `Quota` and `NoRoom`, when so much does not fit.
    pub async fn begin_whole(
        &self,
        repository: &HostedRepository,
        uploader: Uploader,
        digest: &Digest,
        size: Option<u64>,
    ) -> Result<Upload, Error> {
        if self.link(&repository.key, digest).await?.is_none() {
            self.within_quota(repository, size.unwrap_or(0)).await?;
        }
        let algorithm = digest.algorithm();
        let mut upload = self.begin(repository, uploader, algorithm, size).await?;
        upload.make_nameless();
        Ok(upload)
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

    /// Before bytes are taken in: they are held to what the repository's quota leaves at this moment, so that what cannot fit
    /// is refused while it comes. `more` is what the client announces; `digest` what it says that it will be, since
    /// what the repository holds already adds nothing.
    ///
    /// # Errors
    /// `Quota`, when what is announced cannot fit: the session waits as it is.
    pub async fn expect(
        &self,
        repository: &HostedRepository,
        mut upload: Upload,
        more: Option<u64>,
        digest: Option<&Digest>,
    ) -> Result<Upload, Error> {
        let Some((left, quota)) = self.left(repository).await? else {
            return Ok(upload);
        };
        let known = match digest {
            Some(digest) => self.link(&repository.key, digest).await?,
            None => None,
        };
        // More than that it cannot be.
        let most = known.map_or(left, |link| left.max(link.size));
        upload.limit(most, quota);
        let end = upload.size().saturating_add(more.unwrap_or(0));
        if end > most {
            self.rest_upload(upload).await?;
            return Err(Error::Quota(quota));
        }
        Ok(upload)
    }

    /// Takes more bytes into a session.
    ///
    /// # Errors
    /// `Quota`, `NoRoom`, and those of the disk: the session waits with what came before.
    pub async fn append(&self, mut upload: Upload, bytes: Bytes) -> Result<Upload, Error> {
        blocking(move || {
            upload.append(&bytes)?;
            Ok(upload)
        })
        .await
    }

    /// Bytes that each chunk but the last has at the least; zero is any number.
    pub fn min_chunk(&self) -> u64 {
        self.shared.uploads.rules().min_chunk
    }

    /// Before another chunk is taken in.
    ///
    /// # Errors
    /// `ShortChunk`, when the one before had to be the last.
    pub fn may_follow(&self, upload: &Upload) -> Result<(), Error> {
        match self.min_chunk() {
            least if least > 0 && upload.is_short() => Err(Error::ShortChunk(least)),
            _ => Ok(()),
        }
    }

    /// Lets go of a session after a chunk that came whole.
    pub async fn end_chunk(&self, mut upload: Upload) -> Result<(), Error> {
        upload.end_chunk(self.min_chunk());
        self.rest_upload(upload).await
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
    /// `DigestInvalid`, when it is something else: then the session is over. `Quota`, when it is seen to be used up: then the
    /// session waits, unless others took what was left while this one was published. `NameUnknown`, when the repository
    /// went meanwhile.
    pub async fn finish_upload(
        &self,
        repository: &HostedRepository,
        mut upload: Upload,
        digest: &Digest,
    ) -> Result<Finished, Error> {
        let (size, digest) = (upload.size(), *digest);
        if self.link(&repository.key, &digest).await?.is_none()
            && let Err(error) = self.within_quota(repository, size).await
        {
            self.rest_upload(upload).await?;
            return Err(error);
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
            let links = its.linking(&repository, &digest, size, Proof::Pushed).await?;
            its.shared.blobs.publish_upload(upload, &digest, links).await?;
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

    /// Sessions that no request has, for status and collection.
    pub fn resting_uploads(&self) -> Vec<UploadState> {
        self.shared.uploads.resting()
    }
}
