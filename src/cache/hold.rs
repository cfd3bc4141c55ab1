//! Content that must stay for a while although nobody reads it at the moment: a bundle that is being written, or brought.
//! Eviction passes it over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::oci::Digest;

use super::{Cache, Shared};

/// What is held, and how many times.
#[derive(Default)]
pub(super) struct Holds(Mutex<HashMap<Digest, usize>>);

impl Holds {
    fn all(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.all().contains_key(digest)
    }
}

/// Manifests and blobs that are not evicted as long as this lives.
pub struct Hold {
    shared: Arc<Shared>,
    digests: Vec<Digest>,
}

impl Hold {
    /// Holds one more.
    pub fn add(&mut self, digest: Digest) {
        *self.shared.holds.all().entry(digest).or_default() += 1;
        self.digests.push(digest);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut all = self.shared.holds.all();
        for digest in &self.digests {
            if let Some(count) = all.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    all.remove(digest);
                }
            }
        }
    }
}

impl Cache {
    /// Keeps `digests` from being evicted.
    pub fn hold(&self, digests: Vec<Digest>) -> Hold {
        let mut hold = Hold {
            shared: self.shared.clone(),
            digests: Vec::with_capacity(digests.len()),
        };
        for digest in digests {
            hold.add(digest);
        }
        hold
    }
}
