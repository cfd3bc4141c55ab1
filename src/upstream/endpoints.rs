//! Who is asked: the registry, or for content by digest any of its endpoints. The digest proves the content, so a
//! mirror is as good as the registry; what a tag means only the registry says.
//!
//! An endpoint that failed is asked last for a while. Called by `cache` through [`Upstream::blob`] and
//! [`Upstream::manifest`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Upstream;
use super::body::BlobBody;
use super::content::FetchedManifest;
use super::content::ManifestHead;
use super::endpoint::Endpoint;
use super::errand::{Access, Errand};
use super::error::{Error, ErrorKind};
use super::lists::TagsPage;
use super::transport::host_of;
use crate::oci::Descriptor;
use crate::oci::{Digest, Reference, RepositoryName};

/// How long an endpoint that failed is asked last.
const AVOID: Duration = Duration::from_secs(10);

/// How long one that sent wrong content is.
const DISTRUST: Duration = Duration::from_mins(10);

/// Whether an endpoint is asked last. Shared with the bodies that it sends.
#[derive(Debug, Default)]
pub(super) struct Standing {
    avoided_until: Mutex<Option<Instant>>,
}

impl Standing {
    /// It failed.
    pub(super) fn avoid(&self) {
        self.until(Instant::now() + AVOID);
    }

    fn until(&self, end: Instant) {
        let mut until = self.avoided_until.lock().unwrap_or_else(PoisonError::into_inner);
        *until = (*until).max(Some(end));
    }

    fn is_avoided(&self) -> bool {
        let until = self.avoided_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }
}

/// Whether another endpoint may do better.
fn is_of_the_endpoint(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unavailable(_)
            | ErrorKind::RateLimited { .. }
            | ErrorKind::Protocol
            | ErrorKind::Unexpected
            | ErrorKind::Refused
            | ErrorKind::CredentialsRejected
    )
}

impl Upstream {
    /// Starts a download from `offset` on, up to `end` (exclusive) if there is one, at the first endpoint that serves it.
    /// The body says where it really starts: upstreams may ignore ranges.
    ///
    /// # Errors
    /// `RangeNotSatisfiable` when the blob has no byte at `offset`; `Protocol` when another range comes. When all
    /// endpoints fail, what the registry itself said.
    pub async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        (offset, end): (u64, Option<u64>),
        errand: &Errand,
    ) -> Result<BlobBody, Error> {
        let mut told = None;
        for endpoint in self.endpoints() {
            match endpoint.blob(repository, digest, (offset, end), errand).await {
                Ok(body) => return Ok(body),
                Err(error) => self.hear(endpoint, error, &mut told)?,
            }
        }
        Err(self.last_word(told))
    }

    /// Fetches a manifest of at most [`crate::oci::MAX_MANIFEST_SIZE`] bytes, with the whole `Accept` list whatever a client
    /// sent. Verified against the digest that was asked for and the one that the upstream told. By digest it may come
    /// from a mirror.
    pub async fn manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        errand: &Errand,
    ) -> Result<FetchedManifest, Error> {
        // What is asked for without our login is asked to learn what the registry gives to anybody.
        if matches!(reference, Reference::Tag(_)) || errand.access == Access::Anonymous {
            return self.own.manifest(repository, reference, errand).await;
        }
        let mut told = None;
        for endpoint in self.endpoints() {
            match endpoint.manifest(repository, reference, errand).await {
                Ok(manifest) => return Ok(manifest),
                Err(error) => self.hear(endpoint, error, &mut told)?,
            }
        }
        Err(self.last_word(told))
    }

    /// Asks about a manifest. The error `HeadRefused` means that GET may still succeed.
    pub async fn manifest_head(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        errand: &Errand,
    ) -> Result<ManifestHead, Error> {
        self.own.manifest_head(repository, reference, errand).await
    }

    /// Proof that the repository serves the blob, and its size if the upstream tells it. Asks for the first byte:
    /// upstreams refuse HEAD for blobs.
    pub async fn blob_probe(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        errand: &Errand,
    ) -> Result<Option<u64>, Error> {
        self.own.blob_probe(repository, digest, errand).await
    }

    /// One page of the tag list. `query` is sent as it is: encoded, without the question mark, perhaps empty.
    pub async fn tags(
        &self,
        repository: &RepositoryName,
        query: &str,
        errand: &Errand,
    ) -> Result<TagsPage, Error> {
        self.own.tags(repository, query, errand).await
    }

    /// What refers to `digest`, by the referrers API, over all pages. `None` when there is no such API here, which
    /// registries say in many ways. Entries that are no descriptors are left out.
    ///
    /// # Errors
    /// Only what may pass, such as `RateLimited` and `Unavailable`, and a list without end.
    pub async fn referrers(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        errand: &Errand,
    ) -> Result<Option<Vec<Descriptor>>, Error> {
        self.own.referrers(repository, digest, errand).await
    }

    /// What the mirrors sent was wrong: they are asked last for a while.
    pub fn distrust_mirrors(&self) {
        let end = Instant::now() + DISTRUST;
        self.mirrors.iter().for_each(|mirror| mirror.standing.until(end));
    }

    /// All endpoints, those last that failed lately.
    fn endpoints(&self) -> Vec<&Endpoint> {
        let all = std::iter::once(&self.own).chain(&self.mirrors).map(Arc::as_ref);
        let (last, mut first): (Vec<_>, Vec<_>) = all.partition(|endpoint| endpoint.standing.is_avoided());
        first.extend(last);
        first
    }

    /// What an endpoint's error means: an error when no other need be asked; else what is told if they all fail.
    fn hear(&self, endpoint: &Endpoint, error: Error, told: &mut Option<Error>) -> Result<(), Error> {
        let faulty = is_of_the_endpoint(&error);
        if faulty {
            endpoint.standing.avoid();
        }
        if endpoint.is_mirror {
            tracing::debug!(upstream = self.prefix(), %error, "a mirror does not serve it");
        } else if !faulty {
            // What the registry itself does not have, nobody has.
            return Err(error);
        }
        if !endpoint.is_mirror || told.is_none() {
            *told = Some(error);
        }
        Ok(())
    }

    /// There is one endpoint at the least, so one of them said something.
    fn last_word(&self, told: Option<Error>) -> Error {
        told.unwrap_or_else(|| {
            let host = host_of(&self.config.url);
            self.own
                .transport
                .error(&host, ErrorKind::Setup, "there is nobody to ask")
        })
    }
}
