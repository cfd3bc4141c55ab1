//! What outlives a run: budgets, and the pulls that were saved so far. Written every few seconds while it changes, and when
//! the daemon stops; a kill loses seconds. Also what an operator is told of an upstream's pulls. Run by `app`.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::Upstream;
use super::budget::Budget;
use super::errand::{Errand, Purpose};
use super::governor::{BudgetReport, Governor, Stretch};
use super::slowdown::Slowed;
use crate::clock::Timestamp;
use crate::oci::RepositoryName;

/// How often windows are looked at, and what changed is written.
const EVERY: Duration = Duration::from_secs(5);
/// Pulls that were saved are no reason to write more often than every so many rounds.
const ROUNDS: u32 = 12;

/// Where budgets are kept. Implemented above; blocking.
pub trait BudgetStore: Send + Sync {
    /// What was saved last.
    fn load(&self) -> Option<Vec<u8>>;
    /// Replaces it.
    fn save(&self, bytes: &[u8]) -> std::io::Result<()>;
}

/// Pulls saved: all that there ever were, and those that the metrics know of.
#[derive(Debug, Default)]
pub(super) struct Saved {
    all: AtomicU64,
    told: AtomicU64,
}

/// An upstream's pulls, for an operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Pulls {
    /// The budgets that something is known of.
    pub budgets: Vec<BudgetReport>,
    /// Manifests that clients pulled without costing a pull, since ever.
    pub saved: u64,
    /// Requests that were not made because they would have cost a pull, since the start, the least urgent purpose first.
    pub held: [(Purpose, u64); Purpose::ALL.len()],
    /// The hosts that are asked slowly.
    pub slowed: Vec<Slowed>,
}

impl Upstream {
    fn governors(&self) -> impl Iterator<Item = &Arc<Governor>> {
        let all = std::iter::once(&self.own).chain(&self.mirrors);
        all.map(|endpoint| &endpoint.governor)
    }

    /// A client pulled a manifest, and no pull was spent on it.
    pub fn pull_saved(&self) {
        self.saved.all.fetch_add(1, Ordering::Relaxed);
    }

    /// How much longer than configured a tag is fresh, because few pulls are left.
    pub fn stretch(&self) -> Stretch {
        self.own.governor.stretch()
    }

    /// Whether a GET of a manifest of this repository is known to cost a pull.
    pub fn counts_pulls(&self, repository: &RepositoryName) -> bool {
        self.own.governor.counts_in(repository)
    }

    /// Whether a GET of a manifest of this repository would be sent for `errand`, as far as is known now.
    pub fn may_pull(&self, repository: &RepositoryName, errand: &Errand) -> bool {
        self.own.may_pull(repository, errand)
    }

    /// Whether content of this repository may come from a mirror.
    pub fn is_mirrored(&self, repository: &RepositoryName) -> bool {
        self.mirrors
            .iter()
            .any(|mirror| mirror.name_of(repository).is_some())
    }

    /// How its pulls stand.
    pub fn pulls(&self) -> Pulls {
        let now = Timestamp::now();
        let mut held = Purpose::ALL.map(|purpose| (purpose, 0));
        for governor in self.governors() {
            for (sum, more) in held.iter_mut().zip(governor.held()) {
                sum.1 += more;
            }
        }
        let endpoints = std::iter::once(&self.own).chain(&self.mirrors);
        Pulls {
            budgets: self
                .governors()
                .flat_map(|governor| governor.report(now))
                .collect(),
            saved: self.saved.all.load(Ordering::Relaxed),
            held,
            slowed: endpoints
                .flat_map(|endpoint| endpoint.transport.slowdown().all())
                .collect(),
        }
    }

