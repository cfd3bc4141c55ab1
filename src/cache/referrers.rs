//! What refers to a manifest: the referrers API's answer, or the fallback tag's where there is no API. Asked on every
//! pull by newer clients, so it is answered from what is here when the upstream fails or is slow.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::oci::{Descriptor, Digest, Manifest, MediaType, Reference, referrers_fallback_tag};
use crate::repository::Key;
use crate::upstream;

use super::error::{Error, ErrorKind};
use super::freshness::{Verdict, judge_list};
use super::lists::{Instead, Lists, Weigh};
use super::status::{Answer, CacheStatus, Outcome};
use super::visibility::list_errand;
use super::{Cache, Place, Shared};

/// By repository and subject.
pub(super) type ReferrersLists = Lists<(Key, Digest), Vec<Descriptor>>;

impl Weigh for Vec<Descriptor> {
    fn weight(&self) -> u32 {
        let text = |one: &Descriptor| -> usize {
            let annotations = one.annotations.iter().map(|(k, v)| k.len() + v.len() + 96);
            annotations.sum::<usize>() + one.urls.iter().map(|url| url.len() + 24).sum::<usize>()
        };
        let bytes: usize = self.iter().map(|one| text(one) + 512).sum();
        u32::try_from(bytes + 512).unwrap_or(u32::MAX)
    }
}

impl Cache {
    /// What refers to `subject`. Never an error for "none".
    pub async fn referrers(
        &self,
        place: &Place,
        subject: &Digest,
    ) -> Result<Answer<Arc<Vec<Descriptor>>>, Error> {
        let (shared, its, digest) = (self.shared.clone(), place.clone(), *subject);
        let ask = Box::pin(async move { shared.ask_referrers(&its, &digest).await.map(Arc::new) });
        let key = (place.key.clone(), *subject);
        let heard = Heard {
            shared: &self.shared,
            place,
            subject,
        };
        match self.shared.referrers.get(place, key, ask, &heard).await {
            Err(error) if error.is_not_found() => {
                Ok(Answer::new(Arc::default(), CacheStatus::of(Outcome::Miss)))
            }
            found => found,
        }
    }
}

impl Cache {
    /// The same, as heard before.
    pub async fn referrers_here(
        &self,
        place: &Place,
        subject: &Digest,
    ) -> Result<Answer<Arc<Vec<Descriptor>>>, Error> {
        let row = self.shared.repositories.referrers(&place.key, subject).await?;
        let known = row.map(|(known, _)| known).unwrap_or_default();
        Ok(Answer::new(Arc::new(known), CacheStatus::stale(None)))
    }
}

/// What was heard before.
struct Heard<'a> {
    shared: &'a Shared,
    place: &'a Place,
    subject: &'a Digest,
}

impl Instead<Vec<Descriptor>> for Heard<'_> {
    async fn copy(&self) -> Result<Option<Vec<Descriptor>>, Error> {
        if !self.shared.may_tell(self.place).await {
            return Ok(None);
        }
        let known = &self.shared.repositories;
        let row = known.referrers(&self.place.key, self.subject).await?;
        let offline = self.place.upstream.offline().is_on();
        let usable = |came: Timestamp| {
            let age = Timestamp::now().since(came);
            offline || judge_list(age, true, self.place.freshness()) < Verdict::Revalidate
        };
        Ok(row.filter(|(_, came)| usable(*came)).map(|(list, _)| list))
    }

    /// An image that is here must be pullable while its upstream is away: then "none that we know of".
    async fn lesser(&self) -> Result<Option<Vec<Descriptor>>, Error> {
        if !self.shared.may_tell(self.place).await {
            return Ok(None);
        }
        let here = self.shared.linked_manifest(self.place, self.subject).await?;
        Ok(here.map(|_| Vec::new()))
    }
}

impl Shared {
    async fn ask_referrers(&self, place: &Place, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        let is_here = self.linked_manifest(place, subject).await?.is_some();
        // Of what is here something can be told in any case.
        let place = &if is_here { place.with_copy() } else { place.clone() };
        let by_api = place
            .upstream
            .referrers(&place.name, subject, &list_errand(place))
            .await;
        let by_api = by_api.map_err(|error| Error::of_upstream(place, &error, ErrorKind::ManifestUnknown))?;
        let descriptors = match by_api {
            Some(descriptors) => descriptors,
            None => self.fallback_referrers(place, subject).await?,
        };
        // Anybody may ask about any digest: "none" is worth a row only for what is here.
        if !descriptors.is_empty() || is_here {
            self.repositories
                .put_referrers(&place.key, subject, descriptors.clone());
        }
        Ok(descriptors)
    }

    /// The index under the tag `sha256-<hex>` (distribution spec, "Referrers Tag Schema"). HEAD first: mostly there is
    /// none, and a HEAD costs no pull. A refusal is no "none": it may pass.
    async fn fallback_referrers(&self, place: &Place, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        let failed = |error: &upstream::Error| Error::of_upstream(place, error, ErrorKind::ManifestUnknown);
        let Ok(tag) = referrers_fallback_tag(subject).parse() else {
            return Ok(Vec::new());
        };
        let (reference, errand) = (Reference::Tag(tag), list_errand(place));
        let head = place
            .upstream
            .manifest_head(&place.name, &reference, &errand)
            .await;
        let digest = match head {
            Ok(head) => head.digest,
            Err(error) if error.is_absent() => return Ok(Vec::new()),
            Err(error) if *error.kind() == upstream::ErrorKind::HeadRefused => None,
            Err(error) => return Err(failed(&error)),
        };
        if let Some(digest) = digest {
            return self.listed_in(place, digest).await;
        }
        // Not to be told apart from the one of before: it is fetched each time.
        let fetched = match place.upstream.manifest(&place.name, &reference, &errand).await {
            Ok(fetched) => fetched,
            Err(error) if error.is_absent() => return Ok(Vec::new()),
            Err(error) => return Err(failed(&error)),
        };
        Ok(listed(&fetched.bytes, fetched.media_type.as_ref()))
    }
    /// What the index with this digest lists. It is kept: fetched once, however often it is asked for.
    async fn listed_in(&self, place: &Place, index: Digest) -> Result<Vec<Descriptor>, Error> {
        if let Some(manifest) = self.linked_manifest(place, &index).await? {
            return Ok(listed(&manifest.bytes, Some(&manifest.media_type)));
        }
        let (reference, errand) = (Reference::Digest(index), list_errand(place));
        match place.upstream.manifest(&place.name, &reference, &errand).await {
            Ok(fetched) => {
                let descriptors = listed(&fetched.bytes, fetched.media_type.as_ref());
                // What is no manifest is not kept, and lists nothing.
                let _ = self.keep_manifest(place, &reference, fetched);
                Ok(descriptors)
            }
            Err(error) if error.is_absent() => Ok(Vec::new()),
            Err(error) => Err(Error::of_upstream(place, &error, ErrorKind::ManifestUnknown)),
        }
    }
}

/// The manifests that an index names. Whatever else stands under a fallback tag lists no referrers.
fn listed(bytes: &[u8], media_type: Option<&MediaType>) -> Vec<Descriptor> {
    Manifest::parse(bytes, media_type)
        .map(|index| index.manifests)
        .unwrap_or_default()
}
