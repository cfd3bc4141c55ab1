//! Hosted repositories: what clients pushed here. Nothing of it is ever evicted, and no upstream is asked about it.
//!
//! A hosted repository's key is `hosted:` and its name, so that links, tags and referrers are kept as those of all
//! repositories are. Everything answers only after its commit is durable. Called by `registry`.

mod blobs;
mod collect;
mod discover;
mod error;
mod manifests;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::claims::Claims;
use crate::clock::Timestamp;
use crate::oci::{Digest, RepositoryName, Tag};
use crate::storage::{Blobs, Change, Error as StorageError, HOSTED, Index, RepositoryRow, Uploads};

use super::{Key, Repositories};

pub use super::immutability::Mutability;
pub use blobs::Finished;
pub use collect::Collected;
pub use error::Error;
pub use manifests::{Pushed, Pushing};
pub use settings::Settings;

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
    /// What a client was told that it is here stays so long, whether anything refers to it or not.
    leases: moka::sync::Cache<(Key, Digest), ()>,
    /// Links that a collection is about to take away.
    condemned: Claims<(Key, Digest)>,
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
            leases: moka::sync::Cache::builder().time_to_live(grace).build(),
            condemned: Claims::default(),
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
        let row = RepositoryRow {
            created_at: Timestamp::now(),
            created_by: by.to_owned(),
            settings: settings.to_json(),
        };
        self.put_row(name, row).await.map(|made| (made, true))
    }

    /// Gives a repository other settings.
    ///
    /// # Errors
    /// `NameUnknown`, when it does not exist.
    pub async fn change(&self, name: &RepositoryName, settings: Settings) -> Result<(), Error> {
        let known = self.repository(name).await?.ok_or(Error::NameUnknown)?;
        let row = RepositoryRow {
            created_at: known.created_at,
            created_by: known.created_by.to_string(),
            settings: settings.to_json(),
        };
        self.put_row(name, row).await.map(drop)
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
        Ok(made)
    }

    /// Removes a repository: with all that it holds if `force`, else only when it holds no manifest.
    ///
    /// # Errors
    /// `NameUnknown` and `NotEmpty`.
    pub async fn remove(&self, name: &RepositoryName, force: bool) -> Result<(), Error> {
        let repository = self.repository(name).await?.ok_or(Error::NameUnknown)?;
        if !force && self.holds_manifests(&repository).await? {
            return Err(Error::NotEmpty);
        }
        // Nobody finds it from here on; what it holds goes behind.
        self.shared
            .index
            .commit(vec![Change::remove_repository(name)])
            .await?;
        self.shared.known.insert(name.clone(), None);
        self.clear(&repository).await
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
}

/// What the content of a hosted repository is kept under.
pub fn key_of(name: &RepositoryName) -> Key {
    format!("{HOSTED}{name}").into()
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::NoRoom(_) => Self::NoRoom,
            StorageError::WrongDigest { actual, .. } => Self::DigestInvalid(actual),
            other => Self::Storage(other),
        }
    }
}
