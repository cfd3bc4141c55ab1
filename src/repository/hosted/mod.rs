//! Hosted repositories: what clients pushed here. Nothing of it is ever evicted, and no upstream is asked about it.
//!
//! A hosted repository's key is `hosted:` and its name, so that links, tags and referrers are kept as those of all
//! repositories are. Everything answers only after its commit is durable. Called by `registry`.

mod blobs;
mod collect;
mod discover;
mod error;
mod manifests;
mod naming;
mod report;
mod retention;
mod settings;
#[cfg(test)]
mod tests;
mod uploads;

use std::sync::Arc;
use std::time::Duration;

use crate::claims::Claims;
use crate::clock::Timestamp;
use crate::oci::{Digest, RepositoryName, Tag};
use crate::storage::{Blobs, Change, Error as StorageError, HOSTED, Index, RepositoryRow, Uploads};

use super::{Key, Repositories};

pub use super::immutability::Mutability;
use blobs::detached;
pub use collect::{Collected, Collecting, Walked};
pub use error::Error;
pub use manifests::{Pushed, Pushing};
use naming::Naming;
pub use report::{Expiring, Holdings, RepositoryReport, RetentionPreview};
pub use retention::Expired;
pub use settings::Settings;
pub use uploads::{Finished, Uploader};

/// How many repositories are remembered.
const KNOWN: u64 = 100_000;

/// A hosted repository that exists.
#[derive(Clone, Debug)]
pub struct HostedRepository {
    /// Its name.
    pub name: RepositoryName,
    /// What its content is kept under.
    pub key: Key,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: Arc<str>,
    /// Its settings.
    pub settings: Settings,
}

/// All hosted repositories. Clones share them.
#[derive(Clone)]
pub struct Hosted {
    shared: Arc<Shared>,
}

struct Shared {
    repositories: Arc<Repositories>,
    index: Arc<Index>,
    blobs: Blobs,
    uploads: Uploads,
    known: moka::sync::Cache<RepositoryName, Option<Arc<HostedRepository>>>,
    /// First components of names, and whether a repository has, or had, such a name.
    namespaces: moka::sync::Cache<Arc<str>, bool>,
    /// Repositories that are about to be made, changed or removed.
    changing: Claims<RepositoryName>,
    /// What a client was told that it is here stays so long, whether anything refers to it or not.
    leases: moka::sync::Cache<(Key, Digest), ()>,
    /// Links that are about to be taken away, and manifests that are about to be put.
    condemned: Claims<(Key, Digest)>,
    /// What pushes that are under way name.
    naming: Naming,
    /// Tags that are about to move.
    moving: Claims<(Key, Tag)>,
    grace: Duration,
    leases_since: Timestamp,
}

