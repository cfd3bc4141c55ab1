//! The command line: `serve` and `check-config`, and the commands that talk to a running daemon. Called by `main`.
//!
//! Exit status: 0 well, 1 could not start or failed (of a drill: there are holes; of an import: something was refused), 64 wrong usage, configuration or reference, 69 the daemon is not
//! running, 77 its socket is not ours to use (sysexits' EX_USAGE, EX_UNAVAILABLE, EX_NOPERM).

mod admin;
mod bars;
mod bundle;
mod client;
mod done;
mod identities;
pub mod job;
mod limits;
mod offline;
mod online;
mod preserve;
mod pulls;
mod repositories;
mod show;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytesize::ByteSize;
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use http::StatusCode;

use crate::app::{self, RunOptions};
use crate::config::{self, Config, ConfigFaults};
use crate::job::Job as _;
use crate::maintenance::{
    Collect, CollectOptions, Evict, EvictOptions, Expire, ExpireOptions, Scrub, ScrubOptions, Sweep,
    SweepOptions,
};
use crate::preserve::{Drill, DrillOptions, ExportOptions};

pub use admin::Told;
pub use client::CallError;

use identities::{AccessKeyCommand, Group, RobotCommand, TokenCommand, UserCommand};
use pulls::{PinArguments, PullArguments, UnpinArguments};
use repositories::RepositoryCommand;

const USAGE: u8 = 64;
const UNAVAILABLE: u8 = 69;
const NO_PERMISSION: u8 = 77;

/// A streaming, verifying cache in front of container registries.
///
/// Without configuration, `wharfinger serve` caches Docker Hub, Quay, GHCR, ECR Public and registry.k8s.io on
/// 127.0.0.1:5000.
#[derive(Parser)]
#[command(name = "wharfinger", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the cache until SIGTERM or Ctrl-C; running pulls are finished first
    Serve(ServeArguments),
    /// Report every fault of a configuration: file, key and reason
    CheckConfig(CheckArguments),
    /// How the running cache stands: what it keeps and fetches, and how its upstreams are
    Status(DaemonArguments),
    /// Why a pull of REF would now be a hit, stale, or a miss, and what of it is here. Asks no upstream
    Explain(ReferenceArguments),
    /// Ask the upstream about REF now, however fresh it is
    Refresh(ReferenceArguments),
    /// Remove a tag, or with a digest a manifest, so that it is fetched anew
    Purge(PurgeArguments),
    /// Ask nothing of any upstream from now on, also after a restart, and serve what is here; or off again. Without a word: how it stands
    Offline(OfflineArguments),
    /// Prove which images that were pulled lately would survive the loss of their upstream. Status 1 when one would not
    Drill(DrillArguments),
    /// Carry images with all that they need to a cache that nothing reaches, as an OCI layout in a tar archive
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// Bring images in now, as a client's pull would: what is here is not fetched again
    Pull(PullArguments),
    /// Run the lists of [[warm]] now
    Warm(DaemonArguments),
    /// Never evict these images; what is not here is pulled first. A pin by tag follows the tag. Without REF: list them
    Pin(PinArguments),
    /// Take pins away; nothing is evicted before room is needed
    Unpin(UnpinArguments),
    /// What is pinned, and how much that is
    Pins(DaemonArguments),
    /// People who can log in
    #[command(subcommand)]
    User(UserCommand),
    /// Programs that can log in, each bounded to what it is for
    #[command(subcommand)]
    Robot(RobotCommand),
    /// Further secrets that a user or robot logs in with
    #[command(subcommand)]
    Token(TokenCommand),
    /// AWS access keys of a user or robot
    #[command(subcommand)]
    AccessKey(AccessKeyCommand),
    /// Make room now: the images that are worth least go, until SIZE is free
    Evict(EvictArguments),
    /// Hash all blobs and manifests again now: what is rotten is put aside, and fetched again
    Scrub(ScrubArguments),
    /// Make, look at, change and delete repositories of our own
    #[command(subcommand)]
    Repository(RepositoryCommand),
    /// Collect hosted repositories now: blobs that no image needs go, and uploads that were given up
    Collect(HostedJobArguments),
    /// Delete the images that the lifecycle policies of hosted repositories expire, now. Their blobs go with the next collection
    Expire(HostedJobArguments),
    /// Hold files and index against each other: blobs that lost their file are dropped, files that the index lost are taken in
    Sweep(DaemonArguments),
    /// Make a new index of what the data folder holds, when the old one is damaged or lost. The daemon must not run
    RebuildIndex(RebuildArguments),
}

