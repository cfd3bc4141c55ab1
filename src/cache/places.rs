//! From a repository's key, which the index and the partial files say, back to its upstream. Built by `app`.

use std::sync::Arc;

use crate::upstream::Upstream;

use super::Place;

/// All pull-through repositories that the configuration knows the upstream of. Cheap to clone.
#[derive(Clone)]
pub struct Places {
    upstreams: Arc<[Arc<Upstream>]>,
}

impl Places {
    /// The repositories of `upstreams`.
    pub fn new(upstreams: &[Arc<Upstream>]) -> Self {
        Self {
            upstreams: upstreams.into(),
        }
    }

    /// Their upstreams.
    pub fn upstreams(&self) -> &[Arc<Upstream>] {
        &self.upstreams
    }

    /// The repository that is called `key`: upstream prefix and name.
    pub fn find(&self, key: &str) -> Option<Place> {
        let (prefix, name) = key.split_once('/')?;
        let upstream = self
            .upstreams
            .iter()
            .find(|upstream| upstream.prefix() == prefix)?;
        Some(Place::new(upstream.clone(), name.parse().ok()?))
    }
}
