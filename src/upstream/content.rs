//! Manifests and blobs: what is asked, and what an answer has to be. Judges sizes, digests and ranges, but not what a
//! manifest says.

use std::sync::Arc;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RANGE};
use sha2::Digest as _;

use super::body::BlobBody;
use super::client::{Answer, Call};
use super::endpoint::Endpoint;
use super::errand::Errand;
use super::error::{Error, ErrorKind, Failure};
use super::observer::RequestKind;
use super::reply::Reply;
use crate::oci::{
    ACCEPT_MANIFESTS, Algorithm, ContentRange, Digest, MAX_MANIFEST_SIZE, MediaType, Reference,
    RepositoryName,
};

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// A manifest as it came, and was verified.
#[derive(Clone, Debug)]
pub struct FetchedManifest {
    /// The document, byte for byte.
    pub bytes: Bytes,
    /// The `Content-Type`, if there was one. Not judged: HTML with a 200 gets as far as this.
    pub media_type: Option<MediaType>,
    /// The digest of the bytes: as it was asked for, else as the upstream told, else by SHA-256.
    pub digest: Digest,
}

/// What HEAD says of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestHead {
    /// `Docker-Content-Digest`; some registries leave it out.
    pub digest: Option<Digest>,
    /// `Content-Type`.
    pub media_type: Option<MediaType>,
    /// `Content-Length`, in bytes.
    pub size: Option<u64>,
}

