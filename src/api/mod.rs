//! The HTTP front: one order for every request (parse, authenticate, authorize, handle, rescue), one place for what all answers
//! share.
//!
//! `app` builds one [`Api`] and asks it for a service per connection. Everything below the parse speaks in parsed
//! types.

mod admin;
mod asking;
mod audit;
mod authentication;
mod body;
mod challenge;
mod confirmation;
mod deadline;
mod distribution;
mod exchange;
#[cfg(fuzzing)]
pub mod fuzzing;
mod health;
mod incoming;
mod multipart;
mod permission;
mod query;
mod reply;
mod request_id;
mod rescue;
mod route;
mod upstream_login;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{Request, Response};
use hyper::service::{Service, service_fn};
use ipnet::IpNet;

use crate::auth::{Authenticator, Caller, RequestRate, Rights};
use crate::identities::Identities;
use crate::job::Jobs;
use crate::registry::{CacheStatus, Door, HostedError, HostedRepository, Located, Registry};
use crate::server::{Connection, Origin, RequestBody};
use crate::telemetry::{AccessLog, AuditLog, Metrics};
use crate::transfer::Transfers;

pub use body::{Body, BodyError};

use asking::Asking;
use exchange::Exchange;
use reply::Reply;
use request_id::RequestIds;
use rescue::Failure;
use route::{Route, RouteError, Target};
use upstream_login::Shown;

/// The listener that a request came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// `server.listen`: the main door, and `/mirror/v2/`.
    Main,
    /// `server.mirror_listen`: the mirror door alone.
    Mirror,
    /// `server.admin_listen`: health, metrics and the admin API alone.
    Admin,
    /// The unix socket: the same.
    Local,
}

/// What the front is told once.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether health, metrics and the admin API are on the main door, which they are unless they have a listener of
    /// their own.
    pub admin_on_main: bool,
    /// The data folder, for `status`.
    pub data_dir: String,
    /// How long a client waits for the head of a response.
    pub answer_timeout: Duration,
    /// How long a client may take to send a small body: a manifest, a form, JSON.
    pub body_timeout: Duration,
    /// Whose word on the client before them is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether logins are taken where others can read them on the way.
    pub allow_plain_http: bool,
    /// Why nobody may be let log in, if nobody may.
    pub no_logins: Option<String>,
    /// How clients reach us from outside, without a slash at the end: what the challenge says.
    pub public_url: Option<String>,
    /// What tokens are for, as the challenge says.
    pub service: String,
    /// What an operator may take away or bring.
    pub transfers: Arc<Transfers>,
}

/// The HTTP front. Clones are the same one.
#[derive(Clone)]
pub struct Api {
    shared: Arc<Shared>,
}

/// Who is it, may they.
pub struct Access {
    /// Proves who asks.
    pub authenticator: Authenticator,
    /// Says what they may.
    pub rights: Rights,
    /// Who can log in.
    pub identities: Identities,
    /// How fast each may ask.
    pub rate: RequestRate,
}

/// What is told of requests.
pub struct Logs {
    /// Every one.
    pub access: AccessLog,
    /// Who did what, or was kept from it.
    pub audit: AuditLog,
}

struct Shared {
    registry: Arc<Registry>,
    auth: Access,
    metrics: Arc<Metrics>,
    access: AccessLog,
    audit: AuditLog,
    jobs: Jobs,
    options: Options,
    started: Instant,
    ready: AtomicBool,
    ids: RequestIds,
}

