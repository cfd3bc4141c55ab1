//! A scripted Docker Hub with its limit, its token service and its bad days: one for each contestant.
//! Each GET of a manifest counts, index and child alike; HEADs and blobs are free.

mod answers;
mod budget;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;

use self::budget::Budget;
use crate::catalogue::{Catalogue, HELD_AT_FIRST};
use crate::options::Pace;
use crate::script::Weather;
use crate::shared::serve::Serving;

/// A running one; dropping it stops it.
pub(crate) struct Hub {
    state: Arc<State>,
    serving: Serving,
}

struct State {
    catalogue: Arc<Catalogue>,
    pace: Pace,
    inner: Mutex<Inner>,
}

struct Inner {
    weather: Weather,
    budget: Budget,
    /// Repository and tag to the digest of an index.
    tags: HashMap<(String, String), String>,
    counts: Counts,
}

/// What it was asked for so far.
#[derive(Clone, Default)]
pub(crate) struct Counts {
    /// GETs of manifests that counted.
    pub(crate) pulls: u64,
    /// GETs of manifests that were answered 429.
    pub(crate) refused: u64,
    /// All requests, free ones and those that failed included.
    pub(crate) requests: u64,
    /// Bytes of manifests and blobs.
    pub(crate) bytes: u64,
    /// The pulls by digest.
    pub(crate) pulled: BTreeMap<String, u64>,
}

impl Hub {
    /// Starts one that holds what there is before the day begins.
    pub(crate) fn start(catalogue: &Arc<Catalogue>, pace: Pace) -> Result<Self> {
        let state = Arc::new(State {
            catalogue: Arc::clone(catalogue),
            pace,
            inner: Mutex::new(Inner {
                weather: Weather::Well,
                budget: Budget::new(pace.window),
                tags: HashMap::new(),
                counts: Counts::default(),
            }),
        });
        let its = Arc::clone(&state);
        let serving = Serving::start(move |request| answers::answer(request, &its))?;
        let hub = Self { state, serving };
        for repository in &catalogue.repositories {
            for version in 0..HELD_AT_FIRST {
                hub.release(&repository.name, version);
            }
        }
        Ok(hub)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.serving.address
    }

    /// From now on it is like this.
    pub(crate) fn set_weather(&self, weather: Weather) {
        self.state.lock().weather = weather;
    }

    /// Points the version's tags at it.
    pub(crate) fn release(&self, repository: &str, version: usize) {
        let Some(version) = self
            .state
            .catalogue
            .named(repository)
            .and_then(|found| found.versions.get(version))
        else {
            return;
        };
        let mut inner = self.state.lock();
        for tag in &version.tags {
            let key = (repository.to_owned(), tag.clone());
            inner.tags.insert(key, version.index.clone());
        }
    }

    /// What a tag points at now.
    pub(crate) fn points_at(&self, repository: &str, tag: &str) -> Option<String> {
        let key = (repository.to_owned(), tag.to_owned());
        self.state.lock().tags.get(&key).cloned()
    }

    /// What it was asked for so far.
    pub(crate) fn counts(&self) -> Counts {
        self.state.lock().counts.clone()
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
