//! A kind of list that the upstream keeps: asked for once for many clients, kept for seconds, and answered from what is
//! here when the upstream fails or is slow. Used by `listings` (tags) and `referrers`.

use std::hash::Hash;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::collapse::Collapse;

use super::Place;
use super::error::{Error, ErrorKind};
use super::freshness::{LEFT_ALONE, Verdict, judge_list};
use super::status::{Answer, CacheStatus, Outcome};

/// How long a list is kept in memory for the case that the upstream fails.
const KEPT: Duration = Duration::from_hours(24);
/// Memory for the lists of one kind, in bytes, roughly: one may have many megabytes.
const MOST_BYTES: u64 = 32 * 1024 * 1024;
/// Lists of one kind that are remembered as asked for in vain.
const MOST_LEFT_ALONE: u64 = 100_000;

/// What a list takes of memory, roughly.
pub(super) trait Weigh {
    fn weight(&self) -> u32;
}

/// What can be told instead of a list that the upstream does not give.
pub(super) trait Instead<V> {
    /// The list as it was heard before this run of the daemon.
    fn copy(&self) -> impl Future<Output = Result<Option<V>, Error>> + Send;
    /// Better than an error, and no more.
    fn lesser(&self) -> impl Future<Output = Result<Option<V>, Error>> + Send;
}

/// A kind of list: runs in progress, answers with the time they came, and what was asked for in vain a moment ago (with
/// the upstream's status).
pub(super) struct Lists<K, V> {
    running: Collapse<K, Result<Arc<V>, Error>>,
    kept: moka::sync::Cache<K, (Instant, Arc<V>)>,
    left_alone: moka::sync::Cache<K, Option<u16>>,
}

impl<K, V> Default for Lists<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Weigh + Send + Sync + 'static,
{
    fn default() -> Self {
        let kept = moka::sync::Cache::builder()
            .max_capacity(MOST_BYTES)
            .weigher(|_, (_, list): &(Instant, Arc<V>)| list.weight())
            .time_to_live(KEPT)
            .build();
        let left_alone = moka::sync::Cache::builder()
            .max_capacity(MOST_LEFT_ALONE)
            .time_to_live(LEFT_ALONE)
            .build();
        Self {
            running: Collapse::default(),
            kept,
            left_alone,
        }
    }
}

impl<K, V> Lists<K, V>
where
    K: Clone + Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// The list: of a moment ago, or by `ask`, or the one that there was, or something `instead`. One clock runs over
    /// all of it.
    pub(super) async fn get<W>(
        &self,
        place: &Place,
        key: K,
        ask: W,
        instead: &impl Instead<V>,
    ) -> Result<Answer<Arc<V>>, Error>
    where
        W: Future<Output = Result<Arc<V>, Error>> + Send + 'static,
    {
        let (settings, began) = (place.freshness(), Instant::now());
        let left_alone = self.left_alone.get(&key);
        let mut kept = None;
        if let Some((came, list)) = self.kept.get(&key) {
            let status = match judge_list(came.elapsed(), left_alone.is_some(), settings) {
                Verdict::Fresh => Some(CacheStatus::HIT),
                Verdict::Stale => Some(CacheStatus::stale(left_alone.flatten())),
                Verdict::UsableOnError => {
                    kept = Some(list.clone());
                    None
                }
                Verdict::Revalidate | Verdict::Gone => {
                    // However old it is, nobody will tell a newer one.
                    kept = Some(list.clone()).filter(|_| place.upstream.offline().is_on());
                    None
                }
            };
            if let Some(status) = status {
                return Ok(Answer::new(list, status));
            }
        }
        let work = self.work(key.clone(), ask);
        let mut run = pin!(self.running.run(key.clone(), || work));
        let finished = if let Ok(finished) = timeout(settings.wait_with_copy(), &mut run).await {
            Some(finished)
        } else {
            if let Some(list) = Self::copy(kept.as_ref(), instead).await? {
                return Ok(self.late(key, list));
            }
            // Somebody has waited for it in vain already.
            if left_alone.is_some()
                && let Some(list) = instead.lesser().await?
            {
                return Ok(self.late(key, Arc::new(list)));
            }
            let left = settings.wait_with_less().saturating_sub(began.elapsed());
            timeout(left, &mut run).await.ok()
        };
        let Some((result, collapsed)) = finished else {
            let lesser = instead.lesser().await?;
            return lesser
                .map(|list| self.late(key, Arc::new(list)))
                .ok_or_else(|| Error::late(place));
        };
        match result.unwrap_or_else(|| Err(Error::internal("asking for a list was given up"))) {
            Ok(list) => {
                let status = CacheStatus {
                    collapsed,
                    ..CacheStatus::of(Outcome::Miss)
                };
                Ok(Answer::new(list, status))
            }
            Err(error) if !error.allows_stale => Err(error),
            Err(error) => {
                let found = match Self::copy(kept.as_ref(), instead).await? {
                    Some(list) => Some(list),
                    None => instead.lesser().await?.map(Arc::new),
                };
                let status = CacheStatus::stale_for(&error);
                found.map(|list| Answer::new(list, status)).ok_or(error)
            }
        }
    }

    async fn copy(kept: Option<&Arc<V>>, instead: &impl Instead<V>) -> Result<Option<Arc<V>>, Error> {
        match kept {
            Some(list) => Ok(Some(list.clone())),
            None => Ok(instead.copy().await?.map(Arc::new)),
        }
    }

    /// The answer in place of one that did not come in time. The question goes on behind it.
    fn late(&self, key: K, list: Arc<V>) -> Answer<Arc<V>> {
        self.left_alone.entry(key).or_insert(None);
        Answer::new(list, CacheStatus::stale(None))
    }

    /// Asks, and notes what came of it: here, because whoever waits may leave.
    fn work<W>(&self, key: K, ask: W) -> impl Future<Output = Result<Arc<V>, Error>> + Send + use<K, V, W>
    where
        W: Future<Output = Result<Arc<V>, Error>> + Send + 'static,
    {
        let (kept, left_alone) = (self.kept.clone(), self.left_alone.clone());
        async move {
            let result = ask.await;
            match &result {
                Ok(list) => {
                    left_alone.invalidate(&key);
                    kept.insert(key, (Instant::now(), Arc::clone(list)));
                }
                // Online again, it is asked at once.
                Err(error) if error.kind == ErrorKind::Offline => {}
                Err(error) if error.allows_stale => left_alone.insert(key, error.upstream_status),
                // It is not there, or not for us any more.
                Err(_) => kept.invalidate(&key),
            }
            result
        }
    }
}
