//! The benchmark against peers: `cargo bench --bench compare [-- FILTER]`.
//!
//! It starts everything itself on free loopback ports in temporary folders: a counting upstream, the peers (Debian's
//! docker-registry and nginx) and the daemon, puts the same load on each of them in turn, and prints tables of ratios.
//! A server's CPU is what the kernel charged to its own processes, so the load generator does not blur it.

mod client;
mod content;
mod contestants;
mod figures;
mod install;
mod load;
mod options;
mod process;
mod pull;
mod report;
mod scenarios;
mod stock;
mod upstream;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::options::Options;

fn main() -> ExitCode {
    let options = Options::parse();
    raise_open_files();
    let done = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4) // cold clients hash inline: more threads than cores keeps the others reading
        .enable_all()
        .build()
        .context("the load generator's runtime")
        .and_then(|runtime| runtime.block_on(run(&options)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(&format!("failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// A thousand clients are more connections than most shells allow; the servers inherit it.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        progress(&format!("the limit of open files stays as it is: {error}"));
    }
}

/// Runs the chosen scenarios; an interrupt drops them, which stops the servers that they started.
async fn run(options: &Options) -> Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        done = measure(options) => done,
        _ = terminate.recv() => anyhow::bail!("terminated"),
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    }
}

async fn measure(options: &Options) -> Result<()> {
    let load = report::load_average(); // before our own load is in it
    let notes = install::ensure_peers(options)?;
    let (mut sections, mut failed) = (Vec::new(), Vec::new());
    for scenario in options.chosen() {
        progress(&format!("== {scenario:?}"));
        match scenarios::run(scenario, options).await {
            Ok(section) => {
                progress(&section.markdown());
                sections.push(section);
            }
            Err(error) => {
                progress(&format!("{scenario:?} failed: {error:#}"));
                failed.push(format!("{scenario:?}"));
            }
        }
    }
    let text = report::document(&sections, &notes, load, options);
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    if let Some(file) = &options.markdown {
        std::fs::write(file, &text).with_context(|| format!("writing {}", file.display()))?;
    }
    anyhow::ensure!(failed.is_empty(), "no figures for: {}", failed.join(", "));
    Ok(())
}

/// What happens, on stderr, so that stdout carries the tables alone. A closed stderr is no reason to stop.
pub(crate) fn progress(line: &str) {
    let _closed = writeln!(std::io::stderr(), "{line}");
}