#[derive(Args)]
struct DaemonArguments {
    /// The running daemon's configuration file, found as `serve` finds it: its data folder has the socket
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct ReferenceArguments {
    /// An image: nginx, docker.io/library/nginx:1.27, quay/org/app@sha256:..., localhost:5000/docker-hub/library/nginx
    #[arg(value_name = "REF")]
    reference: String,
    #[command(flatten)]
    daemon: DaemonArguments,
}

#[derive(Args)]
struct OfflineArguments {
    /// What it is to be
    #[arg(value_name = "on|off")]
    wanted: Option<Wanted>,
    #[command(flatten)]
    daemon: DaemonArguments,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Wanted {
    On,
    Off,
}

#[derive(Args)]
struct DrillArguments {
    /// Look at what was pulled within so many days, 90 at the most
    #[arg(long, value_name = "N", default_value_t = 30)]
    days: u64,
    /// Look at one upstream alone, by its prefix
    #[arg(long, value_name = "PREFIX")]
    upstream: Option<String>,
    /// Fetch what lacks, behind all clients
    #[arg(long)]
    fill: bool,
    #[command(flatten)]
    daemon: DaemonArguments,
}

#[derive(Subcommand)]
enum BundleCommand {
    /// Write what was pulled lately, or the images that are named, with what refers to them
    Export(ExportArguments),
    /// Take a bundle, or another OCI layout archive, into the running cache. Asks no upstream. Status 1 when something was refused
    Import(ImportArguments),
}

#[derive(Args)]
struct ExportArguments {
    /// The archive; - for standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Images, as for explain. Without any, what was pulled lately
    #[arg(value_name = "REF", conflicts_with = "days")]
    refs: Vec<String>,
    /// What was pulled within so many days, 90 at the most
    #[arg(long, value_name = "N", default_value_t = 30)]
    days: u64,
    /// Leave images out of which something lacks. Else nothing is written then
    #[arg(long)]
    skip_incomplete: bool,
    #[command(flatten)]
    daemon: DaemonArguments,
}

#[derive(Args)]
struct ImportArguments {
    /// The archive; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    daemon: DaemonArguments,
}

#[derive(Args)]
struct PurgeArguments {
    /// Remove what it names as well, as far as nothing else here needs it
    #[arg(long)]
    with_content: bool,
    #[command(flatten)]
    about: ReferenceArguments,
}

#[derive(Args)]
struct EvictArguments {
    /// What is to be free: 10GiB, 500MB
    #[arg(value_name = "SIZE")]
    size: ByteSize,
    #[command(flatten)]
    daemon: DaemonArguments,
}

#[derive(Args)]
struct ScrubArguments {
    /// Bytes to read a second, instead of storage.scrub_rate: 100MiB, or 0 for as fast as it goes
    #[arg(long, value_name = "SIZE")]
    rate: Option<ByteSize>,
    #[command(flatten)]
    daemon: DaemonArguments,
}

#[derive(Args)]
struct HostedJobArguments {
    /// Repositories: acme/app. Without any: all of them
    #[arg(value_name = "REPOSITORY")]
    repositories: Vec<String>,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    daemon: DaemonArguments,
}

#[derive(Args)]
struct RebuildArguments {
    /// Hash all blobs, and put those aside that are rotten. Else only the index is made anew
    #[arg(long)]
    verify: bool,
    /// The configuration file, found as `serve` finds it: it names the data folder
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct ServeArguments {
    /// The configuration file (TOML); else the one that WHARFINGER_CONFIG names, else the defaults. Variables like WHARFINGER__SERVER__LISTEN win over it
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Start although most blobs have lost their files; they will be fetched again
    #[arg(long)]
    accept_loss: bool,
    /// Speak TLS with a certificate that is made at the first start and kept in the data folder
    #[arg(long)]
    tls_self_signed: bool,
}

#[derive(Args)]
struct CheckArguments {
    /// The configuration file; else the one that WHARFINGER_CONFIG names
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The same, as other commands take it
    #[arg(long, short, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
    /// Ask the upstreams too: whether each answers, and accepts each of its credentials
    #[arg(long)]
    online: bool,
}

/// Runs the command that the arguments name.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // --help and --version come here too, and are no faults.
            let help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            let _ = error.print();
            return if help {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(USAGE)
            };
        }
    };
    match cli.command {
        Command::Serve(arguments) => match load(arguments.config.as_deref()) {
            Ok(config) if arguments.tls_self_signed && config.server.tls.is_some() => {
                complain("wharfinger: --tls-self-signed and [server.tls] exclude each other");
                ExitCode::from(USAGE)
            }
            Ok(mut config) => {
                config.storage.accept_loss = arguments.accept_loss;
                let options = RunOptions {
                    tls_self_signed: arguments.tls_self_signed,
                };
                serve(config, options)
            }
            Err(faults) => report(&faults),
        },
        Command::CheckConfig(arguments) => match load(arguments.file.or(arguments.config).as_deref()) {
            Ok(config) if let Err(error) = app::check(&config) => {
                complain(&format!("wharfinger: {error:#}"));
                ExitCode::from(USAGE)
            }
            Ok(config) if arguments.online => online::check(&config),
            Ok(config) => {
                say(&format!("The configuration is valid: {}", summary(&config)));
                ExitCode::SUCCESS
            }
            Err(faults) => report(&faults),
        },
        Command::Status(daemon) => ask(&daemon, async |config| admin::status(config, daemon.json).await),
        Command::Explain(ReferenceArguments { reference, daemon }) => ask(&daemon, async |config| {
            admin::explain(config, &reference, daemon.json).await
        }),
        Command::Refresh(ReferenceArguments { reference, daemon }) => ask(&daemon, async |config| {
            admin::refresh(config, &reference, daemon.json).await
        }),
        Command::Purge(PurgeArguments { with_content, about }) => ask(&about.daemon, async |config| {
            admin::purge(config, &about.reference, with_content, about.daemon.json).await
        }),
        Command::Offline(OfflineArguments { wanted, daemon }) => ask(&daemon, async |config| {
            let wanted = wanted.map(|wanted| wanted == Wanted::On);
            admin::offline(config, wanted, daemon.json).await
        }),
        Command::Drill(arguments) => ask(&arguments.daemon, async |config| {
            let options = DrillOptions {
                days: arguments.days,
                upstream: arguments.upstream.clone(),
                fill: arguments.fill,
            };
            let json = arguments.daemon.json;
            job::run_judged(
                config,
                Drill::NAME,
                &options,
                json,
                preserve::drilled,
                preserve::is_whole,
            )
            .await
        }),
        Command::Bundle(BundleCommand::Export(arguments)) => ask(&arguments.daemon, async |config| {
            let options = ExportOptions {
                days: arguments.days,
                refs: arguments.refs.clone(),
                skip_incomplete: arguments.skip_incomplete,
            };
            bundle::export(config, &arguments.file, &options, arguments.daemon.json).await
        }),
        Command::Bundle(BundleCommand::Import(arguments)) => ask(&arguments.daemon, async |config| {
            bundle::import(config, &arguments.file, arguments.daemon.json).await
        }),
        Command::Pull(arguments) => ask(&arguments.daemon, async |config| {
            pulls::pull(config, &arguments).await
        }),
        Command::Warm(daemon) => ask(&daemon, async |config| pulls::warm(config, daemon.json).await),
        Command::Pin(arguments) => ask(&arguments.daemon, async |config| {
            pulls::pin(config, &arguments).await
        }),
        Command::Unpin(arguments) => ask(&arguments.daemon, async |config| {
            pulls::unpin(config, &arguments).await
        }),
        Command::Pins(daemon) => ask(&daemon, async |config| pulls::pins(config, daemon.json).await),
        Command::User(command) => identify(&Group::User(command)),
        Command::Robot(command) => identify(&Group::Robot(command)),
        Command::Token(command) => identify(&Group::Token(command)),
        Command::AccessKey(command) => identify(&Group::AccessKey(command)),
        Command::Evict(EvictArguments { size, daemon }) => ask(&daemon, async |config| {
            let options = EvictOptions { bytes: size.as_u64() };
            job::run(config, Evict::NAME, &options, daemon.json, done::evicted).await
        }),
        Command::Scrub(ScrubArguments { rate, daemon }) => ask(&daemon, async |config| {
            let options = ScrubOptions {
                rate: rate.map(|rate| rate.as_u64()),
            };
            job::run(config, Scrub::NAME, &options, daemon.json, done::scrubbed).await
        }),
        Command::Repository(command) => ask(command.daemon(), async |config| {
            repositories::run(config, &command).await
        }),
        Command::Collect(arguments) => ask(&arguments.daemon, async |config| {
            let options = CollectOptions {
                dry_run: arguments.dry_run,
                repositories: arguments.repositories.clone(),
            };
            job::run(
                config,
                Collect::NAME,
                &options,
                arguments.daemon.json,
                done::collected,
            )
            .await
        }),
        Command::Expire(arguments) => ask(&arguments.daemon, async |config| {
            let options = ExpireOptions {
                dry_run: arguments.dry_run,
                repositories: arguments.repositories.clone(),
            };
            let json = arguments.daemon.json;
            job::run_judged(
                config,
                Expire::NAME,
                &options,
                json,
                done::expired,
                done::is_expired,
            )
            .await
        }),
        Command::RebuildIndex(arguments) => match load(arguments.config.as_deref()) {
            Ok(config) => offline::rebuild_index(&config.storage, arguments.verify, arguments.json),
            Err(faults) => report(&faults),
        },
        Command::Sweep(daemon) => ask(&daemon, async |config| {
            let options = SweepOptions {};
            job::run(config, Sweep::NAME, &options, daemon.json, done::swept).await
        }),
    }
}

