//! `wharfinger expire`, and the same by itself every now and then: each hosted repository's lifecycle policy is evaluated,
//! and the images that it expires are deleted. Their blobs go with the next collection.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::job::{Job, Progress, Unit};
use crate::repository::hosted::{Error, Expiring, Hosted, HostedRepository};
use crate::repository::lifecycle::Policy;
use crate::storage::Index;
use crate::telemetry::Metrics;

use super::due::{Due, PAUSE, rest};
use super::names::{Wanted, next};

/// When the last run ended: a name in the index's `meta`.
const FINISHED: &str = "expire.finished";

/// The job.
#[derive(Clone)]
pub struct Expire {
    hosted: Hosted,
    index: Arc<Index>,
    metrics: Arc<Metrics>,
    due: Due,
}

/// What is asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpireOptions {
    /// Only say what would go.
    #[serde(default)]
    pub dry_run: bool,
    /// Only these repositories; none for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<String>,
}

/// What a run did, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiredAll {
    /// Whether nothing was done, only counted.
    pub dry_run: bool,
    /// Repositories that have a policy, and were looked at.
    pub repositories: u64,
    /// Images that were deleted.
    pub images: u64,
    /// Images that were to go, and were tagged or named by an index meanwhile.
    pub spared: u64,
    /// Repositories whose policy could not be used.
    pub failed: u64,
    /// Whether it was stopped before its end.
    pub stopped: bool,
}

impl Expire {
    /// The job over `hosted`, by itself every `interval`.
    pub fn new(hosted: Hosted, index: Arc<Index>, metrics: Arc<Metrics>, interval: Duration) -> Self {
        Self {
            due: Due::new(index.clone(), FINISHED, interval),
            hosted,
            index,
            metrics,
        }
    }

    /// Expires by itself until `stop`.
    pub async fn keep(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let wait = match self.due.wait().await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::error!(%error, "expiring images failed");
                    PAUSE
                }
            };
            if !wait.is_zero() {
                rest(wait, &stop).await;
                continue;
            }
            let progress = Progress::unheard(stop.clone());
            let done = match self.expire(&ExpireOptions::default(), &progress).await {
                Ok(done) if done.stopped => return,
                Ok(_) => self.due.done().await.map_err(say),
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                tracing::error!(error, "expiring images failed");
                rest(PAUSE, &stop).await;
            }
        }
    }

    async fn expire(&self, options: &ExpireOptions, progress: &Progress) -> Result<ExpiredAll, String> {
        let done = self.run_over(options, progress).await;
        if options.dry_run {
            return done;
        }
        match &done {
            Ok(did) => {
                let ExpiredAll {
                    repositories,
                    images,
                    spared,
                    failed,
                    stopped,
                    ..
                } = *did;
                if repositories + failed > 0 {
                    tracing::info!(repositories, images, spared, failed, stopped, "expired images");
                }
                let result = if failed > 0 { "failed" } else { "completed" };
                self.metrics.hosted.retention(result);
            }
            Err(_) => self.metrics.hosted.retention("failed"),
        }
        done
    }

    async fn run_over(&self, options: &ExpireOptions, progress: &Progress) -> Result<ExpiredAll, String> {
        let mut wanted = Wanted::find(&self.hosted, &options.repositories).await?;
        let total = match wanted.count() {
            Some(count) => count,
            None => self.index.read(Index::repository_count).await.map_err(say)?,
        };
        let mut done = ExpiredAll {
            dry_run: options.dry_run,
            ..ExpiredAll::default()
        };
        let mut seen = 0;
        while let Some(repository) = next(&self.hosted, &mut wanted).await.map_err(say)? {
            if progress.is_stopped() {
                done.stopped = true;
                break;
            }
            progress.at(seen, Some(total.max(seen)), Unit::Items);
            seen += 1;
            let Some(text) = &repository.settings.lifecycle else {
                continue;
            };
            match Policy::parse(text) {
                Ok(policy) => self
                    .of_one(&repository, &policy, &mut done, progress)
                    .await
                    .map_err(say)?,
                Err(fault) => {
                    tracing::error!(repository = %repository.name, %fault, "a lifecycle policy cannot be used: nothing expires");
                    progress.note(format!("{}: {fault}", repository.name));
                    done.failed += 1;
                }
            }
        }
        progress.at(seen, Some(seen), Unit::Items);
        Ok(done)
    }

    async fn of_one(
        &self,
        repository: &HostedRepository,
        policy: &Policy,
        done: &mut ExpiredAll,
        progress: &Progress,
    ) -> Result<(), Error> {
        done.repositories += 1;
        if done.dry_run {
            let preview = self.hosted.preview_retention(repository, policy).await?;
            for image in &preview.expiring {
                progress.note(words(repository, image, "would be deleted"));
            }
            done.images += preview.expiring.len() as u64;
            return Ok(());
        }
        let deleted = |image: &Expiring| {
            tracing::info!(
                repository = %repository.name,
                digest = image.digest,
                tags = image.tags.join(","),
                rule = image.rule,
                subject = image.subject,
                "an image has expired, and was deleted"
            );
            self.metrics.hosted.expired(1);
            progress.note(words(repository, image, "deleted"));
            !progress.is_stopped()
        };
        let expired = self.hosted.expire(repository, policy, deleted).await?;
        done.images += expired.deleted.len() as u64;
        done.spared += expired.spared;
        Ok(())
    }
}

fn words(repository: &HostedRepository, image: &Expiring, what: &str) -> String {
    let tags = match image.tags.as_slice() {
        [] => String::new(),
        tags => format!(" ({})", tags.join(", ")),
    };
    let why = match (image.rule, &image.subject) {
        (Some(rule), _) => format!("rule {rule}"),
        (None, subject) => format!("refers to {}", subject.as_deref().unwrap_or_default()),
    };
    format!("{}@{}{tags}: {what}, {why}", repository.name, image.digest)
}

fn say(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Job for Expire {
    const NAME: &'static str = "expire";
    type Options = ExpireOptions;
    type Summary = ExpiredAll;

    async fn run(&self, options: ExpireOptions, progress: Progress) -> Result<ExpiredAll, String> {
        self.expire(&options, &progress).await
    }
}
