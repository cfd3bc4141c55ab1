//! Brings images in as a client's pull would: the manifest, of an index those of the wanted platforms, and all that they
//! name, skipping what is here. Called by `pull`, `pins` and `warm`.

use std::collections::HashSet;

use futures_util::StreamExt as _;
use futures_util::stream;
use serde::{Deserialize, Serialize};

use crate::cache::{Cache, Current, Error, ErrorKind, Hold, Outcome, Place, written};
use crate::config::ImagePattern;
use crate::job::{PartState, Progress};
use crate::oci::{Digest, Kind, Manifest, Reference, Tag};

use super::Finder;
use super::platforms::{Platforms, choose, is_elsewhere, names_a_blob};

/// Blobs of one image that are fetched at a time, as clients do.
const AT_ONCE: usize = 3;

/// Indexes within indexes are followed so deep.
const MOST_DEEP: usize = 4;

/// Pages of a list of tags that are read.
const MOST_PAGES: usize = 200;

/// Tags that one pattern may stand for.
const MOST_TAGS: usize = 1000;

/// What came of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BroughtResult {
    /// All of it is here, and some was fetched for that.
    Fetched,
    /// All of it was here.
    Here,
    /// All of it is here, but the upstream could not say whether the tag still means it.
    Stale,
    /// Not all of it is here.
    Failed,
}

impl BroughtResult {
    /// The word, as in JSON, and the metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fetched => "fetched",
            Self::Here => "here",
            Self::Stale => "stale",
            Self::Failed => "failed",
        }
    }
}

/// So much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Manifests and indexes.
    pub manifests: u64,
    /// Configs and layers.
    pub blobs: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// What came of one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brought {
    /// The reference as it was understood: `docker-hub/library/nginx:1.27`.
    pub reference: String,
    /// What came of it.
    pub result: BroughtResult,
    /// The digest that it means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Of an index, the platforms that were asked for and are there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
    /// What was fetched.
    pub fetched: Amount,
    /// What was here.
    pub here: Amount,
    /// Why it failed, or is stale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Brought {
    fn of(reference: String) -> Self {
        Self {
            reference,
            result: BroughtResult::Failed,
            digest: None,
            platforms: Vec::new(),
            fetched: Amount::default(),
            here: Amount::default(),
            reason: None,
        }
    }

    /// It could not even be begun.
    pub(super) fn failed(reference: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            reason: Some(reason.into()),
            ..Self::of(reference.into())
        }
    }

    /// Whether all of it is here.
    pub fn is_whole(&self) -> bool {
        self.result != BroughtResult::Failed
    }

    fn count(&mut self, fetched: bool) -> &mut Amount {
        if fetched {
            &mut self.fetched
        } else {
            &mut self.here
        }
    }
}

/// Why an image could not be brought in.
pub(super) struct Failure {
    /// For people.
    pub(super) reason: String,
    /// Whether asking this upstream for more is in vain for now.
    pub(super) is_limited: bool,
    /// Whether it may go better in a while.
    pub(super) may_pass: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let is_limited = matches!(error.kind, ErrorKind::RateLimited { .. });
        let may_pass = is_limited
            || matches!(
                error.kind,
                ErrorKind::UpstreamFailed | ErrorKind::UpstreamUnavailable | ErrorKind::UpstreamTimeout
            );
        Self {
            reason: error.message,
            is_limited,
            may_pass,
        }
    }
}

impl Failure {
    fn of(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            is_limited: false,
            may_pass: false,
        }
    }
}

/// What a pattern stands for.
pub(super) struct Expanded {
    pub(super) images: Vec<(Place, Reference)>,
    /// By what is known here: the upstream does not give its list of tags now.
    pub(super) is_old: bool,
}

/// What is told then.
pub(super) const OLD_LIST: &str = "the upstream does not give its list of tags now";

/// Brings images in. Cheap to clone.
#[derive(Clone)]
pub(super) struct Bringer {
    pub(super) cache: Cache,
    finder: Finder,
}

impl Bringer {
    pub(super) fn new(cache: Cache, finder: Finder) -> Self {
        Self { cache, finder }
    }

    /// The repository that a pattern is about, or the one image that it names. Nobody waits for what is asked of it.
    pub(super) fn find(&self, image: &ImagePattern) -> Result<(Place, Reference), Error> {
        let text = image.tags().map_or(image.as_str(), |(name, _)| name);
        let (place, reference) = (self.finder)(text)?;
        Ok((place.in_background(), reference))
    }

    /// The images that a pattern stands for: by the upstream's list of tags, where it is one of tags.
    pub(super) async fn expand(&self, image: &ImagePattern) -> Result<Expanded, Failure> {
        let (place, reference) = self.find(image)?;
        let Some((_, glob)) = image.tags() else {
            return Ok(Expanded {
                images: vec![(place, reference)],
                is_old: false,
            });
        };
        let (mut found, mut seen, mut is_old) = (Vec::new(), HashSet::new(), false);
        let mut query = Some("n=1000".to_owned());
        for _ in 0..MOST_PAGES {
            let Some(asked) = query.take() else { break };
            let answer = self.cache.tags(&place, &asked).await?;
            is_old |= answer.status.outcome == Outcome::Stale;
            let page = answer.value;
            for tag in page.tags.iter().filter(|tag| glob.matches(tag)) {
                if let Ok(tag) = tag.parse::<Tag>()
                    && seen.insert(tag.clone())
                {
                    found.push((place.clone(), Reference::Tag(tag)));
                }
            }
            query.clone_from(&page.next_query);
        }
        match found.len() {
            0 if is_old => Err(Failure {
                may_pass: true,
                ..Failure::of(format!("{OLD_LIST}, and no tag that is here matches"))
            }),
            0 => Err(Failure::of("no tag of the upstream matches")),
            1..=MOST_TAGS => Ok(Expanded {
                images: found,
                is_old,
            }),
            many => Err(Failure::of(format!(
                "{many} tags match, and {MOST_TAGS} is the most: narrow the pattern"
            ))),
        }
    }

