//! `wharfinger collect`, and the same by itself every now and then: of hosted repositories, what no image needs goes, and
//! uploads that nobody goes on with. Nothing is locked meanwhile: `repository::hosted` says how a push beside it is safe.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::clock::Timestamp;
use crate::job::{Job, Progress, Unit};
use crate::repository::hosted::{Collecting, Error, Hosted, HostedRepository};
use crate::storage::Index;
use crate::telemetry::Metrics;

use super::due::{Due, PAUSE, rest};
use super::names::{Wanted, next};
use super::pace::Pace;

/// Links that are looked at in a second when it runs by itself.
const RATE: u64 = 50_000;

/// When the last collection ended: a name in the index's `meta`.
const FINISHED: &str = "collect.finished";

/// How often uploads are looked at, at the least and at the most.
const REAP: std::ops::RangeInclusive<Duration> = Duration::from_millis(250)..=Duration::from_hours(1);

/// The job.
#[derive(Clone)]
pub struct Collect {
    hosted: Hosted,
    index: Arc<Index>,
    metrics: Arc<Metrics>,
    due: Due,
    upload_timeout: Duration,
}

/// What is asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectOptions {
    /// Only say what would go.
    #[serde(default)]
    pub dry_run: bool,
    /// Only these repositories; none for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<String>,
}

/// What a collection did, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectedAll {
    /// Whether nothing was done, only counted.
    pub dry_run: bool,
    /// Repositories that were looked at.
    pub repositories: u64,
    /// What was left of repositories that were deleted, and is gone now.
    pub cleared: u64,
    /// Blobs that left a repository, once for each.
    pub unlinked: u64,
    /// Blobs that left the disk.
    pub removed: u64,
    /// The bytes that this freed.
    pub bytes: u64,
    /// Uploads that were given up.
    pub uploads: u64,
    /// Their bytes.
    pub upload_bytes: u64,
    /// So many seconds no blob is collected yet: what clients were told before the daemon was started holds for the grace
    /// period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_seconds: Option<u64>,
    /// Whether it was stopped before its end.
    pub stopped: bool,
}

impl Collect {
    /// The job over `hosted`, by itself every `interval`. Uploads are given up after `upload_timeout`.
    pub fn new(
        hosted: Hosted,
        index: Arc<Index>,
        metrics: Arc<Metrics>,
        interval: Duration,
        upload_timeout: Duration,
    ) -> Self {
        Self {
            due: Due::new(index.clone(), FINISHED, interval),
            hosted,
            index,
            metrics,
            upload_timeout,
        }
    }

    /// Collects by itself until `stop`, but nothing in the first grace period of the process; uploads are given up
    /// when it is time for each.
    pub async fn keep(&self, stop: CancellationToken) {
        tokio::join!(self.keep_collecting(&stop), self.keep_reaping(&stop));
    }

    async fn keep_collecting(&self, stop: &CancellationToken) {
        let held = self.hosted.held_for(Timestamp::now());
        let repositories = self.index.read(Index::repository_count).await;
        if repositories.is_ok_and(|count| count > 0) {
            tracing::info!(
                seconds = held.as_secs(),
                "hosted repositories are not collected yet: what clients were told before this start holds for hosted.grace"
            );
        }
        while !stop.is_cancelled() {
            let wait = match self.due.wait().await {
                Ok(wait) => wait.max(self.hosted.held_for(Timestamp::now())),
                Err(error) => {
                    tracing::error!(%error, "collecting failed");
                    PAUSE
                }
            };
            if !wait.is_zero() {
                rest(wait, stop).await;
                continue;
            }
            let progress = Progress::unheard(stop.clone());
            let done = match self.collect(&CollectOptions::default(), RATE, &progress).await {
                Ok(done) if done.stopped => return,
                Ok(_) => self.due.done().await.map_err(say),
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                tracing::error!(error, "collecting failed");
                rest(PAUSE, stop).await;
            }
        }
    }

    async fn keep_reaping(&self, stop: &CancellationToken) {
        let often = (self.upload_timeout / 4).clamp(*REAP.start(), *REAP.end());
        loop {
            rest(often, stop).await;
            if stop.is_cancelled() {
                return;
            }
            let now = Timestamp::now();
            let (uploads, bytes) = self
                .hosted
                .reap_uploads(None, self.upload_timeout, now, false)
                .await;
            if uploads > 0 {
                tracing::info!(uploads, bytes, "uploads that nobody went on with were given up");
                self.metrics.hosted.reaped(uploads, bytes);
            }
        }
    }

