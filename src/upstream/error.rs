//! What goes wrong with an upstream, in kinds that the cache decides by: what is gone, what may be served stale,
//! what a retry can help. Errors are cheap to clone, because many waiting clients share one.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::guard::Blocked;

/// How an upstream could not be had at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It answered with this status: 5xx, or 408.
    Status(u16),
    /// It did not answer in time, or fell silent in the middle of a body.
    Timeout,
    /// Its name has no address.
    Dns,
    /// No connection to it could be made.
    Connect,
    /// Its certificate is not trusted, or the handshake failed.
    Tls,
    /// The connection broke before the answer was whole.
    Cut,
    /// It came more slowly than is put up with.
    Slow,
}

/// Which limit it is that says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The registry's, on pulls.
    Pulls,
    /// The registry's, on requests of any kind.
    Requests,
    /// Our own: we did not ask, to keep what is left for what is more urgent, or because the registry refused a moment ago.
    Held,
}

/// What kind of error it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The upstream does not have it (404, 410).
    NotFound,
    /// The registry answers 401 to a token that it was given a moment ago for just this repository: so Docker Hub says
    /// that there is no such repository, or that it is not for this credential.
    Absent,
    /// The registry refuses it otherwise (401, 403, 451): not available to this credential. Nobody can tell that from
    /// "not there".
    Denied,
    /// The token service gives no token for it (GHCR: private, or not there).
    TokenDenied,
    /// Our configured credentials are wrong.
    CredentialsRejected,
    /// Too many requests (429), or as many as we may make.
    RateLimited {
        /// How long to wait, when the upstream told.
        retry_after: Option<Duration>,
        /// By which limit.
        limit: Limit,
    },
    /// Down, unreachable or failing.
    Unavailable(Failure),
    /// HEAD is not answered here; GET may be.
    HeadRefused,
    /// Nothing there from the offset that was asked for (416).
    RangeNotSatisfiable {
        /// The size of the whole, when the upstream told.
        size: Option<u64>,
    },
    /// A status that means nothing for this request.
    Unexpected,
    /// What it sent makes no sense: too large, another digest, another range, no JSON.
    Protocol,
    /// We refuse to go where it sends us.
    Refused,
    /// We are told not to connect to anybody: nothing was asked.
    Offline,
    /// The client cannot be set up.
    Setup,
}

impl ErrorKind {
    /// One word for the log and the metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::Absent => "absent",
            Self::Denied => "denied",
            Self::TokenDenied => "token-denied",
            Self::CredentialsRejected => "credentials-rejected",
            Self::RateLimited { limit, .. } => match limit {
                Limit::Pulls => "pull-limited",
                Limit::Requests => "rate-limited",
                Limit::Held => "held",
            },
            Self::Unavailable(Failure::Status(_)) => "failing",
            Self::Unavailable(Failure::Timeout) => "timeout",
            Self::Unavailable(Failure::Dns) => "dns",
            Self::Unavailable(Failure::Connect) => "connect",
            Self::Unavailable(Failure::Tls) => "tls",
            Self::Unavailable(Failure::Cut) => "cut",
            Self::Unavailable(Failure::Slow) => "slow",
            Self::HeadRefused => "head-refused",
            Self::RangeNotSatisfiable { .. } => "range-not-satisfiable",
            Self::Unexpected => "unexpected",
            Self::Protocol => "protocol",
            Self::Refused => "refused",
            Self::Offline => "offline",
            Self::Setup => "setup",
        }
    }
}

#[derive(Debug)]
struct Inner {
    upstream: Arc<str>,
    host: String,
    kind: ErrorKind,
    status: Option<u16>,
    message: String,
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "upstream {} ({}): {}",
            self.upstream,
            self.host,
            self.kind.word()
        )?;
        if let Some(status) = self.status {
            write!(f, " (status {status})")?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

/// An upstream's failure to give what was asked for. Never holds secrets, nor the query of a URL.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(Arc<Inner>);

impl Error {
    pub(super) fn new(
        upstream: &Arc<str>,
        host: impl Into<String>,
        kind: ErrorKind,
        status: Option<u16>,
        message: impl Into<String>,
    ) -> Self {
        Self(Arc::new(Inner {
            upstream: upstream.clone(),
            host: host.into(),
            kind,
            status,
            message: message.into(),
        }))
    }

    /// The prefix of the upstream.
    pub fn upstream(&self) -> &str {
        &self.0.upstream
    }

    /// The host that failed: the registry, its token service or its CDN.
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// The kind.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// The HTTP status that it answered with, if one was the reason.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// What it said, made safe for a log: one line of at most 200 characters.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The same, without what the upstream said: it may hold what was sent.
    #[must_use]
    pub fn without_words(&self) -> Self {
        Self(Arc::new(Inner {
            upstream: self.0.upstream.clone(),
            host: self.0.host.clone(),
            kind: self.0.kind.clone(),
            status: self.0.status,
            message: String::new(),
        }))
    }

    /// Whether the content is not there, or not for this credential: 404 for the client.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::NotFound | ErrorKind::Absent | ErrorKind::Denied | ErrorKind::TokenDenied
        )
    }

    /// Whether the registry clearly said that there is no such thing, so that it may be believed for a moment.
    pub fn is_absent(&self) -> bool {
        matches!(self.kind(), ErrorKind::NotFound | ErrorKind::Absent)
    }

    /// Whether what is already known may still be served: always, except when the registry itself said that the
    /// content is not there. A token service that refuses says nothing about the content.
    pub fn allows_stale(&self) -> bool {
        !matches!(
            self.kind(),
            ErrorKind::NotFound | ErrorKind::Absent | ErrorKind::Denied
        )
    }

    /// Whether the same request may well succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::RateLimited { .. } | ErrorKind::Unavailable(_)
        )
    }

    /// How long the upstream wants to be left alone, when it told.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.kind() {
            ErrorKind::RateLimited { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether we did not ask: it says nothing about the upstream.
    pub fn is_held(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::RateLimited {
                limit: Limit::Held,
                ..
            }
        )
    }
}

