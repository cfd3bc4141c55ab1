//! An identity as it is kept: JSON in its row. Fields to come have defaults.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::auth::identity::{Account, Identity, Kind as ProvedBy};
use crate::auth::password::{Secret, Stored};
use crate::auth::policy::{Document, Usage};
use crate::auth::{Login, LoginSecret, Scope};
use crate::clock::Timestamp;

use super::command::said;
use super::{Error, Made};

/// Characters of a password at the least.
pub(super) const SHORTEST: usize = 8;

/// A person or a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A person.
    User,
    /// A program: what it may is what its scopes say.
    Robot,
}

/// What is said of one that is to be made.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct New {
    /// A person or a program.
    pub kind: Kind,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// Its password.
    #[serde(default)]
    pub password: Option<String>,
    /// When it ends.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// All that it may; a robot needs some, a user has none unless it is to be bounded.
    #[serde(default)]
    pub scopes: Option<Vec<String>>,
    /// A policy attached to it.
    #[serde(default)]
    pub policy: Option<String>,
}

/// What is to be another. What is `None` stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Changed {
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Whether it is shut out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// When it ends; `Some(None)`: never.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Option<Timestamp>>,
    /// All that it may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// The policy attached to it; `Some(None)`: none.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    pub policy: Option<Option<String>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) kind: Kind,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) description: String,
    pub(super) created_at: Timestamp,
    /// By whom: kind and name, as `user:alice`. Rows of before say the name alone.
    #[serde(default)]
    pub(super) created_by: String,
    #[serde(default)]
    pub(super) disabled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<Timestamp>,
    /// By chance, so that one who is made again under a name does not take over the tokens of the one before.
    pub(super) generation: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) password: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) scopes: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) secrets: Vec<SecretRow>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) access_keys: Vec<AccessKeyRow>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SecretRow {
    pub(super) id: String,
    pub(super) hash: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) description: String,
    pub(super) created_at: Timestamp,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) created_by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) scopes: Option<Vec<String>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct AccessKeyRow {
    pub(super) id: String,
    /// Encrypted.
    pub(super) secret: String,
    pub(super) created_at: Timestamp,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) created_by: String,
}

impl Row {
    pub(super) fn of(new: New, by: &str, password: Option<Stored>, now: Timestamp) -> Result<Self, Error> {
        let scopes = new.scopes.map(checked_scopes).transpose()?;
        if new.kind == Kind::Robot && scopes.as_ref().is_none_or(Vec::is_empty) {
            return Err(Error::NoScope);
        }
        Ok(Self {
            kind: new.kind,
            description: new.description,
            created_at: now,
            created_by: by.to_owned(),
            disabled: false,
            expires_at: new.expires_at,
            generation: fastrand::u64(..),
            password: password.map(|stored| stored.as_str().to_owned()),
            scopes,
            policy: new.policy.map(checked_policy).transpose()?,
            secrets: Vec::new(),
            access_keys: Vec::new(),
        })
    }

    pub(super) fn change(&mut self, changed: Changed, password: Option<Stored>) -> Result<(), Error> {
        let scopes = changed.scopes.map(checked_scopes).transpose()?;
        if self.kind == Kind::Robot && scopes.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::NoScope);
        }
        let policy = match changed.policy {
            Some(Some(text)) => Some(Some(checked_policy(text)?)),
            other => other,
        };
        // A description alone logs nobody out.
        if password.is_some() || changed.disabled.is_some() || scopes.is_some() {
            self.turn();
        }
        if let Some(stored) = password {
            self.password = Some(stored.as_str().to_owned());
        }
        if let Some(scopes) = scopes {
            // A user without any is not bounded.
            self.scopes = Some(scopes).filter(|scopes| !scopes.is_empty());
        }
        self.description = changed
            .description
            .unwrap_or(std::mem::take(&mut self.description));
        self.disabled = changed.disabled.unwrap_or(self.disabled);
        self.expires_at = changed.expires_at.unwrap_or(self.expires_at);
        if let Some(policy) = policy {
            self.policy = policy;
        }
        Ok(())
    }

    /// Tokens that were made before are void.
    pub(super) fn turn(&mut self) {
        self.generation = fastrand::u64(..);
    }

    pub(super) fn add_secret(
        &mut self,
        description: String,
        expires_at: Option<Timestamp>,
        scopes: Option<Vec<String>>,
        by: &str,
        now: Timestamp,
    ) -> Result<Made, Error> {
        let (secret, stored) = Secret::make().map_err(|_| Error::Hash)?;
        let id = format!("{:08x}", fastrand::u32(..));
        self.secrets.push(SecretRow {
            id: id.clone(),
            hash: stored.as_str().to_owned(),
            description,
            created_at: now,
            created_by: by.to_owned(),
            expires_at,
            scopes,
        });
        let secret = secret.as_str().to_owned();
        Ok(Made { id, secret })
    }

    /// What `auth` has to know of it, or why it cannot be understood.
    pub(super) fn login(&self, name: &str, account: &Account) -> Result<Login, String> {
        let proved_by = match self.kind {
            Kind::User => ProvedBy::User,
            Kind::Robot => ProvedBy::Robot,
        };
        let identity =
            Identity::named(proved_by, name, account.clone()).map_err(|error| error.to_string())?;
        let stored = |text: &String| {
            Stored::parse(text)
                .map(Arc::new)
                .map_err(|error| error.to_string())
        };
        let scopes = |list: &Option<Vec<String>>| {
            let read = |list: &Vec<String>| list.iter().map(|text| text.parse::<Scope>()).collect();
            list.as_ref()
                .map(read)
                .transpose()
                .map_err(|error: crate::auth::ScopeError| error.to_string())
        };
        let secret = |row: &SecretRow| {
            Ok::<_, String>(LoginSecret {
                id: row.id.as_str().into(),
                stored: stored(&row.hash)?,
                expires_at: row.expires_at,
                scopes: scopes(&row.scopes)?,
            })
        };
        let document =
            |text: &String| Document::parse_for(text, Usage::Identity).map_err(|faults| faults.to_string());
        Ok(Login {
            identity,
            password: self.password.as_ref().map(stored).transpose()?,
            secrets: self.secrets.iter().map(secret).collect::<Result<_, _>>()?,
            disabled: self.disabled,
            expires_at: self.expires_at,
            generation: self.generation,
            documents: self.policy.iter().map(document).collect::<Result<_, _>>()?,
            scopes: scopes(&self.scopes)?,
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        // Plain data always serializes.
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// Scopes as they are kept: each understood, and said in one way.
pub(super) fn checked_scopes(scopes: Vec<String>) -> Result<Vec<String>, Error> {
    let said = |text: String| Ok(text.parse::<Scope>()?.to_string());
    scopes.into_iter().map(said).collect()
}

fn checked_policy(text: String) -> Result<String, Error> {
    let parsed = Document::parse_for(&text, Usage::Identity);
    let document = parsed.map_err(|faults| Error::Policy(faults.to_string()))?;
    // A misspelt one would deny nothing.
    match document.unknown_actions().first() {
        Some(action) => Err(Error::Policy(format!("there is no action {action}"))),
        None => Ok(text),
    }
}
