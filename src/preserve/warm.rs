//! `[[warm]]` and `wharfinger warm`: lists of images that are brought in, and kept up to date, before anybody asks. By their
//! schedule, behind everything else: where there is not enough for all, they wait.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, Error, Place, written};
use crate::clock::Timestamp;
use crate::config::{Glob, WarmList};
use crate::job::{Job, Progress, Unit};
use crate::oci::Reference;

use super::Finder;
use super::bring::{Bringer, Brought, OLD_LIST};
use super::pins::pin;
use super::platforms::Platforms;
use super::pull::line;
use super::runs::{Runs, key};
use super::schedule::{due, jitter};

/// A clock that is turned is noticed within this time.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// A run that was missed is put off by no more than this.
const MOST_LATE: Duration = Duration::from_secs(2);

/// After a run in which something failed that may pass, the next comes no later than this, and so often.
const RETRY_AFTER: Duration = Duration::from_mins(30);
const RETRIES: u32 = 3;

/// The job. Cheap to clone.
#[derive(Clone)]
pub struct Warm {
    inner: Arc<Inner>,
}

struct Inner {
    bringer: Bringer,
    lists: Vec<WarmList>,
    /// One run at a time: they would fetch the same.
    turn: Semaphore,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmOptions {}

/// What a run of one list did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmRun {
    /// Which list: 1 is the first `[[warm]]`.
    pub list: usize,
    /// Each image.
    pub images: Vec<Brought>,
}

impl WarmRun {
    /// Whether all that it names is here.
    pub fn is_well(&self) -> bool {
        self.images.iter().all(Brought::is_whole)
    }
}

/// What a run of all lists did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warmed {
    /// Each list.
    pub lists: Vec<WarmRun>,
    /// Whether it was stopped before its end.
    pub stopped: bool,
}

impl Warmed {
    /// Whether all that the lists name is here.
    pub fn is_well(&self) -> bool {
        !self.stopped && self.lists.iter().all(WarmRun::is_well)
    }
}

/// How a run ended, for when the next one is.
struct Ended {
    run: WarmRun,
    may_pass: bool,
}

