//! What is brought in before anybody asks: as a client's pull would, by the same fills and the same words of the upstream,
//! but with more patience and fewer counted pulls. Called by `preserve`.

use std::sync::Arc;

use crate::oci::{Digest, Reference, Tag};
use crate::repository::{StoredManifest, TagState};
use crate::storage::BlobReader;
use crate::upstream;

use super::error::{Error, ErrorKind};
use super::freshness::Verdict;
use super::negative::Missing;
use super::revalidate::{Revalidated, judge};
use super::{Cache, Place, Shared};

/// A manifest that is here now.
#[derive(Clone, Debug)]
pub struct Current {
    /// Its bytes.
    pub manifest: Arc<StoredManifest>,
    /// Whether it had to be fetched.
    pub fetched: bool,
    /// Why the upstream could not say whether the tag still points at it.
    pub stale: Option<Error>,
}

impl Current {
    fn here(manifest: Arc<StoredManifest>) -> Self {
        Self {
            manifest,
            fetched: false,
            stale: None,
        }
    }

    fn fetched(manifest: Arc<StoredManifest>) -> Self {
        Self {
            fetched: true,
            ..Self::here(manifest)
        }
    }
}

impl Cache {
    /// The manifest that `reference` means now. A due tag waits for the upstream's word however long that takes; without
    /// one it is the copy that may still be served, if there is one.
    pub async fn current(&self, place: &Place, reference: &Reference) -> Result<Current, Error> {
        match reference {
            Reference::Digest(digest) => self.current_digest(place, digest).await,
            Reference::Tag(tag) => match self.shared.repositories.tag(&place.key, tag).await? {
                Some(state) => self.current_tag(place, tag, state).await,
                None => self.new_tag(place, tag).await,
            },
        }
    }

    async fn current_digest(&self, place: &Place, digest: &Digest) -> Result<Current, Error> {
        if let Some(manifest) = self.shared.linked_manifest(place, digest).await? {
            return Ok(Current::here(manifest));
        }
        let answer = self.manifest(place, &Reference::Digest(*digest)).await?;
        Ok(Current::fetched(answer.value))
    }

    async fn current_tag(&self, place: &Place, tag: &Tag, state: TagState) -> Result<Current, Error> {
        let trouble = self.shared.troubled.get(place, tag);
        let verdict = judge(place, tag, &state, trouble);
        if verdict == Verdict::Fresh {
            return self.current_digest(place, &state.digest).await;
        }
        if verdict == Verdict::Stale {
            let status = trouble.and_then(|trouble| trouble.status);
            let reason = match status {
                Some(status) => format!("the upstream answered {status} a moment ago"),
                None => "the upstream did not answer a moment ago".to_owned(),
            };
            let error = Error::upstream(ErrorKind::UpstreamUnavailable, place, reason);
            return self.stale(place, &state, error).await;
        }
        let usable = verdict == Verdict::UsableOnError;
        match self.revalidate_now(place, tag, state).await {
            Ok(Revalidated::Unchanged(state)) => self.current_digest(place, &state.digest).await,
            Ok(Revalidated::Moved(manifest)) => Ok(Current::fetched(manifest)),
            Ok(Revalidated::Gone { state, status }) => {
                let gone = Error {
                    upstream_status: status,
                    ..Error::upstream(
                        ErrorKind::ManifestUnknown,
                        place,
                        "the upstream has this tag no more",
                    )
                };
                self.stale(place, &state, gone).await
            }
            Err(error) if usable => self.stale(place, &state, error).await,
            Ok(Revalidated::Forgotten(error)) | Err(error) => Err(error),
        }
    }

    /// Asks the upstream about a tag, or joins those who do.
    pub(super) async fn revalidate_now(
        &self,
        place: &Place,
        tag: &Tag,
        state: TagState,
    ) -> Result<Revalidated, Error> {
        let (ended, _) = self.revalidating(place, tag, state).await;
        ended.unwrap_or_else(|| Err(Error::internal("a revalidation was given up")))
    }

