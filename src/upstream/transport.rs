//! The wire: the only place that makes HTTP clients, and one request with its time-out, its retries and its turn among
//! the connections to a host. Knows nothing of registries. Called by `exchange` and `token`.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, ClientBuilder, Identity, Method};
use tokio::time::Instant;
use url::Url;

use super::errand::{Guise, SharedPurpose};
use super::error::{Error, ErrorKind, Failure, Limit, classify};
use super::guard::{Blocked, Guard, LookUp, Resolver, system};
use super::manners::Manners;
use super::observer::{Observer, RequestKind, StatusLabel, WaitedFor};
use super::offline::Offline;
use super::realm;
use super::reply::Reply;
use super::retry::{self, Window};
use super::slowdown::{Leave, Slowdown, Slowed};
use super::turns::{Lane, Turn};
use crate::config::{Secret, UpstreamConfig};

/// A shorter wait for a turn is none.
const NOTED: Duration = Duration::from_millis(1);

/// What only tests change, but for the switch.
#[derive(Clone)]
pub(super) struct Tuning {
    /// The pause before the first retry.
    pub(super) pause: Duration,
    /// How much waiting for a body is judged at once.
    pub(super) floor_span: Duration,
    /// How long a breaker is open at first.
    pub(super) open_for: Duration,
    /// Whether `HTTPS_PROXY` and the like count.
    pub(super) system_proxy: bool,
    /// Names that are not resolved.
    pub(super) addresses: Vec<(String, SocketAddr)>,
    /// How the others are.
    pub(super) look_up: LookUp,
    /// Keeps us from connecting.
    pub(super) offline: Offline,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            pause: Duration::from_millis(150),
            floor_span: super::floor::SPAN,
            open_for: super::breaker::FIRST_SPAN,
            system_proxy: true,
            addresses: Vec::new(),
            look_up: system(),
            offline: Offline::default(),
        }
    }
}

/// One request to send.
pub(super) struct Request<'a> {
    pub(super) kind: RequestKind,
    pub(super) lane: Lane,
    pub(super) purpose: SharedPurpose,
    pub(super) method: Method,
    pub(super) url: &'a Url,
    pub(super) headers: HeaderMap,
    /// A form to send, which may hold a secret.
    pub(super) form: Option<Secret>,
    /// As whom it shows itself: nothing of ours, our certificate included, shows who asks but as us.
    pub(super) guise: Guise,
}

/// The clients of one upstream.
pub(super) struct Transport {
    prefix: Arc<str>,
    clients: Clients,
    /// The same with our certificate, for the registry and those that it trusts with its logins.
    known: Option<Clients>,
    own: Url,
    realms: Vec<String>,
    manners: Manners,
    slowdown: Slowdown,
    header_timeout: Duration,
    idle_timeout: Duration,
    pause: Duration,
    guard: Arc<Guard>,
    observer: Arc<dyn Observer>,
    offline: Offline,
}

