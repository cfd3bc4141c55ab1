//! Removing what is here because an operator says so.

use crate::oci::{Digest, Reference, Tag};
use crate::storage::Index;

use super::error::Error;
use super::eviction::Evicted;
use super::inspect::written;
use super::negative::Missing;
use super::report::Purged;
use super::{Cache, Place, Shared};

/// Manifests of an index, and manifests that need one of them, that are looked at.
const MOST: usize = 10_000;

impl Cache {
    /// Removes a tag, or the manifest that a digest names. What they reach stays, unless `with_content`: then all goes
    /// that nothing else here needs.
    pub async fn purge(
        &self,
        place: &Place,
        reference: &Reference,
        with_content: bool,
    ) -> Result<Purged, Error> {
        let shared = &self.shared;
        let missing = Missing::Manifest(reference.clone());
        shared.negative.forget(place, missing);
        shared.forget_pulls(place, reference);
        let mut purged = Purged {
            reference: written(place, reference),
            removed: false,
            digest: None,
            freed: None,
            kept: None,
        };
        let content = match reference {
            Reference::Tag(tag) => {
                let state = shared.repositories.tag(&place.key, tag).await?;
                self.purge_tag(place, tag).await?;
                purged.removed = state.is_some();
                let digest = state.map(|state| state.digest);
                purged.digest = digest.map(|digest| digest.to_string());
                digest
            }
            Reference::Digest(digest) => {
                let here = shared.linked_manifest(place, digest).await?.is_some();
                purged.removed = here;
                if here && !with_content {
                    purged.kept = shared.needed(digest, reference).await?;
                    purged.removed = purged.kept.is_none();
                    if purged.removed {
                        shared.repositories.remove_manifest(digest).await?;
                    }
                }
                here.then_some(*digest)
            }
        };
        if let Some(digest) = content.filter(|_| with_content) {
            purged.kept = shared.needed(&digest, reference).await?;
            if purged.kept.is_none() {
                purged.freed = Some(shared.remove_all(place, digest).await?);
            } else if matches!(reference, Reference::Digest(_)) {
                purged.removed = false;
            }
        }
        Ok(purged)
    }

    async fn purge_tag(&self, place: &Place, tag: &Tag) -> Result<(), Error> {
        self.shared.repositories.remove_tag(&place.key, tag).await?;
        self.shared.troubled.forget(place, tag);
        Ok(())
    }
}

impl Shared {
    /// Why what a reference reaches must stay.
    async fn needed(&self, digest: &Digest, reference: &Reference) -> Result<Option<String>, Error> {
        let (digest, by_tag) = (*digest, matches!(reference, Reference::Tag(_)));
        let look = move |index: &Index| {
            if index.is_pinned(&digest)? {
                return Ok(Some("it is pinned".to_owned()));
            }
            if !by_tag {
                return Ok(None);
            }
            if let Some((repository, tag)) = index.tagged(&digest, 1)?.pop() {
                return Ok(Some(format!("{repository}:{tag} points at it too")));
            }
            let parent = index.needed_by(&digest, 1)?.pop();
            Ok(parent.map(|parent| format!("the index {parent} names it")))
        };
        Ok(self.storage.index.read(look).await?)
    }

    /// Removes a manifest and all that nothing else here needs.
    async fn remove_all(&self, place: &Place, digest: Digest) -> Result<Evicted, Error> {
        let mut freed = Evicted::default();
        let (mut left, mut order) = (vec![digest], Vec::new());
        while let Some(manifest) = left.pop() {
            let needs = move |index: &Index| {
                let mut children = Vec::new();
                for child in index.needs(&manifest)? {
                    let parents = index.needed_by(&child, MOST)?;
                    if index.manifest(&child)?.is_some() && parents == [manifest] {
                        children.push(child);
                    }
                }
                Ok(children)
            };
            let children = self.storage.index.read(needs).await?;
            order.push(manifest);
            if order.len() < MOST {
                left.extend(children);
            }
        }
        // An index after its children, or removing the first would have taken it away already.
        for manifest in order.iter().rev() {
            self.remove_image(*manifest, &mut freed).await?;
            self.forget_pulls(place, &Reference::Digest(*manifest));
        }
        Ok(freed)
    }
}
