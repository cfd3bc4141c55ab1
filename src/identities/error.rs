//! Why an identity is not made or changed.

use crate::auth::ScopeError;
use crate::storage::Error as StorageError;

/// Why an identity is not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody can be called that.
    #[error(
        "`{0}` is no name: it is 1 to 64 of a-z, A-Z, 0-9 and +=,.@_-, and not one that clients mean something by"
    )]
    Name(String),
    /// There is one already.
    #[error("there is a `{0}` already")]
    Exists(String),
    /// There is none.
    #[error("there is no `{0}`")]
    Unknown(String),
    /// There is no such secret or key.
    #[error("there is no `{0}` of it")]
    NoSecret(String),
    /// It has as many as it may.
    #[error("it has {0} already: take one away first")]
    TooMany(usize),
    /// The password is too short.
    #[error("a password has at least {} characters", super::row::SHORTEST)]
    ShortPassword,
    /// The password looks like what we make.
    #[error("a password does not begin like a secret that is made here")]
    LikeSecret,
    /// Robots have secrets.
    #[error("a robot has no password, but secrets: `wharfinger token create`")]
    RobotPassword,
    /// The password could not be hashed.
    #[error("the password could not be hashed")]
    Hash,
    /// A scope cannot be understood.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// A robot says what it is for.
    #[error("a robot needs a scope at least, like `pull,push:team/*`")]
    NoScope,
    /// The policy cannot be understood.
    #[error("the policy cannot be understood: {0}")]
    Policy(String),
    /// The secrets of access keys cannot be kept.
    #[error("the master key cannot be used: {0}")]
    MasterKey(String),
    /// The index did not take it.
    #[error(transparent)]
    Storage(#[from] StorageError),
}
