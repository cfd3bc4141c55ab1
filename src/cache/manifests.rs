//! Manifests by digest and by tag: from memory while fresh, revalidated when due, fetched once when not here.

use std::sync::Arc;

use crate::clock::LastUse;
use crate::oci::{Digest, Manifest, ManifestError, MediaType, Reference, Tag};
use crate::repository::{StoredManifest, TagState};

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

    async fn manifest_by_digest(&self, place: &Place, digest: &Digest) -> Result<Found, Error> {
        if let Some(manifest) = self.shared.linked_manifest(place, digest).await? {
            return Ok(Answer::new(manifest, CacheStatus::HIT));
        }
        Box::pin(self.fetch(place, Reference::Digest(*digest))).await
    }

    async fn manifest_by_tag(&self, place: &Place, tag: &Tag) -> Result<Found, Error> {
        let Some(state) = self.shared.repositories.tag(&place.key, tag).await? else {
            return Box::pin(self.fetch(place, Reference::Tag(tag.clone()))).await;
        };
        if judge(place, tag, &state, None) == Verdict::Fresh {
            if place.upstream.config().refresh_ahead {
                self.shared.heat.asked(place, tag, &state);
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
        let shared = self.shared.clone();
        let work = || shared.revalidate(place.clone(), tag.clone(), state);
        let run = self
            .shared
            .revalidations
            .run((place.key.clone(), tag.clone()), work);
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
        let shared = self.shared.clone();
        let (its, wanted) = (place.clone(), reference.clone());
        let work = move || async move { shared.fetch_if_missing(&its, &wanted).await };
        let key = (place.key.clone(), reference);
        let (mut manifest, mut collapsed) = self.shared.fetches.run(key.clone(), work.clone()).await;
        // Work that nobody waited for may have been refused what we are given.
        let refused = |error: &Error| matches!(error.kind, ErrorKind::RateLimited { .. });
        if collapsed && matches!(&manifest, Some(Err(error)) if refused(error)) {
            (manifest, collapsed) = self.shared.fetches.run(key, work).await;
        }
        let manifest =
            manifest.unwrap_or_else(|| Err(Error::internal("fetching a manifest was given up")))?;
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
        let (shared, its, reference) = (self.clone(), place.clone(), Reference::Digest(*digest));
        let (key, digest) = ((place.key.clone(), reference.clone()), *digest);
        let work = || async move {
            match shared.linked_manifest(&its, &digest).await? {
                Some(manifest) => Ok(manifest),
                None => shared.fetch_manifest(&its, &reference).await,
            }
        };
        let (manifest, _) = self.fetches.run(key, work).await;
        manifest.unwrap_or_else(|| Err(Error::internal("fetching a manifest was given up")))
    }

    /// GETs a manifest, unless it has come between the client's look and this run: a herd is one request.
    async fn fetch_if_missing(
        &self,
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
        self.fetch_manifest(place, reference).await
    }

    /// GETs a manifest, and keeps it before anything points at it.
    pub(super) async fn fetch_manifest(
        &self,
        place: &Place,
        reference: &Reference,
    ) -> Result<Arc<StoredManifest>, Error> {
        self.visible_manifest(place, reference).await?;
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
        let outline = outline(place, reference, &fetched.bytes, fetched.media_type.as_ref())?;
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
        let health = self.metrics.upstream(place.upstream.prefix()).health();
        let counted = health.remaining.is_some();
        let class_of = |bytes| eviction::class_of(bytes, counted);
        self.repositories
            .put_manifest(&place.key, &stored, &outline, tag, class_of);
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
            ManifestError::Malformed(_) => {
                Error::upstream(ErrorKind::UpstreamFailed, place, "the upstream sent something that is no manifest")
            }
        }
    })
}
