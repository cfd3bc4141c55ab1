//! From a configuration to a running daemon: builds each part once, serves, and drains. Called by `cli`.

mod access;
mod doors;
mod issuers;
mod observed;
mod templates;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{Api, Entrance, Logs, Options};
use crate::cache::{Cache, Places, offline_at_start};
use crate::clock::Timestamp;
use crate::config::{Config, LogFormat};
use crate::job::{Jobs, Progress};
use crate::maintenance::{Collect, Evict, Expire, Scrub, Sweep};
use crate::preserve::{
    BundleExport, BundleImport, Drill, Finder, KeepPinned, PinAll, Pull, RefreshAhead, Warm,
};
use crate::registry::{Hosted, Names, Ours, Registry};
use crate::server::{Drain, DrainOutcome, Limits, Server};
use crate::storage::{Storage, UploadRules};
use crate::telemetry::{AccessLog, AuditLog, Metrics, start_logging};
use crate::transfer::{Transfers, Uploads};
use crate::upstream::{Ledger, Observer, Upstream};

use observed::{BudgetNote, Observed};

/// The unix socket in the data folder, which the subcommands talk to.
pub const ADMIN_SOCKET: &str = "admin.sock";

/// How late the metrics may tell of a bandwidth window.
const BETWEEN_LOOKS: Duration = Duration::from_secs(15);

pub use access::open as open_access;

/// What the command line says beside the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions {
    /// Speak TLS with a certificate of our own making.
    pub tls_self_signed: bool,
}

