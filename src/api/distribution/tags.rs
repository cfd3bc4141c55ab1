//! `tags/list`: the upstream's tags under the name that the client used, and a link to the next page that leads back
//! here.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::api::Asking;
use crate::api::body::Content;
use crate::api::query;
use crate::api::reply::{JSON, Reply};
use crate::api::rescue::Failure;
use crate::api::route::{Page, Target};
use crate::registry::Repository;

#[derive(Serialize)]
struct List<'a> {
    name: &'a str,
    tags: &'a [String],
}

/// Answers with a page of tags.
pub(in crate::api) async fn list(
    asking: &mut Asking<'_>,
    repository: &Repository,
    target: &Target<'_>,
    page: Page,
) -> Result<Reply, Failure> {
    let client_query = asking.uri.query().unwrap_or_default();
    let query = match page {
        Page::Some => query::without_ns(client_query),
        // Upstreams disagree on n=0; the question that remains is whether there is such a repository.
        Page::Nothing => "n=1".into(),
    };
    let found = asking.shared.registry.tags(repository, &query).await;
    let answer = found.map_err(Failure::Registry)?;
    asking.note(answer.status);
    let (tags, next) = match page {
        Page::Some => (&*answer.value.tags, answer.value.next_query.as_deref()),
        Page::Nothing => (&[][..], None),
    };
    Ok(reply(asking, target, tags, next))
}

/// A page of tags, and the query of the next one.
pub(super) fn reply(asking: &Asking<'_>, target: &Target<'_>, tags: &[String], next: Option<&str>) -> Reply {
    let list = List {
        name: target.name.as_str(),
        tags,
    };
    // Strings always serialize.
    let body = Bytes::from(serde_json::to_vec(&list).unwrap_or_default());
    let mut reply = Reply::new(StatusCode::OK, Content::Full(body)).with(header::CONTENT_TYPE, JSON.clone());
    if let Some(next) = next {
        let link = query::next_link(asking.uri.path(), next, target.ns.as_deref());
        reply
            .headers
            .extend(HeaderValue::try_from(link).ok().map(|link| (header::LINK, link)));
    }
    reply
}