impl Transport {
    pub(super) fn new(
        config: &UpstreamConfig,
        manners: Manners,
        observer: Arc<dyn Observer>,
        tuning: &Tuning,
    ) -> Result<Self, Error> {
        let prefix: Arc<str> = config.prefix.as_str().into();
        let guard = Arc::new(Guard::new(
            config.url.clone(),
            proxy_hosts(config, tuning),
            config.allow_private,
        ));
        let clients = |identity| {
            Clients::new(config, &guard, tuning, identity).map_err(|error| {
                let (_, message) = classify(&error);
                Error::new(&prefix, host_of(&config.url), ErrorKind::Setup, None, message)
            })
        };
        Ok(Self {
            clients: clients(None)?,
            known: match &config.identity_pem {
                Some(pem) => Some(clients(Some(pem))?),
                None => None,
            },
            own: config.url.clone(),
            realms: config.realms.clone(),
            prefix,
            manners,
            slowdown: Slowdown::default(),
            header_timeout: config.header_timeout,
            idle_timeout: config.idle_timeout,
            pause: tuning.pause,
            guard,
            observer,
            offline: tuning.offline.clone(),
        })
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn offline(&self) -> &Offline {
        &self.offline
    }

    /// That we are told not to connect to `host`.
    pub(super) fn is_offline(&self, host: &str) -> Error {
        self.error(host, ErrorKind::Offline, "nothing is asked while we are offline")
    }

    pub(super) fn observer(&self) -> &Arc<dyn Observer> {
        &self.observer
    }

    /// What the upstream's endpoints share.
    pub(super) fn manners(&self) -> &Manners {
        &self.manners
    }

    /// An error of this upstream that `host` is the cause of.
    pub(super) fn error(&self, host: &str, kind: ErrorKind, message: impl Into<String>) -> Error {
        Error::new(&self.prefix, host, kind, None, message)
    }

    /// As [`Transport::error`], because of a status.
    pub(super) fn status_error(
        &self,
        host: &str,
        kind: ErrorKind,
        status: u16,
        message: impl Into<String>,
    ) -> Error {
        Error::new(&self.prefix, host, kind, Some(status), message)
    }

    /// Says no to a URL that must not be followed.
    pub(super) fn check(&self, current: &Url, next: &Url) -> Result<(), Error> {
        self.guard.check(current, next).map_err(|blocked: Blocked| {
            let message = format!("{} sends us to {}: {blocked}", host_of(current), host_of(next));
            self.error(&host_of(current), ErrorKind::Refused, message)
        })
    }

    /// The hosts that are asked slowly because they refuse too many requests.
    pub(super) fn slowdown(&self) -> &Slowdown {
        &self.slowdown
    }

    /// Sends a request, again if a failure looks passing. Any status that remains is a reply.
    ///
    /// # Errors
    /// `RateLimited` without having asked, while the host is left alone because it refused too many requests.
    pub(super) async fn send(
        &self,
        request: &Request<'_>,
        authorization: Option<&HeaderValue>,
        window: Window,
    ) -> Result<Reply, Error> {
        let mut attempt = 1;
        let mut limit = self.header_timeout;
        loop {
            let last = attempt == retry::ATTEMPTS;
            let leave = self.leave(request).await?;
            let mut result = self.attempt(request, authorization, limit).await;
            // Nothing was asked, so there is nothing to count, and no reason to ask again.
            if result
                .as_ref()
                .is_err_and(|error| *error.kind() == ErrorKind::Offline)
            {
                return result;
            }
            self.learn(request, leave, &mut result).await;
            let label = match &result {
                Ok(reply) => StatusLabel::Http(reply.status().as_u16()),
                Err(error) => StatusLabel::Failed(error.kind().word()),
            };
            self.observer.request(&self.prefix, request.kind, label);
            let passing = match &result {
                Ok(reply) => retry::is_passing(reply.status(), reply.headers()),
                // A certificate does not become valid by asking again.
                Err(error) => error.is_retryable() && *error.kind() != ErrorKind::Unavailable(Failure::Tls),
            };
            let pause = retry::pause(self.pause, attempt);
            if !passing || last || window.left() <= pause {
                return result;
            }
            tracing::debug!(
                upstream = self.prefix(), host = host_of(request.url), kind = request.kind.as_str(),
                outcome = %label, attempt, "asking the upstream again"
            );
            if let Ok(reply) = result {
                reply.drain().await;
            }
            tokio::time::sleep(pause).await;
            attempt += 1;
            limit = self.header_timeout.min(window.left());
        }
    }

    /// Leave to ask a host that may have refused too many requests.
    async fn leave(&self, request: &Request<'_>) -> Result<Leave, Error> {
        let host = host_of(request.url);
        if self.offline.is_on() {
            return Err(self.is_offline(&host));
        }
        let entered = tokio::select! {
            entered = self.slowdown.enter(&host, &request.purpose) => entered,
            () = self.offline.until(true) => return Err(self.is_offline(&host)),
        };
        entered.map_err(|wait| {
            let kind = ErrorKind::RateLimited {
                retry_after: Some(wait),
                limit: Limit::Held,
            };
            let message = format!(
                "not asked for {} s more, it refused too many requests",
                wait.as_secs() + 1
            );
            self.error(&host, kind, message)
        })
    }

    /// What an answer says about how fast its host may be asked.
    async fn learn(&self, request: &Request<'_>, leave: Leave, result: &mut Result<Reply, Error>) {
        // No answer says nothing.
        let Ok(reply) = result else { return };
        // What a client's login may is that client's affair: it must not slow all others.
        if request.guise == Guise::Caller {
            return;
        }
        let refused = if reply.status().as_u16() == 429 {
            let (limit, retry_after) = reply.limit().await;
            (limit == Limit::Requests).then_some(retry_after)
        } else {
            None
        };
        let host = host_of(request.url);
        if let Some(retry_after) = refused {
            let slowed = self.slowdown.refused(&host, leave, retry_after);
            tracing::warn!(
                upstream = self.prefix(),
                host,
                interval = ?slowed.interval,
                pause = ?slowed.pause,
                "it refuses too many requests: it is asked slowly for a while"
            );
            self.observer.slowed(&self.prefix, &slowed);
        } else if self.slowdown.answered(&host, leave) {
            tracing::info!(upstream = self.prefix(), host, "it is asked as usual again");
            let slowed = Slowed::not(host);
            self.observer.slowed(&self.prefix, &slowed);
        }
    }

    async fn attempt(
        &self,
        request: &Request<'_>,
        authorization: Option<&HeaderValue>,
        limit: Duration,
    ) -> Result<Reply, Error> {
        let host = host_of(request.url);
        if self.offline.is_on() {
            return Err(self.is_offline(&host));
        }
        // Waiting for a turn is not the upstream's slowness: it has no time-out.
        let turn = tokio::select! {
            turn = self.turn(request, &host) => turn,
            () = self.offline.until(true) => return Err(self.is_offline(&host)),
        };
        let known = self.known.as_ref().filter(|_| {
            request.guise == Guise::Own && realm::is_trusted(&self.own, request.url, &self.realms)
        });
        let clients = known.unwrap_or(&self.clients);
        let client = match request.lane {
            Lane::Api | Lane::Login => &clients.api,
            Lane::Bulk => &clients.bulk,
        };
        let mut headers = request.headers.clone();
        // What is digested must come as it is.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.clone());
        }
        let mut builder = client
            .request(request.method.clone(), request.url.clone())
            .headers(headers);
        if let Some(form) = &request.form {
            builder = builder
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form.expose().to_owned());
        }
        let sending = builder.send();
        // First the switch: it may have been turned on during the wait for a turn.
        let sent = tokio::select! {
            biased;
            () = self.offline.until(true) => return Err(self.is_offline(&host)),
            sent = tokio::time::timeout(limit, sending) => sent,
        };
        match sent {
            Ok(Ok(response)) => Ok(Reply::new(response, host, turn, self)),
            Ok(Err(error)) => {
                let (kind, message) = classify(&error);
                // Who wants our certificate, and does not see it, breaks off with an alert: a refusal.
                if self.known.is_some() && known.is_none() && message.contains("fatal alert") {
                    return Err(self.error(&host, ErrorKind::Denied, message));
                }
                Err(self.error(&host, kind, message))
            }
            Err(_) => {
                let kind = ErrorKind::Unavailable(Failure::Timeout);
                Err(self.error(&host, kind, format!("no answer within {limit:?}")))
            }
        }
    }

    /// How long nothing may come of a body.
    pub(super) fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    /// Waits for a turn among the requests to a host.
    async fn turn(&self, request: &Request<'_>, host: &str) -> Turn {
        let since = Instant::now();
        let turn = self
            .manners
            .turns
            .take(request.lane, host, &request.purpose)
            .await;
        let waited = since.elapsed();
        if waited >= NOTED {
            self.observer.waited(&self.prefix, WaitedFor::Turn, waited);
        }
        turn
    }
}

