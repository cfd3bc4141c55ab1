//! The limit on how long a client waits for the head of a response, whatever there is to wait for: names, tokens,
//! retries, a turn among the downloads, a size. What was begun goes on behind. Called by `api` for every request.

use std::pin::Pin;
use std::time::Duration;

use super::rescue::Failure;
use crate::registry::{Error, ErrorKind, Outcome, Repository};

/// What `handling` gives, or nothing when that takes longer than `limit`, if there is one. By reference: moved in here it
/// would be copied twice for each request, and held twice as large.
pub(super) async fn within<F: Future>(limit: Option<Duration>, handling: Pin<&mut F>) -> Option<F::Output> {
    let limit = limit.unwrap_or(Duration::MAX);
    tokio::time::timeout(limit, handling).await.ok()
}

/// The failure of a request that there was no answer to within `limit`.
pub(super) fn missed(limit: Duration, repository: Option<&Repository>) -> Failure {
    let upstream = repository.map(Repository::upstream);
    let message = match upstream {
        Some(upstream) => format!("upstream {upstream} did not answer within {limit:?}"),
        None => format!("no answer within {limit:?}"),
    };
    tracing::warn!(
        upstream,
        repository = repository.map(|repository| &**repository.key()),
        limit_seconds = limit.as_secs_f64(),
        "no answer in time: the client is told so, and what was begun goes on"
    );
    let mut error = Error::new(ErrorKind::UpstreamTimeout, message);
    error.upstream = upstream.map(str::to_owned);
    error.outcome = Outcome::Miss;
    Failure::Registry(error)
}
