//! Looking at what is here without using it: why a reference would now be a hit, stale or a miss, and how the engine
//! stands. Asks no upstream, fetches nothing, and counts as no use.

use std::time::Instant;

use crate::clock::Timestamp;
use crate::oci::{Reference, Tag};
use crate::repository::TagState;
use crate::storage::Index;
use crate::upstream::{self, LoginState, Purpose, Stretch, Upstream};

use super::error::Error;
use super::freshness::{Jitter, Verdict};
use super::inflight::Opened;
use super::look::Found;
use super::negative::Missing;
use super::report::{
    BudgetReport, Content, CredentialReport, EndpointReport, Expected, Explanation, FillReport, HeldReport,
    Room, SlowedReport, State, TagReport, UpstreamReport, UpstreamState, span,
};
use super::revalidate::judge;
use super::{Cache, Place};

impl Cache {
    /// Why `reference` would now be a hit, stale, or a miss.
    pub async fn explain(&self, place: &Place, reference: &Reference) -> Result<Explanation, Error> {
        let now = Timestamp::now();
        let (tag, digest) = match reference {
            Reference::Digest(digest) => (None, Some(*digest)),
            Reference::Tag(tag) => {
                let state = self.shared.repositories.tag(&place.key, tag).await?;
                (state.map(|state| (tag, state)), state.map(|state| state.digest))
            }
        };
        let found = match digest {
            Some(digest) => self.look(place, digest).await?,
            None => Found::default(),
        };
        let missing = Missing::Manifest(reference.clone());
        let negative = self
            .shared
            .negative
            .left(place, missing)
            .or_else(|| match reference {
                Reference::Digest(digest) => self.shared.negative.left(place, Missing::Blob(*digest)),
                Reference::Tag(_) => None,
            });
        let negative = negative.map(|left| left.as_secs());
        let (expected, asks_upstream, reason) = match &tag {
            Some((tag, state)) => self.expect_of_tag(place, tag, state, &found, now),
            None => expect_of_digest(reference, &found, negative, self.is_offline()),
        };
        Ok(Explanation {
            reference: written(place, reference),
            repository: place.key.to_string(),
            expected,
            asks_upstream: asks_upstream && !self.is_offline(),
            reason,
            offline: self.is_offline(),
            upstream: self.upstream_report(&place.upstream),
            tag: tag.map(|(tag, state)| self.tag_report(place, tag, &state, now)),
            negative_seconds: negative,
            manifest: found.manifest,
            blob: found.blob,
            here: found.here,
            eviction: found.eviction,
            pinned: found.pinned,
        })
    }

    /// What is kept.
    pub async fn content(&self) -> Result<Content, Error> {
        let count = |index: &Index| Ok((index.totals()?, index.tag_count()?));
        let (totals, tags) = self.shared.storage.index.read(count).await?;
        Ok(Content {
            blobs: totals.blobs,
            manifests: totals.manifests,
            tags,
        })
    }

    /// The room that this takes.
    pub async fn room(&self) -> Result<Room, Error> {
        let blobs = &self.shared.storage.blobs;
        let space = blobs.space().clone();
        let usage = tokio::task::spawn_blocking(move || space.usage())
            .await
            .map_err(|_| Error::internal("looking at the room was given up"))?;
        Ok(Room {
            used: usage.used,
            index: usage.index,
            limit: usage.limit,
            limit_for_blobs: usage.limit_for_blobs,
            disk_free: usage.disk_free,
            interrupted: blobs.interrupted().len() as u64,
            quarantined: blobs.quarantined().len() as u64,
        })
    }

    /// The downloads in progress, the fullest first.
    pub fn fills(&self) -> Vec<FillReport> {
        let mut fills: Vec<_> = self
            .shared
            .fills
            .all()
            .into_iter()
            .map(|(digest, repository, opened)| {
                let (present, size, readers) = match &opened {
                    Some(Opened::Growing(growing)) => {
                        (growing.present(), growing.size(), growing.readers_now())
                    }
                    Some(Opened::Stored(blob)) => (blob.size(), Some(blob.size()), 0),
                    None => (0, None, 0),
                };
                FillReport {
                    digest: digest.to_string(),
                    repository: repository.to_string(),
                    present,
                    size,
                    readers,
                }
            })
            .collect();
        fills.sort_by(|a, b| b.present.cmp(&a.present).then_with(|| a.digest.cmp(&b.digest)));
        fills
    }