impl Warm {
    /// The job over `cache`, for these lists, whose images `finder` knows.
    pub fn new(cache: Cache, finder: Finder, lists: Vec<WarmList>) -> Self {
        let inner = Inner {
            bringer: Bringer::new(cache, finder),
            lists,
            turn: Semaphore::new(1),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    fn cache(&self) -> &Cache {
        &self.inner.bringer.cache
    }

    /// Runs each list when it is due, until `stop`.
    pub async fn keep(&self, stop: CancellationToken) {
        if let Err(error) = self.release_unlisted().await {
            tracing::error!(error = error.message, "looking at pins failed");
        }
        if let Err(error) = self.cache().warn_of_pins().await {
            tracing::error!(error = error.message, "looking at pins failed");
        }
        if self.inner.lists.is_empty() {
            return;
        }
        let runs = Runs::load(self.cache(), &self.inner.lists).await;
        let lists = (0..self.inner.lists.len()).map(|at| self.keep_list(at, &runs, &stop));
        join_all(lists).await;
    }

    async fn keep_list(&self, at: usize, runs: &Runs, stop: &CancellationToken) {
        let list = &self.inner.lists[at];
        let (name, key) = ((at + 1).to_string(), key(list));
        let (zone, progress) = (TimeZone::system(), Progress::unheard(stop.clone()));
        let remembered = runs.get(&key);
        let metrics = &self.cache().metrics().preserve;
        metrics.warm_list(
            &name,
            remembered.and_then(|run| run.succeeded).map(|at| at.0 / 1000),
        );
        let mut retry = None;
        let mut retries = 0;
        loop {
            let Some(run) = runs.get(&key) else { return };
            let now = Timestamp::now();
            let planned = due(&list.when, run.began, run.since, &zone).map(|due| {
                let most = if due <= now {
                    MOST_LATE
                } else {
                    jitter(&list.when, due, &zone)
                };
                due.max(now).after(most.mul_f64(fastrand::f64()))
            });
            let Some(next) = planned.into_iter().chain(retry.take()).min() else {
                tracing::warn!(list = name, "a list of [[warm]] has no further run");
                return;
            };
            if !wait_until(next, stop).await || !self.online(stop).await {
                return;
            }
            let began = Timestamp::now();
            runs.change(&key, |run| run.began = Some(began)).await;
            let Some(ended) = self.run_list(at, &progress).await else {
                return;
            };
            if ended.run.is_well() {
                let now = Timestamp::now();
                runs.change(&key, |run| run.succeeded = Some(now)).await;
            }
            if ended.may_pass && retries < RETRIES {
                retries += 1;
                retry = Some(Timestamp::now().after(RETRY_AFTER.mul_f64(0.9 + 0.2 * fastrand::f64())));
            } else {
                retries = 0;
            }
        }
    }

    /// Waits until upstreams may be asked; false when it is to stop instead.
    async fn online(&self, stop: &CancellationToken) -> bool {
        while self.cache().is_offline() {
            if !wait_until(Timestamp::now().after(LOOK_EVERY), stop).await {
                return false;
            }
        }
        true
    }

    /// Brings in what a list names. `None` when it was stopped.
    async fn run_list(&self, at: usize, progress: &Progress) -> Option<Ended> {
        if self.inner.turn.available_permits() == 0 {
            progress.note("another run is going on: this one waits for its end");
        }
        // It is never closed.
        let turn = tokio::select! {
            turn = self.inner.turn.acquire() => turn.ok(),
            () = progress.stopped() => None,
        };
        let _turn = turn?;
        let (list, name) = (&self.inner.lists[at], (at + 1).to_string());
        let platforms = Platforms::Wanted {
            these: list.platforms.clone(),
            each: false,
        };
        let mut ended = Ended {
            run: WarmRun {
                list: at + 1,
                images: Vec::new(),
            },
            may_pass: false,
        };
        let images = self.expand(list, &name, progress, &mut ended).await;
        // Upstreams that give nothing more for now.
        let mut limited: HashSet<String> = HashSet::new();
        let total = images.len() as u64;
        for (done, (place, reference)) in (0..).zip(&images) {
            if progress.is_stopped() {
                return None;
            }
            progress.at(done, Some(total), Unit::Items);
            let upstream = place.upstream.prefix();
            if limited.contains(upstream) {
                let reason = "left for another run: the limit of its upstream is reached";
                self.told(
                    &name,
                    Brought::failed(written(place, reference), reason),
                    progress,
                    &mut ended,
                );
                continue;
            }
            let bringer = &self.inner.bringer;
            let mut hold = self.cache().hold(Vec::new());
            let named = (place, reference);
            let (mut brought, failure) = bringer.image(named, &platforms, progress, &mut hold).await;
            // What was broken off says nothing of the image.
            if progress.is_stopped() {
                return None;
            }
            if let Some(failure) = failure {
                ended.may_pass |= failure.may_pass;
                if failure.is_limited {
                    limited.insert(upstream.to_owned());
                }
            }
            if list.pin {
                pin(self.cache(), named, true, &platforms, &mut brought).await;
            }
            self.told(&name, brought, progress, &mut ended);
        }
        if list.pin
            && let Err(error) = self.cache().warn_of_pins().await
        {
            tracing::error!(error = error.message, "looking at pins failed");
        }
        let failed = ended.run.images.iter().filter(|image| !image.is_whole()).count();
        let bytes: u64 = ended.run.images.iter().map(|image| image.fetched.bytes).sum();
        tracing::info!(
            list = name,
            images = ended.run.images.len(),
            failed,
            bytes,
            "warmed"
        );
        self.cache().metrics().preserve.warm_run(&name, failed == 0);
        if failed == 0 {
            let now = Timestamp::now().0 / 1000;
            self.cache().metrics().preserve.warm_list(&name, Some(now));
        }
        Some(ended)
    }

    /// What a list names, each image once.
    async fn expand(
        &self,
        list: &WarmList,
        name: &str,
        progress: &Progress,
        ended: &mut Ended,
    ) -> Vec<(Place, Reference)> {
        let (mut images, mut seen) = (Vec::new(), HashSet::new());
        for pattern in &list.images {
            if progress.is_stopped() {
                break;
            }
            match self.inner.bringer.expand(pattern).await {
                Ok(found) => {
                    if found.is_old {
                        // Newer ones may be there by then.
                        ended.may_pass = true;
                        tracing::warn!(list = name, images = pattern.as_str(), "{OLD_LIST}");
                    }
                    let found = found.images.into_iter();
                    images.extend(found.filter(|(place, reference)| seen.insert(written(place, reference))));
                }
                Err(failure) => {
                    ended.may_pass |= failure.may_pass;
                    self.told(
                        name,
                        Brought::failed(pattern.as_str(), failure.reason),
                        progress,
                        ended,
                    );
                }
            }
        }
        images
    }

    /// Notes what came of an image: told once a run, and in the log when it failed.
    fn told(&self, list: &str, brought: Brought, progress: &Progress, ended: &mut Ended) {
        let metrics = &self.cache().metrics().preserve;
        metrics.warm_image(list, brought.result.as_str());
        if !brought.is_whole() {
            tracing::warn!(
                list,
                image = brought.reference,
                reason = brought.reason,
                "an image of a list could not be brought in"
            );
        }
        progress.note(line(&brought));
        ended.run.images.push(brought);
    }

    /// Takes the pins away that lists made whose lists do not name them any more.
    async fn release_unlisted(&self) -> Result<(), Error> {
        let mut listed = Vec::new();
        for pattern in self
            .inner
            .lists
            .iter()
            .filter(|list| list.pin)
            .flat_map(|list| &list.images)
        {
            let (place, reference) = self.inner.bringer.find(pattern)?;
            listed.push(match pattern.tags() {
                Some((_, glob)) => Listed::Tags(format!("{}:", place.key), glob.clone()),
                None => Listed::One(written(&place, &reference)),
            });
        }
        let is_listed = move |name: &str| listed.iter().any(|listed| listed.is(name));
        for name in self.cache().unpin_unlisted(is_listed).await? {
            tracing::info!(image = name, "no list of [[warm]] pins it any more: released");
        }
        Ok(())
    }
}

/// What a list with `pin` names.
enum Listed {
    One(String),
    /// The repository with a colon, and its tags.
    Tags(String, Glob),
}

impl Listed {
    fn is(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Tags(before, glob) => name
                .strip_prefix(before.as_str())
                .is_some_and(|tag| glob.matches(tag)),
        }
    }
}

/// Waits until the clock on the wall says so; false when it is to stop instead.
async fn wait_until(at: Timestamp, stop: &CancellationToken) -> bool {
    loop {
        let left = at.since(Timestamp::now());
        if left.is_zero() {
            return !stop.is_cancelled();
        }
        tokio::select! {
            () = tokio::time::sleep(left.min(LOOK_EVERY)) => {}
            () = stop.cancelled() => return false,
        }
    }
}

impl Job for Warm {
    const NAME: &'static str = "warm";
    type Options = WarmOptions;
    type Summary = Warmed;

    async fn run(&self, _: WarmOptions, progress: Progress) -> Result<Warmed, String> {
        let mut warmed = Warmed::default();
        for at in 0..self.inner.lists.len() {
            let Some(ended) = self.run_list(at, &progress).await else {
                warmed.stopped = true;
                break;
            };
            warmed.lists.push(ended.run);
        }
        Ok(warmed)
    }
}
