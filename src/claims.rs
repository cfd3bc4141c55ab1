//! One at a time for each key: what must not cross waits for its turn. Used by `storage` (publishing and removing a blob,
//! law 3) and `repository` (what may be collected, and a tag that moves),
//! `identities` (who is changed).

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Keys that somebody works on. Clones share them.
pub struct Claims<K> {
    shared: Arc<Shared<K>>,
}

struct Shared<K> {
    claimed: Mutex<HashSet<K>>,
    freed: Notify,
}

impl<K> Shared<K> {
    fn claimed(&self) -> MutexGuard<'_, HashSet<K>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> Clone for Claims<K> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<K> Default for Claims<K> {
    fn default() -> Self {
        Self {
            shared: Arc::new(Shared {
                claimed: Mutex::default(),
                freed: Notify::new(),
            }),
        }
    }
}

/// The right to work on a key, until it is dropped.
pub struct Claim<K: Hash + Eq> {
    shared: Arc<Shared<K>>,
    key: K,
}

impl<K: Hash + Eq + Clone> Claims<K> {
    /// Waits for the right.
    pub async fn claim(&self, key: &K) -> Claim<K> {
        loop {
            // From here on no notice is missed.
            let freed = self.shared.freed.notified();
            if self.shared.claimed().insert(key.clone()) {
                return Claim {
                    shared: self.shared.clone(),
                    key: key.clone(),
                };
            }
            freed.await;
        }
    }

    /// Waits until nobody has the right, without taking it.
    pub async fn settled(&self, key: &K) {
        loop {
            let freed = self.shared.freed.notified();
            if !self.shared.claimed().contains(key) {
                return;
            }
            freed.await;
        }
    }
}

impl<K: Hash + Eq> Drop for Claim<K> {
    fn drop(&mut self) {
        self.shared.claimed().remove(&self.key);
        self.shared.freed.notify_waiters();
    }
}
