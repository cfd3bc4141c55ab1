//! What is kept of those who can log in, as [`Authenticator`](super::Authenticator) needs it. Implemented by `identities`
//! over the index, joined in `app`.

use std::sync::Arc;

use crate::clock::Timestamp;

use super::identity::Identity;
use super::password::Stored;
use super::policy::Document;
use super::scope::Scope;

/// Somebody who can log in.
#[derive(Clone, Debug)]
pub struct Login {
    /// Who.
    pub identity: Identity,
    /// The hash of the password; without one only secrets open.
    pub password: Option<Arc<Stored>>,
    /// Secrets of our own making, each good by itself.
    pub secrets: Vec<LoginSecret>,
    /// Whether it was shut out.
    pub disabled: bool,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// Another number whenever what it can log in with changes: tokens of another one are void.
    pub generation: u64,
    /// The policies attached to it.
    pub documents: Vec<Document>,
    /// All that it may, if that is bounded.
    pub scopes: Option<Vec<Scope>>,
}

impl Login {
    /// Whether it counts at `now`.
    pub fn is_good(&self, now: Timestamp) -> bool {
        !self.disabled && self.expires_at.is_none_or(|end| now < end)
    }
}

/// A secret that opens a login: a robot's, or a person's for a program.
#[derive(Clone, Debug)]
pub struct LoginSecret {
    /// Its name, to revoke it by.
    pub id: Arc<str>,
    /// Its hash.
    pub stored: Arc<Stored>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// What it is good for at the most, within what its owner may.
    pub scopes: Option<Vec<Scope>>,
}

/// Those who can log in. Answers from memory.
pub trait IdentityStore: Send + Sync {
    /// The login of this name.
    fn find(&self, name: &str) -> Option<Arc<Login>>;

    /// Whether there is something of this name that cannot be read: a login all the same, that nothing opens.
    fn is_broken(&self, name: &str) -> bool;

    /// Whose access key this is, and its secret.
    fn access_key(&self, id: &str) -> Option<(Arc<Login>, String)>;

    /// Whether there is none.
    fn is_empty(&self) -> bool;
}
