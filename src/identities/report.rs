//! Identities as operators are told of them: without anything that opens one.

use serde::{Deserialize, Serialize};

use super::row::{Kind, Row};
use crate::clock::Timestamp;

/// One who can log in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IdentityReport {
    /// The name.
    pub name: String,
    /// A person or a program.
    pub kind: Kind,
    /// What it is for.
    pub description: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom: kind and name, as `user:alice` or `operator:root`; in rows of before the name alone.
    pub created_by: String,
    /// Whether it is shut out.
    pub disabled: bool,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// Whether it has a password.
    pub password: bool,
    /// All that it may, if that is bounded.
    pub scopes: Option<Vec<String>>,
    /// The policy attached to it.
    pub policy: Option<String>,
    /// Its secrets.
    pub secrets: Vec<SecretReport>,
    /// Its access keys.
    pub access_keys: Vec<AccessKeyReport>,
}

/// A secret that opens it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SecretReport {
    /// What it is called.
    pub id: String,
    /// What it is for.
    pub description: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom, as [`IdentityReport::created_by`]; empty in rows of before.
    pub created_by: String,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// What it is good for at the most.
    pub scopes: Option<Vec<String>>,
}

/// An access key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccessKeyReport {
    /// Its id.
    pub id: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom, as [`IdentityReport::created_by`]; empty in rows of before.
    pub created_by: String,
}

pub(super) fn of(name: &str, row: &Row) -> IdentityReport {
    IdentityReport {
        name: name.to_owned(),
        kind: row.kind,
        description: row.description.clone(),
        created_at: row.created_at,
        created_by: row.created_by.clone(),
        disabled: row.disabled,
        expires_at: row.expires_at,
        password: row.password.is_some(),
        scopes: row.scopes.clone(),
        policy: row.policy.clone(),
        secrets: row
            .secrets
            .iter()
            .map(|secret| SecretReport {
                id: secret.id.clone(),
                description: secret.description.clone(),
                created_at: secret.created_at,
                created_by: secret.created_by.clone(),
                expires_at: secret.expires_at,
                scopes: secret.scopes.clone(),
            })
            .collect(),
        access_keys: row
            .access_keys
            .iter()
            .map(|key| AccessKeyReport {
                id: key.id.clone(),
                created_at: key.created_at,
                created_by: key.created_by.clone(),
            })
            .collect(),
    }
}
