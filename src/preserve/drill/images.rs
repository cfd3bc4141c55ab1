//! What was pulled of one repository, as images: its tags, and the digests that no tag leads to, each with all that it needs.
//! Used by `drill`, and by `bundle` for what it carries.

use std::collections::HashSet;
use std::sync::Arc;

use crate::cache::{Cache, Error, Place};
use crate::clock::Timestamp;
use crate::oci::{Digest, Reference};
use crate::storage::{self, Index, UseRow};

use super::super::closure::{Choice, Closure, Pulled, Surroundings};
use super::Hole;
use super::pulls::Pull;

/// An image with its closure.
pub(in crate::preserve) struct Image {
    pub(in crate::preserve) place: Place,
    pub(in crate::preserve) reference: Reference,
    /// When it was pulled, when that is why we look at it.
    pub(in crate::preserve) pulled: Option<UseRow>,
    /// All that was pulled of its repository by digest.
    pub(in crate::preserve) digests: Arc<HashSet<Digest>>,
    pub(in crate::preserve) closure: Closure,
}

impl Image {
    /// As a person writes it.
    pub(in crate::preserve) fn written(&self) -> String {
        match &self.reference {
            Reference::Tag(tag) => format!("{}:{tag}", self.place.key),
            Reference::Digest(digest) => format!("{}@{digest}", self.place.key),
        }
    }

    pub(super) fn hole(&self) -> Hole {
        let remembered = self.pulled.map(|row| row.digest);
        let digest = self.closure.root.or(remembered);
        Hole {
            image: self.written(),
            digest: digest.map(|digest| digest.to_string()),
            pulled: self.pulled.map_or(Timestamp(0), |row| row.at),
            lacks: self.closure.lacks.clone(),
        }
    }

    /// Looks at it once more: something of it has come.
    pub(super) async fn look_again(&mut self, cache: &Cache) -> Result<(), Error> {
        // What came is submitted. A writer that has stopped writes nothing more.
        let _ = cache.storage().index.commit(Vec::new()).await;
        let around = Surroundings::of(cache);
        let (place, reference, digests) = (self.place.clone(), self.reference.clone(), self.digests.clone());
        let remembered = self.pulled.map(|row| row.digest);
        let look = move |index: &Index| {
            let choice = Choice::Pulled(Pulled::of(index, digests)?);
            around.closure(index, &place, &reference, remembered, &choice)
        };
        self.closure = cache.storage().index.read(look).await?;
        Ok(())
    }
}

/// The images that these pulls of one repository are.
pub(super) async fn images_of(cache: &Cache, place: Place, pulls: Vec<Pull>) -> Result<Vec<Image>, Error> {
    let around = Surroundings::of(cache);
    let find = move |index: &Index| {
        let digests = pulls.iter().filter_map(|pull| match pull.reference {
            Reference::Digest(digest) => Some(digest),
            Reference::Tag(_) => None,
        });
        let digests: Arc<HashSet<_>> = Arc::new(digests.collect());
        let choice = Choice::Pulled(Pulled::of(index, digests.clone())?);
        let (mut images, mut reached) = (Vec::new(), HashSet::new());
        for pull in in_order(index, pulls)? {
            let is_digest = matches!(pull.reference, Reference::Digest(_));
            if is_digest && reached.contains(&pull.row.digest) {
                continue;
            }
            let remembered = Some(pull.row.digest);
            let closure = around.closure(index, &place, &pull.reference, remembered, &choice)?;
            reached.extend(closure.reached());
            images.push(Image {
                place: place.clone(),
                reference: pull.reference,
                pulled: Some(pull.row),
                digests: digests.clone(),
                closure,
            });
        }
        Ok(images)
    };
    Ok(cache.storage().index.read(find).await?)
}

/// Tags first, then indexes: what they lead to is no image of its own.
fn in_order(index: &Index, pulls: Vec<Pull>) -> Result<Vec<Pull>, storage::Error> {
    let is_tag = |pull: &Pull| matches!(pull.reference, Reference::Tag(_));
    let (mut ordered, digests): (Vec<_>, Vec<_>) = pulls.into_iter().partition(is_tag);
    let mut others = Vec::new();
    for pull in digests {
        if index.child(&pull.row.digest)?.is_some() {
            ordered.push(pull);
        } else {
            others.push(pull);
        }
    }
    ordered.extend(others);
    Ok(ordered)
}
