//! One contestant's day: every job at its time, every release, and what came of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::catalogue::Catalogue;
use crate::clients::{Pulled, pull};
use crate::contestant::{Contestant, Door};
use crate::hub::{Counts, Hub};
use crate::options::Options;
use crate::script::{Job, Phase, Wanted};
use crate::shared::progress;
use crate::tally::Tally;

/// What a contestant did in a day.
pub(crate) struct Day {
    /// Whose.
    pub(crate) contestant: Contestant,
    /// Its figures, phase by phase.
    pub(crate) phases: Vec<Tally>,
    /// Everything that its Docker Hub was asked for.
    pub(crate) counts: Counts,
    /// Failed jobs in words: for an image seen before, and others.
    pub(crate) failures: Vec<(bool, String)>,
}

/// What jobs share while they run.
struct Ledger {
    tally: Tally,
    /// What was pulled well: repository, reference and platform; the index's digest counts as a reference, too.
    seen: BTreeSet<(String, String, &'static str)>,
    failures: Vec<(bool, String)>,
}

/// Runs the day.
pub(crate) async fn run(
    contestant: Contestant,
    catalogue: &Arc<Catalogue>,
    script: &Arc<Vec<Phase>>,
    options: &Options,
) -> Result<Day> {
    let hub = Arc::new(Hub::start(catalogue, options.pace())?);
    let door = Door::open(contestant, hub.address(), options)
        .await
        .with_context(|| format!("starting {}", contestant.name()))?;
    let ledger = Arc::new(Mutex::new(Ledger {
        tally: Tally::default(),
        seen: BTreeSet::new(),
        failures: Vec::new(),
    }));
    let (mut phases, mut before) = (Vec::new(), Counts::default());
    for (number, phase) in script.iter().enumerate() {
        hub.set_weather(phase.weather);
        let began = Instant::now();
        let mut running = JoinSet::new();
        for job in 0..phase.jobs.len() {
            let (hub, ledger, script) = (Arc::clone(&hub), Arc::clone(&ledger), Arc::clone(script));
            let (address, pace) = (door.address, options.pace());
            running.spawn(async move {
                let phase = &script[number];
                let job = &phase.jobs[job];
                sleep_until(began + job.at).await;
                let start = Start::of(job, &hub, &ledger);
                let pulled = pull(address, job, pace).await;
                start.note(phase, job, &pulled, &hub, &ledger);
            });
        }
        for release in &phase.releases {
            let (hub, at) = (Arc::clone(&hub), began + release.at);
            let (repository, version) = (release.repository.clone(), release.version);
            running.spawn(async move {
                sleep_until(at).await;
                hub.release(&repository, version);
            });
        }
        while let Some(done) = running.join_next().await {
            done.context("a job")?;
        }
        sleep_until(began + phase.length).await;
        let counts = hub.counts();
        let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tally = std::mem::take(&mut ledger.tally);
        tally.add_upstream(&before, &counts);
        progress(&format!("{}: {}", contestant.name(), phase.name));
        phases.push(tally);
        before = counts;
    }
    door.close(contestant)
        .with_context(|| format!("stopping {}", contestant.name()))?;
    let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Day {
        contestant,
        phases,
        counts: before,
        failures: std::mem::take(&mut ledger.failures),
    })
}

/// How things were when a job began.
struct Start {
    seen: bool,
    pointed_at: Option<String>,
}

impl Start {
    fn of(job: &Job, hub: &Hub, ledger: &Mutex<Ledger>) -> Self {
        let key = (
            job.repository.clone(),
            job.wanted.reference().to_owned(),
            job.platform,
        );
        let ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        Self {
            seen: ledger.seen.contains(&key),
            pointed_at: upstream_now(job, hub),
        }
    }

    fn note(self, phase: &Phase, job: &Job, pulled: &Pulled, hub: &Hub, ledger: &Mutex<Ledger>) {
        let now = upstream_now(job, hub);
        let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.tally.jobs += 1;
        ledger.tally.asked.extend(pulled.manifests.iter().cloned());
        if let Some(reason) = &pulled.failure {
            if self.seen {
                ledger.tally.failed_seen += 1;
            } else {
                ledger.tally.failed_new += 1;
            }
            let text = format!(
                "{}, {}: {}:{} for {}: {reason}",
                phase.name,
                job.client.name,
                job.repository,
                job.wanted.reference(),
                job.platform
            );
            ledger.failures.push((self.seen, text));
            return;
        }
        let Some(index) = &pulled.index else { return };
        for reference in [job.wanted.reference(), index] {
            let key = (job.repository.clone(), reference.to_owned(), job.platform);
            ledger.seen.insert(key);
        }
        if let Wanted::Tag(_) = job.wanted {
            ledger.tally.by_tag += 1;
            // A tag that moves meanwhile may be answered either way.
            if self.pointed_at.as_ref() != Some(index) && now.as_ref() != Some(index) {
                ledger.tally.stale += 1;
            }
        }
    }
}

fn upstream_now(job: &Job, hub: &Hub) -> Option<String> {
    match &job.wanted {
        Wanted::Tag(tag) => hub.points_at(&job.repository, tag),
        Wanted::Digest(_) => None,
    }
}
