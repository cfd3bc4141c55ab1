//! The tags of a repository: the upstream's list, or, when the upstream fails, the one of before, or at least the tags
//! that were pulled through here.

use std::sync::Arc;

use crate::repository::Key;

use super::error::{Error, ErrorKind};
use super::lists::{Instead, Lists, Weigh};
use super::negative::Missing;
use super::status::Answer;
use super::visibility::list_errand;
use super::{Cache, Place};

/// A page of a repository's tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagsPage {
    /// The tags.
    pub tags: Vec<String>,
    /// The query of the next page, when there is one.
    pub next_query: Option<String>,
}

/// Tags told from our own index at the most, when the upstream fails.
const MOST_OWN_TAGS: usize = 10_000;

/// By repository and query.
pub(super) type TagLists = Lists<(Key, String), TagsPage>;

impl Weigh for TagsPage {
    fn weight(&self) -> u32 {
        let bytes: usize = self.tags.iter().map(|tag| tag.len() + 40).sum();
        u32::try_from(bytes + 512).unwrap_or(u32::MAX)
    }
}

impl Cache {
    /// A page of the tags of a repository, by the query as the client gave it (without `ns`).
    pub async fn tags(&self, place: &Place, query: &str) -> Result<Answer<Arc<TagsPage>>, Error> {
        self.shared.negative.check(place, Missing::Tags)?;
        let (shared, its, asked) = (self.shared.clone(), place.clone(), query.to_owned());
        let ask = Box::pin(async move {
            match its.upstream.tags(&its.name, &asked, &list_errand(&its)).await {
                Ok(page) => Ok(Arc::new(TagsPage {
                    tags: page.tags,
                    next_query: page.next_query,
                })),
                Err(error) => {
                    shared.negative.learn(&its, Missing::Tags, &error);
                    Err(Error::of_upstream(&its, &error, ErrorKind::NameUnknown))
                }
            }
        });
        let key = (place.key.clone(), query.to_owned());
        let own = OwnTags {
            cache: self,
            place,
            query,
        };
        self.shared.tag_lists.get(place, key, ask, &own).await
    }
}

/// The tags that were pulled through here: better than nothing while the upstream is away.
struct OwnTags<'a> {
    cache: &'a Cache,
    place: &'a Place,
    query: &'a str,
}

impl Instead<TagsPage> for OwnTags<'_> {
    async fn copy(&self) -> Result<Option<TagsPage>, Error> {
        Ok(None)
    }

    async fn lesser(&self) -> Result<Option<TagsPage>, Error> {
        if !self.cache.shared.may_tell(self.place).await {
            return Ok(None);
        }
        let known = &self.cache.shared.repositories;
        let tags = known.known_tags(&self.place.key, MOST_OWN_TAGS).await?;
        Ok(Some(tags)
            .filter(|tags| !tags.is_empty())
            .map(|tags| page(tags, self.query)))
    }
}

/// The page that `query` asks for of all `tags`.
fn page(mut tags: Vec<String>, query: &str) -> TagsPage {
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
    TagsPage { tags, next_query }
}
