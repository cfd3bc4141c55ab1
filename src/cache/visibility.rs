//! Content that only our own credential can read is private: given to callers without one only where the
//! configuration says `share_private`.
//!
//! So, at an upstream with credentials, the first pull from a repository asks anonymously as well (a HEAD, which costs
//! no pull), and what an anonymous caller could not read is answered like what does not exist. A limit on anonymous
//! callers must not fail that pull: then the list of tags is asked for, which the same right opens and which limits on
//! pulls do not count; and what was public before stays so while the upstream cannot tell, across restarts too.
//!
//! What is here already is given under the same rule, asked anew after an hour: `share_private` may have been taken back,
//! or the repository may have turned private. Then what was public counts as gone: it is given for `gone_ttl` still.

mod known;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;

use crate::collapse::Collapse;
use crate::oci::{Digest, Reference};
use crate::repository::Key;
use crate::upstream::{self, Errand};

use super::error::{Error, ErrorKind};
use super::negative::Missing;
use super::{Cache, Place, Shared};
use known::Seen;

/// How long "an anonymous caller can read it" holds without a further question, for what is fetched.
const HOLDS: Duration = Duration::from_mins(5);
/// The same for what is here. A tag that is revalidated renews it.
const HOLDS_HERE: Duration = Duration::from_hours(1);

/// How long it is not asked about what is here, once it could not tell.
const TROUBLE_HOLDS: Duration = Duration::from_secs(30);

/// What is known of who can read which repository.
pub(super) struct Visibility {
    public: moka::sync::Cache<Key, Seen>,
    /// Questions about blobs in progress.
    running: Collapse<(Key, Digest), Result<(), Error>>,
    /// Questions about what is here.
    here: Collapse<(Key, Missing), Result<(), Error>>,
    /// Repositories of which the upstream could not tell a moment ago.
    troubled: moka::sync::Cache<Key, ()>,
}

impl Default for Visibility {
    fn default() -> Self {
        Self {
            public: moka::sync::Cache::new(100_000),
            running: Collapse::default(),
            here: Collapse::default(),
            troubled: moka::sync::Cache::builder()
                .max_capacity(100_000)
                .time_to_live(TROUBLE_HOLDS)
                .build(),
        }
    }
}

impl Visibility {
    /// Whether it needs no question now.
    pub(super) fn is_public(&self, place: &Place) -> bool {
        let seen = self.public.get(&place.key).filter(|seen| seen.heard);
        seen.and_then(Seen::ago).is_some_and(|ago| ago < HOLDS)
    }

    /// How long ago an anonymous caller could read it, as far as memory goes.
    fn was_public(&self, place: &Place) -> Option<Duration> {
        self.public.get(&place.key)?.ago()
    }
}

/// Whether it is nobody's business here who reads what: nothing is private, everybody may have it, or each who asks was
/// let in by `admission`.
fn is_open(place: &Place) -> bool {
    let config = place.upstream.config();
    !config.has_login() || config.share_private || config.caller_check
}

/// The error for what is not there, or not for whoever asks.
pub(super) fn unknown(place: &Place) -> Error {
    let prefix = place.upstream.prefix();
    let message = format!("repository unknown to upstream {prefix}, or not available to it");
    Error::upstream(ErrorKind::NameUnknown, place, message)
}

/// How lists are asked for, so that they tell nothing that an anonymous caller could not learn.
pub(super) fn list_errand(place: &Place) -> Errand {
    if is_open(place) {
        place.errand()
    } else {
        place.anonymous_errand()
    }
}

/// Whether the upstream refuses an anonymous caller, rather than not having what was asked for.
pub(super) fn is_refused(error: &upstream::Error) -> bool {
    error.is_not_found() && *error.kind() != upstream::ErrorKind::NotFound
}

impl Shared {
    /// An anonymous caller cannot: an error for the client.
    async fn hide(&self, place: &Place) -> Error {
        let prefix = place.upstream.prefix();
        self.note_private(place).await;
        tracing::warn!(
            upstream = prefix,
            repository = &*place.key,
            "not readable without credentials, so not served: set share_private = true for this upstream to give what \
             its credentials can read to every caller, or caller_check = true to give it to those who can read it there"
        );
        unknown(place)
    }

    /// Whether what is here of a repository needs no further question before it is given away. From memory.
    pub(super) fn is_known_open(&self, place: &Place) -> bool {
        is_open(place)
            || self
                .visibility
                .was_public(place)
                .is_some_and(|ago| ago < HOLDS_HERE)
    }

    /// Whether lists of what is here may be told while the upstream does not tell them: it was public when it last said.
    pub(super) async fn may_tell(&self, place: &Place) -> bool {
        is_open(place) || self.was_public(place).await.is_some()
    }

    /// Refuses a manifest that is here when only our credential could read it now. While the upstream does not answer, what
    /// was public is.
    pub(super) async fn visible_though_here(
        self: &Arc<Self>,
        place: &Place,
        reference: &Reference,
    ) -> Result<(), Error> {
        let missing = Missing::Manifest(reference.clone());
        let (shared, its, reference) = (self.clone(), place.with_copy(), reference.clone());
        let ask = async move { shared.visible_manifest(&its, &reference).await };
        self.ask_though_here(place, missing, ask).await
    }

    /// The same of a blob.
    pub(super) async fn visible_blob_though_here(
        self: &Arc<Self>,
        place: &Place,
        digest: &Digest,
    ) -> Result<(), Error> {
        let (shared, its, digest) = (self.clone(), place.with_copy(), *digest);
        let ask = async move { shared.visible_blob(&its, &digest).await };
        self.ask_though_here(place, Missing::Blob(digest), ask).await
    }

