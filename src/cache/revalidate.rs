//! Asking the upstream whether a tag still points where it did: by HEAD, which costs no pull; GET only when it moved.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::oci::{Reference, Tag};
use crate::repository::{StoredManifest, TagState};
use crate::upstream::{self, Access};

use super::error::{Error, ErrorKind};
use super::freshness;
use super::{Place, Shared};

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

impl Shared {
    pub(super) async fn revalidate(
        self: Arc<Self>,
        place: Place,
        tag: Tag,
        state: TagState,
    ) -> Result<Revalidated, Error> {
        let reference = Reference::Tag(tag.clone());
        let head = place
            .upstream
            .manifest_head(&place.name, &reference, Access::Configured)
            .await;
        let digest = match head {
            Ok(head) => {
                // It may have become private since it was pulled. That we cannot tell (a limit, a failure) hides nothing.
                if let Err(error) = self.visible_manifest(&place, &reference).await
                    && error.is_not_found()
                {
                    return Err(error);
                }
                head.digest
            }
            Err(error) if is_gone(&error) => {
                let error = Error::of_upstream(&place, &error, ErrorKind::ManifestUnknown);
                return Ok(self.gone(&place, &tag, state, error));
            }
            // HEAD is not answered here: GET decides.
            Err(error) if *error.kind() == upstream::ErrorKind::HeadRefused => None,
            Err(error) => return Err(Error::of_upstream(&place, &error, ErrorKind::ManifestUnknown)),
        };
        let now = Timestamp::now();
        if let Some(digest) = digest {
            // Unchanged, or moved to something that is here: nothing to fetch.
            if let Some(manifest) = self.linked_manifest(&place, &digest).await? {
                let confirmed = TagState {
                    digest,
                    validated_at: now,
                    gone_since: None,
                };
                self.repositories.put_tag(&place.key, &tag, confirmed);
                return Ok(if digest == state.digest {
                    Revalidated::Unchanged(confirmed)
                } else {
                    Revalidated::Moved(manifest)
                });
            }
        }
        let moved = match digest {
            // By digest, so that what we store is what HEAD spoke of; the tag follows once the bytes are here.
            Some(digest) => {
                let manifest = self.fetch_manifest(&place, &Reference::Digest(digest)).await?;
                let confirmed = TagState {
                    digest,
                    validated_at: now,
                    gone_since: None,
                };
                self.repositories.put_tag(&place.key, &tag, confirmed);
                manifest
            }
            None => match self.fetch_manifest(&place, &reference).await {
                Err(error) if error.kind == ErrorKind::ManifestUnknown => {
                    return Ok(self.gone(&place, &tag, state, error));
                }
                fetched => fetched?,
            },
        };
        if moved.digest == state.digest {
            let confirmed = TagState {
                validated_at: now,
                gone_since: None,
                ..state
            };
            return Ok(Revalidated::Unchanged(confirmed));
        }
        Ok(Revalidated::Moved(moved))
    }

    /// A healthy upstream says that the tag is not there: served for a while still, then forgotten. What its digest
    /// reaches stays.
    fn gone(&self, place: &Place, tag: &Tag, state: TagState, error: Error) -> Revalidated {
        let now = Timestamp::now();
        let gone_since = state.gone_since.unwrap_or(now);
        if freshness::is_served_though_gone(gone_since, now, place.freshness()) {
            let state = TagState {
                gone_since: Some(gone_since),
                ..state
            };
            let status = error.upstream_status;
            self.repositories.put_tag(&place.key, tag, state);
            self.troubled.insert((place.key.clone(), tag.clone()), status);
            return Revalidated::Gone { state, status };
        }
        self.repositories.remove_tag(&place.key, tag);
        tracing::info!(repository = &*place.key, %tag, "a tag is gone from its upstream for longer than gone_ttl, forgotten");
        Revalidated::Forgotten(error)
    }
}

/// Whether the registry itself said that the tag is not there. A token service that refuses says nothing about it.
fn is_gone(error: &upstream::Error) -> bool {
    error.is_not_found() && !error.allows_stale()
}