    /// How an upstream was when it was last asked.
    pub fn upstream_report(&self, upstream: &Upstream) -> UpstreamReport {
        let health = self.shared.metrics.upstream(upstream.prefix()).health();
        let ago = |at: Instant| at.elapsed().as_secs();
        let told = pulls_report(upstream, Timestamp::now());
        let state = match &health.failed {
            Some((_, status)) if health.is_failing() && &**status == "429" => UpstreamState::Limited,
            Some(_) if health.is_failing() => UpstreamState::Failing,
            _ if told.exhausted => UpstreamState::Limited,
            _ if health.answered.is_some() => UpstreamState::Well,
            _ => UpstreamState::Unasked,
        };
        UpstreamReport {
            prefix: upstream.prefix().to_owned(),
            url: upstream.config().url.to_string(),
            state,
            answered_seconds: health.answered.map(ago),
            failed_seconds: health.failed.as_ref().map(|(at, _)| ago(*at)),
            failure: health.failed.map(|(_, status)| status.into()),
            endpoints: upstream
                .endpoint_states()
                .into_iter()
                .map(|endpoint| EndpointReport {
                    host: endpoint.host,
                    breaker: endpoint.breaker.as_str().to_owned(),
                })
                .collect(),
            limit: told.limit,
            remaining: told.remaining,
            ttl_percent: told.ttl_percent,
            budgets: told.budgets,
            pulls_saved: told.saved,
            held: told.held,
            slowed: told.slowed,
            bandwidth: upstream.bandwidth(),
            credentials: upstream
                .login_states()
                .into_iter()
                .map(credential_report)
                .collect(),
        }
    }

    fn tag_report(&self, place: &Place, tag: &Tag, state: &TagState, now: Timestamp) -> TagReport {
        TagReport {
            name: tag.as_str().to_owned(),
            digest: state.digest.to_string(),
            validated_at: state.validated_at,
            age_seconds: now.since(state.validated_at).as_secs(),
            ttl_seconds: place.freshness_of(tag).tag_ttl.as_secs(),
            stretched_ttl_seconds: place.stretched_ttl(tag).map(|ttl| ttl.as_secs()),
            rule: place
                .upstream
                .config()
                .rule_of(&place.key, tag.as_str())
                .map(|rule| rule.pattern.as_str().to_owned()),
            gone_since: state.gone_since,
            troubled: self.troubled(place, tag).is_some(),
        }
    }

    /// How the tag's revalidation failed a moment ago, in words; `None` when it did not.
    fn troubled(&self, place: &Place, tag: &Tag) -> Option<String> {
        let trouble = self.shared.troubled.get(place, tag)?;
        Some(
            trouble
                .status
                .map_or_else(String::new, |status| format!(" ({status})")),
        )
    }

    fn expect_of_tag(
        &self,
        place: &Place,
        tag: &Tag,
        state: &TagState,
        found: &Found,
        now: Timestamp,
    ) -> (Expected, bool, String) {
        let settings = &place.freshness_now(tag);
        let here = found
            .manifest
            .as_ref()
            .is_some_and(|manifest| manifest.state == State::Here);
        if !here {
            let reason = if self.is_offline() {
                "the manifest that the tag points at is not here, and this cache is offline: a pull fails"
            } else {
                "the manifest that the tag points at is not here: it is fetched by its digest"
            };
            return (Expected::Miss, true, reason.to_owned());
        }
        let age = now.since(state.validated_at);
        let confirmed = format!("the upstream confirmed the tag {} ago", span(age.as_secs()));
        let ttl = span(settings.tag_ttl.as_secs());
        let stretched = if place.stretched_ttl(tag).is_some() {
            let report = self.upstream_report(&place.upstream);
            let own = span(place.freshness_of(tag).tag_ttl.as_secs());
            let left = report.remaining.unwrap_or_default();
            let of = report.limit.unwrap_or_default();
            format!(" (instead of {own}, since {left} of {of} pulls are left)")
        } else {
            String::new()
        };
        let verdict = judge(place, tag, state, self.shared.troubled.get(place, tag));
        if verdict == Verdict::Fresh {
            let due = Jitter::of(&place.key, tag).shorten(settings.tag_ttl);
            let left = span(due.saturating_sub(age).as_secs());
            return (
                Expected::Hit,
                false,
                format!("{confirmed}: fresh for another {left}{stretched}"),
            );
        }
        if self.is_offline() {
            if verdict == Verdict::Gone {
                let reason = "the upstream said for longer than gone_ttl that the tag does not exist, and this cache is offline: a pull fails";
                return (Expected::Miss, false, reason.to_owned());
            }
            let reason = format!("{confirmed}, and this cache is offline: the copy is served at once");
            return (Expected::Stale, false, reason);
        }
        if verdict == Verdict::Stale {
            let why = self.troubled(place, tag).unwrap_or_default();
            let reason =
                format!("{confirmed}, and asking again failed a moment ago{why}: the copy is served at once");
            return (Expected::Stale, false, reason);
        }
        let asked = "so the upstream is asked first; the copy is served";
        let reason = match (state.gone_since, verdict) {
            (Some(since), Verdict::Gone) => format!(
                "the upstream has said for {} that the tag does not exist, longer than gone_ttl ({}): {asked} only if it has the tag again",
                span(now.since(since).as_secs()),
                span(settings.gone_ttl.as_secs())
            ),
            (Some(since), _) => {
                let (gone, left) = (
                    now.since(since),
                    settings.gone_ttl.saturating_sub(now.since(since)),
                );
                format!(
                    "the upstream has said for {} that the tag does not exist: it is asked again, and the copy is served for another {}",
                    span(gone.as_secs()),
                    span(left.as_secs())
                )
            }
            (None, Verdict::Revalidate) => format!(
                "{confirmed}, longer ago than tag_ttl ({ttl}{stretched}) and stale_if_error ({}) together: {asked} only if it confirms it",
                span(settings.stale_if_error.as_secs())
            ),
            (None, _) => {
                format!(
                    "{confirmed}, its tag_ttl is {ttl}{stretched}: {asked} if it is unchanged or the upstream fails"
                )
            }
        };
        (Expected::Stale, true, reason)
    }
}

