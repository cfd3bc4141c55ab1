//! The HTTP front: one order for every request (parse, authorize, handle, rescue), one place for what all answers
//! share.
//!
//! `app` builds one [`Api`] and asks it for a service per connection. Everything below the parse speaks in parsed
//! types.

mod admin;
mod body;
mod deadline;
mod distribution;
mod exchange;
#[cfg(fuzzing)]
pub mod fuzzing;
mod health;
mod incoming;
mod multipart;
mod query;
mod reply;
mod request_id;
mod rescue;
mod route;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use hyper::service::{Service, service_fn};
use ipnet::IpNet;

use crate::job::Jobs;
use crate::oci::RepositoryName;
use crate::registry::{
    Asked, CacheStatus, Door, HostedRepository, Intent, Located, Lost, Registry, Repository,
};
use crate::server::{Connection, Origin, RequestBody};
use crate::telemetry::{AccessLog, Metrics};
use crate::transfer::Transfers;

pub use body::{Body, BodyError};

use exchange::Exchange;
use reply::Reply;
use request_id::RequestIds;
use rescue::Failure;
use route::{Route, Target};

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
    /// Whose word on the client before them is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// What an operator may take away or bring.
    pub transfers: Arc<Transfers>,
}

/// The HTTP front. Clones are the same one.
#[derive(Clone)]
pub struct Api {
    shared: Arc<Shared>,
}

struct Shared {
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    access: AccessLog,
    jobs: Jobs,
    options: Options,
    started: Instant,
    ready: AtomicBool,
    ids: RequestIds,
}

/// A request while it is handled.
struct Asking<'a> {
    shared: &'a Shared,
    method: &'a Method,
    uri: &'a Uri,
    version: Version,
    headers: &'a HeaderMap,
    /// What the request carries, for those few that read it.
    body: Option<RequestBody>,
    entrance: Entrance,
    connection: &'a Connection,
    exchange: &'a mut Exchange,
}

impl Api {
    /// A front to `registry`. It is ready at once; see [`Api::set_ready`].
    pub fn new(
        registry: Arc<Registry>,
        metrics: Arc<Metrics>,
        access: AccessLog,
        jobs: Jobs,
        options: Options,
    ) -> Self {
        let shared = Shared {
            registry,
            metrics,
            access,
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

    /// The service for one connection. Bodies of requests are read by the admin API alone.
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
            let body = (route.writes() || matches!(route, Route::Admin(_))).then_some(body);
            let mut asking = Asking {
                shared,
                method: &method,
                uri: &uri,
                version,
                headers: &headers,
                body,
                entrance,
                connection,
                exchange: &mut exchange,
            };
            let limit = shared.options.answer_timeout;
            // For content: an operator's question may take its time.
            let applies = route.target().filter(|_| !route.writes()).map(|_| limit);
            match deadline::within(applies, asking.handle(route)).await {
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
    async fn handle(&mut self, route: &Route<'_>) -> Result<Reply, Failure> {
        match route {
            Route::Base(_) => Ok(distribution::base()),
            Route::Live => Ok(health::live()),
            Route::Ready => Ok(health::ready(self.shared.ready.load(Ordering::Relaxed))),
            Route::Metrics => Ok(health::metrics(&self.shared.metrics)),
            Route::Admin(route) => Box::pin(admin::answer(self, route)).await,
            Route::Catalog => Box::pin(distribution::hosted::catalog(self)).await,
            Route::Manifest(target, reference) => match self.locate(target, Intent::Read).await? {
                Located::PullThrough(found) => distribution::manifests::get(self, &found, reference).await,
                Located::Hosted(found) => distribution::hosted::manifest(self, &found, reference).await,
            },
            Route::Blob(target, digest) => match self.locate(target, Intent::Read).await? {
                Located::PullThrough(found) => distribution::blobs::get(self, &found, digest).await,
                Located::Hosted(found) => distribution::hosted::blob(self, &found, digest).await,
            },
            Route::Tags(target, page) => match self.locate(target, Intent::Read).await? {
                Located::PullThrough(found) => {
                    Box::pin(distribution::tags::list(self, &found, target, *page)).await
                }
                Located::Hosted(found) => {
                    Box::pin(distribution::hosted::tags(self, &found, target, *page)).await
                }
            },
            Route::Referrers(target, digest) => match self.locate(target, Intent::Read).await? {
                Located::PullThrough(found) => {
                    Box::pin(distribution::referrers::list(self, &found, digest)).await
                }
                Located::Hosted(found) => {
                    Box::pin(distribution::hosted::referrers(self, &found, target, digest)).await
                }
            },
            Route::PutManifest(target, reference) => {
                let found = self.locate_hosted(target, Intent::Push).await?;
                Box::pin(distribution::hosted::put_manifest(
                    self, &found, target, reference,
                ))
                .await
            }
            Route::DeleteManifest(target, reference) => {
                let found = self.locate_hosted(target, Intent::Delete).await?;
                Box::pin(distribution::hosted::delete_manifest(self, &found, reference)).await
            }
            Route::DeleteBlob(target, digest) => {
                let found = self.locate_hosted(target, Intent::Delete).await?;
                Box::pin(distribution::hosted::delete_blob(self, &found, digest)).await
            }
            Route::BeginUpload(target) => {
                let found = self.locate_hosted(target, Intent::Push).await?;
                Box::pin(distribution::uploads::begin(self, &found, target)).await
            }
            Route::Upload(target, step, id) => {
                let found = self.locate_hosted(target, Intent::Push).await?;
                Box::pin(distribution::uploads::step(self, &found, target, (*step, *id))).await
            }
        }
    }

    /// The hosted repository that `target` means: nothing else is pushed to.
    async fn locate_hosted(
        &mut self,
        target: &Target<'_>,
        intent: Intent,
    ) -> Result<Arc<HostedRepository>, Failure> {
        match self.locate(target, intent).await? {
            Located::Hosted(found) => Ok(found),
            Located::PullThrough(_) => Err(Failure::PullThrough),
        }
    }

    /// The repository that `target` means, noted for log, metrics and headers.
    async fn locate(&mut self, target: &Target<'_>, intent: Intent) -> Result<Located, Failure> {
        let asked = Asked {
            door: target.door,
            host: target.host.as_deref(),
            ns: target.ns.as_deref(),
            name: &target.name,
        };
        let located = self.shared.registry.locate(&asked, intent).await;
        let located = located.map_err(|lost| match lost {
            Lost::PullThrough(error) => Failure::Registry(error),
            Lost::Hosted(error) => Failure::Hosted(error),
        })?;
        match &located {
            Located::PullThrough(repository) => {
                self.exchange.upstream = Some(self.shared.metrics.upstream(repository.upstream()));
                self.exchange.repository = Some(repository.clone());
            }
            Located::Hosted(repository) => self.exchange.hosted = Some(repository.key.clone()),
        }
        Ok(located)
    }

    /// Who asks: upload sessions belong to whoever began them.
    fn caller(&self) -> &str {
        ""
    }

    /// Whether the caller may pull from a hosted repository.
    fn may_read(&self, _: &RepositoryName) -> bool {
        true
    }

    /// Whether the caller may pull from a pull-through repository.
    fn may_pull(&self, _: &Repository) -> bool {
        true
    }

    /// Notes what the cache did.
    fn note(&mut self, status: CacheStatus) {
        self.exchange.status = Some(status);
    }
}
