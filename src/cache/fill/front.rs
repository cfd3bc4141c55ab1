//! The front of a fill: receives, writes and hashes in order until the blob is whole, continuing after cuts, passing
//! over what is here already.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::cache::error::{Error, ErrorKind};
use crate::cache::inflight::Lead;
use crate::storage::{self, Extents, Ingest};
use crate::upstream::{self, BlobBody};

use super::Job;
use super::gather::{Gathered, has_time};
use super::streams::Running;

/// Cuts in a row without a byte between them after which a fill gives up.
const MOST_CUTS: u32 = 6;
/// The wait before the first continuation; doubled for each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// What a rate limit is waited for at the most, before each continuation.
const MOST_PAUSE: Duration = Duration::from_secs(10);
/// How long what arrived may wait to be written down for a later fill.
const RECORD_EVERY: Duration = Duration::from_millis(200);
/// How long the slowest reader of a window may hold up those who wait at its head.
const GRACE: Duration = Duration::from_millis(100);
/// How long a window waits for its first reader.
const FIRST_READER: Duration = Duration::from_secs(10);

/// Why a fill stops that we may not go on with.
const OFFLINE: &str = "the cache is offline now";

/// Why a download ended early.
pub(super) enum End {
    /// We wanted it so.
    Stopped(&'static str),
    /// The upstream fails; what came so far is good.
    Upstream(Error),
    /// The upstream lied; nothing is good.
    Lie(Error),
    Storage(storage::Error),
}

impl From<storage::Error> for End {
    fn from(error: storage::Error) -> Self {
        Self::Storage(error)
    }
}

/// How a body ended.
enum Ending {
    /// Cleanly.
    Clean,
    /// What follows is here, or somebody else brings it.
    Enough,
    /// The upstream's doing; worth continuing.
    Cut(String),
}

/// What the end of a body is to its fill.
fn ended(ending: Result<(), upstream::Error>) -> Result<Ending, End> {
    match ending {
        Ok(()) => Ok(Ending::Clean),
        Err(error) if *error.kind() == upstream::ErrorKind::Offline => Err(End::Stopped(OFFLINE)),
        Err(error) => Ok(Ending::Cut(error.to_string())),
    }
}

/// What is written down of a fill while it runs, and synced.
#[derive(Default)]
struct Books {
    syncing: Option<JoinHandle<Option<Extents>>>,
}

impl Books {
    /// Does what is due.
    async fn keep(&mut self, ingest: &mut Ingest) {
        if ingest.record_is_due() {
            ingest.save_record();
        }
        if let Some(done) = self.syncing.take_if(|syncing| syncing.is_finished()) {
            ingest.synced(done.await.ok().flatten());
        }
        if let Some(work) = ingest.sync_due() {
            self.syncing = Some(tokio::task::spawn_blocking(work));
        }
    }
}

impl Job {
    /// Receives until nothing lacks.
    pub(super) async fn receive(
        &self,
        ingest: &mut Ingest,
        mut body: Option<BlobBody>,
        lead: &Lead,
    ) -> Result<(), End> {
        let growing = ingest.growing().clone();
        let mut books = Books::default();
        let mut cuts = 0;
        loop {
            while ingest.catch_up()? {
                books.keep(ingest).await;
                tokio::task::yield_now().await;
            }
            let start = ingest.front();
            if ingest.size().is_some_and(|size| start >= size) {
                return Ok(());
            }
            let running = match self.streams.front(&growing, start) {
                Ok(running) => running,
                Err(stream) => {
                    books.keep(ingest).await;
                    tokio::select! {
                        () = growing.arrived(start) => {}
                        () = stream.ended() => {}
                        () = tokio::time::sleep(RECORD_EVERY), if ingest.is_unrecorded() => {}
                    }
                    continue;
                }
            };
            let usable = body.take().filter(|body| body.offset <= start);
            let ending = match usable {
                Some(body) => self.pump(ingest, body, &running, lead, &mut books).await?,
                None => match self.reopen(ingest, &running).await? {
                    Some(body) => self.pump(ingest, body, &running, lead, &mut books).await?,
                    None => Ending::Cut("it could not be continued".to_owned()),
                },
            };
            drop(running);
            let reason = match ending {
                Ending::Enough => {
                    cuts = 0;
                    continue;
                }
                Ending::Clean if ingest.size().is_none_or(|size| ingest.front() >= size) => return Ok(()),
                // A bounded request was answered whole.
                Ending::Clean if growing.end_from(ingest.front()) > ingest.front() => continue,
                Ending::Clean => "the body ended early".to_owned(),
                Ending::Cut(reason) => reason,
            };
            if ingest.size() == Some(ingest.front()) {
                // Nothing lacked but the word that this was all.
                return Ok(());
            }
            self.traffic.broke_off();
            cuts = if ingest.front() > start { 1 } else { cuts + 1 };
            let offset = ingest.front();
            if cuts > MOST_CUTS {
                let message = format!("gave up at byte {offset} after {MOST_CUTS} attempts: {reason}");
                return Err(End::Upstream(Error::upstream(
                    ErrorKind::UpstreamFailed,
                    &self.place,
                    message,
                )));
            }
            tracing::info!(upstream = self.place.upstream.prefix(), digest = %self.digest, offset, reason, "upstream cut a blob, continuing");
            let pause = FIRST_PAUSE * 2u32.saturating_pow(cuts - 1);
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
        }
    }

