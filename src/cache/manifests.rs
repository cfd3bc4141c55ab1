//! Manifests by digest and by tag: from memory while fresh, revalidated when due, fetched once when not here.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::clock::LastUse;
use crate::oci::{Digest, Manifest, ManifestError, MediaType, Reference, Tag};
use crate::repository::{StoredManifest, TagState};
use crate::upstream::{self, FetchedManifest, Purpose};

use super::error::{Error, ErrorKind};
use super::eviction;
use super::freshness::Verdict;
use super::negative::Missing;
use super::revalidate::{Revalidated, judge};
use super::status::{Answer, CacheStatus, Outcome};
use super::{Cache, Place, Shared};

type Found = Answer<Arc<StoredManifest>>;

impl Cache {
    /// A manifest, verified and verbatim.
    pub async fn manifest(&self, place: &Place, reference: &Reference) -> Result<Found, Error> {
        match reference {
            Reference::Digest(digest) => self.manifest_by_digest(place, digest).await,
            Reference::Tag(tag) => self.manifest_by_tag(place, tag).await,
        }
    }

    /// The same, of what is here alone.
    pub async fn manifest_here(&self, place: &Place, reference: &Reference) -> Result<Option<Found>, Error> {
        let digest = match reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(tag) => {
                let state = self.shared.repositories.tag(&place.key, tag).await?;
                state.map(|state| state.digest)
            }
        };
        let Some(digest) = digest else { return Ok(None) };
        let manifest = self.shared.linked_manifest(place, &digest).await?;
        Ok(manifest.map(|manifest| Answer::new(manifest, CacheStatus::stale(None))))
    }

    async fn manifest_by_digest(&self, place: &Place, digest: &Digest) -> Result<Found, Error> {
        if let Some(manifest) = self.shared.linked_manifest(place, digest).await? {
            if !self.shared.is_known_open(place) {
                let reference = Reference::Digest(*digest);
                Box::pin(self.shared.visible_though_here(place, &reference)).await?;
            }
            return Ok(Answer::new(manifest, CacheStatus::HIT));
        }
        Box::pin(self.fetch(place, Reference::Digest(*digest))).await
    }

    async fn manifest_by_tag(&self, place: &Place, tag: &Tag) -> Result<Found, Error> {
        let Some((state, asked)) = self.shared.repositories.asked_tag(&place.key, tag).await? else {
            return Box::pin(self.fetch(place, Reference::Tag(tag.clone()))).await;
        };
        if !self.shared.is_known_open(place) {
            let reference = Reference::Tag(tag.clone());
            Box::pin(self.shared.visible_though_here(place, &reference)).await?;
        }
        if judge(place, tag, &state, None) == Verdict::Fresh {
            if place.upstream.config().refresh_ahead {
                self.shared.heat.asked(place, tag, &state, asked);
            }
            return self.pointed_at(place, &state, CacheStatus::HIT).await;
        }
        // Boxed, like all that is not the warm path: its size would be every request's size.
        Box::pin(self.due_manifest(place, tag, state)).await
    }

    /// A tag that is due: revalidated, or served stale if it may be and the upstream fails or takes too long. One clock
    /// runs over all that the revalidation does: names, tokens, retries, following the tag to where it moved.
    async fn due_manifest(&self, place: &Place, tag: &Tag, state: TagState) -> Result<Found, Error> {
        let trouble = self.shared.troubled.get(place, tag);
        let verdict = judge(place, tag, &state, trouble);
        // However old it is: nobody will tell anything newer. But what was gone for too long counts as deleted.
        if verdict != Verdict::Gone && place.upstream.offline().is_on() {
            return self.pointed_at(place, &state, CacheStatus::OFFLINE).await;
        }
        if verdict <= Verdict::Stale {
            let status = CacheStatus::stale(trouble.and_then(|trouble| trouble.status));
            return self.pointed_at(place, &state, status).await;
        }
        let usable = verdict == Verdict::UsableOnError;
        // One that may not be served is as good as none.
        let its = if usable { place.with_copy() } else { place.clone() };
        let run = self.revalidate_for(its, tag, state);
        let (outcome, collapsed) = if usable {
            let limit = place.freshness_of(tag).wait_with_copy();
            let Ok(finished) = tokio::time::timeout(limit, run).await else {
                // The revalidation goes on behind this answer, and nobody else waits for it.
                self.shared.troubled.note_late(place, tag);
                return self.pointed_at(place, &state, CacheStatus::stale(None)).await;
            };
            finished
        } else {
            run.await
        };
        match outcome.unwrap_or_else(|| Err(Error::internal("a revalidation was given up"))) {
            Ok(Revalidated::Unchanged(state)) => {
                let status = CacheStatus {
                    collapsed,
                    ..CacheStatus::of(Outcome::Revalidated)
                };
                self.pointed_at(place, &state, status).await
            }
            Ok(Revalidated::Moved(manifest)) => Ok(Answer::new(manifest, CacheStatus::miss(collapsed))),
            Ok(Revalidated::Gone { state, status }) => {
                self.pointed_at(place, &state, CacheStatus::stale(status)).await
            }
            // "Not found" too: of a token service, or of the digest that the tag is said to have moved to.
            Err(error) if usable => {
                self.pointed_at(place, &state, CacheStatus::stale_for(&error))
                    .await
            }
            Ok(Revalidated::Forgotten(error)) | Err(error) => Err(error),
        }
    }

    /// Asks the upstream about a tag for a client, or joins those who do. The flag says "joined".
    async fn revalidate_for(
        &self,
        place: Place,
        tag: &Tag,
        state: TagState,
    ) -> (Option<Result<Revalidated, Error>>, bool) {
        match self.revalidating(&place, tag, state).await {
            // It was not asked before we came, for somebody who is less urgent.
            (Some(Err(error)), true)
                if error.held
                    && place.purpose > Purpose::Background
                    && (place.purpose == Purpose::Miss
                        || self.shared.troubled.get(&place, tag).is_none()) =>
            {
                self.revalidating(&place, tag, state).await
            }
            ended => ended,
        }
    }

    /// The same, as urgently as the most urgent of them.
    pub(super) async fn revalidating(
        &self,
        place: &Place,
        tag: &Tag,
        state: TagState,
    ) -> (Option<Result<Revalidated, Error>>, bool) {
        let reference = Reference::Tag(tag.clone());
        let waiting = self.shared.urgency.wait(place, &reference);
        let work = || {
            let asking = self.shared.urgency.wait(place, &reference);
            let (shared, its, tag) = (self.shared.clone(), asking.asks(place), tag.clone());
            async move {
                let _asking = asking;
                shared.revalidate(its, tag, state).await
            }
        };
        let key = (place.key.clone(), tag.clone());
        let ended = self.shared.revalidations.run(key, work).await;
        drop(waiting);
        ended
    }

    /// The manifest that a tag points at. Its bytes were stored before the tag, so they are only missing when somebody
    /// took them away: then the digest is asked for.
    async fn pointed_at(&self, place: &Place, state: &TagState, status: CacheStatus) -> Result<Found, Error> {
        match self.shared.linked_manifest(place, &state.digest).await? {
            Some(manifest) => Ok(Answer::new(manifest, status)),
            None => Box::pin(self.fetch(place, Reference::Digest(state.digest))).await,
        }
    }

    /// Fetches what is not here: one request for all who want it.
    async fn fetch(&self, place: &Place, reference: Reference) -> Result<Found, Error> {
        self.shared
            .negative
            .check(place, Missing::Manifest(reference.clone()))?;
        let (manifest, collapsed) = self.shared.obtain(place, &reference).await?;
        Ok(Answer::new(manifest, CacheStatus::miss(collapsed)))
    }
}

