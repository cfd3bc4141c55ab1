//! Removing what is here because an operator says so.

use crate::oci::{Reference, Tag};
use crate::storage::Change;

use super::error::Error;
use super::inspect::written;
use super::negative::Missing;
use super::report::{Purged, PurgedContent};
use super::{Cache, Place};

impl Cache {
    /// Removes a tag.
    pub async fn purge(
        &self,
        place: &Place,
        reference: &Reference,
        _with_content: bool,
    ) -> Result<Purged, Error> {
        let mut told = Purged {
            reference: written(place, reference),
            removed: false,
            digest: None,
            content: PurgedContent::default(),
        };
        self.shared
            .negative
            .forget(place, Missing::Manifest(reference.clone()));
        if let Reference::Tag(tag) = reference {
            let state = self.shared.repositories.tag(&place.key, tag).await?;
            self.purge_tag(place, tag).await?;
            told.removed = state.is_some();
            told.digest = state.map(|state| state.digest.to_string());
        }
        Ok(told)
    }

    async fn purge_tag(&self, place: &Place, tag: &Tag) -> Result<(), Error> {
        let change = Change::remove_tag(&place.key, tag);
        self.shared.storage.index.commit(vec![change]).await?;
        // Only now out of memory, or a request that reads the row meanwhile would put it there again.
        self.shared.repositories.remove_tag(&place.key, tag);
        self.shared.troubled.invalidate(&(place.key.clone(), tag.clone()));
        Ok(())
    }
}