impl Api {
    /// A front to `registry`. It is ready at once; see [`Api::set_ready`].
    pub fn new(
        registry: Arc<Registry>,
        auth: Access,
        metrics: Arc<Metrics>,
        logs: Logs,
        jobs: Jobs,
        options: Options,
    ) -> Self {
        let shared = Shared {
            registry,
            auth,
            metrics,
            access: logs.access,
            audit: logs.audit,
            jobs,
            options,
            started: Instant::now(),
            ready: AtomicBool::new(true),
            ids: RequestIds::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// What `/readyz` says from now on: `false` while draining. Requests are answered all the same.
    pub fn set_ready(&self, ready: bool) {
        self.shared.ready.store(ready, Ordering::Relaxed);
    }

    /// The jobs, which have to be stopped before the end.
    pub fn jobs(&self) -> &Jobs {
        &self.shared.jobs
    }

    /// The service for one connection. Bodies of requests are read by what takes them alone: see `Route::takes_body`.
    pub fn service(
        &self,
        entrance: Entrance,
        connection: Connection,
    ) -> impl Service<
        Request<RequestBody>,
        Response = Response<Body>,
        Error = Infallible,
        Future: Send + 'static,
    > + Send
    + use<> {
        let shared = self.shared.clone();
        service_fn(move |request: Request<RequestBody>| {
            let (shared, connection) = (shared.clone(), connection.clone());
            let (parts, body) = request.into_parts();
            async move { Ok(answer(&shared, entrance, &connection, parts, body).await) }
        })
    }
}

/// One request from its head to the head of its response.
async fn answer(
    shared: &Arc<Shared>,
    entrance: Entrance,
    connection: &Connection,
    parts: Parts,
    body: RequestBody,
) -> Response<Body> {
    let Parts {
        method,
        uri,
        version,
        headers,
        ..
    } = parts;
    // From here on the request is logged and counted, whatever becomes of it.
    let mut exchange = Box::new(Exchange::begin(
        shared,
        entrance,
        connection,
        Origin::of(connection, &headers, &shared.options.trusted_proxies),
        &method,
        &uri,
        &headers,
    ));
    let parsed = route::parse(&method, &uri, entrance, shared.options.admin_on_main);
    let mut falls_through = false;
    let handled = match &parsed {
        Ok(route) => {
            exchange.operation = route.operation(&method);
            if route.door() == Some(Door::Mirror) {
                exchange.door = Entrance::Mirror;
            }
            falls_through = route.target().is_some_and(Target::falls_through);
            let body = (route.takes_body()).then_some(body);
            let mut asking = Asking {
                shared,
                method: &method,
                uri: &uri,
                version,
                headers: &headers,
                body,
                entrance,
                connection,
                caller: Caller::anonymous(),
                exchange: &mut exchange,
                route,
                spared: Duration::ZERO,
            };
            let limit = shared.options.answer_timeout;
            // For content: an operator's question may take its time.
            let applies = route.target().filter(|_| !route.writes()).map(|_| limit);
            let handled = {
                let handling = pin!(asking.answer(route));
                deadline::within(applies, handling).await
            };
            if let Some(Err(failure)) = &handled {
                asking.note_refusal(route, failure);
            }
            if asking.body.is_some() && !matches!(handled, Some(Ok(_))) {
                incoming::spend(&mut asking).await;
            }
            match handled {
                Some(handled) => handled,
                None => Err(deadline::missed(limit, exchange.repository.as_ref())),
            }
        }
        Err(error) => Err(Failure::Route(*error)),
    };
    let mut reply = match handled {
        Ok(reply) => reply,
        Err(failure) => {
            if let Failure::Registry(error) = &failure {
                exchange.status = Some(CacheStatus::failed(error));
            }
            rescue::render(&failure, falls_through, exchange.id.as_str())
        }
    };
    reply.common(&exchange);
    reply.into_response(&method, exchange)
}

impl Asking<'_> {
    /// Authenticates, authorizes, and handles.
    async fn answer(&mut self, route: &Route<'_>) -> Result<Reply, Failure> {
        self.authenticate(route).await?;
        self.pace(route)?;
        if self.caller.upstream_login().is_some() {
            Box::pin(self.prove_at_upstream(route)).await?;
        }
        let located = match route.target() {
            Some(target) => Some(self.locate(target, route.intent()).await?),
            None => None,
        };
        // Whoever asks: what is an upstream's takes no pushes. Where something of ours may lie over it, that would tell
        // which names do.
        if let (true, Some(Located::PullThrough(found))) = (route.writes(), &located)
            && !found.is_overlaid()
        {
            return Err(Failure::PullThrough);
        }
        self.narrow(route, located.as_ref());
        let decided = self.authorize(route, located.as_ref());
        self.note_decision(route, located.as_ref(), decided.as_ref().err());
        decided?;
        match (located, route.target()) {
            (Some(located), Some(target)) => self.handle_content(route, target, located).await,
            _ => self.handle(route).await,
        }
    }

    /// What is about no repository.
    async fn handle(&mut self, route: &Route<'_>) -> Result<Reply, Failure> {
        match route {
            Route::Live => Ok(health::live()),
            Route::Ready => Ok(health::ready(self.shared.ready.load(Ordering::Relaxed))),
            Route::Metrics => Ok(health::metrics(&self.shared.metrics)),
            Route::Token => Box::pin(distribution::token::issue(self)).await,
            Route::Admin(route) => Box::pin(admin::answer(self, route)).await,
            Route::Catalog => Box::pin(distribution::hosted::catalog(self)).await,
            Route::Base(_) => Ok(distribution::base()),
            // All others have a repository.
            _ => Err(Failure::Route(RouteError::NotFound)),
        }
    }

    async fn handle_content(
        &mut self,
        route: &Route<'_>,
        target: &Target<'_>,
        located: Located,
    ) -> Result<Reply, Failure> {
        match located {
            Located::PullThrough(found) => {
                let shown = if found.asks_about_callers() {
                    Box::pin(self.shown_for(&found, target)).await
                } else {
                    Shown::Nothing
                };
                let found = match &shown {
                    Shown::Taken(login) => found.asked_for_by(&upstream_login::identity(login)),
                    _ => found,
                };
                let answered = match route {
                    Route::Manifest(_, reference) => {
                        distribution::manifests::get(self, &found, reference).await
                    }
                    Route::Blob(_, digest) => distribution::blobs::get(self, &found, digest).await,
                    Route::Tags(_, page) => {
                        Box::pin(distribution::tags::list(self, &found, target, *page)).await
                    }
                    Route::Referrers(_, digest) => {
                        Box::pin(distribution::referrers::list(self, &found, digest)).await
                    }
                    _ => Err(Failure::PullThrough),
                };
                answered.map_err(|failure| self.login_wanted(failure, target, &found, &shown))
            }
            Located::Hosted(found) => self.handle_hosted(route, target, &found).await,
            Located::Absent(name) => {
                if let Route::Referrers(..) = route {
                    // Nothing refers to what was never pushed: a 404 would mean that lists like this are unknown here.
                    return Ok(distribution::referrers::none());
                }
                if !route.pushes() {
                    return Err(Failure::Hosted(HostedError::NameUnknown));
                }
                let made = self.shared.registry.make(&name, &self.caller.key()).await;
                let made = made.map_err(Failure::Hosted)?;
                self.handle_hosted(route, target, &made).await
            }
        }
    }

    async fn handle_hosted(
        &mut self,
        route: &Route<'_>,
        target: &Target<'_>,
        found: &HostedRepository,
    ) -> Result<Reply, Failure> {
        use distribution::{hosted, uploads};
        match route {
            Route::Manifest(_, reference) => hosted::manifest(self, found, reference).await,
            Route::Blob(_, digest) => hosted::blob(self, found, digest).await,
            Route::Tags(_, page) => Box::pin(hosted::tags(self, found, target, *page)).await,
            Route::Referrers(_, digest) => Box::pin(hosted::referrers(self, found, target, digest)).await,
            Route::PutManifest(_, reference) => Box::pin(hosted::put_manifest(self, target, reference)).await,
            Route::DeleteManifest(_, reference) => {
                Box::pin(hosted::delete_manifest(self, found, reference)).await
            }
            Route::DeleteBlob(_, digest) => Box::pin(hosted::delete_blob(self, found, digest)).await,
            Route::BeginUpload(_) => Box::pin(uploads::begin(self, found, target)).await,
            Route::Upload(_, step, Some(id)) => {
                Box::pin(uploads::step(self, found, target, (*step, *id))).await
            }
            Route::Upload(_, _, None) => Err(Failure::Hosted(HostedError::UploadUnknown)),
            // Those without a repository do not come here.
            _ => Err(Failure::Route(RouteError::NotFound)),
        }
    }
}
