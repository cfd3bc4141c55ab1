//! What the upstream client tells the metrics, as a trait: it knows no metrics library. Implemented above, and by
//! `()` for nobody.

use std::fmt;
use std::time::Duration;

use super::errand::Purpose;
use super::governor::BudgetReport;
use super::slowdown::Slowed;

/// What a request to an upstream was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// GET of a manifest.
    Manifest,
    /// HEAD of a manifest.
    ManifestHead,
    /// GET of a blob.
    Blob,
    /// GET of a blob's first byte, to learn its size.
    BlobProbe,
    /// A page of the tag list.
    Tags,
    /// A page of the referrers API.
    Referrers,
    /// A token.
    Token,
    /// `/v2/`, for its challenge.
    Ping,
}

impl RequestKind {
    /// Every kind, so that metrics can be made before the first request.
    pub const ALL: [Self; 8] = [
        Self::Manifest,
        Self::ManifestHead,
        Self::Blob,
        Self::BlobProbe,
        Self::Tags,
        Self::Referrers,
        Self::Token,
        Self::Ping,
    ];

    /// The log word and metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::ManifestHead => "manifest-head",
            Self::Blob => "blob",
            Self::BlobProbe => "blob-probe",
            Self::Tags => "tags",
            Self::Referrers => "referrers",
            Self::Token => "token",
            Self::Ping => "ping",
        }
    }
}

/// What somebody had to wait for before we asked, or read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WaitedFor {
    /// A turn at the host.
    Turn,
    /// The bandwidth cap.
    Bandwidth,
}

impl WaitedFor {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Turn => "turn",
            Self::Bandwidth => "bandwidth",
        }
    }
}

/// How one HTTP request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatusLabel {
    /// With this status.
    Http(u16),
    /// Without one: the word of the error's kind ([`super::ErrorKind::word`]).
    Failed(&'static str),
}

impl fmt::Display for StatusLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(status) => status.fmt(f),
            Self::Failed(word) => f.write_str(word),
        }
    }
}

/// Is told what happens on the wire. Called on the request path: must not block.
pub trait Observer: Send + Sync {
    /// One HTTP request ended, redirects and retries each counted.
    fn request(&self, prefix: &str, kind: RequestKind, status: StatusLabel);
    /// What is known of a credential's budget has changed.
    fn budget(&self, _prefix: &str, _budget: &BudgetReport) {}
    /// A request that would count was not made.
    fn held(&self, _prefix: &str, _purpose: Purpose) {}
    /// So many more pulls were saved since it was last told.
    fn pulls_saved(&self, _prefix: &str, _more: u64) {}
    /// A host is asked slowly, or as usual again.
    fn slowed(&self, _prefix: &str, _slowed: &Slowed) {}
    /// An endpoint's breaker opened, or closed again.
    fn endpoint_open(&self, _prefix: &str, _host: &str, _open: bool) {}
    /// An endpoint was late and raced on another, which won or lost.
    fn hedge(&self, _prefix: &str, _won: bool) {}
    /// A download came too slowly and is gone on with on another connection.
    fn moved_on(&self, _prefix: &str) {}
    /// So many bytes of content arrived.
    fn bytes_in(&self, prefix: &str, kind: RequestKind, bytes: u64);
    /// We held a request or a download back for so long.
    fn waited(&self, _prefix: &str, _what: WaitedFor, _time: Duration) {}
    /// This bandwidth cap holds from now on, in bytes per second; told only of upstreams that have one at times.
    fn bandwidth(&self, _prefix: &str, _limit: Option<u64>) {}
    /// A login was set aside, or is used again.
    fn credential(&self, _prefix: &str, _name: &str, _set_aside: bool) {}
}

impl Observer for () {
    fn request(&self, _: &str, _: RequestKind, _: StatusLabel) {}
    fn bytes_in(&self, _: &str, _: RequestKind, _: u64) {}
}
