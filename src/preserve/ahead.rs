//! Refresh-ahead: tags that are asked for often are revalidated shortly before they fall due, so that no client waits for
//! that. Cold tags cost nothing. Which tags are hot `cache::heat` knows.

use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cache::{Ahead, Cache, HotTag};
use crate::clock::Timestamp;

/// The time between two questions to one upstream: registries dislike bursts, and these can wait.
const APART: Duration = Duration::from_millis(100);

/// Tags of one upstream whose time has come. Those beyond fall due, and the next client's request asks about them.
const MOST_WAITING: usize = 1000;

/// A clock that is turned is noticed within this time.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Asks ahead.
pub struct RefreshAhead {
    cache: Cache,
}

/// A hot tag by its time, the soonest first.
struct Timed(HotTag);

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        self.0.when == other.0.when
    }
}

impl Eq for Timed {}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.0.when.cmp(&self.0.when)
    }
}

impl RefreshAhead {
    /// For the hot tags of `cache`.
    pub fn new(cache: Cache) -> Self {
        Self { cache }
    }

    /// Asks about each hot tag when its time comes, until `stop`.
    pub async fn keep(&self, stop: CancellationToken) {
        let mut waiting: BinaryHeap<Timed> = BinaryHeap::new();
        let mut lanes: HashMap<String, mpsc::Sender<HotTag>> = HashMap::new();
        // Dropped with this future, they end.
        let mut tasks = JoinSet::new();
        loop {
            let now = Timestamp::now();
            while waiting.peek().is_some_and(|next| next.0.when <= now)
                && let Some(Timed(hot)) = waiting.pop()
            {
                let prefix = hot.place.upstream.prefix().to_owned();
                let lane = lanes.entry(prefix).or_insert_with(|| {
                    let (sender, tags) = mpsc::channel(MOST_WAITING);
                    tasks.spawn(ask(self.cache.clone(), tags));
                    sender
                });
                let _ = lane.try_send(hot);
            }
            let left = waiting.peek().map_or(LOOK_EVERY, |next| next.0.when.since(now));
            tokio::select! {
                hot = self.cache.hot_tags() => waiting.extend(hot.into_iter().map(Timed)),
                () = tokio::time::sleep(left.min(LOOK_EVERY)) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

/// Asks one upstream, one tag after the other.
async fn ask(cache: Cache, mut tags: mpsc::Receiver<HotTag>) {
    while let Some(hot) = tags.recv().await {
        let asked = cache.refresh_ahead(&hot).await.unwrap_or(Ahead::Failed);
        if asked == Ahead::Late {
            continue;
        }
        let upstream = hot.place.upstream.prefix();
        tracing::debug!(
            repository = &*hot.place.key,
            tag = %hot.tag,
            outcome = asked.as_str(),
            "a hot tag was asked about before it falls due"
        );
        cache.metrics().preserve.refreshed_ahead(upstream, asked.as_str());
        if asked != Ahead::Skipped {
            tokio::time::sleep(APART).await;
        }
    }
}
