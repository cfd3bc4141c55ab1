//! Several connections for one large blob, where one of them is what limits: the second half of the widest stretch that
//! lacks comes over one more, as long as that is a fifth faster (`ramp`), at most `parallel` of them.
//!
//! The connection is opened before anything is planned around it, so one that is refused, or answers late, costs the front
//! nothing.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::storage::Growing;
use crate::upstream::{BlobBody, Purpose, Source};

use super::Job;
use super::gather::has_time;
use super::ramp::{Ramp, Seen, Step};
use super::streams::{Running, Stream};

/// Between two looks at how fast it comes.
const LOOK: Duration = Duration::from_millis(250);
/// Smaller blobs come over one connection.
const LEAST_BLOB: u64 = 32 * 1024 * 1024;
/// Connections that one fill tries, for each that it may have at a time: the widest stretch is halved again and again.
const MOST_ATTEMPTS: usize = 4;
/// Failures after which a fill tries no more connections; and what it waits after each.
const MOST_TROUBLE: u32 = 3;
const AFTER_TROUBLE: Duration = Duration::from_secs(10);

/// How a fill's downloads go, as told by themselves.
#[derive(Default)]
pub(super) struct Traffic {
    /// Nanoseconds that they have waited for the network.
    idle: AtomicU64,
    /// Cuts and failures.
    trouble: AtomicU32,
    /// Where the front comes from.
    source: Mutex<Option<Source>>,
}

impl Traffic {
    /// The next piece of a body: how long it took counts.
    pub(super) async fn next<T>(&self, chunk: impl Future<Output = T>) -> T {
        let _waiting = Waiting {
            since: Instant::now(),
            idle: &self.idle,
        };
        chunk.await
    }

    /// A download broke off.
    pub(super) fn broke_off(&self) {
        self.trouble.fetch_add(1, Ordering::Relaxed);
    }

    /// The front comes from there.
    pub(super) fn comes_from(&self, source: Source) {
        *self.source() = Some(source);
    }

    fn source(&self) -> MutexGuard<'_, Option<Source>> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a wait, also one that is given up.
struct Waiting<'a> {
    since: Instant,
    idle: &'a AtomicU64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let nanos = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.idle.fetch_add(nanos, Ordering::Relaxed);
    }
}