impl Shared {
    /// A manifest that is here and that this repository may serve.
    pub(super) async fn linked_manifest(
        &self,
        place: &Place,
        digest: &Digest,
    ) -> Result<Option<Arc<StoredManifest>>, Error> {
        let manifest = self.kept_manifest(place, digest).await?;
        if let Some(manifest) = &manifest {
            self.access.touch(digest, &manifest.last_use);
        }
        Ok(manifest)
    }

    /// The same, which is no use of it.
    pub(super) async fn kept_manifest(
        &self,
        place: &Place,
        digest: &Digest,
    ) -> Result<Option<Arc<StoredManifest>>, Error> {
        let link = self.repositories.link(&place.key, digest).await?;
        if link.is_none_or(|link| !link.manifest) {
            return Ok(None);
        }
        Ok(self.repositories.manifest(digest).await?)
    }

    /// GETs a manifest by digest, together with all who want it at the moment.
    pub(super) async fn fetch_digest(
        self: &Arc<Self>,
        place: &Place,
        digest: &Digest,
    ) -> Result<Arc<StoredManifest>, Error> {
        let (manifest, _) = self.obtain(place, &Reference::Digest(*digest)).await?;
        Ok(manifest)
    }

    /// The manifest, fetched if it is not here: one request for all who want it. The flag says that another client began it.
    pub(super) async fn obtain(
        self: &Arc<Self>,
        place: &Place,
        reference: &Reference,
    ) -> Result<(Arc<StoredManifest>, bool), Error> {
        let mut again = true;
        loop {
            let _waiting = self.urgency.wait(place, reference);
            let work = || {
                let asking = self.urgency.wait(place, reference);
                let fetching = self.clone().fetching(asking.asks(place), reference.clone());
                async move {
                    let _asking = asking;
                    fetching.await
                }
            };
            let key = (place.key.clone(), reference.clone());
            let (manifest, collapsed) = self.fetches.run(key, work).await;
            match manifest.unwrap_or_else(|| Err(Error::internal("fetching a manifest was given up"))) {
                // It was not asked before we came, for somebody who is less urgent.
                Err(error) if error.held && collapsed && std::mem::take(&mut again) => {}
                manifest => return manifest.map(|manifest| (manifest, collapsed)),
            }
        }
    }

