//! What pushes that are under way name. Until their commit no manifest is there that would keep it. `manifests` says it,
//! `blobs` asks before it removes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::oci::Digest;
use crate::repository::Key;

type Pair = (Key, Digest);

/// All of it. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Naming {
    /// By how many pushes each is named.
    named: Arc<Mutex<HashMap<Pair, usize>>>,
}

/// What one push names, until it is dropped.
pub(super) struct Named {
    naming: Naming,
    pairs: Vec<Pair>,
}

impl Naming {
    fn named(&self) -> MutexGuard<'_, HashMap<Pair, usize>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A push to `key` begins that names these.
    pub(super) fn name(&self, key: &Key, digests: impl Iterator<Item = Digest>) -> Named {
        let pairs: Vec<Pair> = digests.map(|digest| (key.clone(), digest)).collect();
        let mut named = self.named();
        for pair in &pairs {
            *named.entry(pair.clone()).or_default() += 1;
        }
        drop(named);
        Named {
            naming: self.clone(),
            pairs,
        }
    }

    /// Whether a push that is under way names it.
    pub(super) fn names(&self, pair: &Pair) -> bool {
        self.named().contains_key(pair)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let mut named = self.naming.named();
        for pair in &self.pairs {
            if let Some(count) = named.get_mut(pair) {
                *count -= 1;
                if *count == 0 {
                    named.remove(pair);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn it_is_named_until_the_last_push_ends() {
        let (naming, key) = (Naming::default(), Key::from("hosted:acme/app"));
        let digest = |byte| Digest::from_hash(Algorithm::Sha256, &[byte; 32]).unwrap();
        let pair = |byte| (key.clone(), digest(byte));
        // One of them twice, as manifests may.
        let first = naming.name(&key, [digest(1), digest(2), digest(2)].into_iter());
        let second = naming.name(&key, [digest(2)].into_iter());
        assert!(naming.names(&pair(1)) && naming.names(&pair(2)) && !naming.names(&pair(3)));
        drop(first);
        assert!(!naming.names(&pair(1)) && naming.names(&pair(2)));
        assert!(!naming.names(&(Key::from("hosted:acme/other"), digest(2))));
        drop(second);
        assert!(!naming.names(&pair(2)) && naming.named().is_empty());
    }
}
