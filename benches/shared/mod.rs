//! What the benchmarks have in common: servers as processes, content that costs no memory, an HTTP server to script.
//! `compare` and `fleet` include this folder, each as a module of its own; what one of them alone needs lives there.

pub(crate) mod content;
pub(crate) mod install;
pub(crate) mod launch;
pub(crate) mod machine;
pub(crate) mod process;
pub(crate) mod serve;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

/// Runs a benchmark. An interrupt drops it, which stops the servers that it started.
pub(crate) fn run(work: impl Future<Output = Result<()>>) -> ExitCode {
    raise_open_files();
    let done = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4) // cold clients hash inline: more threads than cores keeps the others reading
        .enable_all()
        .build()
        .context("the load generator's runtime")
        .and_then(|runtime| runtime.block_on(unless_interrupted(work)));
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

async fn unless_interrupted(work: impl Future<Output = Result<()>>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        done = work => done,
        _ = terminate.recv() => anyhow::bail!("terminated"),
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    }
}

/// What happens, on stderr, so that stdout carries the tables alone. A closed stderr is no reason to stop.
pub(crate) fn progress(line: &str) {
    let _closed = writeln!(std::io::stderr(), "{line}");
}

/// Prints the tables, and writes them to `file`, too.
pub(crate) fn publish(text: &str, file: Option<&Path>) -> Result<()> {
    writeln!(std::io::stdout(), "{text}")?;
    match file {
        Some(file) => std::fs::write(file, text).with_context(|| format!("writing {}", file.display())),
        None => Ok(()),
    }
}