/// Sorts an error of the HTTP client by what caused it. The message is the innermost cause, which has no URL.
pub(super) fn classify(error: &reqwest::Error) -> (ErrorKind, String) {
    let mut innermost = String::new();
    let mut blocked = false;
    let mut tls = false;
    let mut source: Option<&(dyn StdError + 'static)> = StdError::source(error);
    while let Some(cause) = source {
        innermost = cause.to_string();
        blocked |= cause.is::<Blocked>();
        source = cause.source();
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            // rustls reports through InvalidData; a resolver's or proxy's error may be wrapped in io::Error too.
            tls |= io.kind() == io::ErrorKind::InvalidData;
            source = io.get_ref().map(|inner| inner as &(dyn StdError + 'static));
        }
    }
    let kind = if blocked {
        ErrorKind::Refused
    } else if error.is_timeout() {
        ErrorKind::Unavailable(Failure::Timeout)
    } else if error.is_dns() {
        ErrorKind::Unavailable(Failure::Dns)
    } else if error.is_connect() && tls {
        ErrorKind::Unavailable(Failure::Tls)
    } else if error.is_connect() {
        ErrorKind::Unavailable(Failure::Connect)
    } else if error.is_builder() {
        ErrorKind::Protocol
    } else {
        ErrorKind::Unavailable(Failure::Cut)
    };
    (kind, tidy(&innermost))
}

/// Text from outside for a log line: one line, no control characters, at most 200 characters.
pub(super) fn tidy(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let mut tidy = String::new();
    for word in words.filter(|word| !word.is_empty()) {
        if !tidy.is_empty() {
            tidy.push(' ');
        }
        tidy.push_str(word);
        if let Some((end, _)) = tidy.char_indices().nth(200) {
            tidy.truncate(end);
            break;
        }
    }
    tidy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_cache_decides_by() {
        let error = |kind| Error::new(&"test".into(), "host", kind, None, "");
        let limited = |limit| ErrorKind::RateLimited {
            retry_after: None,
            limit,
        };
        // kind, not found, stale, retry
        let table = [
            (ErrorKind::NotFound, true, false, false),
            (ErrorKind::Absent, true, false, false),
            (ErrorKind::Denied, true, false, false),
            (ErrorKind::TokenDenied, true, true, false),
            (ErrorKind::CredentialsRejected, false, true, false),
            (limited(Limit::Requests), false, true, true),
            (limited(Limit::Held), false, true, true),
            (ErrorKind::Unavailable(Failure::Dns), false, true, true),
            (ErrorKind::Protocol, false, true, false),
            (ErrorKind::Refused, false, true, false),
            (ErrorKind::Offline, false, true, false),
        ];
        for (kind, not_found, stale, retry) in table {
            let error = error(kind.clone());
            assert_eq!(error.is_not_found(), not_found, "{kind:?}");
            assert_eq!(error.allows_stale(), stale, "{kind:?}");
            assert_eq!(error.is_retryable(), retry, "{kind:?}");
        }
    }

    #[test]
    fn text_from_outside_is_one_short_line() {
        assert_eq!(tidy("  a\r\n\tb\u{1b}[31m  c "), "a b [31m c");
        assert_eq!(tidy(&"é".repeat(300)).chars().count(), 200);
        let error = Error::new(&"hub".into(), "h:1", ErrorKind::NotFound, Some(404), "gone");
        assert_eq!(
            error.to_string(),
            "upstream hub (h:1): not-found (status 404): gone"
        );
    }
}
