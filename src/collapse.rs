//! Single-flight: many callers that want the same thing at once cost one run of it.
//!
//! The work is a task of its own, so a caller that goes away ends nothing. Used by `cache` (tags, manifests, probes).

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

type Running<K, V> = Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>;

/// Runs in progress by key. Clones share them.
pub struct Collapse<K, V> {
    running: Running<K, V>,
}

impl<K, V> Clone for Collapse<K, V> {
    fn clone(&self) -> Self {
        Self {
            running: self.running.clone(),
        }
    }
}

impl<K, V> Default for Collapse<K, V> {
    fn default() -> Self {
        Self {
            running: Arc::default(),
        }
    }
}

/// Takes the entry away when the work ends, by panic too.
struct Leave<K: Hash + Eq, V> {
    running: Running<K, V>,
    key: K,
}

impl<K: Hash + Eq, V> Drop for Leave<K, V> {
    fn drop(&mut self) {
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.key);
    }
}

impl<K, V> Collapse<K, V>
where
    K: Clone + Hash + Eq + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// The result of the run for `key`: a new one of `work`, or the one in progress. The flag says "joined".
    /// `None` when the work panicked.
    pub async fn run<F, W>(&self, key: K, work: F) -> (Option<V>, bool)
    where
        F: FnOnce() -> W,
        W: Future<Output = V> + Send + 'static,
    {
        let (mut receiver, joined) = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(receiver) = running.get(&key) {
                (receiver.clone(), true)
            } else {
                let (sender, receiver) = watch::channel(None);
                running.insert(key.clone(), receiver.clone());
                let leave = Leave {
                    running: self.running.clone(),
                    key,
                };
                let work = work();
                tokio::spawn(async move {
                    let value = work.await;
                    // First out of the map, then the news: who asks after hearing it starts afresh.
                    drop(leave);
                    sender.send_replace(Some(value));
                });
                (receiver, false)
            }
        };
        let value = receiver
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|value| value.clone());
        (value, joined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn many_callers_one_run_even_when_the_first_leaves() {
        let collapse = Collapse::<u8, usize>::default();
        let runs = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(Notify::new());
        let start = |collapse: Collapse<u8, usize>| {
            let (runs, gate) = (runs.clone(), gate.clone());
            tokio::spawn(async move {
                collapse
                    .run(1, || async move {
                        gate.notified().await;
                        runs.fetch_add(1, Ordering::SeqCst) + 1
                    })
                    .await
            })
        };
        let first = start(collapse.clone());
        tokio::task::yield_now().await;
        first.abort();
        let others: Vec<_> = (0..50).map(|_| start(collapse.clone())).collect();
        tokio::task::yield_now().await;
        gate.notify_one();
        for other in others {
            assert_eq!(other.await.unwrap().0, Some(1));
        }
        assert!(collapse.running.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_panic_is_told_and_leaves_no_trace() {
        let collapse = Collapse::<u8, ()>::default();
        assert_eq!(collapse.run(1, || async { panic!("on purpose") }).await.0, None);
        assert!(collapse.running.lock().unwrap().is_empty());
    }
}
