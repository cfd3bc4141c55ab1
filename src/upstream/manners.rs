//! How we behave towards one upstream, over all its endpoints: turns at each host, and what we take at the most. Shared
//! by their transports.

use std::sync::Arc;

use super::Upstream;
use super::bandwidth::Bandwidth;
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

    /// Whether one more download of the same blob from `host` takes nothing away from anybody: half of the turns there are
    /// free, and it is not our own cap that limits.
    pub fn may_widen(&self, host: &str) -> bool {
        let limited = self.manners.bandwidth.as_ref();
        self.manners.turns.are_ample(host) && !limited.is_some_and(|bandwidth| bandwidth.is_limiting())
    }
}
