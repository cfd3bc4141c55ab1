//! A fill: one download of one blob, a task of its own that no client's leaving ends.
//!
//! Receives while the bytes before are written and hashed, continues by `Range` where an upstream cut, publishes by
//! law 3, and leaves nothing that is not verified.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::oci::Digest;
use crate::repository::Link;
use crate::storage::{self, Hasher, Ingest, Proof};
use crate::upstream::{self, BlobBody};

use super::error::{Error, ErrorKind};
use super::inflight::{Fill, Lead, Opened};
use super::negative::Missing;
use super::{Place, Shared};

/// Bytes that may wait for the disk before we stop receiving.
const MOST_QUEUED: usize = 1024 * 1024;
/// Cuts in a row without a byte between them after which a fill gives up.
const MOST_CUTS: u32 = 6;
/// The wait before the first continuation; doubled for each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// What a rate limit is waited for at the most, before each continuation.
const MOST_PAUSE: Duration = Duration::from_secs(10);

/// Joins the running fill of `digest` or starts one for `place`; the flag says "joined". `size` as its manifest says.
pub(super) fn lead_or_join(
    shared: &Arc<Shared>,
    place: &Place,
    digest: Digest,
    size: Option<u64>,
) -> (Fill, bool) {
    shared.fills.lead_or_join(digest, &place.key, |lead| {
        let job = Job {
            shared: shared.clone(),
            place: place.clone(),
            digest,
            expected: size,
        };
        shared.tasks.spawn(job.run(lead));
    })
}

struct Job {
    shared: Arc<Shared>,
    place: Place,
    digest: Digest,
    expected: Option<u64>,
}

impl Job {
    async fn run(self, lead: Lead) {
        // It may have become whole between the client's look and our start.
        match self.shared.storage.blobs.open(&self.digest).await {
            Ok(Some(blob)) => return lead.open(Ok(Opened::Stored(blob))),
            Ok(None) => {}
            Err(error) => return lead.open(Err(error.into())),
        }
        let metrics = self.shared.metrics.fill_started(self.place.upstream.prefix());
        let (ingest, body) = match self.open().await {
            Ok(opened) => opened,
            Err(error) => {
                metrics.failed();
                return lead.open(Err(error));
            }
        };
        let host = body.host.clone();
        lead.open(Ok(Opened::Growing(ingest.growing().clone())));
        let (upstream, repository, digest) = (self.place.upstream.prefix(), &*self.place.key, &self.digest);
        match self.download(ingest, body).await {
            Ok(size) => {
                metrics.completed();
                tracing::debug!(upstream, repository, %digest, size, "blob stored");
            }
            Err(error) => {
                metrics.failed();
                tracing::warn!(upstream, host, repository, %digest, error = error.message, "a fill failed, nothing of it is kept");
            }
        }
        // Only now out of the map: until the row is there, newcomers read from this fill.
        drop(lead);
    }

    /// Asks the upstream, and prepares the file.
    async fn open(&self) -> Result<(Ingest, BlobBody), Error> {
        let body = match self.place.upstream.blob(&self.place.name, &self.digest, 0).await {
            Ok(body) => body,
            Err(error) => {
                let what = Missing::Blob(self.digest);
                self.shared.negative.learn(&self.place, what, &error);
                return Err(Error::of_upstream(&self.place, &error, ErrorKind::BlobUnknown));
            }
        };
        if let (Some(expected), Some(size)) = (self.expected, body.size)
            && expected != size
        {
            tracing::warn!(
                upstream = self.place.upstream.prefix(),
                host = body.host,
                repository = &*self.place.key,
                digest = %self.digest,
                expected,
                size,
                "the upstream announced a blob of the wrong size"
            );
            let message = format!("the upstream sent {size} bytes where its manifest says {expected}");
            return Err(Error::upstream(ErrorKind::UpstreamFailed, &self.place, message));
        }
        let size = body.size.or(self.expected);
        // An empty body has no last byte that could be withheld.
        if size == Some(0) && Hasher::digest(self.digest.algorithm(), b"") != self.digest {
            tracing::warn!(
                upstream = self.place.upstream.prefix(),
                host = body.host,
                repository = &*self.place.key,
                digest = %self.digest,
                "the upstream announced an empty body for a blob that is not empty"
            );
            let message = "the upstream sent nothing where there is a blob";
            return Err(Error::upstream(ErrorKind::UpstreamFailed, &self.place, message));
        }
        let ingest = self.blocking_ingest(size).await?;
        Ok((ingest, body))
    }

