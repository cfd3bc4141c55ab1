//! Lists that the upstream keeps: tags and referrers. Asked once for many clients, kept for seconds, and answered from
//! what is here when the upstream fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::collapse::Collapse;
use crate::config::Freshness;
use crate::oci::{Descriptor, Digest, Manifest, Reference, referrers_fallback_tag};
use crate::repository::Key;

use super::error::{Error, ErrorKind};
use super::status::{Answer, CacheStatus, Outcome};
use super::visibility::list_access;
use super::{Cache, Place, Shared};

/// A page of a repository's tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagsPage {
    /// The tags.
    pub tags: Vec<String>,
    /// The query of the next page, when there is one.
    pub next_query: Option<String>,
}

/// How long a list is kept for the case that the upstream fails.
const KEPT: Duration = Duration::from_hours(24);
/// Memory for the lists of one kind, in bytes, roughly: one may have many megabytes.
const MOST_BYTES: u64 = 32 * 1024 * 1024;
/// Tags told from our own index at the most, when the upstream fails.
const MOST_OWN_TAGS: usize = 10_000;

/// What a list takes of memory, roughly.
pub(super) trait Weigh {
    fn weight(&self) -> u32;
}

impl Weigh for TagsPage {
    fn weight(&self) -> u32 {
        let bytes: usize = self.tags.iter().map(|tag| tag.len() + 40).sum();
        u32::try_from(bytes + 512).unwrap_or(u32::MAX)
    }
}

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

/// A kind of list: runs in progress, and answers with the time they came.
pub(super) struct Lists<K, V> {
    running: Collapse<K, Result<Arc<V>, Error>>,
    kept: moka::sync::Cache<K, (Instant, Arc<V>)>,
}

pub(super) type TagLists = Lists<(Key, String), TagsPage>;
pub(super) type ReferrersLists = Lists<(Key, Digest), Vec<Descriptor>>;

impl<K, V> Default for Lists<K, V>
where
    K: std::hash::Hash + Eq + Send + Sync + 'static,
    V: Weigh + Send + Sync + 'static,
{
    fn default() -> Self {
        let kept = moka::sync::Cache::builder()
            .max_capacity(MOST_BYTES)
            .weigher(|_, (_, list): &(Instant, Arc<V>)| list.weight())
            .time_to_live(KEPT)
            .build();
        Self {
            running: Collapse::default(),
            kept,
        }
    }
}

impl<K, V> Lists<K, V>
where
    K: Clone + std::hash::Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// The list by `ask`, or the one of a moment ago; on failure the last one that there was.
    async fn get<W>(&self, key: K, settings: &Freshness, ask: W) -> Result<Answer<Arc<V>>, Error>
    where
        W: Future<Output = Result<Arc<V>, Error>> + Send + 'static,
    {
        let kept = self.kept.get(&key);
        if let Some((came, list)) = &kept
            && came.elapsed() < settings.negative_ttl
        {
            return Ok(Answer::new(list.clone(), CacheStatus::HIT));
        }
        let (into, its) = (self.kept.clone(), key.clone());
        // Kept by the work itself: whoever waits may leave.
        let work = async move {
            let result = ask.await;
            if let Ok(list) = &result {
                into.insert(its, (Instant::now(), Arc::clone(list)));
            }
            result
        };
        let run = self.running.run(key.clone(), || work);
        let (result, collapsed) = if let Some((_, list)) = &kept {
            // Nobody waits long for an upstream that is away while there is an answer.
            let Ok(finished) = tokio::time::timeout(settings.revalidate_timeout, run).await else {
                return Ok(Answer::new(list.clone(), CacheStatus::stale(None)));
            };
            finished
        } else {
            run.await
        };
        match result.unwrap_or_else(|| Err(Error::internal("asking for a list was given up"))) {
            Ok(list) => Ok(Answer::new(
                list,
                CacheStatus {
                    collapsed,
                    ..CacheStatus::of(Outcome::Miss)
                },
            )),
            Err(error) if !error.allows_stale => {
                self.kept.invalidate(&key);
                Err(error)
            }
            Err(error) => match kept {
                Some((_, list)) => Ok(Answer::new(list, CacheStatus::stale(error.upstream_status))),
                None => Err(error),
            },
        }
    }
}

impl Cache {
    /// A page of the tags of a repository, by the query as the client gave it (without `ns`).
    pub async fn tags(&self, place: &Place, query: &str) -> Result<Answer<Arc<TagsPage>>, Error> {
        let (its, asked) = (place.clone(), query.to_owned());
        let ask = Box::pin(async move {
            match its.upstream.tags(&its.name, &asked, list_access(&its)).await {
                Ok(page) => Ok(Arc::new(TagsPage {
                    tags: page.tags,
                    next_query: page.next_query,
                })),
                Err(error) => Err(Error::of_upstream(&its, &error, ErrorKind::NameUnknown)),
            }
        });
        let key = (place.key.clone(), query.to_owned());
        // A list says which tags do not exist, so it lives as long as any other "not found".
        match self.shared.tag_lists.get(key, place.freshness(), ask).await {
            Err(error) if error.allows_stale => self.own_tags(place, query, error).await,
            other => other,
        }
    }

