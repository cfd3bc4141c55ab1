//! What clients pulled since a point in time, repository by repository, as the index remembers it. Used by `drill`, and by
//! `bundle` for what it carries.

use crate::cache::{Cache, Error, Place, Places};
use crate::clock::Timestamp;
use crate::oci::Reference;
use crate::storage::UseRow;

use super::images::{Image, images_of};

/// Names that are read together.
const PAGE: usize = 10_000;

/// One name that was pulled.
pub(in crate::preserve) struct Pull {
    pub(in crate::preserve) reference: Reference,
    pub(in crate::preserve) row: UseRow,
}

/// What was pulled of one repository.
pub(in crate::preserve) struct Repository {
    place: Place,
    pulls: Vec<Pull>,
}

impl Repository {
    /// Its images: the tags, and the digests that they do not lead to.
    pub(in crate::preserve) async fn images(self, cache: &Cache) -> Result<Vec<Image>, Error> {
        images_of(cache, self.place, self.pulls).await
    }
}

/// The pulls of an upstream, a page at a time.
pub(in crate::preserve) struct Pulls<'a> {
    cache: &'a Cache,
    places: &'a Places,
    prefix: String,
    since: Timestamp,
    page: std::vec::IntoIter<(String, Reference, UseRow)>,
    after: Option<(String, Reference)>,
    /// Read already, of the repository that follows.
    ahead: Option<(String, Reference, UseRow)>,
    ended: bool,
}

impl<'a> Pulls<'a> {
    /// Those of the upstream with this prefix since `since`, what was noted a moment ago too.
    pub(in crate::preserve) async fn of(
        cache: &'a Cache,
        places: &'a Places,
        prefix: &str,
        since: Timestamp,
    ) -> Result<Self, Error> {
        cache.flush_access();
        // A writer that has stopped writes nothing more.
        let _ = cache.storage().index.commit(Vec::new()).await;
        Ok(Self {
            cache,
            places,
            prefix: format!("{prefix}/"),
            since,
            page: Vec::new().into_iter(),
            after: None,
            ahead: None,
            ended: false,
        })
    }

    async fn next_row(&mut self) -> Result<Option<(String, Reference, UseRow)>, Error> {
        loop {
            if let Some(row) = self.ahead.take().or_else(|| self.page.next()) {
                if row.2.at >= self.since {
                    return Ok(Some(row));
                }
                continue;
            }
            if self.ended {
                return Ok(None);
            }
            let (prefix, after) = (self.prefix.clone(), self.after.take());
            let index = &self.cache.storage().index;
            let page = index
                .read(move |index| index.uses_after(&prefix, after.as_ref(), PAGE))
                .await?;
            self.ended = page.len() < PAGE;
            self.after = page
                .last()
                .map(|(repository, reference, _)| (repository.clone(), reference.clone()));
            self.page = page.into_iter();
        }
    }

    /// The next repository of which something was pulled.
    pub(in crate::preserve) async fn next(&mut self) -> Result<Option<Repository>, Error> {
        loop {
            let Some((key, reference, row)) = self.next_row().await? else {
                return Ok(None);
            };
            let mut pulls = vec![Pull { reference, row }];
            while let Some(row) = self.next_row().await? {
                if row.0 != key {
                    self.ahead = Some(row);
                    break;
                }
                let (_, reference, row) = row;
                pulls.push(Pull { reference, row });
            }
            // A name that no repository can have today says nothing.
            if let Some(place) = self.places.find(&key) {
                return Ok(Some(Repository { place, pulls }));
            }
        }
    }
}