impl Endpoint {
    /// [`super::Upstream::manifest`], of this endpoint.
    pub(super) async fn manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        errand: &Errand,
    ) -> Result<FetchedManifest, Error> {
        let call = self.manifest_call(Method::GET, repository, reference, errand);
        let mut again = true;
        let (reply, bytes) = loop {
            let mut reply = self.expect_ok(&call).await?;
            match reply.read(MAX_MANIFEST_SIZE).await {
                Ok(bytes) => break (reply, bytes),
                Err(error) => {
                    let (kind, message) = error.explain();
                    let error = self.transport.error(reply.host(), kind, message);
                    // A body that broke off is like a failure before it: once more.
                    if *error.kind() != ErrorKind::Unavailable(Failure::Cut) || !std::mem::take(&mut again) {
                        return Err(error);
                    }
                }
            }
        };
        let observer = self.transport.observer();
        observer.bytes_in(self.prefix(), RequestKind::Manifest, bytes.len() as u64);
        let asked = match reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(_) => None,
        };
        let told = content_digest(&reply);
        for (expected, who) in [(asked, "asked for"), (told, "announced")] {
            if let Some(expected) = expected
                && digest_of(expected.algorithm(), &bytes) != Some(expected)
            {
                let message =
                    format!("the manifest {repository}@{reference} is not the one {who}, {expected}");
                return Err(self.transport.error(reply.host(), ErrorKind::Protocol, message));
            }
        }
        // As HEAD will name it too: by another algorithm it would look moved.
        let digest = asked
            .or(told)
            .or_else(|| digest_of(Algorithm::Sha256, &bytes))
            .ok_or_else(|| {
                self.transport
                    .error(reply.host(), ErrorKind::Protocol, "the manifest cannot be hashed")
            })?;
        Ok(FetchedManifest {
            bytes,
            media_type: content_type(&reply),
            digest,
        })
    }

    /// Asks about a manifest. The error `HeadRefused` means that GET may still succeed.
    pub(super) async fn manifest_head(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        errand: &Errand,
    ) -> Result<ManifestHead, Error> {
        let mut call = self.manifest_call(Method::HEAD, repository, reference, errand);
        call.kind = RequestKind::ManifestHead;
        let reply = self.expect_ok(&call).await?;
        Ok(ManifestHead {
            digest: content_digest(&reply),
            media_type: content_type(&reply),
            size: reply.content_length(),
        })
    }

    /// [`super::Upstream::blob`], of this endpoint.
    pub(super) async fn blob(
        self: &Arc<Self>,
        repository: &RepositoryName,
        digest: &Digest,
        (offset, end): (u64, Option<u64>),
        errand: &Errand,
    ) -> Result<BlobBody, Error> {
        let mut call = self.blob_call(RequestKind::Blob, repository, digest, errand);
        let range = match end {
            Some(end) => Some(format!("bytes={offset}-{}", end.saturating_sub(1))),
            None => (offset > 0).then(|| format!("bytes={offset}-")),
        };
        let range = range.and_then(|range| HeaderValue::try_from(range).ok());
        call.headers.extend(range.map(|range| (RANGE, range)));
        let answer = self.ask(&call).await?;
        let reply = answer.reply;
        let length = reply.content_length();
        match (reply.status().as_u16(), content_range(&reply)) {
            (200, _) => {
                if offset > 0 {
                    self.answered_range(true);
                }
                Ok(self.body(errand, reply, 0, length, length))
            }
            (
                206,
                Some(ContentRange {
                    span: Some(span),
                    size,
                }),
            ) if span.start == offset
                && end.is_none_or(|end| span.end <= end)
                && length.is_none_or(|length| length == span.len()) =>
            {
                self.answered_range(false);
                let left = Some(span.len());
                Ok(self.body(errand, reply, offset, size, left))
            }
            (206, told) => {
                let message = format!("asked for the blob from byte {offset} on, it sends {told:?}");
                Err(self.transport.error(reply.host(), ErrorKind::Protocol, message))
            }
            (416, told) if offset > 0 || end.is_some() => {
                let kind = ErrorKind::RangeNotSatisfiable {
                    size: told.and_then(|told| told.size),
                };
                Err(self
                    .transport
                    .status_error(reply.host(), kind, 416, "nothing there"))
            }
            _ => Err(self.failure(&call, Answer { reply, ..answer }).await),
        }
    }

    fn body(
        self: &Arc<Self>,
        errand: &Errand,
        reply: Reply,
        offset: u64,
        size: Option<u64>,
        left: Option<u64>,
    ) -> BlobBody {
        BlobBody::new(self.clone(), reply, offset, size, left).at_the_pace_of(errand)
    }

    /// Proof that this repository serves the blob with our credentials, and its size if the upstream tells it. Asks
    /// for the first byte: upstreams refuse HEAD for blobs.
    pub(super) async fn blob_probe(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        errand: &Errand,
    ) -> Result<Option<u64>, Error> {
        let mut call = self.blob_call(RequestKind::BlobProbe, repository, digest, errand);
        call.headers.insert(RANGE, HeaderValue::from_static("bytes=0-0"));
        let answer = self.ask(&call).await?;
        let told = content_range(&answer.reply);
        match answer.reply.status().as_u16() {
            // A portal's page is no proof of anything.
            200 if content_type(&answer.reply).is_some_and(|it| it.as_str() == "text/html") => {
                let message = "asked for a blob, it sends HTML";
                Err(self
                    .transport
                    .error(answer.reply.host(), ErrorKind::Protocol, message))
            }
            200 => Ok(answer.reply.content_length()),
            206 => Ok(told.and_then(|told| told.size)),
            // The first byte is missing only where there is none.
            416 if told.and_then(|told| told.size).unwrap_or(0) == 0 => Ok(Some(0)),
            _ => Err(self.failure(&call, answer).await),
        }
    }

    fn manifest_call<'a>(
        &self,
        method: Method,
        repository: &'a RepositoryName,
        reference: &Reference,
        errand: &'a Errand,
    ) -> Call<'a> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(ACCEPT_MANIFESTS));
        Call {
            kind: RequestKind::Manifest,
            method,
            url: self.url_of(&format!("{repository}/manifests/{reference}")),
            repository,
            errand,
            headers,
            follow: true,
        }
    }

    fn blob_call<'a>(
        &self,
        kind: RequestKind,
        repository: &'a RepositoryName,
        digest: &Digest,
        errand: &'a Errand,
    ) -> Call<'a> {
        Call {
            kind,
            method: Method::GET,
            url: self.url_of(&format!("{repository}/blobs/{digest}")),
            repository,
            errand,
            headers: HeaderMap::new(),
            follow: true,
        }
    }

    /// Asks, and takes nothing but a 200.
    pub(super) async fn expect_ok(&self, call: &Call<'_>) -> Result<Reply, Error> {
        let answer = self.ask(call).await?;
        if answer.reply.status().as_u16() == 200 {
            return Ok(answer.reply);
        }
        Err(self.failure(call, answer).await)
    }
}

fn content_digest(reply: &Reply) -> Option<Digest> {
    reply.header(&DOCKER_CONTENT_DIGEST)?.trim().parse().ok()
}

fn content_type(reply: &Reply) -> Option<MediaType> {
    let text = reply
        .header(&CONTENT_TYPE)
        .filter(|text| !text.trim().is_empty())?;
    Some(MediaType::new(text))
}

fn content_range(reply: &Reply) -> Option<ContentRange> {
    ContentRange::parse(reply.header(&CONTENT_RANGE)?)
}

fn digest_of(algorithm: Algorithm, bytes: &[u8]) -> Option<Digest> {
    match algorithm {
        Algorithm::Sha256 => Digest::from_hash(algorithm, &sha2::Sha256::digest(bytes)),
        Algorithm::Sha512 => Digest::from_hash(algorithm, &sha2::Sha512::digest(bytes)),
    }
}
