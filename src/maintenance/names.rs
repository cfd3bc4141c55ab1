//! Which hosted repositories a job goes over: those that were named, or all, a page at a time. Used by `collect` and
//! `expire`.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::oci::RepositoryName;
use crate::repository::hosted::{Error, Hosted, HostedRepository};

/// Names that are read together.
const PAGE: usize = 1000;

/// Repositories that a job has yet to do.
pub(super) struct Wanted {
    ahead: VecDeque<RepositoryName>,
    /// Of all: after which the next page begins; none when these were named.
    after: Option<String>,
}

impl Wanted {
    /// Those of `names`, or all when there is none.
    ///
    /// # Errors
    /// A sentence about the first that is not there.
    pub(super) async fn find(hosted: &Hosted, names: &[String]) -> Result<Self, String> {
        let mut ahead = VecDeque::new();
        for text in names {
            let name: RepositoryName = text.parse().map_err(|error| format!("`{text}`: {error}"))?;
            let found = hosted.repository(&name).await;
            if found.map_err(|error| error.to_string())?.is_none() {
                return Err(format!("there is no hosted repository {name}"));
            }
            ahead.push_back(name);
        }
        let after = names.is_empty().then(String::new);
        Ok(Self { ahead, after })
    }

    pub(super) fn is_all(&self) -> bool {
        self.after.is_some()
    }

    /// How many there are, if they were named.
    pub(super) fn count(&self) -> Option<u64> {
        (!self.is_all()).then_some(self.ahead.len() as u64)
    }
}

/// The next of them that exists.
pub(super) async fn next(
    hosted: &Hosted,
    wanted: &mut Wanted,
) -> Result<Option<Arc<HostedRepository>>, Error> {
    loop {
        if wanted.ahead.is_empty()
            && let Some(after) = &mut wanted.after
        {
            wanted.ahead = hosted.catalog(after, PAGE, |_| true).await?.into();
            if let Some(last) = wanted.ahead.back() {
                last.as_str().clone_into(after);
            }
        }
        let Some(name) = wanted.ahead.pop_front() else {
            return Ok(None);
        };
        if let Some(found) = hosted.repository(&name).await? {
            return Ok(Some(found));
        }
    }
}
