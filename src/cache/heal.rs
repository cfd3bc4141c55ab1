//! Content that turned out rotten: out of service at once, and fetched again before anybody asks. Called by
//! `maintenance`.

use crate::oci::{Digest, Reference};
use crate::storage::BlobReader;

use super::error::{Error, ErrorKind};
use super::{Cache, Place, Places, fill};

/// Repositories that are tried for content which has to be fetched again.
const MOST_TRIED: usize = 8;

/// Tags that are put back at the most.
const MOST_TAGS: usize = 10_000;

impl Cache {
    /// Whether a blob is being fetched at the moment.
    pub fn is_fetching(&self, digest: &Digest) -> bool {
        self.shared.fills.get(digest).is_some()
    }

    /// Puts a rotten blob aside and fetches it again, for one of the repositories that serve it. Whether it is here
    /// again; if not, the next client's pull tries once more.
    pub async fn heal_blob(&self, digest: &Digest, places: &Places) -> Result<bool, Error> {
        let holders = self.holders(digest, places).await?;
        if !self.shared.storage.blobs.put_aside(digest).await? {
            // Somebody else removed it.
            return Ok(false);
        }
        for place in holders.iter().take(MOST_TRIED) {
            if self.fetch_again(digest, place).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The known repositories that serve `digest`.
    async fn holders(&self, digest: &Digest, places: &Places) -> Result<Vec<Place>, Error> {
        let wanted = *digest;
        let index = &self.shared.storage.index;
        let keys = index
            .read(move |index| index.holders(&wanted, usize::MAX))
            .await?;
        Ok(keys
            .iter()
            .filter_map(|key| places.find(key).map(Place::in_background))
            .collect())
    }

    /// Fetches a blob that nobody waits for, through the same door as a client's pull. False when there is no room to keep
    /// it.
    ///
    /// # Errors
    /// What a client would be told.
    pub async fn fetch_blob(&self, digest: &Digest, place: &Place) -> Result<bool, Error> {
        let reader = self.blob(place, digest).await?.value;
        if matches!(reader, BlobReader::Stored(_)) {
            return Ok(true);
        }
        if !reader.is_kept() {
            return Ok(false);
        }
        // A reader, so that the fill goes on whatever `finish_fill` says.
        if let Some(fill) = self.shared.fills.get(digest) {
            fill.gone().await;
        }
        let kept = reader.is_kept();
        drop(reader);
        if self.shared.storage.blobs.open(digest).await?.is_some() {
            return Ok(true);
        }
        if !kept {
            return Ok(false);
        }
        let message = format!("the download from upstream {} broke off", place.upstream.prefix());
        Err(Error::upstream(ErrorKind::UpstreamFailed, place, message))
    }

    /// Fetches a blob that turned out rotten. Whether it is here now.
    async fn fetch_again(&self, digest: &Digest, place: &Place) -> Result<bool, Error> {
        let link = self.shared.repositories.link(&place.key, digest).await?;
        let size = link.map(|link| link.size);
        let (running, _) = fill::lead_or_join(&self.shared, place, *digest, size);
        let Ok(opened) = running.clone().opened().await else {
            return Ok(false);
        };
        // A reader, so that the fill goes on whatever `finish_fill` says; but not one that holds up a window.
        let reader = Some(opened.reader()).filter(BlobReader::is_kept);
        running.gone().await;
        drop(reader);
        Ok(self.shared.storage.blobs.open(digest).await?.is_some())
    }

    /// Removes a manifest whose bytes are rotten, fetches it again, and puts its tags back. Whether it is here again.
    pub async fn heal_manifest(&self, digest: &Digest, places: &Places) -> Result<bool, Error> {
        let holders = self.holders(digest, places).await?;
        let (wanted, repositories) = (*digest, &self.shared.repositories);
        let index = &self.shared.storage.index;
        let tagged = index.read(move |index| index.tagged(&wanted, MOST_TAGS)).await?;
        let mut tags = Vec::new();
        for (repository, tag) in tagged {
            let key = repository.into();
            let state = repositories.tag(&key, &tag).await?;
            tags.extend(state.map(|state| (key, tag, state)));
        }
        let mut links = Vec::new();
        for place in &holders {
            let link = repositories.link(&place.key, digest).await?;
            links.extend(link.map(|link| (&place.key, link)));
        }
        repositories.remove_manifest(digest).await?;
        let (mut here, by_digest) = (false, Reference::Digest(*digest));
        for place in holders.iter().take(MOST_TRIED) {
            here = self.shared.fetch_manifest(place, &by_digest).await.is_ok();
            if here {
                break;
            }
        }
        if here {
            for (key, link) in links {
                repositories.put_link(key, digest, link);
            }
            for (key, tag, state) in tags {
                // Pulled meanwhile, it is newer than what was.
                if repositories.tag(&key, &tag).await?.is_none() {
                    repositories.put_tag(&key, &tag, state);
                }
            }
        }
        Ok(here)
    }
}
