//! The one door to content: which repository a client means, and what it may pull from it. Called by `api`.

#[cfg(fuzzing)]
pub mod fuzzing;
mod hosted;
mod inspect;
mod reference;
mod repositories;
mod resolve;

use std::sync::Arc;
use std::time::Duration;

use crate::cache::{Cache, Place, Sought};
use crate::oci::{Descriptor, Digest, Reference, RepositoryName, Tag};
use crate::upstream::{self, CallerLogin, Upstream};

pub use crate::cache::report;
pub use crate::cache::{Answer, CacheStatus, Error, ErrorKind, Outcome, TagsPage};
pub use crate::repository::StoredManifest;
pub use crate::repository::hosted::{
    Error as HostedError, Hosted, HostedRepository, Mutability, Pushed, Pushing, RepositoryReport,
    RetentionPreview, Settings, Uploader, key_of,
};
pub use crate::storage::{BlobReader, ReadError, Upload, UploadId};
pub use hosted::{Intent, Located, Lost, Template, Templates};
pub use reference::OwnAddresses;
pub use repositories::{SettingsChange, Unwilling, Wish, lifecycle};
pub use resolve::{Asked, Door, Names};

/// How long an upstream is not asked about logins, once it could not tell.
const TROUBLE_HOLDS: Duration = Duration::from_secs(10);

/// A repository that a client asked for, resolved. Cheap to clone.
#[derive(Clone)]
pub struct Repository {
    place: Place,
    namespace: Option<Arc<str>>,
}

impl Repository {
    /// Where the cache has it.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The prefix of its upstream.
    pub fn upstream(&self) -> &str {
        self.place.upstream.prefix()
    }

    /// Its name at the upstream.
    pub fn name(&self) -> &RepositoryName {
        &self.place.name
    }

    /// Upstream prefix and name, for logs.
    pub fn key(&self) -> &Arc<str> {
        &self.place.key
    }

    /// Whether its upstream is asked who may read what is private in it.
    pub fn asks_about_callers(&self) -> bool {
        self.place.upstream.config().caller_check
    }

    /// The same, asked for by somebody with a login of their own at its upstream.
    #[must_use]
    pub fn asked_for_by(self, login: &CallerIdentity<'_>) -> Self {
        match login.at(&self.place.upstream) {
            Some(caller) => Self {
                place: self.place.asked_for_by(caller),
                ..self
            },
            None => self,
        }
    }

    /// Whether hosted repositories may lie over those of its upstream.
    pub fn is_overlaid(&self) -> bool {
        self.place.upstream.config().overlay
    }

    /// Whether the configuration lets anybody have this tag of it, or what is asked for without one.
    fn permit(&self, tag: Option<&Tag>) -> Result<(), Error> {
        let upstream = &self.place.upstream;
        let refused = upstream
            .config()
            .lists
            .refusal(self.name().as_str(), tag.map(Tag::as_str));
        match refused {
            None => Ok(()),
            Some(reason) => Err(Error::new(
                ErrorKind::Denied,
                format!("{}/{reason}", self.upstream()),
            )),
        }
    }

    /// A client pulled a manifest of it that was not fetched for that.
    pub fn pull_saved(&self) {
        self.place.upstream.pull_saved();
    }

    /// The value for `OCI-Namespace`: the `ns` that the client asked with.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }
}

/// Somebody's login at an upstream.
#[derive(Clone, Copy)]
pub struct CallerIdentity<'a> {
    /// The name there.
    pub name: &'a str,
    /// The password or token.
    pub secret: &'a str,
    /// What stands for both, and differs from that of any other.
    pub fingerprint: &'a [u8; 32],
}

impl CallerIdentity<'_> {
    fn at(&self, upstream: &Upstream) -> Option<CallerLogin> {
        upstream.caller_login(self.name, self.secret, *self.fingerprint)
    }
}

/// All content.
pub struct Registry {
    cache: Cache,
    names: Names,
    own: OwnAddresses,
    hosted: Hosted,
    templates: Templates,
    /// First components that no upstream is asked for.
    namespaces: Vec<Box<str>>,
    /// Upstreams that could not tell a moment ago whether they take a login.
    cannot_tell: moka::sync::Cache<String, Error>,
}

/// What is ours beside the cache.
pub struct Ours {
    /// The hosted repositories.
    pub hosted: Hosted,
    /// Which of them a push makes.
    pub templates: Templates,
    /// First components of names that no upstream is asked for, whether such a repository exists or not.
    pub namespaces: Vec<Box<str>>,
}

impl Registry {
    /// The door to what `cache` fetches, by `names`, and to what is `ours`. `own`: where clients reach us.
    pub fn new(cache: Cache, names: Names, own: OwnAddresses, ours: Ours) -> Self {
        Self {
            cache,
            names,
            own,
            hosted: ours.hosted,
            templates: ours.templates,
            namespaces: ours.namespaces,
            cannot_tell: moka::sync::Cache::builder()
                .max_capacity(1000)
                .time_to_live(TROUBLE_HOLDS)
                .build(),
        }
    }