    async fn stale(&self, place: &Place, state: &TagState, error: Error) -> Result<Current, Error> {
        let current = self.current_digest(place, &state.digest).await?;
        Ok(Current {
            stale: Some(error),
            ..current
        })
    }

    /// A tag that was never pulled. HEAD first, which costs no pull: many tags mean what is here by another name.
    async fn new_tag(&self, place: &Place, tag: &Tag) -> Result<Current, Error> {
        let reference = Reference::Tag(tag.clone());
        self.shared
            .negative
            .check(place, Missing::Manifest(reference.clone()))?;
        let (shared, its, wanted) = (self.shared.clone(), place.clone(), tag.clone());
        let before = self.shared.head_of(place, tag).await?;
        if let Some(digest) = before
            && let Some(manifest) = self.shared.linked_manifest(place, &digest).await?
        {
            self.shared.visible_manifest(place, &reference).await?;
            self.shared.confirm_tag(place, tag, digest);
            return Ok(Current::here(manifest));
        }
        let _waiting = self.shared.urgency.wait(place, &reference);
        let asking = self.shared.urgency.wait(place, &reference);
        let its = asking.asks(&its);
        let work = || async move {
            let _asking = asking;
            shared.learn_tag(&its, &wanted, before).await
        };
        let (manifest, _) = self
            .shared
            .fetches
            .run((place.key.clone(), reference), work)
            .await;
        let manifest =
            manifest.unwrap_or_else(|| Err(Error::internal("fetching a manifest was given up")))?;
        Ok(Current::fetched(manifest))
    }

    /// Fetches a blob that nobody waits for, unless it is here; `tell` hears how much of it is. Whether it was fetched.
    ///
    /// # Errors
    /// Also when there is no room to keep it.
    pub async fn have_blob(
        &self,
        place: &Place,
        digest: &Digest,
        tell: impl FnMut(u64),
    ) -> Result<bool, Error> {
        // A reader, so that the fill goes on whatever `finish_fill` says.
        let mut tail = match self.blob(place, digest).await?.value {
            BlobReader::Stored(_) => return Ok(false),
            BlobReader::Growing(tail) => tail,
        };
        let whole = tail.whole(tell).await;
        drop(tail);
        let kept =
            whole.map_err(|error| Error::upstream(ErrorKind::UpstreamFailed, place, error.to_string()))?;
        if kept {
            if let Some(fill) = self.shared.fills.get(digest) {
                fill.gone().await;
            }
            if self.shared.storage.blobs.open(digest).await?.is_some() {
                return Ok(true);
            }
        }
        Err(Error::new(ErrorKind::Internal, "there is no room to keep it"))
    }
}

impl Shared {
    /// What a tag points at, by HEAD; none when the registry does not tell by HEAD.
    async fn head_of(&self, place: &Place, tag: &Tag) -> Result<Option<Digest>, Error> {
        let reference = Reference::Tag(tag.clone());
        let errand = place.errand();
        let head = place.upstream.manifest_head(&place.name, &reference, &errand);
        match head.await {
            Ok(head) => Ok(head.digest),
            Err(error) if *error.kind() == upstream::ErrorKind::HeadRefused => Ok(None),
            Err(error) => {
                self.negative.learn(place, Missing::Manifest(reference), &error);
                Err(Error::of_upstream(place, &error, ErrorKind::ManifestUnknown))
            }
        }
    }

    /// GETs what a tag points at: by digest where it is known, so that it may come from any endpoint.
    async fn learn_tag(
        &self,
        place: &Place,
        tag: &Tag,
        digest: Option<Digest>,
    ) -> Result<Arc<StoredManifest>, Error> {
        let Some(digest) = digest else {
            return self.fetch_manifest(place, &Reference::Tag(tag.clone())).await;
        };
        let manifest = self.fetch_manifest(place, &Reference::Digest(digest)).await?;
        self.confirm_tag(place, tag, digest);
        Ok(manifest)
    }
}
