//! What the engine could not do, in kinds that a client can act on. `api` turns each into a status and a body.

use std::time::Duration;

use crate::{storage, upstream};

use super::Place;
use super::report::span;
use super::status::Outcome;

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// No such repository, here or at the upstream.
    NameUnknown,
    /// No such manifest or tag.
    ManifestUnknown,
    /// No such blob.
    BlobUnknown,
    /// The configuration lets nobody have it.
    Denied,
    /// The upstream says who may read it: whoever asks has to bring a login.
    LoginNeeded,
    /// The upstream does not take the login of whoever asks.
    LoginRejected,
    /// What an operator typed is no reference.
    ReferenceInvalid,
    /// The manifest is of a kind that is not served (Docker schema 1).
    ManifestInvalid,
    /// The upstream's limit is reached.
    RateLimited {
        /// How long to wait, when the upstream told.
        retry_after: Option<Duration>,
    },
    /// The upstream answered with an error or nonsense.
    UpstreamFailed,
    /// The upstream cannot be reached.
    UpstreamUnavailable,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// We are told not to ask anybody, and it is not here.
    Offline,
    /// The upstream does not accept the configured credentials.
    CredentialsRejected,
    /// Our own disk or index.
    Internal,
}

impl ErrorKind {
    fn is_not_found(self) -> bool {
        matches!(
            self,
            Self::NameUnknown | Self::ManifestUnknown | Self::BlobUnknown
        )
    }
}

/// A failure. Cheap enough to clone for those who waited together.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind of failure it is.
    pub kind: ErrorKind,
    /// Told to the client, so it holds no internals.
    pub message: String,
    /// The upstream it came from.
    pub upstream: Option<String>,
    /// The status that the upstream answered with.
    pub upstream_status: Option<u16>,
    /// The cache's part in it.
    pub outcome: Outcome,
    /// Whether it says nothing about the content, so that what is here may still be served.
    pub(super) allows_stale: bool,
    /// The upstream was not asked: for whoever needs it more urgently it may be.
    pub(super) held: bool,
}

impl Error {
    /// An error that no upstream has a part in.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            upstream: None,
            upstream_status: None,
            outcome: Outcome::None,
            allows_stale: !kind.is_not_found(),
            held: false,
        }
    }

    /// A fault of ours: the log is told, the client is not.
    pub fn internal(message: &str) -> Self {
        tracing::error!(message, "internal error");
        Self::new(ErrorKind::Internal, "internal error")
    }

    /// A "not found" that is remembered from a moment ago.
    pub(super) fn remembered(kind: ErrorKind, message: &str) -> Self {
        Self {
            outcome: Outcome::Negative,
            ..Self::new(kind, message)
        }
    }

    pub(super) fn upstream(kind: ErrorKind, place: &Place, message: impl Into<String>) -> Self {
        let upstream = Some(place.upstream.prefix().to_owned());
        Self {
            upstream,
            outcome: Outcome::Miss,
            ..Self::new(kind, message)
        }
    }

    /// There was no answer in time, though one may come yet.
    pub(super) fn late(place: &Place) -> Self {
        let message = format!("upstream {} did not answer in time", place.upstream.prefix());
        Self::upstream(ErrorKind::UpstreamTimeout, place, message)
    }

    /// What an upstream's failure is to our client; `unknown` is the word for "not found" of what was asked. The reason
    /// in full is for the log: an upstream's text can name hosts and accounts that are nobody's business.
    pub(super) fn of_upstream(place: &Place, error: &upstream::Error, unknown: ErrorKind) -> Self {
        use upstream::{ErrorKind as Kind, Failure, Limit};
        let name = place.upstream.prefix();
        let (kind, message) = match error.kind() {
            Kind::NotFound => (unknown, "not found at the upstream".to_owned()),
            // 401 and 403 after a good token: nobody can tell "private" from "not there".
            Kind::Absent | Kind::Denied | Kind::TokenDenied => (
                ErrorKind::NameUnknown,
                format!("repository unknown to upstream {name}, or not available to it"),
            ),
            Kind::CredentialsRejected => (
                ErrorKind::CredentialsRejected,
                format!("upstream {name} does not accept the configured credentials"),
            ),
            Kind::RateLimited { retry_after, limit } => (
                ErrorKind::RateLimited {
                    retry_after: *retry_after,
                },
                match (limit, retry_after) {
                    (Limit::Held, Some(wait)) => format!(
                        "rate limit of upstream {name}: it was not asked, and may be in {}",
                        span(wait.as_secs().max(1))
                    ),
                    _ => format!("rate limit of upstream {name} reached"),
                },
            ),
            Kind::Offline => (
                ErrorKind::Offline,
                format!("this cache is offline, and what was asked of upstream {name} is not here"),
            ),
            Kind::Unavailable(Failure::Status(status)) => (
                ErrorKind::UpstreamFailed,
                format!("upstream {name} answered {status}"),
            ),
            Kind::Unavailable(Failure::Timeout) => (
                ErrorKind::UpstreamTimeout,
                format!("upstream {name} did not answer in time"),
            ),
            Kind::Unavailable(_) => (
                ErrorKind::UpstreamUnavailable,
                format!("upstream {name} cannot be reached"),
            ),
            _ => (
                ErrorKind::UpstreamFailed,
                format!("upstream {name} sent an answer that cannot be used"),
            ),
        };
        if *error.kind() == Kind::Offline {
            tracing::debug!(
                upstream = name,
                repository = &*place.key,
                "offline: nobody is asked"
            );
        // What we did not ask was told when it began.
        } else if error.is_held() {
            tracing::debug!(upstream = name, repository = &*place.key, %error, "upstream not asked");
        } else if error.is_not_found() {
            tracing::debug!(upstream = name, repository = &*place.key, %error, "not found upstream");
        } else {
            tracing::warn!(upstream = name, host = error.host(), repository = &*place.key, %error, "upstream failed");
        }
        Self {
            kind,
            message,
            upstream: Some(name.to_owned()),
            upstream_status: error.status(),
            outcome: Outcome::Miss,
            // A token service that refuses is a "not found" that says nothing about the content.
            allows_stale: error.allows_stale(),
            held: error.is_held(),
        }
    }

    /// Whether it says that the content is not there, or not for us.
    pub fn is_not_found(&self) -> bool {
        self.kind.is_not_found()
    }
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Self {
        match error {
            // The upstream's doing, not our disk's.
            storage::Error::WrongDigest { .. } | storage::Error::WrongSize { .. } => {
                Self::new(ErrorKind::UpstreamFailed, error.to_string())
            }
            other => {
                tracing::error!(error = %other, "storage failed");
                Self::new(ErrorKind::Internal, "internal error")
            }
        }
    }
}