    async fn blocking_ingest(&self, size: Option<u64>) -> Result<Ingest, Error> {
        let (shared, digest) = (self.shared.clone(), self.digest);
        let created = tokio::task::spawn_blocking(move || {
            let mut ingest = shared.storage.blobs.ingest(digest)?;
            if let Some(size) = size {
                ingest.announce_size(size);
            }
            ingest.check_room()?;
            Ok::<_, storage::Error>(ingest)
        });
        Ok(created
            .await
            .map_err(|_| Error::internal("opening a partial file was given up"))??)
    }

    /// Downloads, verifies and publishes; gives the size.
    async fn download(&self, ingest: Ingest, body: BlobBody) -> Result<u64, Error> {
        let mut ingest = self.receive(ingest, body).await?;
        let published = tokio::task::spawn_blocking(move || {
            let verified = ingest.verify();
            if let Err(error) = &verified {
                ingest.fail(&error.to_string());
            }
            let size = verified?;
            ingest.publish()?;
            Ok::<_, storage::Error>(size)
        });
        let size = published
            .await
            .map_err(|_| Error::internal("publishing a blob was given up"))??;
        // Before the row, so that whoever finds the bytes finds for whom they were fetched.
        self.link(size);
        self.shared.storage.blobs.adopt(&self.digest, size).await?;
        Ok(size)
    }

    fn link(&self, size: u64) {
        let link = Link {
            size,
            proof: Proof::Fetched,
            manifest: false,
        };
        self.shared
            .repositories
            .put_link(&self.place.key, &self.digest, link);
    }

    /// Receives until the upstream's clean end, continuing after cuts.
    async fn receive(&self, ingest: Ingest, body: BlobBody) -> Result<Ingest, Error> {
        let mut writing = Writing::Idle(ingest);
        let mut body = Some(body);
        let mut cuts = 0;
        loop {
            let before = writing.written();
            let ended = match body.take() {
                Some(body) => self.pump(&mut writing, body).await,
                None => Err(None),
            };
            let mut ingest = writing.settle().await?;
            let reason = match ended {
                // A clean end short of the announced size is a cut as well.
                Ok(()) if ingest.size().is_none_or(|size| ingest.written() >= size) => return Ok(ingest),
                Ok(()) => "the body ended early".to_owned(),
                Err(None) => "it could not be continued".to_owned(),
                Err(Some(End::Cut(reason))) => reason,
                Err(Some(End::Fatal(error))) => {
                    ingest.fail(&error.message);
                    return Err(error);
                }
            };
            cuts = if ingest.written() > before { 1 } else { cuts + 1 };
            if cuts > MOST_CUTS {
                let message = format!(
                    "gave up at byte {} after {MOST_CUTS} attempts: {reason}",
                    ingest.written()
                );
                ingest.fail(&message);
                return Err(Error::upstream(ErrorKind::UpstreamFailed, &self.place, message));
            }
            let offset = ingest.written();
            tracing::info!(upstream = self.place.upstream.prefix(), digest = %self.digest, offset, reason, "upstream cut a blob, continuing");
            let pause = FIRST_PAUSE * 2u32.saturating_pow(cuts - 1);
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            body = self.reopen(&mut ingest).await?;
            if ingest.size() == Some(ingest.written()) {
                // Nothing lacked but the word that this was all.
                return Ok(ingest);
            }
            writing = Writing::Idle(ingest);
        }
    }

