//! What a lifecycle policy does to what a repository holds (ECR User Guide, "Lifecycle policy evaluation rules"). Pure;
//! the examples of that guide are among the tests.

use std::time::Duration;

use super::policy::{Act, Count, Policy, Rule, StorageClass, Tags};
use crate::clock::Timestamp;
use crate::oci::{Digest, Tag};

/// What is known of an image (or an index, or an artifact) of the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFacts {
    /// Its digest.
    pub digest: Digest,
    /// All its tags.
    pub tags: Vec<Tag>,
    /// When it was pushed.
    pub pushed_at: Timestamp,
    /// When it was last pulled.
    pub pulled_at: Option<Timestamp>,
    /// Where it is kept.
    pub class: StorageClass,
    /// When it went to the archive; while it is there.
    pub archived_at: Option<Timestamp>,
    /// When it last came back from the archive.
    pub activated_at: Option<Timestamp>,
    /// Whether another image of the repository needs it: an index that names it, or the subject that it refers to. It
    /// goes with that one, and not before.
    pub needed: bool,
}

/// What is to be done to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which image.
    pub digest: Digest,
    /// By which rule.
    pub rule_priority: u64,
    /// What.
    pub action: Act,
}

/// What the policy does at `now` to these images, which are all of a repository, in the order of their pushes where two
/// came in the same millisecond. By ascending priority of the rules, and within one from the oldest image to the newest.
pub fn evaluate(policy: &Policy, images: &[ImageFacts], now: Timestamp) -> Vec<Verdict> {
    let mut oldest_first: Vec<&ImageFacts> = images.iter().collect();
    // A stable sort: a later push is newer.
    oldest_first.sort_by_key(|image| image.pushed_at);
    // Identified by a rule before, whether that one acts on it or not: no other may act on it.
    let mut taken = vec![false; oldest_first.len()];
    let mut verdicts = Vec::new();
    for rule in &policy.rules {
        // Each rule sees all images, also those that an earlier one expires.
        let identified: Vec<usize> = (0..oldest_first.len())
            .filter(|at| rule.identifies(oldest_first[*at]))
            .collect();
        for at in rule.doomed(&identified, &oldest_first, now) {
            let image = oldest_first[at];
            if !taken[at] && !image.needed {
                verdicts.push(Verdict {
                    digest: image.digest,
                    rule_priority: rule.priority,
                    action: rule.act,
                });
            }
        }
        for at in identified {
            taken[at] = true;
        }
    }
    verdicts
}

impl Rule {
    /// Whether its selection is about this image, apart from counts and ages.
    fn identifies(&self, image: &ImageFacts) -> bool {
        let tagged = |fits: &dyn Fn(&str) -> bool| image.tags.iter().any(|tag| fits(tag.as_str()));
        self.class == image.class
            && match &self.tags {
                Tags::Any => true,
                Tags::Untagged => image.tags.is_empty(),
                Tags::Patterns(patterns) => patterns.iter().all(|glob| tagged(&|tag| glob.matches(tag))),
                Tags::Prefixes(prefixes) => {
                    let with = |prefix: &String| tagged(&|tag| tag.starts_with(prefix.as_str()));
                    prefixes.iter().all(with)
                }
            }
    }

    /// Those of the images identified (oldest first) that it would act on.
    fn doomed(&self, identified: &[usize], images: &[&ImageFacts], now: Timestamp) -> Vec<usize> {
        let since = match self.count {
            Count::MoreThan(kept) => {
                let kept = usize::try_from(kept).unwrap_or(usize::MAX);
                let more = identified.len().saturating_sub(kept);
                return identified[..more].to_vec();
            }
            Count::DaysSincePushed(days) | Count::DaysSincePulled(days) | Count::DaysSinceArchived(days) => {
                Duration::from_hours(days.saturating_mul(24).min(MOST_HOURS))
            }
        };
        let began = |image: &ImageFacts| match self.count {
            Count::DaysSincePulled(_) => {
                // Never pulled since it was pushed, or since it came back: then that counts.
                let latest = [image.pulled_at, image.activated_at].into_iter().flatten().max();
                Some(latest.map_or(image.pushed_at, |at| at.max(image.pushed_at)))
            }
            Count::DaysSinceArchived(_) => image.archived_at,
            Count::MoreThan(_) | Count::DaysSincePushed(_) => Some(image.pushed_at),
        };
        let is_older = |at: &usize| began(images[*at]).is_some_and(|began| now.since(began) > since);
        identified.iter().copied().filter(is_older).collect()
    }
}

/// More hours than any clock counts, fewer than a `Duration` holds.
const MOST_HOURS: u64 = u64::MAX / 3_600_000;
