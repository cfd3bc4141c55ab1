//! Who can log in, kept in the index: users, robots, their secrets and access keys. All are in memory, and answered from
//! there; a change answers once it is durable. Called by `api` for operators; `auth` asks it through
//! [`IdentityStore`].

mod access_keys;
mod command;
mod error;
mod names;
mod report;
mod row;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use crate::auth::identity::Account;
use crate::auth::password::{Secret, Stored};
use crate::auth::{IdentityStore, Login};
use crate::claims::Claims;
use crate::clock::Timestamp;
use crate::storage::{Change, Index};

pub use access_keys::MasterKey;
pub use command::{Command, Done};
pub use error::Error;
pub use report::{AccessKeyReport, IdentityReport, SecretReport};
pub use row::{Changed, Kind, New};

use names::check_name;
use row::{AccessKeyRow, Row};

/// Secrets, and access keys, that one identity may have.
const MOST_SECRETS: usize = 100;
/// AWS's number, so that rotation works as people know it.
const MOST_ACCESS_KEYS: usize = 2;

/// All who can log in. Clones share them.
#[derive(Clone)]
pub struct Identities {
    shared: Arc<Shared>,
}

struct Shared {
    index: Arc<Index>,
    account: Account,
    master: MasterKey,
    known: RwLock<Known>,
    /// Those that are being changed.
    changing: Claims<String>,
}

#[derive(Default)]
struct Known {
    /// Rows that cannot be understood, of whom nobody gets in; that there are logins they say all the same.
    broken: HashSet<String>,
    by_name: HashMap<String, Arc<Entry>>,
    by_access_key: HashMap<String, String>,
}

struct Entry {
    row: Row,
    login: Arc<Login>,
}

/// A secret, told this once.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Made {
    /// What it is called.
    pub id: String,
    /// The secret.
    pub secret: String,
}

