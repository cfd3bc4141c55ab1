//! `wharfinger pull`: brings images in now, through the same fills as a client's pull.

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::config::ImagePattern;
use crate::job::{Job, Progress, Unit};

use super::Finder;
use super::bring::{Amount, Bringer, Brought, BroughtResult, OLD_LIST};
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
    let (fetched, here) = (amount(&brought.fetched), amount(&brought.here));
    match brought.result {
        BroughtResult::Fetched if brought.here == Amount::default() => {
            format!("{name}: fetched {fetched}; {digest}")
        }
        BroughtResult::Fetched => format!("{name}: fetched {fetched}; here already {here}; {digest}"),
        BroughtResult::Here => format!("{name}: here already, {here}; {digest}"),
        BroughtResult::Stale => {
            format!("{name}: here, but perhaps not the newest ({reason}), {here}; {digest}")
        }
        BroughtResult::Failed => format!("{name}: failed: {reason}"),
    }
}

fn amount(amount: &Amount) -> String {
    let count = |of: u64, what: &str| match of {
        0 => String::new(),
        1 => format!("1 {what}, "),
        many => format!("{many} {what}s, "),
    };
    let (manifests, blobs) = (count(amount.manifests, "manifest"), count(amount.blobs, "blob"));
    format!("{manifests}{blobs}{}", ByteSize::b(amount.bytes).display().iec())
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
            Ok(found) => {
                if found.is_old {
                    progress.note(format!(
                        "{}: {OLD_LIST}: of the tags that are here",
                        pattern.as_str()
                    ));
                }
                images.extend(found.images);
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_and_what_was_here() {
        let mut brought = Brought::failed("docker-hub/library/a:1", "not found");
        assert_eq!(line(&brought), "docker-hub/library/a:1: failed: not found");
        brought.digest = Some("sha256:0".to_owned());
        brought.fetched = Amount {
            manifests: 1,
            blobs: 2,
            bytes: 3 << 20,
        };
        brought.result = BroughtResult::Fetched;
        let fetched = "docker-hub/library/a:1: fetched 1 manifest, 2 blobs, 3.0 MiB";
        assert_eq!(line(&brought), format!("{fetched}; sha256:0"));
        brought.here = Amount {
            manifests: 0,
            blobs: 1,
            bytes: 512,
        };
        assert_eq!(
            line(&brought),
            format!("{fetched}; here already 1 blob, 512 B; sha256:0")
        );
    }
}