impl Job {
    /// Opens connections beside the front's while they help.
    pub(super) async fn widen(self: &Arc<Self>, growing: &Arc<Growing>) -> Infallible {
        let most = self.place.upstream.config().parallel;
        let small = growing.size().is_none_or(|size| size < LEAST_BLOB);
        if most < 2 || small || !growing.is_kept() {
            return std::future::pending().await;
        }
        let mut ramp = Ramp::new(most, Instant::now());
        let mut trouble = 0;
        let mut attempts = 0;
        let mut newest: Option<Arc<Stream>> = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let now = Instant::now();
            let troubled = self.traffic.trouble.load(Ordering::Relaxed);
            if troubled > MOST_TROUBLE || !growing.is_kept() {
                return std::future::pending().await;
            }
            if troubled > trouble {
                trouble = troubled;
                ramp.again(now, AFTER_TROUBLE);
            }
            if self.streams.count() > 1 && self.is_in_the_way() {
                self.streams.give_way();
                ramp.gave_way(now, AFTER_TROUBLE);
            }
            match ramp.judge(&self.seen(growing, now)) {
                Step::Nothing => {}
                Step::End => {
                    if let Some(stream) = newest.take() {
                        tracing::debug!(repository = &*self.place.key, digest = %self.digest, "one more connection is not faster: it ends");
                        stream.stop();
                    }
                }
                Step::Add if attempts >= MOST_ATTEMPTS * most => ramp.refused(),
                Step::Add if self.is_welcome() => match self.one_more(growing).await {
                    Ok(Some(stream)) => {
                        attempts += 1;
                        let running = self.streams.count();
                        tracing::debug!(repository = &*self.place.key, digest = %self.digest, running, "one more connection for a large blob");
                        ramp.opened(running, Instant::now());
                        newest = Some(stream);
                    }
                    Ok(None) => {
                        attempts += 1;
                        ramp.again(Instant::now(), Duration::ZERO);
                    }
                    Err(reason) => {
                        tracing::debug!(repository = &*self.place.key, digest = %self.digest, reason, "no further connection for a large blob");
                        ramp.refused();
                    }
                },
                Step::Add => ramp.again(now, Duration::ZERO),
            }
        }
    }

    fn seen(&self, growing: &Growing, now: Instant) -> Seen {
        let present = growing.present();
        Seen {
            now,
            present,
            left: growing.size().unwrap_or(0).saturating_sub(present),
            running: self.streams.count(),
            idle: Duration::from_nanos(self.traffic.idle.load(Ordering::Relaxed)),
        }
    }

    /// Whether somebody waits for the blob, and nobody else for what one more connection would take.
    fn is_welcome(&self) -> bool {
        let awaited = self.errand.purpose.get() > Purpose::Background;
        awaited && self.traffic.source().as_ref().is_some_and(Source::has_room)
    }

    /// Whether others wait for a turn that one of ours takes.
    fn is_in_the_way(&self) -> bool {
        self.traffic.source().as_ref().is_some_and(Source::is_crowded)
    }

    /// Opens one more connection, and plans around it. `None`: there is nothing left for it.
    async fn one_more(self: &Arc<Self>, growing: &Arc<Growing>) -> Result<Option<Arc<Stream>>, String> {
        let Some((start, end)) = self.streams.widest(growing) else {
            return Ok(None);
        };
        let body = self.ask_part(growing, start, end).await?;
        // What was planned before it answered may be brought by others now.
        let Some(running) = self.streams.claim(growing, (start, end)) else {
            return Ok(None);
        };
        let stream = running.stream.clone();
        let (job, growing) = (self.clone(), growing.clone());
        let side = async move {
            if let Err(reason) = job.transfer(&growing, running, body).await {
                tracing::debug!(repository = &*job.place.key, digest = %job.digest, reason, "a part broke off");
                job.traffic.broke_off();
            }
        };
        self.spawn_side(side);
        Ok(Some(stream))
    }

    /// Asks for a part of the blob, and takes nothing but that.
    pub(super) async fn ask_part(&self, growing: &Growing, start: u64, end: u64) -> Result<BlobBody, String> {
        let (upstream, name) = (&self.place.upstream, &self.place.name);
        let part = (start, Some(end));
        let body = upstream.blob(name, &self.digest, part, &self.errand).await;
        let body = body.map_err(|error| error.to_string())?;
        if body.offset != start {
            return Err("the upstream ignores ranges".to_owned());
        }
        if body.size.is_some() && body.size != growing.size() {
            return Err("the upstream announced another size".to_owned());
        }
        Ok(body)
    }

    /// Moves a part into the file, as far as nobody else brings it.
    pub(super) async fn transfer(
        &self,
        growing: &Growing,
        running: Running,
        mut body: BlobBody,
    ) -> Result<(), String> {
        let stream = &running.stream;
        let mut position = stream.start();
        loop {
            let asked = Instant::now();
            let chunk = tokio::select! {
                chunk = self.traffic.next(body.chunk()) => chunk,
                () = stream.stopped() => return Ok(()),
            };
            let Some(first) = chunk.map_err(|error| error.to_string())? else {
                return Ok(());
            };
            let patience = has_time(asked, position, growing.size());
            let mut gathered = self.traffic.gather(first, &mut body, patience).await;
            gathered.cut(0, stream.limit().saturating_sub(position));
            growing
                .write(position, &gathered.pieces)
                .map_err(|error| error.to_string())?;
            position += gathered.length();
            stream.advance(position);
            // Somebody else brings the rest, or nobody wants it any more.
            if position >= stream.limit() || growing.has_failed() || !growing.is_kept() {
                return Ok(());
            }
            if let Some(ending) = gathered.ending {
                return ending.map_err(|error| error.to_string());
            }
        }
    }

    /// Runs a download beside the front's, until the fill is over.
    pub(super) fn spawn_side(self: &Arc<Self>, side: impl Future<Output = ()> + Send + 'static) {
        let over = self.over.clone();
        let side = async move {
            tokio::select! {
                () = side => {}
                () = over.cancelled() => {}
            }
        };
        self.shared.tasks.spawn_on(side, &self.shared.fill_threads);
    }
}