    /// The tags that were pulled through here: better than nothing while the upstream is away.
    async fn own_tags(
        &self,
        place: &Place,
        query: &str,
        error: Error,
    ) -> Result<Answer<Arc<TagsPage>>, Error> {
        let mut tags = self
            .shared
            .repositories
            .known_tags(&place.key, MOST_OWN_TAGS)
            .await?;
        if tags.is_empty() {
            return Err(error);
        }
        let (mut most, mut last) = (None, None);
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "n" => most = value.parse::<usize>().ok(),
                "last" => last = Some(value.into_owned()),
                _ => {}
            }
        }
        if let Some(last) = last {
            tags.retain(|tag| *tag > last);
        }
        let mut next_query = None;
        if let Some(most) = most
            && tags.len() > most
        {
            tags.truncate(most);
            next_query = tags.last().map(|last| {
                let mut next = url::form_urlencoded::Serializer::new(String::new());
                next.append_pair("n", &most.to_string()).append_pair("last", last);
                next.finish()
            });
        }
        let page = Arc::new(TagsPage { tags, next_query });
        Ok(Answer::new(page, CacheStatus::stale(error.upstream_status)))
    }

    /// What refers to `subject`: the referrers API's answer, or the fallback tag's where there is no API. Never an error
    /// for "none".
    pub async fn referrers(
        &self,
        place: &Place,
        subject: &Digest,
    ) -> Result<Answer<Arc<Vec<Descriptor>>>, Error> {
        let (shared, its, digest) = (self.shared.clone(), place.clone(), *subject);
        let ask = Box::pin(async move { shared.ask_referrers(&its, &digest).await.map(Arc::new) });
        let fresh = place.freshness();
        match self
            .shared
            .referrers
            .get((place.key.clone(), *subject), fresh, ask)
            .await
        {
            Err(error) if !error.allows_stale => {
                Ok(Answer::new(Arc::default(), CacheStatus::of(Outcome::Miss)))
            }
            Err(error) => {
                let status = CacheStatus::stale(error.upstream_status);
                if let Some((descriptors, _)) =
                    self.shared.repositories.referrers(&place.key, subject).await?
                {
                    return Ok(Answer::new(Arc::new(descriptors), status));
                }
                // An image that is here must be pullable while its upstream is away, and newer clients ask for
                // referrers on every pull: then "none that we know of".
                match self.shared.linked_manifest(place, subject).await? {
                    Some(_) => Ok(Answer::new(Arc::default(), status)),
                    None if error.is_not_found() => {
                        Ok(Answer::new(Arc::default(), CacheStatus::of(Outcome::Miss)))
                    }
                    None => Err(error),
                }
            }
            found => found,
        }
    }
}

impl Shared {
    async fn ask_referrers(&self, place: &Place, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        let by_api = place
            .upstream
            .referrers(&place.name, subject, list_access(place))
            .await;
        let by_api = by_api.map_err(|error| Error::of_upstream(place, &error, ErrorKind::ManifestUnknown))?;
        let descriptors = match by_api {
            Some(descriptors) => descriptors,
            None => self.fallback_referrers(place, subject).await?,
        };
        // Anybody may ask about any digest: "none" is worth a row only for what is here.
        if !descriptors.is_empty() || self.linked_manifest(place, subject).await?.is_some() {
            self.repositories
                .put_referrers(&place.key, subject, descriptors.clone());
        }
        Ok(descriptors)
    }

    /// The index under the tag `sha256-<hex>` (distribution spec, "Referrers Tag Schema"). HEAD first: mostly there is
    /// none, and a HEAD costs no pull.
    async fn fallback_referrers(&self, place: &Place, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        let unknown = ErrorKind::ManifestUnknown;
        let Ok(tag) = referrers_fallback_tag(subject).parse() else {
            return Ok(Vec::new());
        };
        let (reference, access) = (Reference::Tag(tag), list_access(place));
        match place
            .upstream
            .manifest_head(&place.name, &reference, access)
            .await
        {
            Ok(_) => {}
            Err(error) if !error.allows_stale() => return Ok(Vec::new()),
            Err(error) if *error.kind() == crate::upstream::ErrorKind::HeadRefused => {}
            Err(error) => return Err(Error::of_upstream(place, &error, unknown)),
        }
        let fetched = match place.upstream.manifest(&place.name, &reference, access).await {
            Ok(fetched) => fetched,
            Err(error) if !error.allows_stale() => return Ok(Vec::new()),
            Err(error) => return Err(Error::of_upstream(place, &error, unknown)),
        };
        // Whatever else stands under that tag lists no referrers.
        Ok(Manifest::parse(&fetched.bytes, fetched.media_type.as_ref())
            .map(|index| index.manifests)
            .unwrap_or_default())
    }
}
