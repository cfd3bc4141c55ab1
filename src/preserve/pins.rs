//! `wharfinger pin`: what is named is brought in if it is not here, and never evicted from then on. What is pinned is kept
//! whole: when its tag moves, what the tag means now is brought in behind.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use tokio_util::sync::CancellationToken;

use crate::cache::report::PinTotals;
use crate::cache::{Cache, Error, Place, Places};
use crate::job::{Job, Progress};
use crate::oci::{Digest, Reference};
use crate::storage::PinName;

use super::Finder;
use super::bring::{Bringer, Brought, BroughtResult};
use super::platforms::Platforms;
use super::pull::{PullOptions, Pulled, bring_all};

/// How often what is pinned is looked at. When nothing lacks that asks no upstream.
const LOOK_EVERY: Duration = Duration::from_mins(10);

/// The job. Its options are those of a pull.
pub struct PinAll {
    bringer: Bringer,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedAll {
    /// Each image; what is whole is pinned.
    #[serde(flatten)]
    pub pulled: Pulled,
    /// All that is pinned now.
    pub pins: PinTotals,
}

impl PinAll {
    /// The job over `cache`, for what people name, by `finder`.
    pub fn new(cache: Cache, finder: Finder) -> Self {
        Self {
            bringer: Bringer::new(cache, finder),
        }
    }
}

/// Pins an image that was brought in. `listed`: a list of the configuration says so.
pub(super) async fn pin(
    cache: &Cache,
    (place, reference): (&Place, &Reference),
    listed: bool,
    platforms: &Platforms,
    brought: &mut Brought,
) {
    if !brought.is_whole() {
        return;
    }
    let reason = match cache.pin(place, reference, listed, &platforms.written()).await {
        Ok(true) => return,
        Ok(false) => "it was evicted before it could be pinned".to_owned(),
        Err(error) => error.message,
    };
    brought.result = BroughtResult::Failed;
    brought.reason = Some(reason);
}

/// Keeps what is pinned whole.
pub struct KeepPinned {
    bringer: Bringer,
    places: Places,
    /// Told as lacking something already.
    told: HashSet<Digest>,
}

impl KeepPinned {
    /// Over `cache`, from the upstreams of `places`.
    pub fn new(cache: Cache, finder: Finder, places: Places) -> Self {
        Self {
            bringer: Bringer::new(cache, finder),
            places,
            told: HashSet::new(),
        }
    }

    /// Brings in what lacks of what is pinned, every now and then, until `stop`.
    pub async fn keep(mut self, stop: CancellationToken) {
        let progress = Progress::unheard(stop.clone());
        loop {
            if !self.bringer.cache.is_offline()
                && let Err(error) = self.look(&progress).await
            {
                tracing::error!(error = error.message, "looking at pins failed");
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn look(&mut self, progress: &Progress) -> Result<(), Error> {
        for (digest, row) in self.bringer.cache.pin_rows().await? {
            for name in &row.names {
                if progress.is_stopped() {
                    return Ok(());
                }
                self.complete(digest, name, progress).await;
            }
        }
        Ok(())
    }

    async fn complete(&mut self, digest: Digest, name: &PinName, progress: &Progress) {
        let Some(place) = self.place(&name.name) else {
            return;
        };
        let platforms = Platforms::read(&name.platforms);
        let reference = Reference::Digest(digest);
        let mut hold = self.bringer.cache.hold(Vec::new());
        let named = (&place, &reference);
        let (brought, _) = self.bringer.image(named, &platforms, progress, &mut hold).await;
        match brought.result {
            BroughtResult::Failed if !progress.is_stopped() => {
                if self.told.insert(digest) {
                    let reason = brought.reason;
                    tracing::warn!(pin = name.name, %digest, reason, "what is pinned is not whole");
                }
            }
            BroughtResult::Fetched => {
                self.told.remove(&digest);
                let bytes = brought.fetched.bytes;
                tracing::info!(pin = name.name, %digest, bytes, "what is pinned is whole again");
            }
            _ => {
                self.told.remove(&digest);
            }
        }
    }

    /// The repository that a pin's name begins with.
    fn place(&self, name: &str) -> Option<Place> {
        let (repository, _) = name.split_once('@').or_else(|| name.rsplit_once(':'))?;
        Some(self.places.find(repository)?.in_background())
    }
}

impl Job for PinAll {
    const NAME: &'static str = "pin";
    const ALONE: bool = false;
    type Options = PullOptions;
    type Summary = PinnedAll;

    async fn run(&self, options: PullOptions, progress: Progress) -> Result<PinnedAll, String> {
        let cache = &self.bringer.cache;
        let pulled = bring_all(&self.bringer, &options, &progress, true).await?;
        let pins = cache.warn_of_pins().await.map_err(|error| error.message)?;
        for image in pulled.images.iter().filter(|image| image.is_whole()) {
            tracing::info!(
                reference = image.reference,
                digest = image.digest,
                "pinned by an operator"
            );
        }
        Ok(PinnedAll {
            pulled,
            pins: pins.totals,
        })
    }
}