    /// Asks for the rest. `None`: not now, which counts as another cut.
    async fn reopen(&self, ingest: &mut Ingest) -> Result<Option<BlobBody>, Error> {
        let (body, told) = match self
            .place
            .upstream
            .blob(&self.place.name, &self.digest, ingest.written())
            .await
        {
            Ok(body) => {
                let told = body.size;
                (Some(body), told)
            }
            Err(error) => {
                tracing::debug!(upstream = self.place.upstream.prefix(), digest = %self.digest, %error, "continuing failed");
                if let upstream::ErrorKind::RateLimited { retry_after } = error.kind() {
                    tokio::time::sleep(retry_after.unwrap_or(MOST_PAUSE).min(MOST_PAUSE)).await;
                }
                let told = match error.kind() {
                    upstream::ErrorKind::RangeNotSatisfiable { size } => *size,
                    _ => None,
                };
                (None, told)
            }
        };
        match (ingest.size(), told) {
            (Some(known), Some(told)) if known != told => {
                let message = format!("continuing a blob of {known} bytes, the upstream now says {told}");
                ingest.fail(&message);
                return Err(Error::upstream(ErrorKind::UpstreamFailed, &self.place, message));
            }
            (None, Some(told)) => ingest.announce_size(told),
            _ => {}
        }
        Ok(body)
    }

    /// Moves one body into the file; receiving and writing overlap.
    async fn pump(&self, writing: &mut Writing, mut body: BlobBody) -> Result<(), Option<End>> {
        // An upstream that ignores Range starts over: what we have is passed over.
        let mut skip = writing.written().saturating_sub(body.offset);
        let mut queue: Vec<Bytes> = Vec::new();
        let mut queued = 0;
        loop {
            if !queue.is_empty() && writing.is_idle() {
                writing.start(std::mem::take(&mut queue));
                queued = 0;
            }
            tokio::select! {
                biased;
                result = writing.done(), if !writing.is_idle() => {
                    result.map_err(|error| Some(End::Fatal(error)))?;
                }
                piece = body.chunk(), if queued < MOST_QUEUED => {
                    match piece {
                        Ok(Some(mut piece)) => {
                            let over = (piece.len() as u64).min(skip) as usize;
                            skip -= over as u64;
                            let piece = piece.split_off(over);
                            if !piece.is_empty() {
                                queued += piece.len();
                                queue.push(piece);
                            }
                        }
                        Ok(None) => return self.flush(writing, queue).await,
                        Err(error) => {
                            self.flush(writing, queue).await?;
                            return Err(Some(End::Cut(error.to_string())));
                        }
                    }
                }
            }
        }
    }

    async fn flush(&self, writing: &mut Writing, queue: Vec<Bytes>) -> Result<(), Option<End>> {
        writing.done().await.map_err(|error| Some(End::Fatal(error)))?;
        if !queue.is_empty() {
            writing.start(queue);
            writing.done().await.map_err(|error| Some(End::Fatal(error)))?;
        }
        Ok(())
    }
}

/// Why a body ended before its end.
enum End {
    /// The upstream's doing; worth continuing.
    Cut(String),
    /// Ours, or a lie; not worth it.
    Fatal(Error),
}

/// The ingest, at rest or on a blocking thread.
enum Writing {
    Idle(Ingest),
    Busy(JoinHandle<(Ingest, Result<(), storage::Error>)>, u64),
    Lost,
}

impl Writing {
    fn is_idle(&self) -> bool {
        matches!(self, Self::Idle(_))
    }

    /// Bytes in the file, counting those on their way.
    fn written(&self) -> u64 {
        match self {
            Self::Idle(ingest) => ingest.written(),
            Self::Busy(_, written) => *written,
            Self::Lost => 0,
        }
    }

    fn start(&mut self, pieces: Vec<Bytes>) {
        if let Self::Idle(mut ingest) = std::mem::replace(self, Self::Lost) {
            let after = ingest.written() + pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
            let write = move || {
                let result = ingest.append(&pieces);
                if let Err(error) = &result {
                    ingest.fail(&error.to_string());
                }
                (ingest, result)
            };
            *self = Self::Busy(tokio::task::spawn_blocking(write), after);
        }
    }

    /// Waits until nothing is on its way. May be dropped while waiting.
    async fn done(&mut self) -> Result<(), Error> {
        if let Self::Busy(write, _) = self {
            let Ok((ingest, result)) = write.await else {
                *self = Self::Lost;
                return Err(Error::internal("writing a blob was given up"));
            };
            *self = Self::Idle(ingest);
            result?;
        }
        Ok(())
    }

    async fn settle(mut self) -> Result<Ingest, Error> {
        self.done().await?;
        match self {
            Self::Idle(ingest) => Ok(ingest),
            _ => Err(Error::internal("writing a blob was given up")),
        }
    }
}