    async fn ask_though_here(
        self: &Arc<Self>,
        place: &Place,
        what: Missing,
        ask: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) -> Result<(), Error> {
        let seen = self.seen(place).await;
        if seen.and_then(Seen::ago).is_some_and(|ago| ago < HOLDS_HERE) {
            return Ok(());
        }
        // As long as a tag that its upstream lost.
        let since = seen.and_then(|seen| seen.private_since);
        let gone_ttl = match &what {
            Missing::Manifest(Reference::Tag(tag)) => place.freshness_of(tag).gone_ttl,
            _ => place.upstream.config().longest_gone_ttl(),
        };
        if since.is_some_and(|since| Timestamp::now().since(since) < gone_ttl) {
            return Ok(());
        }
        // However long ago: how old a tag may be is judged elsewhere, and what is pulled by digest never is.
        let usable = seen.and_then(Seen::ago).is_some();
        if usable && self.visibility.troubled.contains_key(&place.key) {
            return Ok(());
        }
        let key = (place.key.clone(), what);
        let asked = self.visibility.here.run(key, || ask);
        let told = if usable {
            // The question goes on behind this answer.
            match tokio::time::timeout(place.freshness().wait_with_copy(), asked).await {
                Ok((told, _)) => told,
                Err(_) => Some(Err(Error::late(place))),
            }
        } else {
            asked.await.0
        };
        match told.unwrap_or_else(|| Err(Error::internal("asking anonymously was given up"))) {
            Err(error) if usable && error.allows_stale => {
                self.visibility.troubled.insert(place.key.clone(), ());
                Ok(())
            }
            told => told,
        }
    }

    /// Refuses a manifest that only our credential could read.
    pub(super) async fn visible_manifest(&self, place: &Place, reference: &Reference) -> Result<(), Error> {
        if is_open(place) || self.visibility.is_public(place) {
            return Ok(());
        }
        self.ask_publicly(place, reference).await
    }

    /// Asks about a manifest as anybody could.
    async fn ask_publicly(&self, place: &Place, reference: &Reference) -> Result<(), Error> {
        let (upstream, name, errand) = (&place.upstream, &place.name, place.anonymous_errand());
        let mut asked = upstream.manifest_head(name, reference, &errand).await.map(|_| ());
        // No HEAD here: only GET can tell.
        if let Err(error) = &asked
            && *error.kind() == upstream::ErrorKind::HeadRefused
        {
            asked = upstream.manifest(name, reference, &errand).await.map(|_| ());
        }
        self.conclude(place, Missing::Manifest(reference.clone()), asked)
            .await
    }

    /// Refuses a blob of a repository that is not known to be public: without a manifest there is nothing that could
    /// be asked for free.
    async fn visible_blob(&self, place: &Place, digest: &Digest) -> Result<(), Error> {
        let errand = place.anonymous_errand();
        let probe = place.upstream.blob_probe(&place.name, digest, &errand);
        let asked = probe.await.map(|_| ());
        self.conclude(place, Missing::Blob(*digest), asked).await
    }

    /// What an anonymous question about `what` tells of the repository.
    async fn conclude(
        &self,
        place: &Place,
        what: Missing,
        asked: Result<(), upstream::Error>,
    ) -> Result<(), Error> {
        let Err(error) = asked else {
            self.note_public(place);
            return Ok(());
        };
        if is_refused(&error) {
            self.negative.learn(place, what, &error);
            return Err(self.hide(place).await);
        }
        // It failed, but it answered, or it would refuse this question alone: so it may answer another.
        if error.allows_stale()
            && (error.status().is_some() || error.is_held())
            && let Some(told) = self.told_by_list(place).await
        {
            return told;
        }
        if error.allows_stale() && self.was_public_lately(place).await {
            self.visibility.troubled.insert(place.key.clone(), ());
            return Ok(());
        }
        let unknown = match &what {
            Missing::Blob(_) => ErrorKind::BlobUnknown,
            Missing::Manifest(_) | Missing::Tags => ErrorKind::ManifestUnknown,
        };
        self.negative.learn(place, what, &error);
        Err(Error::of_upstream(place, &error, unknown))
    }

    /// Whether an anonymous caller can read the repository, as its list of tags tells: pulling and listing take the
    /// same right (Docker token spec, `repository:<name>:pull`). `None` when that does not tell either.
    async fn told_by_list(&self, place: &Place) -> Option<Result<(), Error>> {
        let errand = place.anonymous_errand();
        let list = place.upstream.tags(&place.name, "n=1", &errand);
        match list.await {
            // An empty one may be what a registry tells those who must not know.
            Ok(page) if !page.tags.is_empty() => {
                self.note_public(place);
                Some(Ok(()))
            }
            Err(error) if is_refused(&error) => Some(Err(self.hide(place).await)),
            Ok(_) | Err(_) => None,
        }
    }
}

impl Cache {
    /// As [`Shared::visible_blob`], for all who ask at once.
    pub(super) async fn visible_blob(&self, place: &Place, digest: &Digest) -> Result<(), Error> {
        if is_open(place) || self.shared.visibility.is_public(place) {
            return Ok(());
        }
        let (shared, its, digest) = (self.shared.clone(), place.clone(), *digest);
        let ask = || async move { shared.visible_blob(&its, &digest).await };
        let running = &self.shared.visibility.running;
        let (visible, _) = running.run((place.key.clone(), digest), ask).await;
        visible.unwrap_or_else(|| Err(Error::internal("asking anonymously was given up")))
    }
}

#[cfg(test)]
mod tests;
