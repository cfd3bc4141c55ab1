//! What is remembered of the runs of warm lists across restarts: a note in the data folder. Used by `warm`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::clock::Timestamp;
use crate::config::WarmList;

/// The note's name.
const NOTE: &str = "warm";

/// What is remembered of one list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    /// Since when the list is known.
    pub(super) since: Timestamp,
    /// When its last run began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) began: Option<Timestamp>,
    /// When a run last ended with all images here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) succeeded: Option<Timestamp>,
}

/// All lists, by what they name: a list that is changed is a new one, and one that only moves is not.
pub(super) struct Runs {
    cache: Cache,
    by_key: Arc<Mutex<BTreeMap<String, Run>>>,
    /// Held while the note is written, so that the last one written is the newest.
    writing: Arc<Mutex<()>>,
}

/// A list's name across restarts: a hash (FNV-1a) of its images.
pub(super) fn key(list: &WarmList) -> String {
    let bytes = list
        .images
        .iter()
        .flat_map(|image| image.as_str().bytes().chain([0]));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

impl Runs {
    /// What is remembered of these lists; a new one is known from now on.
    pub(super) async fn load(cache: &Cache, lists: &[WarmList]) -> Self {
        let its = cache.clone();
        let note = tokio::task::spawn_blocking(move || its.storage().notes().load(NOTE)).await;
        let known: BTreeMap<String, Run> = note
            .ok()
            .flatten()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        let now = Timestamp::now();
        let new = Run {
            since: now,
            began: None,
            succeeded: None,
        };
        let of = |list: &WarmList| {
            let key = key(list);
            let run = known.get(&key).copied().unwrap_or(new);
            // A clock that was set back is believed.
            let run = Run {
                since: run.since.min(now),
                began: run.began.map(|began| began.min(now)),
                ..run
            };
            (key, run)
        };
        let runs = Self {
            cache: cache.clone(),
            by_key: Arc::new(Mutex::new(lists.iter().map(of).collect())),
            writing: Arc::default(),
        };
        runs.save().await;
        runs
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Run>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is remembered of one list.
    pub(super) fn get(&self, key: &str) -> Option<Run> {
        self.all().get(key).copied()
    }

    /// Changes what is remembered of a list.
    pub(super) async fn change(&self, key: &str, change: impl FnOnce(&mut Run)) {
        if let Some(run) = self.all().get_mut(key) {
            change(run);
        }
        self.save().await;
    }

    async fn save(&self) {
        let (cache, by_key, writing) = (self.cache.clone(), self.by_key.clone(), self.writing.clone());
        let write = move || {
            let _one = writing.lock().unwrap_or_else(PoisonError::into_inner);
            let text = serde_json::to_vec(&*by_key.lock().unwrap_or_else(PoisonError::into_inner));
            cache
                .storage()
                .notes()
                .save(NOTE, &text.map_err(std::io::Error::other)?)
        };
        let saved = tokio::task::spawn_blocking(write).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(%error, "when the lists of [[warm]] ran cannot be written down");
        }
    }
}
