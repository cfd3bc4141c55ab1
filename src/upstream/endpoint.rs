//! One URL of an upstream, the registry's own or a mirror's, with connections and tokens of its own. What it is asked is
//! in `client`, `content` and `lists`; which of several is asked, in `endpoints`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use url::Url;

use super::authorization::Authorizer;
use super::breaker::{Breaker, BreakerState, Change, Class, Pass};
use super::credentials::{Login, Web};
use super::error::{Error, ErrorKind, Failure, classify};
use super::governor::Governor;
use super::latency::Latency;
use super::logins::Logins;
use super::manners::Manners;
use super::observer::Observer;
use super::token::Tokens;
use super::transport::{Transport, Tuning, host_of, unguarded};
use crate::config::{Credential, Rewrite, UpstreamConfig};
use crate::oci::RepositoryName;

/// The least that one has to be late by before another is asked.
const LEAST_LATE: Duration = Duration::from_millis(20);
/// How often a download that crawls is begun anew where there is nobody else to ask.
const RECONNECTS: Duration = Duration::from_mins(1);

/// How an endpoint stands, for an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointState {
    /// Its host, with the port if it is not the usual one.
    pub host: String,
    /// Its breaker.
    pub breaker: BreakerState,
}

/// A registry that is asked. Shared by the bodies that it sends.
pub(super) struct Endpoint {
    pub(super) url: Url,
    /// Not the registry itself.
    pub(super) is_mirror: bool,
    /// It is believed about what a tag points at.
    pub(super) knows_tags: bool,
    rewrite: Rewrite,
    pub(super) transport: Arc<Transport>,
    pub(super) authorizer: Authorizer,
    pub(super) logins: Logins,
    pub(super) governor: Arc<Governor>,
    pub(super) breaker: Breaker,
    manifests: Latency,
    blobs: Latency,
    others: Latency,
    header_timeout: Duration,
    pub(super) floor_span: Duration,
    reconnected: Mutex<Option<Instant>>,
    /// As it last did, when asked for a part of a blob.
    ignores_ranges: AtomicBool,
}

impl Endpoint {
    /// The registry that `config` names. Makes the clients; connects to nothing yet.
    ///
    /// # Errors
    /// `Setup`, when the configured certificates, proxy or credentials cannot be used.
    pub(super) fn registry(
        config: &UpstreamConfig,
        manners: &Manners,
        observer: Arc<dyn Observer>,
        tuning: &Tuning,
    ) -> Result<Self, Error> {
        let url = config.url.clone();
        let prefix: Arc<str> = config.prefix.as_str().into();
        let logins = config.credentials.iter().map(|credential| {
            let web = || {
                let clients = unguarded(config, tuning).map_err(|error| classify(&error).1)?;
                Ok(Web::new(clients))
            };
            let offline = tuning.offline.clone();
            Login::new(prefix.clone(), credential, observer.clone(), offline, web)
                .map(Arc::new)
                .map_err(|why| Error::new(&prefix, host_of(&url), ErrorKind::Setup, None, why))
        });
        let logins = logins.collect::<Result<_, _>>()?;
        let logins = Logins::new(prefix, logins, config.credential_order);
        let transport = Arc::new(Transport::new(config, manners.clone(), observer.clone(), tuning)?);
        let reserve = (config.reserve.clone(), config.reserve_share);
        let governor = Governor::new(&config.prefix, None, reserve, observer);
        let tokens = Arc::new(Tokens::new(config, transport.clone()));
        let authorizer = Authorizer::new(url.clone(), transport.clone(), tokens);
        Ok(Self {
            url,
            is_mirror: false,
            knows_tags: true,
            rewrite: Rewrite::default(),
            transport,
            authorizer,
            logins,
            governor: Arc::new(governor),
            breaker: Breaker::new(config.breaker.then_some(tuning.open_for)),
            manifests: Latency::default(),
            blobs: Latency::default(),
            others: Latency::default(),
            header_timeout: config.header_timeout,
            floor_span: tuning.floor_span,
            reconnected: Mutex::default(),
            ignores_ranges: AtomicBool::new(false),
        })
    }