    /// The hosted repositories.
    pub fn hosted(&self) -> &Hosted {
        &self.hosted
    }

    /// Whether the upstream `prefix` takes somebody's login there, whatever may be read by it.
    ///
    /// # Errors
    /// When it cannot tell.
    pub async fn accepts(&self, prefix: &str, login: &CallerIdentity<'_>) -> Result<bool, Error> {
        let found = self
            .names
            .upstreams()
            .into_iter()
            .find(|known| known.prefix() == prefix);
        let Some(upstream) = found.cloned() else {
            return Ok(false);
        };
        let Some(caller) = login.at(&upstream) else {
            return Ok(false);
        };
        // Who waits for one that does not answer holds a turn that others wait for.
        if let Some(error) = self.cannot_tell.get(prefix) {
            return Err(error);
        }
        let asked = upstream.accepts(&caller).await;
        asked.map_err(|error| {
            let error = error.without_words();
            tracing::warn!(upstream = prefix, %error, "cannot tell whether a caller's login is good");
            let message = format!("upstream {prefix} cannot tell whether it takes this login");
            let kind = match error.kind() {
                upstream::ErrorKind::RateLimited { retry_after, .. } => ErrorKind::RateLimited {
                    retry_after: *retry_after,
                },
                _ => ErrorKind::UpstreamUnavailable,
            };
            // An answer, whatever it is, may be one to this login alone.
            match error.kind() {
                upstream::ErrorKind::Unavailable(failure)
                    if !matches!(failure, upstream::Failure::Status(_)) =>
                {
                    self.accepts_nothing(prefix)
                }
                _ => Error::new(kind, message),
            }
        })
    }

    /// It does not answer about logins: for a moment it is not asked about any.
    pub fn accepts_nothing(&self, prefix: &str) -> Error {
        let message = format!("upstream {prefix} does not answer whether it takes this login");
        let error = Error::new(ErrorKind::UpstreamUnavailable, message);
        self.cannot_tell.insert(prefix.to_owned(), error.clone());
        error
    }

    /// Which repository a client means.
    pub fn resolve(&self, asked: &Asked<'_>) -> Result<Repository, Error> {
        self.names.resolve(asked)
    }

    /// A manifest by tag or digest.
    pub async fn manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Answer<Arc<StoredManifest>>, Error> {
        repository.permit(match reference {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        })?;
        let place = &repository.place;
        let found = match self.cache.admit(place, Sought::Manifest(reference)).await? {
            None => self.cache.manifest(place, reference).await?,
            Some(error) => {
                let here = self.cache.manifest_here(place, reference).await?;
                here.ok_or(error)?
            }
        };
        // Here and nowhere below: what is fetched for nobody is no pull.
        self.cache
            .pulled(&repository.place, reference, &found.value.digest);
        Ok(found)
    }

    /// A reader of a blob.
    pub async fn blob(&self, repository: &Repository, digest: &Digest) -> Result<Answer<BlobReader>, Error> {
        repository.permit(None)?;
        let place = &repository.place;
        match self.cache.admit(place, Sought::Blob(digest)).await? {
            None => self.cache.blob(place, digest).await,
            Some(error) => self.cache.blob_here(place, digest).await?.ok_or(error),
        }
    }

    /// The size of a blob.
    pub async fn blob_size(&self, repository: &Repository, digest: &Digest) -> Result<Answer<u64>, Error> {
        repository.permit(None)?;
        let place = &repository.place;
        match self.cache.admit(place, Sought::Blob(digest)).await? {
            None => self.cache.blob_size(place, digest).await,
            Some(error) => self.cache.blob_size_here(place, digest).await?.ok_or(error),
        }
    }

    /// A page of tags, by the client's query without `ns`.
    pub async fn tags(&self, repository: &Repository, query: &str) -> Result<Answer<Arc<TagsPage>>, Error> {
        repository.permit(None)?;
        match self.cache.admit(&repository.place, Sought::Tags).await? {
            None => self.cache.tags(&repository.place, query).await,
            Some(error) => Err(error),
        }
    }

    /// What refers to a manifest.
    pub async fn referrers(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Answer<Arc<Vec<Descriptor>>>, Error> {
        repository.permit(None)?;
        let (place, subject) = (&repository.place, Reference::Digest(*digest));
        match self.cache.admit(place, Sought::Manifest(&subject)).await {
            Ok(None) => self.cache.referrers(place, digest).await,
            Ok(Some(_)) => self.cache.referrers_here(place, digest).await,
            // What is not there has no referrers, which is no error.
            Err(error) if error.kind == ErrorKind::ManifestUnknown => {
                Ok(Answer::new(Arc::default(), CacheStatus::of(Outcome::Miss)))
            }
            Err(error) => Err(error),
        }
    }
}
