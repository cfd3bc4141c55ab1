//! The command line: `serve` and `check-config`. Called by `main`.
//!
//! Exit status: 0 well, 1 could not start or failed, 64 wrong usage or configuration (sysexits' EX_USAGE).

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::app;
use crate::config::{self, Config, ConfigFaults};

const USAGE: u8 = 64;

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
}

#[derive(Args)]
struct ServeArguments {
    /// The configuration file (TOML); else the one that WHARFINGER_CONFIG names, else the defaults. Variables like WHARFINGER__SERVER__LISTEN win over it
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Args)]
struct CheckArguments {
    /// The configuration file; else the one that WHARFINGER_CONFIG names
    #[arg(value_name = "FILE")]
    config: Option<PathBuf>,
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
            Ok(config) => serve(config),
            Err(faults) => report(&faults),
        },
        Command::CheckConfig(arguments) => match load(arguments.config.as_deref()) {
            Ok(config) => {
                say(&format!("The configuration is valid: {}", summary(&config)));
                ExitCode::SUCCESS
            }
            Err(faults) => report(&faults),
        },
    }
}

fn load(path: Option<&Path>) -> Result<Config, ConfigFaults> {
    Config::load(path, config::environment())
}

fn serve(config: Config) -> ExitCode {
    match app::run(config) {
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
    format!(
        "listens on {listen}, keeps its data in {data}, upstreams {}",
        upstreams.join(", ")
    )
}

#[expect(
    clippy::print_stdout,
    reason = "the answer of a command, before any logging exists"
)]
fn say(text: &str) {
    println!("{text}");
}

#[expect(
    clippy::print_stderr,
    reason = "a fault of a command, before any logging exists"
)]
fn complain(text: &str) {
    eprintln!("{}", text.trim_end());
}