    /// All mirrors of an upstream.
    ///
    /// # Errors
    /// As [`Endpoint::registry`].
    pub(super) fn mirrors(
        config: &UpstreamConfig,
        manners: &Manners,
        observer: &Arc<dyn Observer>,
        tuning: &Tuning,
    ) -> Result<Vec<Arc<Self>>, Error> {
        let made = config.mirrors.iter().map(|mirror| {
            // The registry's logins are for the registry.
            let login = mirror.credentials.clone().map(|login| {
                let mut login = Credential::password(login);
                login.name = format!("{}@{}", login.name, host_of(&mirror.url));
                login
            });
            let config = UpstreamConfig {
                url: mirror.url.clone(),
                mirrors: Vec::new(),
                credentials: login.into_iter().collect(),
                identity_pem: None,
                ..config.clone()
            };
            let endpoint = Self::registry(&config, manners, observer.clone(), tuning)?;
            let reserve = (config.reserve.clone(), config.reserve_share);
            let governor = Governor::new(&config.prefix, Some(endpoint.host()), reserve, observer.clone());
            Ok(Arc::new(Self {
                governor: Arc::new(governor),
                is_mirror: true,
                knows_tags: mirror.tags,
                rewrite: mirror.rewrite.clone(),
                ..endpoint
            }))
        });
        made.collect()
    }

    /// The prefix of the upstream that it belongs to.
    pub(super) fn prefix(&self) -> &str {
        self.transport.prefix()
    }

    pub(super) fn host(&self) -> String {
        host_of(&self.url)
    }

    pub(super) fn state(&self) -> EndpointState {
        EndpointState {
            host: self.host(),
            breaker: self.breaker.state(),
        }
    }

    /// What a repository of the upstream is called here; `None` when it is not here.
    pub(super) fn name_of(&self, repository: &RepositoryName) -> Option<RepositoryName> {
        self.rewrite.apply(repository.as_str())?.parse().ok()
    }

    pub(super) fn latency(&self, class: Class) -> &Latency {
        match class {
            Class::Manifest => &self.manifests,
            Class::Blob => &self.blobs,
            Class::Other => &self.others,
        }
    }

    /// After how long without an answer it counts as late.
    pub(super) fn late_after(&self, class: Class) -> Duration {
        let usual = self.latency(class).p95().unwrap_or(self.header_timeout / 4);
        usual.min(self.header_timeout / 2).max(LEAST_LATE)
    }

    /// It answered about something of this class.
    pub(super) fn heard_well(&self, pass: Pass<'_>, class: Class) {
        self.note(pass.answered(class), None);
    }

    /// It failed, or said no, when asked about `subject`.
    pub(super) fn heard(&self, pass: Pass<'_>, error: &Error, class: Class, subject: u64) {
        let elsewhere = error.host() != self.host();
        self.note(pass.heard(error, class, subject, elsewhere), Some(error));
    }

    fn note(&self, change: Change, error: Option<&Error>) {
        let (upstream, host) = (self.prefix(), self.host());
        match (change, error) {
            (Change::None, _) => return,
            (Change::Opened, Some(error)) => {
                tracing::warn!(upstream, host, %error, "an endpoint failed too often: it is left alone for a while");
            }
            (Change::Opened, None) => {}
            (Change::Closed, _) => tracing::info!(upstream, host, "an endpoint answers again"),
        }
        let observer = self.transport.observer();
        observer.endpoint_open(upstream, &host, change == Change::Opened);
    }

    /// What is said instead of asking while the breaker is open.
    pub(super) fn refusal(&self, left: Duration, why: Option<Error>) -> Error {
        let kind = why
            .as_ref()
            .map_or(ErrorKind::Unavailable(Failure::Connect), |why| why.kind().clone());
        let why = why.map_or(String::new(), |why| format!(": {}", why.message()));
        let message = format!(
            "not asked for {} s more, it failed too often{why}",
            left.as_secs() + 1
        );
        self.transport.error(&self.host(), kind, message)
    }

    /// Whether it gave the whole blob when it was last asked for a part.
    pub(super) fn ignores_ranges(&self) -> bool {
        self.ignores_ranges.load(Ordering::Relaxed)
    }

    /// It was asked for a part of a blob.
    pub(super) fn answered_range(&self, ignored: bool) {
        self.ignores_ranges.store(ignored, Ordering::Relaxed);
    }

    /// Whether a download that crawls may be begun anew at this very endpoint.
    pub(super) fn may_reconnect(&self) -> bool {
        let reconnected = self.reconnected.lock().unwrap_or_else(PoisonError::into_inner);
        reconnected.is_none_or(|last| last.elapsed() >= RECONNECTS)
    }

    /// One is begun anew.
    pub(super) fn reconnects(&self) {
        *self.reconnected.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}