    /// Lets time pass, and tells the metrics.
    fn tick(&self) {
        let now = Timestamp::now();
        self.governors().for_each(|governor| governor.tick(now));
        let observer = self.own.transport.observer();
        let all = self.saved.all.load(Ordering::Relaxed);
        let told = self.saved.told.swap(all, Ordering::Relaxed);
        if all > told {
            observer.pulls_saved(self.prefix(), all - told);
        }
        let endpoints = std::iter::once(&self.own).chain(&self.mirrors);
        for host in endpoints
            .clone()
            .flat_map(|endpoint| endpoint.transport.slowdown().forget())
        {
            observer.slowed(self.prefix(), &Slowed::not(host));
        }
        for slowed in endpoints.flat_map(|endpoint| endpoint.transport.slowdown().all()) {
            observer.slowed(self.prefix(), &slowed);
        }
    }

    fn to_keep(&self) -> Kept {
        Kept {
            saved: self.saved.all.load(Ordering::Relaxed),
            budgets: self.governors().flat_map(|governor| governor.to_keep()).collect(),
        }
    }

    fn take_back(&self, kept: &Kept) {
        self.saved.all.fetch_add(kept.saved, Ordering::Relaxed);
        let now = Timestamp::now();
        for governor in self.governors() {
            governor.take_back(kept.budgets.clone(), now);
        }
    }

    /// How often its budgets changed.
    fn changes(&self) -> u64 {
        self.governors().map(|governor| governor.changes()).sum()
    }
}

/// What is kept of an upstream.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Kept {
    #[serde(default)]
    saved: u64,
    #[serde(default)]
    budgets: BTreeMap<String, Budget>,
}

/// What is kept of all.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Note {
    #[serde(default)]
    upstreams: HashMap<String, Kept>,
}

/// Keeps the upstreams' budgets in a store.
pub struct Ledger {
    upstreams: Vec<Arc<Upstream>>,
    store: Arc<dyn BudgetStore>,
    /// What was written last: changes of budgets, and pulls saved.
    written: Mutex<(u64, u64)>,
}

impl Ledger {
    /// Takes back what was kept. What cannot be understood is as good as nothing. Blocking.
    pub fn open(upstreams: Vec<Arc<Upstream>>, store: Arc<dyn BudgetStore>) -> Self {
        if let Some(bytes) = store.load() {
            match serde_json::from_slice::<Note>(&bytes) {
                Ok(note) => {
                    for upstream in &upstreams {
                        if let Some(kept) = note.upstreams.get(upstream.prefix()) {
                            upstream.take_back(kept);
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the kept budgets cannot be read: starting without them");
                }
            }
        }
        for upstream in &upstreams {
            upstream.tick();
        }
        let ledger = Self {
            upstreams,
            store,
            written: Mutex::default(),
        };
        ledger.note_written(ledger.state());
        ledger
    }

    /// Lets time pass and writes what changed, until `stop`.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        for round in 1_u32.. {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = stop.cancelled() => return,
            }
            for upstream in &self.upstreams {
                upstream.tick();
            }
            let (state, written) = (self.state(), self.written());
            let due = state.0 != written.0 || (state.1 != written.1 && round.is_multiple_of(ROUNDS));
            if due {
                let ledger = self.clone();
                // It tells the log itself when it fails; the next round tries again.
                let _ = tokio::task::spawn_blocking(move || ledger.save()).await;
            }
        }
    }

    /// Writes what changed. Blocking.
    pub fn save(&self) {
        let state = self.state();
        if state == self.written() {
            return;
        }
        let upstreams = self.upstreams.iter();
        let note = Note {
            upstreams: upstreams
                .map(|upstream| (upstream.prefix().to_owned(), upstream.to_keep()))
                .collect(),
        };
        let written = serde_json::to_vec(&note)
            .map_err(std::io::Error::from)
            .and_then(|bytes| self.store.save(&bytes));
        match written {
            Ok(()) => self.note_written(state),
            Err(error) => tracing::warn!(%error, "the budgets could not be kept for the next start"),
        }
    }

    fn state(&self) -> (u64, u64) {
        let sum = |of: fn(&Upstream) -> u64| self.upstreams.iter().map(|upstream| of(upstream)).sum();
        (
            sum(Upstream::changes),
            sum(|upstream| upstream.saved.all.load(Ordering::Relaxed)),
        )
    }

    fn written(&self) -> (u64, u64) {
        *self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_written(&self, state: (u64, u64)) {
        *self.written.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}
