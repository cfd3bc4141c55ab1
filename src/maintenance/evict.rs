//! `wharfinger evict`: makes room now, by the same rules as the engine does when it needs some.

use serde::{Deserialize, Serialize};

use crate::cache::{Cache, Evicted};
use crate::job::{Job, Progress, Unit};

/// The job.
pub struct Evict {
    cache: Cache,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvictOptions {
    /// Bytes to free.
    pub bytes: u64,
}

impl Evict {
    /// The job over `cache`.
    pub fn new(cache: Cache) -> Self {
        Self { cache }
    }
}

impl Job for Evict {
    const NAME: &'static str = "evict";
    type Options = EvictOptions;
    type Summary = Evicted;

    async fn run(&self, options: EvictOptions, progress: Progress) -> Result<Evicted, String> {
        let tell = |evicted: &Evicted| {
            progress.at(evicted.bytes.min(options.bytes), Some(options.bytes), Unit::Bytes);
            !progress.is_stopped()
        };
        self.cache
            .evict(options.bytes, tell)
            .await
            .map_err(|error| error.message)
    }
}
