//! How we behave towards one upstream, over all its endpoints: turns at each host, and what we take at the most. Shared
//! by their transports; `cache` asks a download's [`Source`] before it opens another one beside it.

use std::sync::Arc;

use super::Upstream;
use super::bandwidth::Bandwidth;
use super::breaker::{Class, Readiness};
use super::endpoint::Endpoint;
use super::observer::Observer;
use super::turns::Turns;
use crate::config::UpstreamConfig;

/// What the endpoints of an upstream share. Cheap to clone.
#[derive(Clone)]
pub(super) struct Manners {
    pub(super) turns: Arc<Turns>,
    pub(super) bandwidth: Option<Arc<Bandwidth>>,
}

impl Manners {
    pub(super) fn new(config: &UpstreamConfig, observer: &Arc<dyn Observer>) -> Self {
        Self {
            turns: Arc::new(Turns::new(config.max_connections)),
            bandwidth: Bandwidth::new(&config.prefix, &config.bandwidth, observer.clone()),
        }
    }
}

impl Upstream {
    /// The bandwidth cap that holds now, in bytes per second; `None` is no cap.
    pub fn bandwidth(&self) -> Option<u64> {
        self.manners
            .bandwidth
            .as_ref()
            .and_then(|bandwidth| bandwidth.limit())
    }
}

/// Where a download comes from.
pub struct Source {
    endpoint: Arc<Endpoint>,
    /// The endpoint's host, or its CDN's.
    host: String,
}

impl Source {
    pub(super) fn new(endpoint: Arc<Endpoint>, host: String) -> Self {
        Self { endpoint, host }
    }

    /// Whether one more download of the same blob takes nothing away from anybody: half of the turns there are free, the
    /// endpoint is well and answers ranges, and it is not our own cap that limits.
    pub fn has_room(&self) -> bool {
        let Manners { turns, bandwidth } = self.endpoint.transport.manners();
        turns.are_ample(&self.host)
            && self.endpoint.breaker.readiness(Class::Blob) == Readiness::Ready
            && !self.endpoint.ignores_ranges()
            && !bandwidth
                .as_ref()
                .is_some_and(|bandwidth| bandwidth.is_limiting())
    }

    /// Whether others wait for a turn there.
    pub fn is_crowded(&self) -> bool {
        self.endpoint.transport.manners().turns.is_crowded(&self.host)
    }
}