    /// Asks for what follows the front. `None`: not now, which counts as another cut.
    async fn reopen(&self, ingest: &mut Ingest, running: &Running) -> Result<Option<BlobBody>, End> {
        let (start, limit) = (ingest.front(), running.stream.limit());
        let end = Some(limit).filter(|limit| *limit < u64::MAX && ingest.is_on_disk());
        let place = &self.place;
        let opened = place
            .upstream
            .blob(&place.name, &self.digest, (start, end), &self.errand);
        let (body, told) = match opened.await {
            Ok(body) => {
                let told = body.size;
                (Some(body), told)
            }
            Err(error) => {
                if *error.kind() == upstream::ErrorKind::Offline {
                    return Err(End::Stopped(OFFLINE));
                }
                tracing::debug!(upstream = place.upstream.prefix(), digest = %self.digest, %error, "continuing failed");
                if let upstream::ErrorKind::RateLimited { retry_after, .. } = error.kind() {
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
                if let Some(body) = body.filter(|body| body.is_mirrored) {
                    // A mirror's word against what was said before: the registry's counts.
                    self.warn(&body, "a mirror announced another size than was known");
                    body.avoid();
                    return Ok(None);
                }
                let message = format!("continuing a blob of {known} bytes, the upstream now says {told}");
                return Err(End::Lie(Error::upstream(
                    ErrorKind::UpstreamFailed,
                    &self.place,
                    message,
                )));
            }
            (None, Some(told)) => ingest.announce_size(told),
            _ => {}
        }
        Ok(body)
    }

    /// Moves one body to where it belongs.
    async fn pump(
        &self,
        ingest: &mut Ingest,
        mut body: BlobBody,
        running: &Running,
        lead: &Lead,
        books: &mut Books,
    ) -> Result<Ending, End> {
        self.traffic.comes_from(body.source());
        // An upstream that ignores Range starts over: what we have is passed over.
        let mut skip = ingest.front().saturating_sub(body.offset);
        loop {
            let asked = Instant::now();
            let chunk = tokio::select! {
                biased;
                chunk = self.traffic.next(body.chunk()) => chunk,
                () = tokio::time::sleep(RECORD_EVERY), if ingest.is_unrecorded() => {
                    ingest.save_record();
                    continue;
                }
            };
            let first = match chunk {
                Ok(Some(piece)) => piece,
                Ok(None) => return ended(Ok(())),
                Err(error) => return ended(Err(error)),
            };
            let on_disk = ingest.is_on_disk();
            let mut gathered = if on_disk {
                let patience = has_time(asked, ingest.front(), ingest.size());
                self.traffic.gather(first, &mut body, patience).await
            } else {
                Gathered::from(first)
            };
            let came = gathered.length();
            let most = running.stream.limit().saturating_sub(ingest.front());
            gathered.cut(skip, if on_disk { most } else { u64::MAX });
            skip -= skip.min(came);
            if !on_disk {
                self.wait_for_window(ingest, gathered.length(), lead).await?;
            }
            if !gathered.pieces.is_empty() {
                ingest.append(&gathered.pieces)?;
                running.stream.advance(ingest.front());
            }
            let on_disk = ingest.is_on_disk(); // it may have become full
            if on_disk && ingest.front() >= running.stream.limit() {
                return Ok(Ending::Enough);
            }
            if let Some(ending) = gathered.ending {
                return ended(ending);
            }
            if on_disk {
                books.keep(ingest).await;
            }
        }
    }

    /// Waits until the window takes a piece, which its readers decide.
    async fn wait_for_window(&self, ingest: &Ingest, length: u64, lead: &Lead) -> Result<(), End> {
        // Who comes now would find the beginning gone: better a fill of its own, which others can join.
        if ingest.front() > 0 {
            lead.leave();
        }
        let growing = ingest.growing();
        let since = Instant::now();
        loop {
            match ingest.window_takes(length) {
                Some(true) => return Ok(()),
                Some(false) => {
                    let came = tokio::time::timeout(FIRST_READER, growing.moved()).await;
                    if came.is_err() || ingest.front() > 0 && growing.readers_now() == 0 {
                        return Err(End::Stopped("no client waits for it"));
                    }
                }
                None if growing.somebody_waits_at_the_head() => {
                    let left = GRACE.saturating_sub(since.elapsed());
                    if tokio::time::timeout(left, growing.moved()).await.is_err() {
                        growing.leave_slowest_behind();
                    }
                }
                None => {
                    // A reader that stands still for long is its connection's concern: the server ends it.
                    growing.moved().await;
                }
            }
        }
    }
}