    /// Brings one image in, and tells its parts as they come. What is here of it stays for as long as `hold` lives.
    pub(super) async fn image(
        &self,
        (place, reference): (&Place, &Reference),
        platforms: &Platforms,
        progress: &Progress,
        hold: &mut Hold,
    ) -> (Brought, Option<Failure>) {
        let mut brought = Brought::of(written(place, reference));
        let named = (place, reference);
        match self.walk(named, platforms, progress, &mut brought, hold).await {
            Ok(stale) => {
                brought.result = if stale.is_some() {
                    BroughtResult::Stale
                } else if brought.fetched == Amount::default() {
                    BroughtResult::Here
                } else {
                    BroughtResult::Fetched
                };
                brought.reason = stale.map(|error| error.message);
                (brought, None)
            }
            Err(failure) => {
                brought.reason = Some(failure.reason.clone());
                (brought, Some(failure))
            }
        }
    }

    /// Fetches all that lacks. Gives why the upstream could not confirm the tag, if so.
    async fn walk(
        &self,
        (place, reference): (&Place, &Reference),
        platforms: &Platforms,
        progress: &Progress,
        brought: &mut Brought,
        hold: &mut Hold,
    ) -> Result<Option<Error>, Failure> {
        let (mut stale, mut blobs, mut seen) = (None, Vec::new(), HashSet::new());
        let mut left = vec![(reference.clone(), 0)];
        while let Some((reference, depth)) = left.pop() {
            if progress.is_stopped() {
                return Err(Failure::of("it was stopped"));
            }
            let current = self.cache.current(place, &reference).await?;
            let Current {
                manifest,
                fetched,
                stale: unconfirmed,
            } = current;
            if depth == 0 {
                brought.digest = Some(manifest.digest.to_string());
                stale = unconfirmed;
            }
            seen.insert(manifest.digest);
            hold.add(manifest.digest);
            let amount = brought.count(fetched);
            amount.manifests += 1;
            amount.bytes += manifest.bytes.len() as u64;
            let outline = Manifest::parse(&manifest.bytes, Some(&manifest.media_type))
                .map_err(|error| Failure::of(error.to_string()))?;
            let entries = if outline.kind == Kind::Index {
                let chosen = choose(&outline.manifests, platforms).map_err(Failure::of)?;
                let platforms = chosen.iter().filter_map(|entry| entry.platform.as_ref());
                brought.platforms.extend(platforms.map(ToString::to_string));
                chosen
            } else {
                outline.blobs.iter().collect()
            };
            for entry in entries {
                let Ok(digest) = entry.digest.parse::<Digest>() else {
                    return Err(Failure::of(format!("{} cannot be verified here", entry.digest)));
                };
                if !seen.insert(digest) {
                    continue;
                }
                if outline.kind == Kind::Index && !names_a_blob(&entry.media_type) {
                    if depth == MOST_DEEP {
                        return Err(Failure::of("its indexes lie too deep within each other"));
                    }
                    left.push((Reference::Digest(digest), depth + 1));
                } else if !is_elsewhere(entry) {
                    hold.add(digest);
                    blobs.push((digest, entry.size));
                }
            }
        }
        self.blobs(place, &blobs, progress, brought).await?;
        Ok(stale)
    }

    /// Fetches the blobs that lack, some at a time; the first failure is told when all have been tried.
    async fn blobs(
        &self,
        place: &Place,
        blobs: &[(Digest, u64)],
        progress: &Progress,
        brought: &mut Brought,
    ) -> Result<(), Failure> {
        let of = brought.reference.clone();
        let fetch = |(digest, size): (Digest, u64)| {
            let of = of.clone();
            async move {
                let part = progress.part(digest.to_string(), of, Some(size));
                let bring = self.cache.have_blob(place, &digest, |present| part.at(present));
                let came = tokio::select! {
                    came = bring => came.map_err(Failure::from),
                    () = progress.stopped() => Err(Failure::of("it was stopped")),
                };
                part.end(match &came {
                    Ok(true) => PartState::Done,
                    Ok(false) => PartState::Here,
                    Err(_) => PartState::Failed,
                });
                (digest, size, came)
            }
        };
        let mut failure = None;
        let mut running = stream::iter(blobs.iter().copied())
            .map(fetch)
            .buffer_unordered(AT_ONCE);
        while let Some((digest, size, came)) = running.next().await {
            match came {
                Ok(fetched) => {
                    let amount = brought.count(fetched);
                    amount.blobs += 1;
                    amount.bytes += size;
                }
                Err(Failure {
                    reason,
                    is_limited,
                    may_pass,
                }) => {
                    failure.get_or_insert(Failure {
                        reason: format!("{digest}: {reason}"),
                        is_limited,
                        may_pass,
                    });
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }
}