    /// [`Shared::fetch_if_missing`] as a task of its own, which may want another of its kind.
    fn fetching(
        self: Arc<Self>,
        place: Place,
        reference: Reference,
    ) -> BoxFuture<'static, Result<Arc<StoredManifest>, Error>> {
        Box::pin(async move { self.fetch_if_missing(&place, &reference).await })
    }

    /// GETs a manifest, unless it has come between the client's look and this run: a herd is one request.
    async fn fetch_if_missing(
        self: &Arc<Self>,
        place: &Place,
        reference: &Reference,
    ) -> Result<Arc<StoredManifest>, Error> {
        let digest = match reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(tag) => {
                let state = self.repositories.tag(&place.key, tag).await?;
                let fresh = |state: &TagState| judge(place, tag, state, None) == Verdict::Fresh;
                state.filter(fresh).map(|state| state.digest)
            }
        };
        if let Some(digest) = digest
            && let Some(manifest) = self.linked_manifest(place, &digest).await?
        {
            return Ok(manifest);
        }
        match reference {
            Reference::Tag(tag) if place.upstream.counts_pulls(&place.name) => {
                self.fetch_sparingly(place, tag).await
            }
            _ => self.fetch_manifest(place, reference).await,
        }
    }

    /// A tag that is not here, where a GET costs a pull: a HEAD, which costs none, tells what it points at. That may be
    /// here under another tag, and if not, its digest may be had from a mirror.
    async fn fetch_sparingly(
        self: &Arc<Self>,
        place: &Place,
        tag: &Tag,
    ) -> Result<Arc<StoredManifest>, Error> {
        let reference = Reference::Tag(tag.clone());
        if !place.upstream.may_pull(&place.name, &place.errand()) && !self.may_be_here(place, tag).await? {
            return self.fetch_manifest(place, &reference).await;
        }
        self.visible_manifest(place, &reference).await?;
        let head = place
            .upstream
            .manifest_head(&place.name, &reference, &place.errand())
            .await;
        let digest = match head {
            Ok(head) => head.digest,
            Err(error) if error.is_absent() => {
                self.negative.learn(place, Missing::Manifest(reference), &error);
                return Err(Error::of_upstream(place, &error, ErrorKind::ManifestUnknown));
            }
            // It would meet the same.
            Err(error) if matches!(error.kind(), upstream::ErrorKind::RateLimited { .. }) => {
                return Err(Error::of_upstream(place, &error, ErrorKind::ManifestUnknown));
            }
            // GET decides.
            Err(_) => None,
        };
        let Some(digest) = digest else {
            return self.fetch_manifest(place, &reference).await;
        };
        let manifest = match self.linked_manifest(place, &digest).await? {
            Some(manifest) => manifest,
            None => self.obtain(place, &Reference::Digest(digest)).await?.0,
        };
        self.confirm_tag(place, tag, digest);
        Ok(manifest)
    }

    /// Whether it makes sense to ask what a tag points at though it could not be fetched: when other tags of the repository
    /// are here, or a mirror may have it, and not for each client anew.
    async fn may_be_here(&self, place: &Place, tag: &Tag) -> Result<bool, Error> {
        let key = (place.key.clone(), tag.clone());
        if self.unaffordable.contains_key(&key) {
            return Ok(false);
        }
        if !place.upstream.is_mirrored(&place.name)
            && self.repositories.known_tags(&place.key, 1).await?.is_empty()
        {
            return Ok(false);
        }
        self.unaffordable.insert(key, ());
        Ok(true)
    }

    /// GETs a manifest, and keeps it before anything points at it.
    pub(super) async fn fetch_manifest(
        &self,
        place: &Place,
        reference: &Reference,
    ) -> Result<Arc<StoredManifest>, Error> {
        // What will not be asked for need not be visible.
        let before = place.upstream.may_pull(&place.name, &place.errand());
        if before {
            self.visible_manifest(place, reference).await?;
        }
        let fetched = match place
            .upstream
            .manifest(&place.name, reference, &place.errand())
            .await
        {
            Ok(fetched) => fetched,
            Err(error) => {
                let what = Missing::Manifest(reference.clone());
                self.negative.learn(place, what, &error);
                return Err(Error::of_upstream(place, &error, ErrorKind::ManifestUnknown));
            }
        };
        if !before {
            self.visible_manifest(place, reference).await?;
        }
        self.keep_manifest(place, reference, fetched)
    }

    /// Keeps what was fetched, if it is a manifest.
    pub(super) fn keep_manifest(
        &self,
        place: &Place,
        reference: &Reference,
        fetched: FetchedManifest,
    ) -> Result<Arc<StoredManifest>, Error> {
        let outline = outline(place, reference, &fetched.bytes, fetched.media_type.as_ref())?;
        if !place.upstream.config().has_login() {
            // Once there is one, that this was had without is worth knowing.
            self.note_public(place);
        }
        let stored = Arc::new(StoredManifest {
            bytes: fetched.bytes,
            media_type: outline.media_type.clone(),
            digest: fetched.digest,
            last_use: LastUse::default(),
        });
        let tag = match reference {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        };
        let counted = place.upstream.counts_pulls(&place.name);
        let class_of = |bytes| eviction::class_of(bytes, counted);
        self.repositories
            .put_manifest(&place.key, &stored, &outline, tag, class_of);
        if let Some(tag) = tag {
            // Whatever was asked in vain before.
            self.troubled.forget(place, tag);
        }
        Ok(stored)
    }
}

fn outline(
    place: &Place,
    reference: &Reference,
    bytes: &[u8],
    media_type: Option<&MediaType>,
) -> Result<Manifest, Error> {
    Manifest::parse(bytes, media_type).map_err(|error| {
        let upstream = place.upstream.prefix();
        tracing::warn!(upstream, repository = &*place.key, %reference, %error, "the upstream's manifest is not usable");
        match error {
            ManifestError::Schema1 => Error::upstream(ErrorKind::ManifestInvalid, place, error.to_string()),
            ManifestError::Malformed(_) | ManifestError::OtherType { .. } | ManifestError::Ambiguous(_) => {
                Error::upstream(ErrorKind::UpstreamFailed, place, "the upstream sent something that is no manifest")
            }
        }
    })
}
