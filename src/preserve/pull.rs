//! `wharfinger pull`: brings images in now, through the same fills as a client's pull.

use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::config::ImagePattern;
use crate::job::{Job, Progress, Unit};

use super::Finder;
use super::bring::{Bringer, Brought, BroughtResult};
use super::pins::pin;
use super::platforms::Platforms;

/// The job.
pub struct Pull {
    bringer: Bringer,
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PullOptions {
    /// Images as people name them, or patterns of tags: `docker-hub/library/alpine:3.*`.
    pub refs: Vec<String>,
    /// For which platforms; this machine's own when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
    /// For all that there are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all_platforms: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    /// Each image.
    pub images: Vec<Brought>,
    /// Whether it was stopped before its end.
    pub stopped: bool,
}

impl Pulled {
    /// Whether all that was asked for is here.
    pub fn is_well(&self) -> bool {
        !self.stopped && self.images.iter().all(Brought::is_whole)
    }
}

impl Pull {
    /// The job over `cache`, for what people name, by `finder`.
    pub fn new(cache: Cache, finder: Finder) -> Self {
        Self {
            bringer: Bringer::new(cache, finder),
        }
    }
}

/// A line for people about an image that was done with.
pub(super) fn line(brought: &Brought) -> String {
    let reason = brought.reason.as_deref().unwrap_or_default();
    let (name, digest) = (&brought.reference, brought.digest.as_deref().unwrap_or_default());
    match brought.result {
        BroughtResult::Fetched => format!("{name}: fetched, {digest}"),
        BroughtResult::Here => format!("{name}: here already, {digest}"),
        BroughtResult::Stale => format!("{name}: here, but perhaps not the newest ({reason}), {digest}"),
        BroughtResult::Failed => format!("{name}: failed: {reason}"),
    }
}

/// Brings in what `options` names, and pins it if so asked.
pub(super) async fn bring_all(
    bringer: &Bringer,
    options: &PullOptions,
    progress: &Progress,
    pinned: bool,
) -> Result<Pulled, String> {
    let platforms = Platforms::asked(&options.platforms, options.all_platforms)?;
    let patterns: Result<Vec<_>, _> = options.refs.iter().map(|text| text.parse()).collect();
    let patterns: Vec<ImagePattern> = patterns?;
    if patterns.is_empty() {
        return Err("name at least one image".to_owned());
    }
    let (mut images, mut pulled) = (Vec::new(), Pulled::default());
    for pattern in &patterns {
        match bringer.expand(pattern).await {
            Ok(found) => images.extend(found),
            Err(failure) => {
                let failed = Brought::failed(pattern.as_str(), failure.reason);
                progress.note(line(&failed));
                pulled.images.push(failed);
            }
        }
    }
    let total = images.len() as u64;
    for (done, (place, reference)) in (0..).zip(&images) {
        if total > 1 {
            progress.at(done, Some(total), Unit::Items);
        }
        if progress.is_stopped() {
            pulled.stopped = true;
            break;
        }
        let mut hold = bringer.cache.hold(Vec::new());
        let named = (place, reference);
        let (mut brought, _) = bringer.image(named, &platforms, progress, &mut hold).await;
        if pinned {
            pin(&bringer.cache, named, false, &platforms, &mut brought).await;
        }
        progress.note(line(&brought));
        pulled.images.push(brought);
    }
    Ok(pulled)
}

impl Job for Pull {
    const NAME: &'static str = "pull";
    const ALONE: bool = false;
    type Options = PullOptions;
    type Summary = Pulled;

    async fn run(&self, options: PullOptions, progress: Progress) -> Result<Pulled, String> {
        bring_all(&self.bringer, &options, &progress, false).await
    }
}
