//! One request and its response, as log and metrics tell it: begun with the head of the request, told when the last
//! byte has been handed over, or when the client has gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};

use super::audit::{self, Audited};
use super::request_id::RequestId;
use super::{Entrance, Shared};
use crate::clock::Timestamp;
use crate::oci::{Digest, Tag};
use crate::registry::{CacheStatus, Outcome, Repository};
use crate::server::{ClientCertificate, Connection, Origin, Peer};
use crate::telemetry::{AccessEntry, Ending, UpstreamMetrics, Word};

/// Told as the status where the client left before there was one: nginx's number for it, which log readers know.
const CLIENT_LEFT: u16 = 499;

/// What a request is about, as a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Unknown,
    Base,
    Manifest,
    ManifestHead,
    ManifestPut,
    Blob,
    BlobHead,
    Upload,
    Delete,
    Tags,
    Referrers,
    Catalog,
    Token,
    Health,
    Metrics,
    Admin,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Base => "base",
            Self::Manifest => "manifest",
            Self::ManifestHead => "manifest-head",
            Self::ManifestPut => "manifest-put",
            Self::Upload => "upload",
            Self::Delete => "delete",
            Self::Catalog => "catalog",
            Self::Token => "token",
            Self::Blob => "blob",
            Self::BlobHead => "blob-head",
            Self::Tags => "tags",
            Self::Referrers => "referrers",
            Self::Health => "health",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
        }
    }
}

impl Entrance {
    fn as_str(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Mirror => "mirror",
            Self::Admin => "admin",
            Self::Local => "local",
        }
    }
}

fn outcome_word(outcome: Outcome) -> Word {
    Word {
        index: outcome as usize,
        text: outcome.as_str(),
    }
}

/// One exchange. Dropping it tells it.
pub(super) struct Exchange {
    shared: Arc<Shared>,
    pub(super) id: RequestId,
    began: Instant,
    pub(super) peer: Peer,
    pub(super) origin: Origin,
    certificate: Option<Arc<ClientCertificate>>,
    /// The listener, or the door behind it where that is another one (`/mirror/v2/`).
    pub(super) door: Entrance,
    method: Method,
    uri: Uri,
    pub(super) agent: Option<HeaderValue>,
    pub(super) operation: Operation,
    /// What the audit log is to tell.
    pub(super) audited: Option<Box<Audited>>,
    pub(super) repository: Option<Repository>,
    /// The repository, where it is hosted.
    pub(super) hosted: Option<Arc<str>>,
    pub(super) upstream: Option<Arc<UpstreamMetrics>>,
    pub(super) tag: Option<Tag>,
    pub(super) digest: Option<Digest>,
    pub(super) status: Option<CacheStatus>,
    pub(super) code: Option<StatusCode>,
    bytes: u64,
    first_byte: Option<Duration>,
    pub(super) ending: Ending,
}

impl Exchange {
    /// How long ago the head of the request came.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn begin(
        shared: &Arc<Shared>,
        entrance: Entrance,
        connection: &Connection,
        origin: Origin,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Self {
        Self {
            shared: shared.clone(),
            id: shared.ids.next(),
            began: Instant::now(),
            peer: connection.peer,
            origin,
            certificate: connection.certificate.clone(),
            door: entrance,
            method: method.clone(),
            uri: uri.clone(),
            agent: headers.get(header::USER_AGENT).cloned(),
            operation: Operation::Unknown,
            audited: None,
            repository: None,
            hosted: None,
            upstream: None,
            tag: None,
            digest: None,
            status: None,
            code: None,
            bytes: 0,
            first_byte: None,
            // What it was when nothing else came of it.
            ending: Ending::Cut,
        }
    }

    /// The response's head is ready, or the first piece of its body.
    pub(super) fn started(&mut self) {
        if self.first_byte.is_none() {
            self.first_byte = Some(self.began.elapsed());
        }
    }

    /// A piece of the body was handed over.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.started();
        self.bytes += bytes as u64;
        if let (Some(upstream), Some(status)) = (&self.upstream, self.status) {
            upstream.bytes_out(outcome_word(status.outcome), bytes as u64);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let total = self.began.elapsed();
        let first_byte = self.first_byte.unwrap_or(total);
        let code = self.code.map_or(CLIENT_LEFT, |code| code.as_u16());
        let outcome = self.status.map_or(Outcome::None, |status| status.outcome);
        self.shared.metrics.request(
            Word {
                index: self.door as usize,
                text: self.door.as_str(),
            },
            Word {
                index: self.operation as usize,
                text: self.operation.as_str(),
            },
            outcome_word(outcome),
            code,
            first_byte,
        );
        if let Some(audited) = &self.audited {
            audit::tell(&self.shared.audit, self, audited, code);
        }
        if !self.shared.access.is_on() {
            return;
        }
        let now = Timestamp::now().0;
        let path = self.uri.path_and_query().map_or("", |path| path.as_str());
        self.shared.access.write(&AccessEntry {
            unix_millis: now.saturating_sub(u64::try_from(total.as_millis()).unwrap_or(u64::MAX)),
            request: self.id.as_str(),
            peer: self.peer.address(),
            forwarded_for: self.origin.forwarded_for,
            https: self.origin.https,
            certificate: self
                .certificate
                .as_ref()
                .map(|certificate| certificate.subject.as_bytes()),
            door: self.door.as_str(),
            method: self.method.as_str(),
            path,
            repository: match &self.repository {
                Some(repository) => Some(&**repository.key()),
                None => self.hosted.as_deref(),
            },
            tag: self.tag.as_ref().map(Tag::as_str),
            digest: self
                .digest
                .as_ref()
                .map(|digest| digest as &dyn std::fmt::Display),
            status: code,
            outcome: self.status.map(|status| status.outcome.as_str()),
            offline: self.status.is_some_and(|status| status.offline),
            upstream: self.repository.as_ref().map(Repository::upstream),
            bytes: self.bytes,
            first_byte,
            total,
            ending: self.ending,
            agent: self.agent.as_ref().map(HeaderValue::as_bytes),
        });
    }
}
