//! One at a time for each digest: publishing and removing a blob must not cross (law 3). Used by `blobs`.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::oci::Digest;

/// Digests that somebody works on. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Claims {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    claimed: Mutex<HashSet<Digest>>,
    freed: Notify,
}

impl Shared {
    fn claimed(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to publish or remove a blob, until it is dropped.
pub(super) struct Claim {
    shared: Arc<Shared>,
    digest: Digest,
}

impl Claims {
    /// Waits for the right.
    pub(super) async fn claim(&self, digest: &Digest) -> Claim {
        loop {
            // From here on no notice is missed.
            let freed = self.shared.freed.notified();
            if self.shared.claimed().insert(*digest) {
                return Claim {
                    shared: self.shared.clone(),
                    digest: *digest,
                };
            }
            freed.await;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shared.claimed().remove(&self.digest);
        self.shared.freed.notify_waiters();
    }
}
