//! What the cache did for an answer: the word of the log, the label of the metrics, and RFC 9211's `Cache-Status`.

use http::HeaderValue;

use super::error::{Error, ErrorKind};

/// How an answer came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// From here, without a question to the upstream.
    Hit,
    /// The upstream confirmed what is here.
    Revalidated,
    /// From the upstream.
    Miss,
    /// From here although it is due: the upstream could not be asked.
    Stale,
    /// A remembered "not found".
    Negative,
    /// No answer of the cache: it failed, or had no part in it.
    None,
}

impl Outcome {
    /// All outcomes, for labels resolved ahead.
    pub const ALL: [Self; 6] = [
        Self::Hit,
        Self::Revalidated,
        Self::Miss,
        Self::Stale,
        Self::Negative,
        Self::None,
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Revalidated => "revalidated",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Negative => "negative",
            Self::None => "none",
        }
    }
}

/// What the cache did for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheStatus {
    /// How the answer came to be.
    pub outcome: Outcome,
    /// Whether what the upstream sent is kept; `None` where it sent nothing to keep.
    pub stored: Option<bool>,
    /// Whether one upstream request served several clients.
    pub collapsed: bool,
    /// The upstream's status, where it explains the outcome.
    pub forward_status: Option<u16>,
    /// Whether nobody was asked because we are offline.
    pub offline: bool,
}

impl CacheStatus {
    /// From here.
    pub const HIT: Self = Self::of(Outcome::Hit);

    /// Just an outcome.
    pub const fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            stored: None,
            collapsed: false,
            forward_status: None,
            offline: false,
        }
    }

    /// From the upstream and kept.
    pub const fn miss(collapsed: bool) -> Self {
        Self {
            outcome: Outcome::Miss,
            stored: Some(true),
            collapsed,
            forward_status: None,
            offline: false,
        }
    }

    /// A due copy, because the upstream failed with `status` (or not by a status).
    pub const fn stale(status: Option<u16>) -> Self {
        Self {
            outcome: Outcome::Stale,
            stored: None,
            collapsed: false,
            forward_status: status,
            offline: false,
        }
    }

    /// A due copy, because nobody may be asked.
    pub const OFFLINE: Self = Self {
        offline: true,
        ..Self::stale(None)
    };

    /// A due copy, because of this failure.
    pub(super) fn stale_for(error: &Error) -> Self {
        if error.kind == ErrorKind::Offline {
            return Self::OFFLINE;
        }
        Self::stale(error.upstream_status)
    }

    /// Why there is nothing.
    pub fn failed(error: &Error) -> Self {
        Self {
            forward_status: error.upstream_status,
            offline: error.kind == ErrorKind::Offline,
            ..Self::of(error.outcome)
        }
    }

    /// Whether a manifest was answered so without fetching it for this client.
    pub fn saves_a_pull(&self) -> bool {
        match self.outcome {
            Outcome::Hit | Outcome::Revalidated | Outcome::Stale => true,
            Outcome::Miss => self.collapsed,
            Outcome::Negative | Outcome::None => false,
        }
    }

    /// The header's value (RFC 9211 section 2). `unverified`: some of the body may be sent before its digest is known.
    pub fn header(&self, unverified: bool) -> HeaderValue {
        if *self == Self::HIT && !unverified {
            return HeaderValue::from_static("wharfinger; hit");
        }
        let mut value = String::from(match self.outcome {
            Outcome::Hit => "wharfinger; hit",
            // The request went forward because the copy was due, and the copy was good.
            Outcome::Revalidated => "wharfinger; hit; fwd=stale",
            Outcome::Miss => "wharfinger; fwd=miss",
            Outcome::Stale => "wharfinger; fwd=stale",
            Outcome::Negative => "wharfinger; hit; detail=negative",
            Outcome::None => "wharfinger",
        });
        if let Some(status) = self.forward_status {
            value.push_str("; fwd-status=");
            value.push_str(&status.to_string());
        }
        value.push_str(match self.stored {
            Some(true) => "; stored",
            Some(false) => "; stored=?0",
            None => "",
        });
        if self.collapsed {
            value.push_str("; collapsed");
        }
        if unverified {
            value.push_str("; detail=unverified");
        }
        if self.offline {
            value.push_str("; detail=offline");
        }
        HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("wharfinger"))
    }
}

/// A value and what the cache did for it.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    /// The value.
    pub value: T,
    /// What the cache did.
    pub status: CacheStatus,
}

impl<T> Answer<T> {
    /// Puts value and status together.
    pub fn new(value: T, status: CacheStatus) -> Self {
        Self { value, status }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_rfc_9211() {
        let cases = [
            (CacheStatus::HIT, false, "wharfinger; hit"),
            (CacheStatus::miss(false), false, "wharfinger; fwd=miss; stored"),
            (
                CacheStatus::miss(true),
                true,
                "wharfinger; fwd=miss; stored; collapsed; detail=unverified",
            ),
            (
                CacheStatus {
                    stored: Some(false),
                    ..CacheStatus::miss(false)
                },
                false,
                "wharfinger; fwd=miss; stored=?0",
            ),
            (
                CacheStatus::stale(Some(429)),
                false,
                "wharfinger; fwd=stale; fwd-status=429",
            ),
            (
                CacheStatus::OFFLINE,
                false,
                "wharfinger; fwd=stale; detail=offline",
            ),
            (
                CacheStatus::of(Outcome::Revalidated),
                false,
                "wharfinger; hit; fwd=stale",
            ),
        ];
        for (status, unverified, expected) in cases {
            assert_eq!(status.header(unverified), expected);
        }
    }
}