fn identify(group: &Group) -> ExitCode {
    ask(group.daemon(), async |config| group.run(config).await)
}

/// Asks a running daemon something, and prints what it told.
fn ask(daemon: &DaemonArguments, command: impl AsyncFnOnce(&Config) -> Result<Told, CallError>) -> ExitCode {
    let config = match load(daemon.config.as_deref()) {
        Ok(config) => config,
        Err(faults) => return report(&faults),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("wharfinger: cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(command(&config)) {
        Ok(told) => {
            say(&told.text);
            ExitCode::from(u8::from(!told.well))
        }
        Err(error) => {
            complain(&format!("wharfinger: {error}"));
            match error {
                CallError::NotRunning(_) => ExitCode::from(UNAVAILABLE),
                CallError::Denied(_) => ExitCode::from(NO_PERMISSION),
                CallError::Refused { status, .. } if status == StatusCode::BAD_REQUEST => {
                    ExitCode::from(USAGE)
                }
                CallError::Refused { .. } | CallError::Broken { .. } | CallError::Local(_) => {
                    ExitCode::FAILURE
                }
            }
        }
    }
}

fn load(path: Option<&Path>) -> Result<Config, ConfigFaults> {
    Config::load(path, config::environment())
}

fn serve(config: Config, options: RunOptions) -> ExitCode {
    match app::run(config, options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("wharfinger: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn report(faults: &ConfigFaults) -> ExitCode {
    complain(&faults.to_string());
    ExitCode::from(USAGE)
}

fn summary(config: &Config) -> String {
    let upstreams: Vec<_> = config
        .upstreams
        .iter()
        .map(|upstream| upstream.prefix.as_str())
        .collect();
    let (listen, data) = (config.server.listen, config.storage.data_dir.display());
    let tls = if config.server.tls.is_some() { " (TLS)" } else { "" };
    format!(
        "listens on {listen}{tls}, keeps its data in {data}, upstreams {}",
        upstreams.join(", ")
    )
}

/// Prints the answer of a command. Whoever stops reading it has had enough.
fn say(text: &str) {
    let text = text.trim_end();
    if !text.is_empty() {
        let _ = writeln!(std::io::stdout(), "{text}");
    }
}

#[expect(
    clippy::print_stderr,
    reason = "a fault of a command, before any logging exists"
)]
fn complain(text: &str) {
    eprintln!("{}", text.trim_end());
}