    async fn collect(
        &self,
        options: &CollectOptions,
        rate: u64,
        progress: &Progress,
    ) -> Result<CollectedAll, String> {
        let done = self.run_over(options, rate, progress).await;
        if options.dry_run {
            return done;
        }
        let Ok(did) = &done else {
            self.metrics.hosted.collection("failed");
            return done;
        };
        let CollectedAll {
            repositories,
            cleared,
            unlinked,
            removed,
            bytes,
            uploads,
            upload_bytes,
            held_seconds,
            stopped,
            ..
        } = *did;
        tracing::info!(
            repositories,
            cleared,
            unlinked,
            removed,
            bytes,
            uploads,
            upload_bytes,
            held_seconds,
            stopped,
            "collected"
        );
        let result = match (stopped, held_seconds) {
            (true, _) => "stopped",
            (false, Some(_)) => "held",
            (false, None) => "completed",
        };
        self.metrics.hosted.collection(result);
        self.metrics.hosted.collected(removed, bytes);
        self.metrics.hosted.reaped(uploads, upload_bytes);
        done
    }

    async fn run_over(
        &self,
        options: &CollectOptions,
        rate: u64,
        progress: &Progress,
    ) -> Result<CollectedAll, String> {
        let dry = options.dry_run;
        let mut wanted = Wanted::find(&self.hosted, &options.repositories).await?;
        let total = match wanted.count() {
            Some(count) => count,
            None => self.index.read(Index::repository_count).await.map_err(say)?,
        };
        let held = self.hosted.held_for(Timestamp::now());
        let mut done = CollectedAll {
            dry_run: dry,
            held_seconds: (!held.is_zero()).then(|| held.as_secs().max(1)),
            ..CollectedAll::default()
        };
        if let Some(seconds) = done.held_seconds {
            progress.note(format!(
                "no blob is collected for another {seconds} s: what clients were told before the daemon was started holds \
                 for hosted.grace"
            ));
        }
        let (mut run, mut pace) = (Collecting::new(dry), Pace::new(rate));
        let everywhere = wanted.is_all();
        if everywhere {
            self.reap(None, &mut done).await;
            done.cleared = self.hosted.clear_abandoned(&mut run).await.map_err(say)?;
        }
        while let Some(repository) = next(&self.hosted, &mut wanted).await.map_err(say)? {
            progress.at(done.repositories, Some(total.max(done.repositories)), Unit::Items);
            if !everywhere {
                self.reap(Some(&repository), &mut done).await;
            }
            done.stopped = !self
                .of_one(&repository, &mut run, &mut pace, progress)
                .await
                .map_err(say)?;
            if done.stopped {
                break;
            }
            done.repositories += 1;
        }
        progress.at(done.repositories, Some(done.repositories), Unit::Items);
        let collected = run.collected;
        (done.unlinked, done.removed, done.bytes) = (collected.unlinked, collected.removed, collected.bytes);
        Ok(done)
    }

    async fn reap(&self, of: Option<&HostedRepository>, done: &mut CollectedAll) {
        let now = Timestamp::now();
        let (uploads, bytes) = self
            .hosted
            .reap_uploads(of, self.upload_timeout, now, done.dry_run)
            .await;
        done.uploads += uploads;
        done.upload_bytes += bytes;
    }

    /// Collects one repository; false when it was stopped.
    async fn of_one(
        &self,
        repository: &HostedRepository,
        run: &mut Collecting,
        pace: &mut Pace,
        progress: &Progress,
    ) -> Result<bool, Error> {
        let mut after = None;
        loop {
            if progress.is_stopped() {
                return Ok(false);
            }
            let page = self.hosted.collect_page(repository, after, run).await?;
            after = page.last;
            if after.is_none() {
                return Ok(true);
            }
            tokio::select! {
                () = tokio::time::sleep_until(pace.next(page.looked)) => {}
                () = progress.stopped() => {}
            }
        }
    }
}

fn say(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Job for Collect {
    const NAME: &'static str = "collect";
    type Options = CollectOptions;
    type Summary = CollectedAll;

    async fn run(&self, options: CollectOptions, progress: Progress) -> Result<CollectedAll, String> {
        self.collect(&options, 0, &progress).await
    }
}