impl Hosted {
    /// What `index` and `blobs` hold. What was pushed, or said to be here, is not collected for `grace`; what was said before
    /// `leases_since`, the start of the process, nobody remembers.
    pub fn new(
        repositories: Arc<Repositories>,
        index: Arc<Index>,
        blobs: Blobs,
        uploads: Uploads,
        grace: Duration,
        leases_since: Timestamp,
    ) -> Self {
        let shared = Shared {
            repositories,
            index,
            blobs,
            uploads,
            known: moka::sync::Cache::new(KNOWN),
            namespaces: moka::sync::Cache::new(KNOWN),
            changing: Claims::default(),
            leases: moka::sync::Cache::builder().time_to_live(grace).build(),
            condemned: Claims::default(),
            naming: Naming::default(),
            moving: Claims::default(),
            grace,
            leases_since,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The repository of this name, if it exists.
    pub async fn repository(&self, name: &RepositoryName) -> Result<Option<Arc<HostedRepository>>, Error> {
        let shared = &self.shared;
        if let Some(known) = shared.known.get(name) {
            return Ok(known);
        }
        let wanted = name.clone();
        let row = shared
            .index
            .read(move |index| index.repository(wanted.as_str()))
            .await?;
        let found = row.map(|row| Arc::new(HostedRepository::of(name, row)));
        // Who makes or changes one puts it here after the commit, which is newer than what was read.
        Ok(shared.known.entry(name.clone()).or_insert(found).into_value())
    }

    /// Whether a repository has, or had, a name with this first component: such names are never an upstream's.
    pub async fn is_namespace(&self, first: &str) -> Result<bool, Error> {
        let shared = &self.shared;
        if let Some(known) = shared.namespaces.get(first) {
            return Ok(known);
        }
        let wanted: Arc<str> = first.into();
        let its = wanted.clone();
        let found = shared.index.read(move |index| index.is_namespace(&its)).await?;
        // As above: who makes a repository says so after the commit.
        Ok(shared.namespaces.entry(wanted).or_insert(found).into_value())
    }

    /// Makes a repository; the one that exists where there is one, and whether it is new.
    pub async fn create(
        &self,
        name: &RepositoryName,
        by: &str,
        settings: Settings,
    ) -> Result<(Arc<HostedRepository>, bool), Error> {
        if let Some(known) = self.repository(name).await? {
            return Ok((known, false));
        }
        let (its, name, by) = (self.clone(), name.clone(), by.to_owned());
        detached(async move {
            let _turn = its.shared.changing.claim(&name).await;
            if let Some(known) = its.repository(&name).await? {
                return Ok((known, false));
            }
            // What a removal left when it was cut short must not be the new one's.
            its.clear(&key_of(&name)).await?;
            let row = RepositoryRow {
                created_at: Timestamp::now(),
                created_by: by,
                settings: settings.to_json(),
            };
            its.put_row(&name, row).await.map(|made| (made, true))
        })
        .await
    }

    /// Gives a repository other settings.
    ///
    /// # Errors
    /// `NameUnknown`, when it does not exist.
    pub async fn change(
        &self,
        name: &RepositoryName,
        settings: Settings,
    ) -> Result<Arc<HostedRepository>, Error> {
        self.change_by(name, |_| settings).await
    }

    /// Gives a repository the settings that `change` makes of its present ones.
    ///
    /// # Errors
    /// `NameUnknown`, when it does not exist.
    pub async fn change_by(
        &self,
        name: &RepositoryName,
        change: impl FnOnce(Settings) -> Settings + Send + 'static,
    ) -> Result<Arc<HostedRepository>, Error> {
        let (its, name) = (self.clone(), name.clone());
        detached(async move {
            let _turn = its.shared.changing.claim(&name).await;
            let known = its.repository(&name).await?.ok_or(Error::NameUnknown)?;
            let row = RepositoryRow {
                created_at: known.created_at,
                created_by: known.created_by.to_string(),
                settings: change(known.settings.clone()).to_json(),
            };
            its.put_row(&name, row).await
        })
        .await
    }

    async fn put_row(
        &self,
        name: &RepositoryName,
        row: RepositoryRow,
    ) -> Result<Arc<HostedRepository>, Error> {
        let made = Arc::new(HostedRepository::of(name, row.clone()));
        self.shared
            .index
            .commit(vec![Change::put_repository(name, &row)])
            .await?;
        self.shared.known.insert(name.clone(), Some(made.clone()));
        self.shared.namespaces.insert(name.namespace().into(), true);
        Ok(made)
    }

    /// Removes a repository: with all that it holds if `force`, else only when it holds no manifest. Its name stays ours.
    ///
    /// # Errors
    /// `NameUnknown` and `NotEmpty`.
    pub async fn remove(&self, name: &RepositoryName, force: bool) -> Result<(), Error> {
        let (its, name) = (self.clone(), name.clone());
        detached(async move {
            let _turn = its.shared.changing.claim(&name).await;
            let repository = its.repository(&name).await?.ok_or(Error::NameUnknown)?;
            if !force && its.holds_manifests(&repository).await? {
                return Err(Error::NotEmpty);
            }
            // Nobody finds it from here on; what it holds goes behind. What a kill leaves of that a collection takes.
            its.shared
                .index
                .commit(vec![Change::remove_repository(&name)])
                .await?;
            its.shared.known.insert(name.clone(), None);
            its.clear(&repository.key).await.map(drop)
        })
        .await
    }
}

impl HostedRepository {
    fn of(name: &RepositoryName, row: RepositoryRow) -> Self {
        Self {
            name: name.clone(),
            key: key_of(name),
            created_at: row.created_at,
            created_by: row.created_by.into(),
            settings: Settings::of_json(row.settings),
        }
    }

    /// What goes before the changes of each push, in one submission: they are written only while the repository is there,
    /// and as far as its quota goes, whatever else is pushed at the same time.
    fn admission(&self) -> Change {
        Change::admit(&self.name, self.created_at, self.settings.quota)
    }
}

/// What the content of a hosted repository is kept under.
pub fn key_of(name: &RepositoryName) -> Key {
    format!("{HOSTED}{name}").into()
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::NoRoom(_) => Self::NoRoom,
            StorageError::Quota(quota) => Self::Quota(quota),
            StorageError::RepositoryGone => Self::NameUnknown,
            StorageError::TooManyUploads(most) => Self::TooManyUploads(most),
            StorageError::WrongDigest { actual, .. } => Self::DigestInvalid(actual),
            other => Self::Storage(other),
        }
    }
}
