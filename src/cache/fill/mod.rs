//! A fill: one download of one blob, a task of its own that no client's leaving ends (unless `finish_fill` says so).
//!
//! Goes on where an earlier one stopped, fetches parts far ahead for readers who want them, publishes by law 3, and
//! leaves nothing as good that is not verified. Fills run on threads of their own, where writing and hashing a piece
//! in place costs nobody else a turn, and finds it in the processor's cache.

mod front;
mod gather;
mod parallel;
mod ramp;
mod resume;
mod streams;
mod through;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::oci::Digest;
use crate::repository::Link;
use crate::storage::{self, Growing, Hasher, Ingest, NoRoom, Proof};
use crate::upstream::{BlobBody, Errand};

use super::error::{Error, ErrorKind};
use super::inflight::{Fill, Lead, Opened};
use super::negative::Missing;
use super::{Place, Shared};
use front::End;
use parallel::Traffic;
use streams::Streams;
use through::Again;

/// Parts of one blob that are downloaded at a time, the front's included.
const MOST_STREAMS: usize = 8;

/// Failures of parts after which readers wait for the front instead.
const MOST_SIDE_FAILURES: u32 = 3;

/// How long a fill that nobody reads waits for somebody, when `finish_fill` does not let it go on alone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Joins the running fill of `digest` or starts one for `place`; the flag says "joined". `size` as its manifest says.
pub(super) fn lead_or_join(
    shared: &Arc<Shared>,
    place: &Place,
    digest: Digest,
    size: Option<u64>,
) -> (Fill, bool) {
    let errand = place.errand();
    let (key, purpose) = (&place.key, errand.purpose.clone());
    shared.fills.lead_or_join(digest, key, purpose, |lead| {
        let job = Arc::new(Job {
            shared: shared.clone(),
            place: place.clone(),
            digest,
            expected: size,
            errand,
            streams: Streams::new(place.upstream.config().parallel),
            traffic: Traffic::default(),
            over: CancellationToken::new(),
        });
        shared.tasks.spawn_on(job.run(lead), &shared.fill_threads);
    })
}

struct Job {
    shared: Arc<Shared>,
    place: Place,
    digest: Digest,
    expected: Option<u64>,
    /// Shared with those who join.
    errand: Errand,
    streams: Streams,
    traffic: Traffic,
    /// Ends what runs beside the front.
    over: CancellationToken,
}

