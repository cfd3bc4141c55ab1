//! Removing what is here because an operator says so.

use crate::oci::{Reference, Tag};

use super::error::Error;
use super::inspect::written;
use super::negative::Missing;
use super::report::Purged;
use super::{Cache, Place};

impl Cache {
    /// Removes a tag, or the manifest that a digest names. What they reach stays.
    pub async fn purge(&self, place: &Place, reference: &Reference) -> Result<Purged, Error> {
        let missing = Missing::Manifest(reference.clone());
        self.shared.negative.forget(place, missing);
        let (removed, digest) = match reference {
            Reference::Tag(tag) => {
                let state = self.shared.repositories.tag(&place.key, tag).await?;
                self.purge_tag(place, tag).await?;
                (state.is_some(), state.map(|state| state.digest.to_string()))
            }
            Reference::Digest(digest) => {
                let here = self.shared.linked_manifest(place, digest).await?.is_some();
                if here {
                    self.shared.repositories.remove_manifest(digest).await?;
                }
                (here, None)
            }
        };
        Ok(Purged {
            reference: written(place, reference),
            removed,
            digest,
        })
    }

    async fn purge_tag(&self, place: &Place, tag: &Tag) -> Result<(), Error> {
        self.shared.repositories.remove_tag(&place.key, tag).await?;
        self.shared.troubled.forget(place, tag);
        Ok(())
    }
}
