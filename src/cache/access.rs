//! When what is here was last used: noted in memory, and brought to the index in batches. A read never writes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::{LastUse, Timestamp};
use crate::oci::{Digest, Reference};
use crate::repository::Key;
use crate::storage::{Change, Error, UseRow};

use super::{Cache, Place, Shared};

/// A use is noted once in this span: eviction thinks in hours.
const GRAIN: Duration = Duration::from_mins(1);

/// A pull under the same name is noted once in this span: who asks for it thinks in days.
const PULL_GRAIN: Duration = Duration::from_hours(1);

/// Names whose last note is remembered.
const MOST_RECENT: u64 = 100_000;

/// How long it is remembered what clients pulled.
pub const PULLS_KEPT: Duration = Duration::from_hours(90 * 24);

/// How often what is older is forgotten, and names that are looked at together for that.
const FORGET_EVERY: Duration = Duration::from_hours(24);
const PAGE: usize = 10_000;

/// How often notes go to the index.
const FLUSH_EVERY: Duration = Duration::from_secs(30);

/// Notes that go to the index at once.
const BATCH: usize = 1000;

type Name = (Key, Reference);

/// Uses since the last flush.
pub(super) struct Access {
    noted: Mutex<HashMap<Digest, Timestamp>>,
    pulls: Mutex<HashMap<Name, UseRow>>,
    recent: moka::sync::Cache<Name, Digest>,
}

impl Default for Access {
    fn default() -> Self {
        let recent = moka::sync::Cache::builder()
            .max_capacity(MOST_RECENT)
            .time_to_live(PULL_GRAIN)
            .build();
        Self {
            noted: Mutex::default(),
            pulls: Mutex::default(),
            recent,
        }
    }
}

impl Access {
    /// Notes a use, unless the last note is new.
    pub(super) fn touch(&self, digest: &Digest, last: &LastUse) {
        let now = Timestamp::now();
        if last.is_due(now, GRAIN) {
            self.noted().insert(*digest, now);
        }
    }

    /// Notes that a client pulled `digest` under a name, unless the last note is new.
    fn pulled(&self, name: Name, digest: Digest) {
        if self.recent.get(&name) == Some(digest) {
            return;
        }
        self.recent.insert(name.clone(), digest);
        let at = Timestamp::now();
        self.pulls().insert(name, UseRow { at, digest });
    }

    /// When a note of a name was made that may not be in the index yet.
    fn last_noted(&self, name: &Name) -> Option<Timestamp> {
        self.pulls().get(name).map(|row| row.at)
    }

    /// Forgets what was noted of a name.
    fn forget(&self, name: &Name) {
        self.recent.invalidate(name);
        self.pulls().remove(name);
    }

    fn pulls(&self) -> MutexGuard<'_, HashMap<Name, UseRow>> {
        self.pulls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn noted(&self) -> MutexGuard<'_, HashMap<Digest, Timestamp>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Brings the uses that were noted to the index.
    pub(super) fn flush_access(&self) {
        let noted = std::mem::take(&mut *self.access.noted());
        let mut changes: Vec<_> = noted
            .into_iter()
            .map(|(digest, at)| Change::touch(&digest, at))
            .collect();
        let pulls = std::mem::take(&mut *self.access.pulls());
        changes.extend(
            pulls
                .into_iter()
                .map(|((key, reference), row)| Change::put_use(&key, &reference, row)),
        );
        while !changes.is_empty() {
            let rest = changes.split_off(changes.len().min(BATCH));
            self.storage.index.submit(std::mem::replace(&mut changes, rest));
        }
    }

    /// When a client last pulled `reference`, within the hour.
    pub(super) async fn last_pulled(
        &self,
        place: &Place,
        reference: &Reference,
    ) -> Result<Option<Timestamp>, Error> {
        let name = (place.key.clone(), reference.clone());
        if let Some(noted) = self.access.last_noted(&name) {
            return Ok(Some(noted));
        }
        let index = &self.storage.index;
        let found = index.read(move |index| index.last_use(&name.0, &name.1)).await?;
        Ok(found.map(|row| row.at))
    }

    /// Forgets that clients pulled it: it was taken away on purpose.
    pub(super) fn forget_pulls(&self, place: &Place, reference: &Reference) {
        self.access.forget(&(place.key.clone(), reference.clone()));
        let change = Change::remove_use(&place.key, reference);
        self.storage.index.submit(vec![change]);
    }
}

impl Cache {
    /// Brings uses to the index every now and then, for as long as it is polled.
    pub async fn keep_access(&self) {
        let mut forgotten = Instant::now();
        loop {
            tokio::time::sleep(FLUSH_EVERY).await;
            self.flush_access();
            if forgotten.elapsed() >= FORGET_EVERY {
                forgotten = Instant::now();
                if let Err(error) = self.forget_old_pulls().await {
                    tracing::error!(%error, "old pulls could not be forgotten");
                }
            }
        }
    }

    /// Notes that a client pulled `digest` as `reference`: what is here or was, `drill` asks for later.
    pub fn pulled(&self, place: &Place, reference: &Reference, digest: &Digest) {
        let name = (place.key.clone(), reference.clone());
        self.shared.access.pulled(name, *digest);
    }

    async fn forget_old_pulls(&self) -> Result<(), Error> {
        let (index, now) = (&self.shared.storage.index, Timestamp::now());
        let mut after = None;
        loop {
            let page = index
                .read(move |index| index.uses_after("", after.as_ref(), PAGE))
                .await?;
            let old = page
                .iter()
                .filter(|(_, _, row)| now.since(row.at) > PULLS_KEPT)
                .map(|(repository, reference, _)| Change::remove_use(repository, reference));
            let old: Vec<_> = old.collect();
            let whole = page.len() == PAGE;
            after = page
                .into_iter()
                .last()
                .map(|(repository, reference, _)| (repository, reference));
            if !old.is_empty() {
                index.commit(old).await?;
            }
            if !whole {
                return Ok(());
            }
        }
    }

    /// Brings the uses that were noted to the index.
    pub fn flush_access(&self) {
        self.shared.flush_access();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::StorageConfig;
    use crate::storage::Storage;
    use crate::telemetry::Metrics;

    #[tokio::test]
    async fn pulls_are_forgotten_when_nobody_can_ask_for_them_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::open(&StorageConfig::in_folder(folder.path().join("data"))).unwrap();
        let runtime = tokio::runtime::Handle::current();
        let cache = Cache::new(storage, Arc::new(Metrics::new()), runtime);
        let digest: Digest = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
        let now = Timestamp::now().0;
        let day = 86_400_000;
        let put = |age: u64, name: &str| {
            let at = Timestamp(now - age * day);
            Change::put_use("hub/a", &name.parse().unwrap(), UseRow { at, digest })
        };
        let changes = vec![put(89, "kept"), put(91, "old"), put(400, "older")];
        let index = cache.storage().index.clone();
        index.commit(changes).await.unwrap();
        cache.forget_old_pulls().await.unwrap();
        let left = index.uses_after("", None, 9).unwrap();
        let names: Vec<_> = left.iter().map(|(_, name, _)| name.to_string()).collect();
        assert_eq!(names, ["kept"]);
        let closing = cache.clone();
        tokio::task::spawn_blocking(move || closing.close())
            .await
            .unwrap();
    }
}