impl Identities {
    /// Reads them all. Blocking: called once, before anything is served.
    ///
    /// # Errors
    /// When the index cannot be read. An identity that cannot be understood is told in the log, and cannot log in.
    pub fn open(index: Arc<Index>, account: Account, master: MasterKey) -> Result<Self, Error> {
        let mut known = Known::default();
        for (name, bytes) in index.identities()? {
            let Some(row) = Row::decode(&bytes) else {
                tracing::error!(name, "an identity cannot be read: it cannot log in");
                known.broken.insert(name);
                continue;
            };
            known.put(&name, row, &account);
        }
        let shared = Shared {
            index,
            account,
            master,
            known: RwLock::new(known),
            changing: Claims::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    fn entry(&self, name: &str) -> Option<Arc<Entry>> {
        let known = self.shared.known.read().unwrap_or_else(PoisonError::into_inner);
        known.by_name.get(name).cloned()
    }

    /// All of them, by name.
    pub fn list(&self) -> Vec<IdentityReport> {
        let known = self.shared.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = known
            .by_name
            .iter()
            .map(|(name, entry)| report::of(name, &entry.row))
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Makes one, for `by` (kind and name, as `Caller::key` gives them). A robot gets its first secret, which is given back;
    /// so does a user without a password.
    ///
    /// # Errors
    /// `Name`, `Exists`, and what is wrong with password, scopes or policy.
    pub async fn create(
        &self,
        name: &str,
        new: New,
        by: &str,
        now: Timestamp,
    ) -> Result<Option<Made>, Error> {
        check_name(name)?;
        let _turn = self.shared.changing.claim(&name.to_owned()).await;
        if self.entry(name).is_some() {
            return Err(Error::Exists(name.to_owned()));
        }
        if new.kind == Kind::Robot && new.password.is_some() {
            return Err(Error::RobotPassword);
        }
        let password = hashed(new.password.clone()).await?;
        let mut row = Row::of(new, by, password, now)?;
        let made = match row.password {
            Some(_) => None,
            None => Some(row.add_secret(String::new(), None, None, by, now)?),
        };
        self.save(name, row).await?;
        Ok(made)
    }

    /// Changes one. What it can log in with from here on is another: tokens made before are void.
    ///
    /// # Errors
    /// `Unknown`, and as [`Identities::create`].
    pub async fn change(&self, name: &str, changed: Changed) -> Result<(), Error> {
        let _turn = self.shared.changing.claim(&name.to_owned()).await;
        let entry = self.entry(name).ok_or_else(|| Error::Unknown(name.to_owned()))?;
        if entry.row.kind == Kind::Robot && changed.password.is_some() {
            return Err(Error::RobotPassword);
        }
        let password = hashed(changed.password.clone()).await?;
        let mut row = entry.row.clone();
        row.change(changed, password)?;
        self.save(name, row).await
    }

    /// Removes one, with all that it can log in with.
    ///
    /// # Errors
    /// `Unknown`
    pub async fn remove(&self, name: &str) -> Result<(), Error> {
        let _turn = self.shared.changing.claim(&name.to_owned()).await;
        if self.entry(name).is_none() && !self.is_broken(name) {
            return Err(Error::Unknown(name.to_owned()));
        }
        // Nobody gets in by it from here on, whether the disk follows or not; where it does not, it can be asked again.
        self.write().forget(name);
        let change = Change::remove_identity(name);
        let committed = self.shared.index.commit(vec![change]).await;
        if committed.is_err() {
            self.write().broken.insert(name.to_owned());
        }
        Ok(committed?)
    }

    /// Makes a secret that opens it, for `by`.
    ///
    /// # Errors
    /// `Unknown` and `TooMany`.
    pub async fn add_secret(
        &self,
        name: &str,
        description: String,
        expires_at: Option<Timestamp>,
        scopes: Option<Vec<String>>,
        by: &str,
        now: Timestamp,
    ) -> Result<Made, Error> {
        let scopes = scopes.map(row::checked_scopes).transpose()?;
        let _turn = self.shared.changing.claim(&name.to_owned()).await;
        let entry = self.entry(name).ok_or_else(|| Error::Unknown(name.to_owned()))?;
        let mut row = entry.row.clone();
        row.secrets
            .retain(|secret| secret.expires_at.is_none_or(|end| now < end));
        if row.secrets.len() >= MOST_SECRETS {
            return Err(Error::TooMany(MOST_SECRETS));
        }
        let made = row.add_secret(description, expires_at, scopes, by, now)?;
        self.save(name, row).await?;
        Ok(made)
    }

    /// Takes a secret away; tokens made before are void.
    ///
    /// # Errors
    /// `Unknown` and `NoSecret`.
    pub async fn revoke_secret(&self, name: &str, id: &str) -> Result<(), Error> {
        let _turn = self.shared.changing.claim(&name.to_owned()).await;
        let entry = self.entry(name).ok_or_else(|| Error::Unknown(name.to_owned()))?;
        let mut row = entry.row.clone();
        row.secrets.retain(|secret| secret.id != id);
        if row.secrets.len() == entry.row.secrets.len() {
            return Err(Error::NoSecret(id.to_owned()));
        }
        row.turn();
        self.save(name, row).await
    }

    /// Makes an access key, for `by`: an id and a secret that signs requests (AWS Signature Version 4), and that opens as name
    /// and password do.
    ///
    /// # Errors
    /// `Unknown`, `TooMany`, and when the master key cannot be had.
    pub async fn add_access_key(&self, name: &str, by: &str, now: Timestamp) -> Result<Made, Error> {
        let _turn = self.shared.changing.claim(&name.to_owned()).await;
        let entry = self.entry(name).ok_or_else(|| Error::Unknown(name.to_owned()))?;
        let mut row = entry.row.clone();
        if row.access_keys.len() >= MOST_ACCESS_KEYS {
            return Err(Error::TooMany(MOST_ACCESS_KEYS));
        }
        let made = access_keys::make()?;
        let shared = self.shared.clone();
        let (id, secret) = (made.id.clone(), made.secret.clone());
        // The key may have to be read, or made.
        let sealed = tokio::task::spawn_blocking(move || shared.master.seal(&id, &secret))
            .await
            .map_err(|_| Error::MasterKey("it was interrupted".to_owned()))??;
        row.access_keys.push(AccessKeyRow {
            id: made.id.clone(),
            secret: sealed,
            created_at: now,
            created_by: by.to_owned(),
        });
        self.save(name, row).await?;
        Ok(made)
    }

    /// Takes an access key away.
    ///
    /// # Errors
    /// `Unknown` and `NoSecret`.
    pub async fn remove_access_key(&self, name: &str, id: &str) -> Result<(), Error> {
        let _turn = self.shared.changing.claim(&name.to_owned()).await;
        let entry = self.entry(name).ok_or_else(|| Error::Unknown(name.to_owned()))?;
        let mut row = entry.row.clone();
        row.access_keys.retain(|key| key.id != id);
        if row.access_keys.len() == entry.row.access_keys.len() {
            return Err(Error::NoSecret(id.to_owned()));
        }
        row.turn();
        self.save(name, row).await
    }

    async fn save(&self, name: &str, row: Row) -> Result<(), Error> {
        let change = Change::put_identity(name, row.encode());
        self.shared.index.commit(vec![change]).await?;
        self.write().put(name, row, &self.shared.account);
        Ok(())
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Known> {
        self.shared.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hash of a password, off the async threads.
async fn hashed(password: Option<String>) -> Result<Option<Stored>, Error> {
    let Some(password) = password else { return Ok(None) };
    if password.chars().count() < row::SHORTEST {
        return Err(Error::ShortPassword);
    }
    // What a client would take for a secret of ours is never held against this.
    if password.starts_with(Secret::PREFIX) {
        return Err(Error::LikeSecret);
    }
    let hashed = tokio::task::spawn_blocking(move || Stored::hash(&password)).await;
    let hashed = hashed.map_err(|_| Error::Hash)?.map_err(|_| Error::Hash)?;
    Ok(Some(hashed))
}

impl Known {
    fn put(&mut self, name: &str, row: Row, account: &Account) {
        self.forget(name);
        let login = match row.login(name, account) {
            Ok(login) => Arc::new(login),
            Err(reason) => {
                tracing::error!(name, reason, "an identity cannot be read: it cannot log in");
                self.broken.insert(name.to_owned());
                return;
            }
        };
        for key in &row.access_keys {
            self.by_access_key.insert(key.id.clone(), name.to_owned());
        }
        self.by_name
            .insert(name.to_owned(), Arc::new(Entry { row, login }));
    }

    fn forget(&mut self, name: &str) {
        self.broken.remove(name);
        if let Some(entry) = self.by_name.remove(name) {
            for key in &entry.row.access_keys {
                self.by_access_key.remove(&key.id);
            }
        }
    }
}

impl IdentityStore for Identities {
    fn find(&self, name: &str) -> Option<Arc<Login>> {
        self.entry(name).map(|entry| entry.login.clone())
    }

    fn is_broken(&self, name: &str) -> bool {
        let known = self.shared.known.read().unwrap_or_else(PoisonError::into_inner);
        known.broken.contains(name)
    }

    fn is_empty(&self) -> bool {
        let known = self.shared.known.read().unwrap_or_else(PoisonError::into_inner);
        known.by_name.is_empty() && known.broken.is_empty()
    }

    fn access_key(&self, id: &str) -> Option<(Arc<Login>, String)> {
        let name = {
            let known = self.shared.known.read().unwrap_or_else(PoisonError::into_inner);
            known.by_access_key.get(id).cloned()?
        };
        let entry = self.entry(&name)?;
        let key = entry.row.access_keys.iter().find(|key| key.id == id)?;
        let opened = self.shared.master.open(id, &key.secret);
        let secret = opened
            .inspect_err(|error| tracing::error!(id, %error, "an access key cannot be used"))
            .ok()?;
        Some((entry.login.clone(), secret))
    }
}
