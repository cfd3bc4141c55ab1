//! Tag lists and referrers: JSON in pages, of which only the query of the next page's link is believed.

use std::borrow::Cow;
use std::num::IntErrorKind;

use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, LINK};
use serde::Deserialize;
use url::Url;

use super::client::Call;
use super::endpoint::Endpoint;
use super::errand::Errand;
use super::error::{Error, ErrorKind};
use super::observer::RequestKind;
use super::reply::Reply;
use crate::oci::{Descriptor, Digest, MAX_MANIFEST_SIZE, MediaType, OCI_INDEX, RepositoryName, next_link};

/// Largest page of a tag list, in bytes: registries without pages send all tags at once.
const MAX_TAGS_PAGE: usize = 16 * 1024 * 1024;
/// Tags asked for at once at most.
const MAX_TAGS: u64 = 1000;
/// Pages of referrers that are followed, and their bytes together.
const MAX_REFERRERS_PAGES: usize = 50;
const MAX_REFERRERS_SIZE: usize = 16 * 1024 * 1024;

/// One page of a tag list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagsPage {
    /// The tags, in the upstream's order.
    pub tags: Vec<String>,
    /// The query of the next page, encoded and without `ns`; `None` on the last one.
    pub next_query: Option<String>,
}

#[derive(Deserialize)]
struct TagList {
    // Repositories without tags have null here, or nothing.
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Option<Vec<serde_json::Value>>,
}

impl Endpoint {
    /// One page of the tag list. `query` is sent as it is (encoded, without the question mark, perhaps empty), but for a
    /// page of more than a thousand tags.
    pub(super) async fn tags(
        &self,
        repository: &RepositoryName,
        query: &str,
        errand: &Errand,
    ) -> Result<TagsPage, Error> {
        let mut url = self.url_of(&format!("{repository}/tags/list"));
        let query = modest(query);
        url.set_query(Some(&*query).filter(|query| !query.is_empty()));
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let call = Call {
            kind: RequestKind::Tags,
            method: Method::GET,
            url,
            repository,
            errand,
            headers,
            follow: true,
        };
        let mut reply = self.expect_ok(&call).await?;
        let body = reply.read(MAX_TAGS_PAGE).await.map_err(|error| {
            let (kind, message) = error.explain();
            self.transport.error(reply.host(), kind, message)
        })?;
        let list: TagList = serde_json::from_slice(&body).map_err(|error| {
            let message = format!("its tag list is none: {error}");
            self.transport.error(reply.host(), ErrorKind::Protocol, message)
        })?;
        Ok(TagsPage {
            tags: list.tags.unwrap_or_default(),
            next_query: next_query(&reply, &call.url),
        })
    }

    /// What refers to `digest`, by the referrers API, over all pages. `None` when there is no such API here, which
    /// registries say in many ways; redirects count as one of them, since GHCR's lead to wrong answers. Entries that are
    /// no descriptors are left out.
    ///
    /// # Errors
    /// Only what may pass, such as `RateLimited` and `Unavailable`, and a list without end.
    pub(super) async fn referrers(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        errand: &Errand,
    ) -> Result<Option<Vec<Descriptor>>, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(OCI_INDEX));
        let mut call = Call {
            kind: RequestKind::Referrers,
            method: Method::GET,
            url: self.url_of(&format!("{repository}/referrers/{digest}")),
            repository,
            errand,
            headers,
            follow: false,
        };
        let mut found = Vec::new();
        let mut size = 0;
        for _ in 0..MAX_REFERRERS_PAGES {
            let answer = match self.ask(&call).await {
                Err(error) if error.is_not_found() => return Ok(None),
                answer => answer?,
            };
            match answer.reply.status().as_u16() {
                200 => {}
                300..400 | 400 | 401 | 403..=406 | 410 | 501 => return Ok(None),
                _ => return Err(self.failure(&call, answer).await),
            }
            let mut reply = answer.reply;
            let media_type = reply.header(&CONTENT_TYPE).map(MediaType::new);
            if media_type.is_none_or(|media_type| media_type.as_str() != OCI_INDEX) {
                return Ok(None);
            }
            let body = reply.read(MAX_MANIFEST_SIZE).await.map_err(|error| {
                let (kind, message) = error.explain();
                self.transport.error(reply.host(), kind, message)
            })?;
            size += body.len();
            let Ok(index) = serde_json::from_slice::<Index>(&body) else {
                return Ok(None);
            };
            let entries = index.manifests.unwrap_or_default().into_iter();
            found.extend(entries.filter_map(|entry| serde_json::from_value::<Descriptor>(entry).ok()));
            let Some(next) = next_query(&reply, &call.url) else {
                return Ok(Some(found));
            };
            if size > MAX_REFERRERS_SIZE {
                break;
            }
            call.url.set_query(Some(&next));
        }
        let message = format!("the list of referrers of {digest} does not end");
        Err(self.transport.error(
            &super::transport::host_of(&call.url),
            ErrorKind::Protocol,
            message,
        ))
    }
}

/// The query with a page that every registry gives: Amazon ECR calls more an error. The link leads on to the rest.
fn modest(query: &str) -> Cow<'_, str> {
    let is_greedy = |pair: &&str| {
        let number = pair.strip_prefix("n=").filter(|number| !number.is_empty());
        number.is_some_and(|number| match number.parse::<u64>() {
            Ok(number) => number > MAX_TAGS,
            Err(error) => *error.kind() == IntErrorKind::PosOverflow,
        })
    };
    if !query.split('&').any(|pair| is_greedy(&pair)) {
        return query.into();
    }
    let most = format!("n={MAX_TAGS}");
    let pairs = query
        .split('&')
        .map(|pair| if is_greedy(&pair) { most.as_str() } else { pair });
    pairs.collect::<Vec<_>>().join("&").into()
}

/// The query of the link to the next page. Its host and path are not believed, and `ns` is ours.
fn next_query(reply: &Reply, current: &Url) -> Option<String> {
    let lines = reply.headers().get_all(LINK).iter();
    let target = lines.filter_map(|line| line.to_str().ok()).find_map(next_link)?;
    let url = current.join(target).ok()?;
    let kept: Vec<_> = url
        .query()?
        .split('&')
        .filter(|pair| !pair.is_empty() && *pair != "ns" && !pair.starts_with("ns="))
        .collect();
    let query = kept.join("&");
    // A page that is followed by itself would never end.
    (!query.is_empty() && Some(query.as_str()) != current.query()).then_some(query)
}

#[cfg(test)]
mod tests {
    use super::modest;

    #[test]
    fn pages_have_a_thousand_tags_at_most() {
        let table = [
            ("", ""),
            ("n=1000", "n=1000"),
            ("n=1001", "n=1000"),
            ("last=a%26n%3D9&n=5000", "last=a%26n%3D9&n=1000"),
            ("n=99999999999999999999", "n=1000"),
            ("n=-5000", "n=-5000"),
            ("n=", "n="),
            ("nn=5000&n=0", "nn=5000&n=0"),
            ("next_page=n=5000", "next_page=n=5000"),
        ];
        for (query, expected) in table {
            assert_eq!(modest(query), expected);
        }
    }
}