/// Runs the daemon until SIGTERM or SIGINT.
pub fn run(config: Config, options: RunOptions) -> anyhow::Result<()> {
    let json = config.log.format == LogFormat::Json;
    let _logging = start_logging(json, &config.log.level).context("cannot start logging")?;
    raise_open_files();
    // Hashes of passwords, keys and private images are in the files that we make.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start threads")?;
    // Fills write and hash in place, so they get threads of their own: a slow disk holds up no answer.
    let fills = tokio::runtime::Builder::new_multi_thread()
        .thread_name("fill")
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let result = runtime.block_on(serve(config, options, json, fills.handle().clone()));
    // Blocking threads may still sit in a read or a name look-up that nobody waits for.
    fills.shutdown_timeout(Duration::from_secs(1));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// What is wrong with a configuration beyond what `config` itself can judge.
///
/// # Errors
/// The first fault.
pub fn check(config: &Config) -> anyhow::Result<()> {
    access::check(&config.auth)?;
    templates::read(config).map(drop)
}

async fn serve(config: Config, options: RunOptions, json: bool, fill_threads: Handle) -> anyhow::Result<()> {
    let templates = templates::read(&config)?;
    let settings = config.storage.clone();
    let configured = config.cache.offline;
    let opened = tokio::task::spawn_blocking(move || {
        let storage = Storage::open(&settings)?;
        let offline = offline_at_start(&storage, configured);
        Ok::<_, crate::storage::Error>((storage, offline))
    });
    let (storage, offline) = opened.await??;
    let metrics = Arc::new(Metrics::new());
    metrics.started_at(Timestamp::now().0 / 1000);
    let observer: Arc<dyn Observer> = Arc::new(Observed(metrics.clone()));
    let upstreams = config
        .upstreams
        .iter()
        .map(|upstream| Upstream::switched(upstream.clone(), observer.clone(), &offline))
        .collect::<Result<Vec<_>, _>>()
        .context("cannot set up an upstream")?;
    // All doors are bound before one is served: a start either succeeds or leaves nothing behind.
    let (of_tls, self_signed) = (config.clone(), options.tls_self_signed);
    let tls = tokio::task::spawn_blocking(move || doors::load_tls(&of_tls, self_signed)).await??;
    let bound = doors::bind_doors(&config, tls.as_ref())?;
    let local = doors::bind_local(&config.storage.data_dir);
    let names = Names::new(&upstreams, config.cache.mirror.as_deref());
    metrics.offline(offline.is_on());
    if offline.is_on() {
        tracing::warn!("offline: nothing is asked of any upstream");
    }
    let (index, blobs, uploads) = (
        storage.index.clone(),
        storage.blobs.clone(),
        storage.uploads.clone().held_to(UploadRules {
            most: config.hosted.max_uploads,
            min_chunk: config.hosted.min_chunk_size,
        }),
    );
    let cache = Cache::switched(storage, metrics.clone(), fill_threads, offline);
    let hosted = Hosted::new(
        cache.repositories().clone(),
        index.clone(),
        blobs,
        uploads,
        config.hosted.grace,
        Timestamp::now(),
    );
    let ours = Ours {
        hosted: hosted.clone(),
        templates,
        namespaces: config.hosted.namespaces.clone(),
    };
    let (of_access, keeps, secured) = (config.clone(), cache.clone(), tls.is_some());
    let (access_rights, access_upkeep) =
        tokio::task::spawn_blocking(move || access::open(&of_access, secured, &keeps)).await??;
    let challenges = access::challenges(&access_rights);
    let collect = Collect::new(
        hosted.clone(),
        index.clone(),
        metrics.clone(),
        config.hosted.collect_interval,
        config.hosted.upload_timeout,
    );
    let expire = Expire::new(hosted, index, metrics.clone(), config.hosted.retention_interval);
    let places = Places::new(&upstreams);
    let (its, store) = (upstreams.clone(), Arc::new(BudgetNote(cache.clone())));
    let ledger = tokio::task::spawn_blocking(move || Arc::new(Ledger::open(its, store))).await?;
    let scrub = Scrub::new(cache.clone(), places.clone(), config.storage.scrub_rate);
    let sweep = Sweep::new(cache.clone());
    let registry = Arc::new(Registry::new(
        cache.clone(),
        names,
        doors::own_addresses(&config, &bound),
        ours,
    ));
    let named = registry.clone();
    let finder: Finder = Arc::new(move |text| {
        let (repository, reference) = named.find(text)?;
        Ok((repository.place().clone(), reference))
    });
    let pinned = KeepPinned::new(cache.clone(), finder.clone(), places.clone());
    let warm = Warm::new(cache.clone(), finder.clone(), config.warm.clone());
    let (access, _access) = if config.log.access {
        let (log, guard) = AccessLog::start(json, &metrics, Box::new(std::io::stdout()))
            .context("cannot start the access log")?;
        (log, Some(guard))
    } else {
        (AccessLog::off(), None)
    };
    let (audit, _audit) = match &config.log.audit_file {
        Some(path) => {
            let opened = AuditLog::open(path, config.log.audit_pulls, &metrics);
            let (log, guard) = opened.with_context(|| format!("log.audit_file: {}", path.display()))?;
            (log, Some(guard))
        }
        None => (AuditLog::off(), None),
    };
    let uploads = Uploads::default();
    let export = BundleExport::new(cache.clone(), places.clone(), finder.clone());
    let of_certificates = metrics.clone();
    let api = Api::new(
        registry,
        access_rights,
        metrics,
        Logs { access, audit },
        Jobs::new()
            .with(Evict::new(cache.clone()))
            .with(scrub.clone())
            .with(sweep.clone())
            .with(collect.clone())
            .with(expire.clone())
            .with(Drill::new(cache.clone(), places.clone()))
            .with(BundleImport::new(cache.clone(), finder.clone(), uploads.clone()))
            .with(Pull::new(cache.clone(), finder.clone()))
            .with(PinAll::new(cache.clone(), finder))
            .with(warm.clone()),
        Options {
            admin_on_main: config.server.admin_listen.is_none(),
            data_dir: config.storage.data_dir.display().to_string(),
            answer_timeout: config.server.answer_timeout,
            body_timeout: config.server.body_timeout,
            trusted_proxies: config.server.trusted_proxies.clone(),
            allow_plain_http: config.server.allow_plain_http,
            no_logins: access::no_logins(&config, secured),
            public_url: config
                .server
                .public_url
                .as_ref()
                .map(|url| url.as_str().trim_end_matches('/').to_owned()),
            service: access::service(&config),
            transfers: Arc::new(Transfers::new(uploads).with(export)),
        },
    );

    let drain = Drain::new();
    let limits = Limits {
        max_connections: config.server.max_connections,
        max_connections_per_address: config.server.max_connections_per_address,
        trusted_proxies: config.server.trusted_proxies.clone(),
        header_timeout: config.server.header_timeout,
        max_header_bytes: config.server.max_header_bytes,
        ..Limits::default()
    };
    let server = Server::new(limits.clone(), drain.clone());
    // Slots of its own: whoever asks whether we live must be heard when all others are taken.
    let admin = Server::new(limits, drain.clone());
    // Before anybody is told that we are here, and may ask us to stop.
    let mut stop = StopSignals::catch().context("cannot wait for signals")?;
    let (behind, upkeep) = (CancellationToken::new(), TaskTracker::new());
    let own_tls = tls.clone().filter(|_| self_signed);
    if let Some(tls) = tls {
        upkeep.spawn(tls.keep(behind.clone(), move |own| {
            of_certificates.certificate(&own.names.join(","), own.ends);
        }));
    }
    doors::announce(&config, &bound, own_tls.as_ref(), challenges);
    for (socket, door, _) in bound {
        let server = if door == Entrance::Admin { &admin } else { &server };
        let (server, api) = (server.clone(), api.clone());
        tokio::spawn(async move {
            server
                .serve(socket, move |connection| api.service(door, connection))
                .await;
        });
    }

    if let Some(socket) = local {
        let api = api.clone();
        tokio::spawn(async move {
            admin
                .serve_local(socket, move |connection| api.service(Entrance::Local, connection))
                .await;
        });
    }
    let keeper = cache.clone();
    tokio::spawn(async move { tokio::join!(keeper.keep_access(), keeper.keep_room()) });
    tokio::spawn(keep_windows(upstreams));
    let continuing = cache.clone();
    tokio::spawn(async move { continuing.keep_resuming(&places).await });
    // After a clean stop files and rows agree.
    let unclean = config.storage.accept_loss || cache.storage().index.last_closed().is_none();
    upkeep.spawn(ledger.clone().keep(behind.clone()));
    let (stopping, interval) = (behind.clone(), config.storage.scrub_interval);
    upkeep.spawn(async move {
        if unclean {
            sweep.once(Progress::unheard(stopping.clone())).await;
        }
        scrub.keep(interval, stopping).await;
    });

    let (stopping, ahead) = (behind.clone(), RefreshAhead::new(cache.clone()));
    upkeep.spawn(async move { ahead.keep(stopping).await });
    let stopping = behind.clone();
    upkeep.spawn(async move { warm.keep(stopping).await });
    upkeep.spawn(pinned.keep(behind.clone()));
    upkeep.spawn(access_upkeep.keep(behind.clone()));
    let stopping = behind.clone();
    upkeep.spawn(async move { collect.keep(stopping).await });
    let stopping = behind.clone();
    upkeep.spawn(async move { expire.keep(stopping).await });

    stop.next().await;
    let grace = config.server.drain_timeout;
    tracing::info!(
        fills = cache.fills_running(),
        grace_seconds = grace.as_secs_f64(),
        "stopping: finishing what runs"
    );
    api.set_ready(false);
    drain.start();
    api.jobs().stop();
    behind.cancel();
    upkeep.close();
    let finish = async {
        let end = Instant::now() + grace;
        let responses = drain.wait(grace).await;
        // Told to stop, they end at their next step; they work on what is closed below.
        let jobs = async { tokio::join!(api.jobs().ended(), upkeep.wait()) };
        let _ = tokio::time::timeout(end.saturating_duration_since(Instant::now()), jobs).await;
        // After the responses: the last of them may have begun a fill, and ends before it is on disk.
        (
            responses,
            cache.drain(end.saturating_duration_since(Instant::now())).await,
        )
    };
    tokio::select! {
        (responses, fills) = finish => {
            if let DrainOutcome::Cut { connections } = responses {
                tracing::warn!(connections, "the grace period is over: connections were cut");
            }
            if !fills {
                tracing::warn!(fills = cache.fills_running(), "the grace period is over: fills were given up");
            }
        }
        () = stop.next() => {
            tracing::warn!("asked to stop a second time: not waiting any longer");
        }
    }
    let close = move || {
        ledger.save();
        cache.close();
    };
    tokio::task::spawn_blocking(close).await?;
    tracing::info!("stopped");
    Ok(())
}

/// Has bandwidth windows begin and end for the metrics, also while nothing is downloaded.
async fn keep_windows(mut upstreams: Vec<Arc<Upstream>>) {
    upstreams.retain(|upstream| !upstream.config().bandwidth.windows.is_empty());
    while !upstreams.is_empty() {
        tokio::time::sleep(BETWEEN_LOOKS).await;
        for upstream in &upstreams {
            upstream.bandwidth();
        }
    }
}

/// Clients, upstream connections and open blobs each take a descriptor, and the usual soft limit of 1,024 is soon
/// reached: take what the system allows.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// The signals that ask us to stop.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// From here on they no longer end the process by themselves.
    fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
