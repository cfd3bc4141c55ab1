//! Asking the upstream whether a tag still points where it did: by HEAD, which costs no pull; GET only when it moved.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::oci::{Digest, Reference, Tag};
use crate::repository::{Key, StoredManifest, TagState};
use crate::upstream::{self, Purpose};

use super::error::{Error, ErrorKind};
use super::freshness::{self, Jitter, Known, LEFT_ALONE, MOST_LEFT_ALONE, Verdict};
use super::negative::Missing;
use super::{Place, Shared};

/// Tags whose revalidation failed just now: the next clients do not wait for the same failure.
pub(super) struct Troubled {
    tags: moka::sync::Cache<(Key, Tag), Trouble>,
}

/// That a tag was asked for in vain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trouble {
    /// Until when the upstream is left alone.
    pub(super) until: Timestamp,
    /// What it answered with.
    pub(super) status: Option<u16>,
}

impl Default for Troubled {
    fn default() -> Self {
        let tags = moka::sync::Cache::builder()
            .max_capacity(100_000)
            .time_to_live(MOST_LEFT_ALONE)
            .build();
        Self { tags }
    }
}

impl Troubled {
    pub(super) fn get(&self, place: &Place, tag: &Tag) -> Option<Trouble> {
        self.tags.get(&(place.key.clone(), tag.clone()))
    }

    fn note(&self, place: &Place, tag: &Tag, span: Duration, status: Option<u16>) {
        let until = Timestamp::now().after(span);
        let trouble = Trouble { until, status };
        self.tags.insert((place.key.clone(), tag.clone()), trouble);
    }

    /// Whoever was spared a failing question may ask again.
    pub(super) fn forget(&self, place: &Place, tag: &Tag) {
        self.tags.invalidate(&(place.key.clone(), tag.clone()));
    }

    /// Notes that a client waited for the answer in vain, unless more is known by now.
    pub(super) fn note_late(&self, place: &Place, tag: &Tag) {
        let until = Timestamp::now().after(LEFT_ALONE);
        let late = Trouble { until, status: None };
        self.tags.entry((place.key.clone(), tag.clone())).or_insert(late);
    }
}

/// How a revalidation ended.
#[derive(Clone)]
pub(super) enum Revalidated {
    /// The tag points where it did.
    Unchanged(TagState),
    /// It points at this one now.
    Moved(Arc<StoredManifest>),
    /// The upstream does not know it any more; the copy is still served.
    Gone { state: TagState, status: Option<u16> },
    /// So for longer than `gone_ttl`: the copy is no longer served under this tag.
    Forgotten(Error),
}

/// What may be done now with a tag that is in `state` and was perhaps asked for in vain.
pub(super) fn judge(place: &Place, tag: &Tag, state: &TagState, trouble: Option<Trouble>) -> Verdict {
    let known = Known::of(state, trouble.map(|trouble| trouble.until));
    let jitter = Jitter::of(&place.key, tag);
    freshness::judge(&known, Timestamp::now(), &place.freshness_now(tag), jitter)
}

/// Until when a tag that was confirmed is fresh, as it looks now.
pub(super) fn fresh_until(place: &Place, tag: &Tag, state: &TagState) -> Timestamp {
    let ttl = place.freshness_now(tag).tag_ttl;
    state.validated_at.after(Jitter::of(&place.key, tag).shorten(ttl))
}

impl Shared {
    /// Asks the upstream, and notes what came of it: here, because whoever waits may leave. As urgent as `place` says.
    pub(super) async fn revalidate(
        self: Arc<Self>,
        place: Place,
        tag: Tag,
        state: TagState,
    ) -> Result<Revalidated, Error> {
        let outcome = self.compare(&place, &tag, state).await;
        match &outcome {
            Ok(Revalidated::Gone { status, .. }) => self.troubled.note(&place, &tag, LEFT_ALONE, *status),
            Ok(_) => self.troubled.forget(&place, &tag),
            // Online again, it is asked at once.
            Err(error) if error.kind == ErrorKind::Offline => {}
            // What is refused to work that nobody waits for may still be given to a client.
            Err(error)
                if place.errand().purpose.get() == Purpose::Background
                    && matches!(error.kind, ErrorKind::RateLimited { .. }) => {}
            Err(error) => {
                let span = freshness::left_alone_for(error);
                self.troubled.note(&place, &tag, span, error.upstream_status);
            }
        }
        outcome
    }