/// Prefix, name and tag or digest, as a person would write it for this cache.
pub fn written(place: &Place, reference: &Reference) -> String {
    match reference {
        Reference::Tag(tag) => format!("{}:{tag}", place.key),
        Reference::Digest(digest) => format!("{}@{digest}", place.key),
    }
}

/// What to expect of a digest, or of a tag that is not here.
fn expect_of_digest(
    reference: &Reference,
    found: &Found,
    negative: Option<u64>,
    offline: bool,
) -> (Expected, bool, String) {
    let state = found
        .manifest
        .as_ref()
        .map(|manifest| manifest.state)
        .or(found.blob.as_ref().map(|blob| blob.state));
    match (state, negative) {
        (Some(State::Here), _) => {
            let reason = "it is here, and what a digest names never changes";
            (Expected::Hit, false, reason.to_owned())
        }
        (_, Some(left)) => {
            let reason = format!(
                "the upstream did not have it a moment ago, which is believed for another {}",
                span(left)
            );
            (Expected::Negative, false, reason)
        }
        (Some(State::Partial), _) if !offline => {
            let reason = "it is being fetched: a client reads it while it arrives";
            (Expected::Miss, false, reason.to_owned())
        }
        _ if offline => {
            let reason = "it is not here, and this cache is offline: a pull fails";
            (Expected::Miss, false, reason.to_owned())
        }
        _ => {
            let reason = match reference {
                Reference::Tag(_) => "this tag was not pulled through here before, or it was removed",
                Reference::Digest(_) => "it is not here",
            };
            (Expected::Miss, true, reason.to_owned())
        }
    }
}

fn credential_report(login: LoginState) -> CredentialReport {
    let (left, reason) = login.aside.unzip();
    CredentialReport {
        name: login.name,
        kind: login.kind.to_owned(),
        set_aside_seconds: left.map(|left| left.as_secs()),
        reason,
    }
}

/// What is told of an upstream's pulls.
struct PullsTold {
    limit: Option<u64>,
    remaining: Option<u64>,
    exhausted: bool,
    ttl_percent: Option<u64>,
    budgets: Vec<BudgetReport>,
    saved: u64,
    held: HeldReport,
    slowed: Vec<SlowedReport>,
}

fn pulls_report(of: &Upstream, now: Timestamp) -> PullsTold {
    let pulls = of.pulls();
    // What is only known of, such as what anybody may pull beside our login, is of no use.
    let any_in_use = pulls.budgets.iter().any(|budget| budget.in_use);
    let in_use = || pulls.budgets.iter().filter(|budget| budget.in_use || !any_in_use);
    let sum =
        |of: fn(&upstream::BudgetReport) -> Option<u64>| in_use().filter_map(of).reduce(u64::saturating_add);
    let held = |wanted| {
        let found = pulls.held.iter().find(|(purpose, _)| *purpose == wanted);
        found.map_or(0, |(_, count)| *count)
    };
    let stretch = of.stretch();
    PullsTold {
        limit: sum(|budget| budget.limit),
        remaining: sum(|budget| budget.left),
        exhausted: !pulls.budgets.is_empty() && in_use().all(|budget| budget.exhausted),
        ttl_percent: (stretch != Stretch::NONE).then(|| stretch.percent()),
        saved: pulls.saved,
        held: HeldReport {
            background: held(Purpose::Background),
            refresh: held(Purpose::Refresh),
            miss: held(Purpose::Miss),
        },
        budgets: pulls
            .budgets
            .into_iter()
            .map(|budget| BudgetReport {
                credential: budget.credential,
                source: budget.source,
                limit: budget.limit,
                remaining: budget.left,
                back_seconds: budget.back_at.map(|at| at.since(now).as_secs()),
                empty_seconds: budget.lasts.map(|span| span.as_secs()),
                exhausted: budget.exhausted,
            })
            .collect(),
        slowed: pulls
            .slowed
            .into_iter()
            .map(|slowed| SlowedReport {
                host: slowed.host,
                interval_millis: u64::try_from(slowed.interval.as_millis()).unwrap_or(u64::MAX),
                pause_seconds: slowed.pause.as_secs(),
            })
            .collect(),
    }
}
