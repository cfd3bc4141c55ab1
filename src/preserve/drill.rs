//! `wharfinger drill`: which of the images that clients pulled lately would survive the loss of their upstream, as the
//! index and the files prove it; and with `--fill`, what lacks is fetched as a client's pull would, behind all clients.

mod fill;
mod images;
mod pulls;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::cache::{Cache, Error, PULLS_KEPT, Places};
use crate::clock::Timestamp;
use crate::job::{Job, Progress, Unit};
use crate::oci::Digest;

use super::lack::Lack;

pub(super) use images::Image;
pub(super) use pulls::Pulls;

/// The job.
#[derive(Clone)]
pub struct Drill {
    cache: Cache,
    places: Places,
}

/// What can be asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillOptions {
    /// What was pulled within so many days counts.
    #[serde(default = "thirty")]
    pub days: u64,
    /// The prefix of the one upstream that is looked at; all of them, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Whether what lacks is to be fetched.
    #[serde(default)]
    pub fill: bool,
}

/// The span of a drill when none is named, in days.
pub(super) fn thirty() -> u64 {
    30
}

impl Default for DrillOptions {
    fn default() -> Self {
        Self {
            days: thirty(),
            upstream: None,
            fill: false,
        }
    }
}

/// What a drill found, after what it fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drilled {
    /// What was pulled within so many days was looked at.
    pub days: u64,
    /// By prefix.
    pub upstreams: Vec<DrilledUpstream>,
    /// What was fetched, when that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filled: Option<Filled>,
    /// Whether it was stopped before its end: then it proves nothing.
    pub stopped: bool,
}

impl Drilled {
    /// Whether all would survive.
    pub fn is_whole(&self) -> bool {
        !self.stopped && self.upstreams.iter().all(|upstream| upstream.holes.is_empty())
    }
}

/// What would be left without one upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrilledUpstream {
    /// Its prefix.
    pub prefix: String,
    /// Images of it that were pulled: tags, and digests that no tag leads to.
    pub images: u64,
    /// Of these, those that would be served whole.
    pub survive: u64,
    /// Bytes that would have to be fetched for the others, each blob counted once.
    pub bytes: u64,
    /// For how long all that survive would be served; absent when nothing ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_seconds: Option<u64>,
    /// The others.
    pub holes: Vec<Hole>,
}

/// An image that would not be served whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// As a person writes it: prefix, name, tag or digest.
    pub image: String,
    /// What it means, or meant when it was last pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// When it was last pulled, within the hour.
    pub pulled: Timestamp,
    /// What of it would not be served.
    pub lacks: Vec<Lack>,
}

/// What was fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filled {
    /// Manifests and lists that the upstream was asked for.
    pub manifests: u64,
    /// Blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What could not be had.
    pub failed: u64,
}

impl Drill {
    /// The job over `cache`.
    pub fn new(cache: Cache, places: Places) -> Self {
        Self { cache, places }
    }

    /// Looks at what was pulled of each upstream; gives what it found, and the images that lack something.
    async fn look(
        &self,
        options: &DrillOptions,
        progress: &Progress,
    ) -> Result<(Drilled, Vec<Image>), Error> {
        let since = Timestamp(
            Timestamp::now()
                .0
                .saturating_sub(options.days.saturating_mul(86_400_000)),
        );
        let mut drilled = Drilled {
            days: options.days,
            ..Drilled::default()
        };
        let (mut lacking, mut looked) = (Vec::new(), 0);
        let wanted = |prefix: &str| options.upstream.as_deref().is_none_or(|wanted| wanted == prefix);
        for upstream in self.places.upstreams() {
            if !wanted(upstream.prefix()) {
                continue;
            }
            let mut told = DrilledUpstream {
                prefix: upstream.prefix().to_owned(),
                ..DrilledUpstream::default()
            };
            let mut counted = HashSet::<Digest>::new();
            let mut pulls = Pulls::of(&self.cache, &self.places, upstream.prefix(), since).await?;
            while let Some(repository) = pulls.next().await? {
                if progress.is_stopped() {
                    drilled.stopped = true;
                    return Ok((drilled, lacking));
                }
                for image in repository.images(&self.cache).await? {
                    looked += 1;
                    told.images += 1;
                    let closure = &image.closure;
                    if closure.lacks.is_empty() {
                        told.survive += 1;
                        let left = closure.served_for.map(|left| left.as_secs());
                        told.served_seconds = match (told.served_seconds, left) {
                            (Some(least), Some(left)) => Some(least.min(left)),
                            (least, left) => least.or(left),
                        };
                        continue;
                    }
                    for lack in &closure.lacks {
                        if lack.digest().is_none_or(|digest| counted.insert(digest)) {
                            told.bytes += lack.bytes;
                        }
                    }
                    told.holes.push(image.hole());
                    lacking.push(image);
                }
                progress.at(looked, None, Unit::Items);
            }
            drilled.upstreams.push(told);
        }
        Ok((drilled, lacking))
    }

    async fn drill(&self, options: &DrillOptions, progress: &Progress) -> Result<Drilled, Error> {
        let (drilled, lacking) = self.look(options, progress).await?;
        if !options.fill || drilled.stopped {
            return Ok(drilled);
        }
        let total = drilled.upstreams.iter().map(|upstream| upstream.bytes).sum();
        let filled = fill::fill(&self.cache, lacking, total, progress).await?;
        // What counts is what is here now.
        let (mut drilled, _) = self.look(options, progress).await?;
        drilled.filled = Some(filled);
        Ok(drilled)
    }
}

/// Whether so many days are remembered.
pub(super) fn check_days(days: u64) -> Result<(), String> {
    let most = PULLS_KEPT.as_secs() / 86_400;
    if (1..=most).contains(&days) {
        return Ok(());
    }
    Err(format!(
        "days must be from 1 to {most}: older pulls are forgotten"
    ))
}

impl Job for Drill {
    const NAME: &'static str = "drill";
    type Options = DrillOptions;
    type Summary = Drilled;

    async fn run(&self, options: DrillOptions, progress: Progress) -> Result<Drilled, String> {
        check_days(options.days)?;
        if let Some(wanted) = &options.upstream
            && !self
                .places
                .upstreams()
                .iter()
                .any(|upstream| upstream.prefix() == wanted)
        {
            return Err(format!("there is no upstream `{wanted}`"));
        }
        if options.fill && self.cache.is_offline() {
            return Err("this cache is offline: nothing can be fetched".to_owned());
        }
        self.drill(&options, &progress)
            .await
            .map_err(|error| error.message)
    }
}