impl Job {
    async fn run(self: Arc<Self>, lead: Lead) {
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
                // Out of the map first: who asks after hearing of it asks afresh.
                lead.leave();
                return lead.open(Err(error));
            }
        };
        let host = body.as_ref().map(|body| body.host.clone());
        lead.open(Ok(Opened::Growing(ingest.growing().clone())));
        let (upstream, repository, digest) = (self.place.upstream.prefix(), &*self.place.key, &self.digest);
        match self.download(ingest, body, &lead).await {
            Ok(size) => {
                metrics.completed();
                tracing::debug!(upstream, repository, %digest, size, "blob complete");
            }
            Err(Ended::Stopped(reason)) => {
                tracing::info!(upstream, repository, %digest, reason, "a fill stopped, what is there is kept");
            }
            Err(Ended::Failed(error)) => {
                metrics.failed();
                tracing::warn!(upstream, host, repository, %digest, error = error.message, "a fill failed");
            }
        }
        // Only now out of the map: until the row is there, newcomers read from this fill.
        drop(lead);
    }

    /// Asks the upstream for what lacks, and prepares the file. No body: nothing lacks.
    async fn open(&self) -> Result<(Ingest, Option<BlobBody>), Error> {
        if let Some(ingest) = self.resumed().await? {
            let growing = ingest.growing().clone();
            let start = growing.end_from(ingest.front());
            if ingest.size() == Some(start) {
                return Ok((ingest, None));
            }
            let body = self.ask(start, growing.next_start(start)).await?;
            if body
                .size
                .is_none_or(|told| ingest.size().is_none_or(|known| known == told))
            {
                return Ok((ingest, Some(body)));
            }
            self.warn(&body, "the upstream announced another size than before");
            drop_discarding(ingest, "the upstream's blob has another size");
        }
        let mut body = self.ask(0, None).await?;
        let is_wrong = |body: &BlobBody| {
            self.expected
                .zip(body.size)
                .filter(|(expected, size)| expected != size)
        };
        if body.is_mirrored && is_wrong(&body).is_some() {
            self.warn(&body, "a mirror announced a blob of the wrong size");
            self.place.upstream.distrust_mirrors();
            body = self.ask(0, None).await?;
        }
        if let Some((expected, size)) = is_wrong(&body) {
            self.warn(&body, "the upstream announced a blob of the wrong size");
            let message = format!("the upstream sent {size} bytes where its manifest says {expected}");
            return Err(Error::upstream(ErrorKind::UpstreamFailed, &self.place, message));
        }
        let size = body.size.or(self.expected);
        // An empty body has no last byte that could be withheld.
        if size == Some(0) && Hasher::digest(self.digest.algorithm(), b"") != self.digest {
            self.warn(
                &body,
                "the upstream announced an empty body for a blob that is not empty",
            );
            let message = "the upstream sent nothing where there is a blob";
            return Err(Error::upstream(ErrorKind::UpstreamFailed, &self.place, message));
        }
        Ok((self.begin(size).await?, Some(body)))
    }

    fn warn(&self, body: &BlobBody, what: &str) {
        let (upstream, repository) = (self.place.upstream.prefix(), &*self.place.key);
        tracing::warn!(upstream, host = body.host, repository, digest = %self.digest, expected = self.expected, size = body.size, "{what}");
    }

    async fn ask(&self, start: u64, end: Option<u64>) -> Result<BlobBody, Error> {
        let place = &self.place;
        let opened = place
            .upstream
            .blob(&place.name, &self.digest, (start, end), &self.errand);
        match opened.await {
            Ok(body) => Ok(body),
            Err(error) => {
                let what = Missing::Blob(self.digest);
                self.shared.negative.learn(place, what, &error);
                Err(Error::of_upstream(place, &error, ErrorKind::BlobUnknown))
            }
        }
    }

    fn again(&self) -> Arc<Again> {
        Arc::new(Again {
            place: self.place.clone(),
            digest: self.digest,
        })
    }

    /// What an earlier fill left.
    async fn resumed(&self) -> Result<Option<Ingest>, Error> {
        let (shared, digest, again) = (self.shared.clone(), self.digest, self.again());
        let resumed = tokio::task::spawn_blocking(move || shared.storage.blobs.resume(digest, again));
        let Some(ingest) = resumed
            .await
            .map_err(|_| Error::internal("opening a partial file was given up"))?
        else {
            return Ok(None);
        };
        if let (Some(expected), Some(size)) = (self.expected, ingest.size())
            && expected != size
        {
            drop_discarding(ingest, "its manifest says another size");
            return Ok(None);
        }
        Ok(Some(ingest))
    }

    /// A new partial file; without room for it, a window.
    async fn begin(&self, size: Option<u64>) -> Result<Ingest, Error> {
        let mut again = true;
        loop {
            let (shared, digest) = (self.shared.clone(), self.digest);
            let (repository, refetch) = (self.place.key.clone(), self.again());
            let create = move || shared.storage.blobs.ingest(digest, size, &repository, refetch);
            let created = tokio::task::spawn_blocking(create)
                .await
                .map_err(|_| Error::internal("opening a partial file was given up"))?;
            match created {
                Ok(ingest) => return Ok(ingest),
                Err(storage::Error::NoRoom(NoRoom { missing })) => {
                    if missing > 0
                        && std::mem::take(&mut again)
                        && self.shared.make_room(missing, &self.digest).await
                    {
                        continue;
                    }
                    tracing::warn!(repository = &*self.place.key, %digest, size, "no room for a blob: it passes through");
                    let blobs = &self.shared.storage.blobs;
                    return Ok(blobs.pass_through(self.digest, size, self.again()));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Downloads, verifies and publishes; gives the size.
    async fn download(
        self: &Arc<Self>,
        mut ingest: Ingest,
        body: Option<BlobBody>,
        lead: &Lead,
    ) -> Result<u64, Ended> {
        let growing = ingest.growing().clone();
        let _over = self.over.clone().drop_guard();
        let received = tokio::select! {
            received = self.receive(&mut ingest, body, lead) => received,
            reason = self.supervise(&growing) => Err(End::Stopped(reason)),
            never = self.widen(&growing) => match never {},
            () = self.shared.stop.cancelled() => Err(End::Stopped("the daemon stops")),
        };
        let verified = received.and_then(|()| ingest.verify().map_err(End::Storage));
        let size = match verified {
            Ok(size) => size,
            Err(End::Stopped(reason)) => {
                ingest.fail(reason);
                return Err(Ended::Stopped(reason));
            }
            // What came is wrong: nothing of it is kept.
            Err(End::Storage(
                error @ (storage::Error::WrongDigest { .. } | storage::Error::WrongSize { .. }),
            )) => {
                self.place.upstream.distrust_mirrors();
                drop_discarding(ingest, &error.to_string());
                return Err(Ended::Failed(error.into()));
            }
            Err(End::Lie(error)) => {
                drop_discarding(ingest, &error.message);
                return Err(Ended::Failed(error));
            }
            // Its own file cannot be read: the next fill would fail at the same place.
            Err(End::Storage(error)) => {
                drop_discarding(ingest, &error.to_string());
                return Err(Ended::Failed(error.into()));
            }
            Err(End::Upstream(error)) => {
                ingest.fail(&error.message);
                return Err(Ended::Failed(error));
            }
        };
        if !ingest.is_on_disk() {
            return Ok(size);
        }
        // Before the row, so that whoever finds the bytes finds for whom they were fetched.
        self.link(size);
        let published = self
            .shared
            .storage
            .blobs
            .publish(ingest, &self.digest, size)
            .await;
        published.map_err(|error| Ended::Failed(error.into()))?;
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

    /// Sees to it that readers far ahead get what they want, and ends when nobody is there for whom to go on.
    async fn supervise(self: &Arc<Self>, growing: &Arc<Growing>) -> &'static str {
        let rule = self.place.upstream.config().finish_fill;
        let failures = Arc::new(AtomicU32::new(0));
        loop {
            // Without news, at the least to see whether anybody came at all.
            let news = tokio::time::timeout(PATIENCE, growing.attention()).await;
            let alone = growing.readers_now() == 0;
            if alone && !rule.goes_on(growing.present(), growing.size()) {
                return "no client waits for it";
            }
            if news.is_err() || !growing.is_kept() {
                continue;
            }
            for want in growing.wants() {
                if failures.load(Ordering::Relaxed) >= MOST_SIDE_FAILURES {
                    break;
                }
                let planned = self.streams.side(growing, want, MOST_STREAMS);
                if let Some((running, end)) = planned {
                    let (job, growing, failures) = (self.clone(), growing.clone(), Arc::clone(&failures));
                    let side = async move {
                        let part = async {
                            let body = job.ask_part(&growing, running.stream.start(), end).await?;
                            job.transfer(&growing, running, body).await
                        };
                        if let Err(reason) = part.await {
                            tracing::debug!(repository = &*job.place.key, digest = %job.digest, reason, "a part could not be fetched");
                            failures.fetch_add(1, Ordering::Relaxed);
                        }
                        // Its reader may want more, or somebody waited for its turn.
                        growing.nudge();
                    };
                    self.spawn_side(side);
                }
            }
        }
    }
}

/// How a download ended, other than well.
enum Ended {
    /// Because we wanted it.
    Stopped(&'static str),
    Failed(Error),
}

fn drop_discarding(mut ingest: Ingest, reason: &str) {
    ingest.discard(reason);
}