/// The host of a URL, with its port where that is not the scheme's own.
pub(super) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// A client for each lane.
struct Clients {
    api: Client,
    bulk: Client,
}

impl Clients {
    fn new(
        config: &UpstreamConfig,
        guard: &Arc<Guard>,
        tuning: &Tuning,
        identity: Option<&Secret>,
    ) -> Result<Self, reqwest::Error> {
        let client = |lane: Lane| {
            let resolver = Resolver::new(guard.clone(), tuning.look_up.clone());
            let mut builder = base(config, tuning)?.dns_resolver(resolver);
            if let Some(pem) = identity {
                builder = builder.identity(Identity::from_pem(pem.expose().as_bytes())?);
            }
            if lane == Lane::Bulk {
                builder = builder.http1_only();
            }
            builder.build()
        };
        Ok(Self {
            api: client(Lane::Api)?,
            bulk: client(Lane::Bulk)?,
        })
    }
}

/// Clients for services that the operator names, and no registry: they may well have private addresses (an API within
/// a cloud's network, the metadata of a machine), so nothing guards them. One by way of the proxy, one without.
pub(super) fn unguarded(
    config: &UpstreamConfig,
    tuning: &Tuning,
) -> Result<(Client, Client), reqwest::Error> {
    Ok((
        base(config, tuning)?.build()?,
        base(config, tuning)?.no_proxy().build()?,
    ))
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that builds clients"
)]
fn base(config: &UpstreamConfig, tuning: &Tuning) -> Result<ClientBuilder, reqwest::Error> {
    let mut builder = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .user_agent(concat!("wharfinger/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(config.connect_timeout)
        .tcp_keepalive(Duration::from_secs(30))
        .pool_idle_timeout(Duration::from_mins(1))
        .pool_max_idle_per_host(config.max_connections)
        .tls_certs_only(roots());
    if let Some(pem) = &config.ca_pem {
        builder = builder.tls_certs_merge(Certificate::from_pem_bundle(pem)?);
    }
    if config.insecure {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    if let Some(proxy) = &config.proxy {
        let direct = reqwest::NoProxy::from_string(&config.no_proxy.join(","));
        builder = builder.proxy(reqwest::Proxy::all(proxy.as_str())?.no_proxy(direct));
    } else if !tuning.system_proxy {
        builder = builder.no_proxy();
    }
    for (name, address) in &tuning.addresses {
        builder = builder.resolve(name, *address);
    }
    Ok(builder)
}

/// The certificates to trust: the system's (or those of `SSL_CERT_FILE`), else Mozilla's as compiled in. Read once.
fn roots() -> Vec<Certificate> {
    static ROOTS: OnceLock<Vec<Certificate>> = OnceLock::new();
    ROOTS
        .get_or_init(|| {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!(%error, "a certificate of the system cannot be read");
            }
            let system = usable(found.certs.iter().map(AsRef::as_ref));
            if !system.is_empty() {
                return system;
            }
            tracing::info!("the system has no CA certificates: trusting the compiled-in ones");
            usable(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(AsRef::as_ref))
        })
        .clone()
}

/// Those that the TLS library takes; one that it does not would fail the whole client.
fn usable<'a>(ders: impl Iterator<Item = &'a [u8]>) -> Vec<Certificate> {
    let all: Vec<Certificate> = ders.filter_map(|der| Certificate::from_der(der).ok()).collect();
    if accepted(all.clone()) {
        return all;
    }
    all.into_iter()
        .filter(|one| accepted(vec![one.clone()]))
        .collect()
}

#[expect(clippy::disallowed_methods, reason = "this client is never used")]
fn accepted(certificates: Vec<Certificate>) -> bool {
    Client::builder()
        .no_proxy()
        .tls_certs_only(certificates)
        .build()
        .is_ok()
}

/// The hosts of the proxies in use: their names may resolve to private addresses.
fn proxy_hosts(config: &UpstreamConfig, tuning: &Tuning) -> Vec<String> {
    if let Some(proxy) = &config.proxy {
        return proxy.host_str().map(str::to_owned).into_iter().collect();
    }
    if !tuning.system_proxy {
        return Vec::new();
    }
    [
        "HTTPS_PROXY",
        "https_proxy",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ]
    .into_iter()
    .filter_map(|name| std::env::var(name).ok())
    .filter_map(|value| proxy_host(&value))
    .collect()
}

/// The host of a proxy as the environment names it, which may lack the scheme.
fn proxy_host(value: &str) -> Option<String> {
    let value = value.trim();
    let url = if value.contains("://") {
        Url::parse(value)
    } else {
        Url::parse(&format!("http://{value}"))
    };
    url.ok()?.host_str().map(str::to_ascii_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_that_are_none_do_not_spoil_the_rest() {
        let good = webpki_root_certs::TLS_SERVER_ROOT_CERTS[0].as_ref();
        assert_eq!(usable([good, b"no certificate"].into_iter()).len(), 1);
        assert!(usable([b"no certificate".as_slice()].into_iter()).is_empty());
        assert!(!roots().is_empty());
    }

    #[test]
    fn proxies_of_the_environment() {
        assert_eq!(proxy_host("proxy.corp:3128").as_deref(), Some("proxy.corp"));
        assert_eq!(
            proxy_host("http://u:p@Proxy.Corp:3128/").as_deref(),
            Some("proxy.corp")
        );
        assert_eq!(proxy_host("socks5h://10.0.0.1:1080").as_deref(), Some("10.0.0.1"));
        assert_eq!(proxy_host(""), None);
    }
}
