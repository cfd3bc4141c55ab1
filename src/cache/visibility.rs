//! Content that only our own credential can read is private: given to callers without one only where the
//! configuration says `share_private`.
//!
//! So, at an upstream with credentials, the first pull from a repository asks anonymously as well (a HEAD, which costs
//! no pull), and what an anonymous caller could not read is answered like what does not exist. A limit on anonymous
//! callers must not fail that pull: then the list of tags is asked for, which the same right opens and which limits on
//! pulls do not count; and what was public before stays so while the upstream cannot tell.

use std::time::{Duration, Instant};

use crate::collapse::Collapse;
use crate::oci::{Digest, Reference};
use crate::repository::Key;
use crate::upstream::{self, Errand};

use super::error::{Error, ErrorKind};
use super::negative::Missing;
use super::{Cache, Place, Shared};

/// How long "an anonymous caller can read it" holds without a further question.
const HOLDS: Duration = Duration::from_mins(5);

/// What is known of who can read which repository.
pub(super) struct Visibility {
    /// When an anonymous caller could last read it.
    public: moka::sync::Cache<Key, Instant>,
    /// Questions about blobs in progress.
    running: Collapse<(Key, Digest), Result<(), Error>>,
}

impl Default for Visibility {
    fn default() -> Self {
        Self {
            public: moka::sync::Cache::new(100_000),
            running: Collapse::default(),
        }
    }
}

impl Visibility {
    fn is_public(&self, place: &Place) -> bool {
        self.was_public(place).is_some_and(|ago| ago < HOLDS)
    }

    /// How long ago an anonymous caller could read it.
    fn was_public(&self, place: &Place) -> Option<Duration> {
        self.public.get(&place.key).map(|seen| seen.elapsed())
    }

    fn note(&self, place: &Place) {
        self.public.insert(place.key.clone(), Instant::now());
    }

    /// It is private: an error for the client.
    fn hide(&self, place: &Place) -> Error {
        self.public.invalidate(&place.key);
        tracing::warn!(
            upstream = place.upstream.prefix(),
            repository = &*place.key,
            "not readable without credentials, so not served: set share_private = true for this upstream to give what \
             its credentials can read to every caller"
        );
        let prefix = place.upstream.prefix();
        Error::upstream(
            ErrorKind::NameUnknown,
            place,
            format!("repository unknown to upstream {prefix}, or not available to it"),
        )
    }
}

fn is_open(place: &Place) -> bool {
    let config = place.upstream.config();
    !config.has_login() || config.share_private
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
fn is_refused(error: &upstream::Error) -> bool {
    error.is_not_found() && *error.kind() != upstream::ErrorKind::NotFound
}

impl Shared {
    /// Refuses a manifest that only our credential could read.
    pub(super) async fn visible_manifest(&self, place: &Place, reference: &Reference) -> Result<(), Error> {
        if is_open(place) || self.visibility.is_public(place) {
            return Ok(());
        }
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
            self.visibility.note(place);
            return Ok(());
        };
        if is_refused(&error) {
            self.negative.learn(place, what, &error);
            return Err(self.visibility.hide(place));
        }
        // It failed, but it answered, or it would refuse this question alone: so it may answer another.
        if error.allows_stale()
            && (error.status().is_some() || error.is_held())
            && let Some(told) = self.told_by_list(place).await
        {
            return told;
        }
        let stale = place.freshness().stale_if_error;
        if error.allows_stale() && self.visibility.was_public(place).is_some_and(|ago| ago < stale) {
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
                self.visibility.note(place);
                Some(Ok(()))
            }
            Err(error) if is_refused(&error) => Some(Err(self.visibility.hide(place))),
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
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::{Config, StorageConfig};
    use crate::storage::Storage;
    use crate::telemetry::Metrics;
    use crate::upstream::Upstream;

    /// An upstream that answers everything like this.
    async fn answering(status: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = stream.write_all(head.as_bytes()).await;
            }
        });
        format!("http://{address}")
    }

    #[tokio::test]
    async fn what_was_public_stays_so_while_the_upstream_cannot_tell_and_no_longer() {
        let minutes = |minutes| Instant::now().checked_sub(Duration::from_mins(minutes)).unwrap();
        // What the upstream says, when it was last seen to be public, and whether it may be served.
        let table = [
            ("429 Too Many Requests", Some(minutes(6)), true),
            ("429 Too Many Requests", Some(minutes(61)), false),
            ("429 Too Many Requests", None, false),
            ("418 Teapot", Some(minutes(6)), true),
            ("404 Not Found", Some(minutes(6)), false),
            ("403 Forbidden", Some(minutes(6)), false),
            ("403 Forbidden", Some(minutes(1)), true),
        ];
        for (status, seen, expected) in table {
            let url = answering(status).await;
            let text = format!(
                "[upstream.test]\nurl = \"{url}\"\nusername = \"u\"\npassword = \"p\"\nstale_if_error = \"1h\"\n"
            );
            let config = Config::from_toml_str(&text, "test.toml").unwrap();
            let upstream = Upstream::new(config.upstream("test").unwrap().clone(), Arc::new(())).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let storage = Storage::open(&StorageConfig::in_folder(folder.path().join("data"))).unwrap();
            let cache = Cache::new(
                storage,
                Arc::new(Metrics::new()),
                tokio::runtime::Handle::current(),
            );
            let place = Place::new(upstream, "acme/app".parse().unwrap());
            let reference: Reference = "v1".parse().unwrap();
            if let Some(seen) = seen {
                cache.shared.visibility.public.insert(place.key.clone(), seen);
            }
            let visible = cache.shared.visible_manifest(&place, &reference).await;
            assert_eq!(visible.is_ok(), expected, "{status} {seen:?}");
            // A refusal is remembered against it, whatever was seen before.
            if status.starts_with("403") && !expected {
                assert!(cache.shared.visibility.was_public(&place).is_none());
            }
            let storage = cache.clone();
            tokio::task::spawn_blocking(move || storage.close())
                .await
                .unwrap();
        }
    }
}