    /// Holds what is here against the upstream.
    async fn compare(
        self: &Arc<Self>,
        place: &Place,
        tag: &Tag,
        state: TagState,
    ) -> Result<Revalidated, Error> {
        let reference = Reference::Tag(tag.clone());
        let head = place
            .upstream
            .manifest_head(&place.name, &reference, &place.errand())
            .await;
        let digest = match head {
            Ok(head) => {
                // It may have become private since it was pulled. That we cannot tell (a limit, a failure) hides nothing.
                match self.visible_manifest(place, &reference).await {
                    Err(error) if !error.allows_stale => return self.gone(place, tag, state, error).await,
                    _ => head.digest,
                }
            }
            Err(error) if is_gone(&error) => {
                let told = Error::of_upstream(place, &error, ErrorKind::ManifestUnknown);
                let outcome = self.gone(place, tag, state, told).await?;
                if matches!(outcome, Revalidated::Forgotten(_)) {
                    // From now on it is a tag like any that is not there.
                    self.negative.learn(place, Missing::Manifest(reference), &error);
                }
                return Ok(outcome);
            }
            // HEAD is not answered here: GET decides.
            Err(error) if *error.kind() == upstream::ErrorKind::HeadRefused => None,
            Err(error) => return Err(Error::of_upstream(place, &error, ErrorKind::ManifestUnknown)),
        };
        let Some(digest) = digest else {
            return self.compare_by_get(place, tag, state).await;
        };
        // Unchanged, or moved to something that is here: nothing to fetch.
        let manifest = match self.linked_manifest(place, &digest).await? {
            Some(manifest) => manifest,
            // By digest, so that what we store is what HEAD spoke of; the tag follows once the bytes are here.
            None => self.fetch_digest(place, &digest).await?,
        };
        if digest == state.digest {
            return Ok(Revalidated::Unchanged(self.confirm_tag(place, tag, digest)));
        }
        let in_use = self.platforms_in_use(place, &state.digest, &manifest).await?;
        if let Err(error) = self.bring_manifests(place, &in_use).await
            && judge(place, tag, &state, None) <= Verdict::UsableOnError
        {
            return Err(error);
        }
        self.confirm_tag(place, tag, digest);
        self.bring_blobs(place, in_use);
        Ok(Revalidated::Moved(manifest))
    }

    /// The same where HEAD does not tell.
    async fn compare_by_get(&self, place: &Place, tag: &Tag, state: TagState) -> Result<Revalidated, Error> {
        let moved = match self.fetch_manifest(place, &Reference::Tag(tag.clone())).await {
            Err(error) if error.kind == ErrorKind::ManifestUnknown => {
                return self.gone(place, tag, state, error).await;
            }
            fetched => fetched?,
        };
        if moved.digest == state.digest {
            let confirmed = TagState {
                validated_at: Timestamp::now(),
                gone_since: None,
                ..state
            };
            return Ok(Revalidated::Unchanged(confirmed));
        }
        Ok(Revalidated::Moved(moved))
    }

    /// The upstream says that the tag points at `digest`, which is here.
    pub(super) fn confirm_tag(&self, place: &Place, tag: &Tag, digest: Digest) -> TagState {
        let confirmed = TagState {
            digest,
            validated_at: Timestamp::now(),
            gone_since: None,
        };
        self.troubled.forget(place, tag);
        self.repositories.put_tag(&place.key, tag, confirmed);
        confirmed
    }

    /// A healthy upstream says that the tag is not there: served for a while still, then forgotten. What its digest
    /// reaches stays.
    async fn gone(
        &self,
        place: &Place,
        tag: &Tag,
        state: TagState,
        error: Error,
    ) -> Result<Revalidated, Error> {
        let now = Timestamp::now();
        // A stamp of the future is one of a clock that was turned back.
        let gone_since = state.gone_since.map_or(now, |since| since.min(now));
        if freshness::is_served_though_gone(gone_since, now, place.freshness_of(tag)) {
            let state = TagState {
                gone_since: Some(gone_since),
                ..state
            };
            let status = error.upstream_status;
            self.repositories.put_tag(&place.key, tag, state);
            return Ok(Revalidated::Gone { state, status });
        }
        self.repositories.remove_tag(&place.key, tag).await?;
        self.forget_pulls(place, &Reference::Tag(tag.clone()));
        tracing::info!(repository = &*place.key, %tag, "a tag is gone from its upstream for longer than gone_ttl, forgotten");
        Ok(Revalidated::Forgotten(error))
    }
}

/// Whether the registry itself said that the tag is not there. A token service that refuses says nothing about it.
fn is_gone(error: &upstream::Error) -> bool {
    error.is_not_found() && !error.allows_stale()
}
