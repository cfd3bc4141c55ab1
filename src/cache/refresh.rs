//! Asking the upstream now, whatever is fresh: what an operator's `refresh` does.

use crate::oci::{Reference, Tag};
use crate::repository::TagState;

use super::error::{Error, ErrorKind};
use super::inspect::written;
use super::negative::Missing;
use super::report::{RefreshOutcome, Refreshed};
use super::revalidate::Revalidated;
use super::{Cache, Place};

impl Cache {
    /// Asks the upstream about `reference`, waits for the answer however long it takes, and tells what it was. A tag
    /// that is not here is fetched; a digest that is here needs no question.
    ///
    /// # Errors
    /// Our own disk's; what the upstream does is an outcome.
    pub async fn refresh(&self, place: &Place, reference: &Reference) -> Result<Refreshed, Error> {
        let before = match reference {
            Reference::Tag(tag) => self.shared.repositories.tag(&place.key, tag).await?,
            Reference::Digest(_) => None,
        };
        let mut told = Refreshed {
            reference: written(place, reference),
            outcome: RefreshOutcome::Unchanged,
            from: before.map(|state| state.digest.to_string()),
            to: None,
            reason: None,
            upstream_status: None,
        };
        self.shared
            .negative
            .forget(place, Missing::Manifest(reference.clone()));
        match (reference, before) {
            (Reference::Tag(tag), Some(state)) => self.refresh_tag(place, tag, state, &mut told).await?,
            (Reference::Digest(digest), _) if self.shared.linked_manifest(place, digest).await?.is_some() => {
                told.from = Some(digest.to_string());
                told.to.clone_from(&told.from);
                told.reason = Some("it is here, and what a digest names never changes".to_owned());
            }
            _ => {
                let (shared, its, wanted) = (self.shared.clone(), place.clone(), reference.clone());
                let work = || async move { shared.fetch_manifest(&its, &wanted).await };
                let key = (place.key.clone(), reference.clone());
                let (fetched, _) = self.shared.fetches.run(key, work).await;
                match fetched.unwrap_or_else(|| Err(given_up())) {
                    Ok(manifest) => {
                        told.outcome = RefreshOutcome::New;
                        told.to = Some(manifest.digest.to_string());
                    }
                    Err(error) => failed(&mut told, error)?,
                }
            }
        }
        Ok(told)
    }

    async fn refresh_tag(
        &self,
        place: &Place,
        tag: &Tag,
        state: TagState,
        told: &mut Refreshed,
    ) -> Result<(), Error> {
        match self.revalidate_now(place, tag, state).await {
            Ok(Revalidated::Unchanged(state)) => told.to = Some(state.digest.to_string()),
            Ok(Revalidated::Moved(manifest)) => {
                told.outcome = RefreshOutcome::Moved;
                told.to = Some(manifest.digest.to_string());
            }
            Ok(Revalidated::Gone { state, status }) => {
                told.outcome = RefreshOutcome::Gone;
                told.upstream_status = status;
                told.to = Some(state.digest.to_string());
                told.reason =
                    Some("not found at the upstream; the copy is served until gone_ttl is over".to_owned());
                return Ok(());
            }
            Ok(Revalidated::Forgotten(error)) => return failed(told, error),
            Err(error) => {
                // The copy is served on.
                told.to.clone_from(&told.from);
                return failed(told, error);
            }
        }
        // Whoever was spared a failing question may ask again.
        self.shared.troubled.forget(place, tag);
        Ok(())
    }
}

fn given_up() -> Error {
    Error::internal("a refresh was given up")
}

/// Tells an upstream's failure as an outcome.
fn failed(told: &mut Refreshed, error: Error) -> Result<(), Error> {
    if error.kind == ErrorKind::Internal {
        return Err(error);
    }
    told.outcome = if error.is_not_found() {
        RefreshOutcome::Gone
    } else {
        RefreshOutcome::Failed
    };
    told.upstream_status = error.upstream_status;
    told.reason = Some(error.message);
    Ok(())
}
