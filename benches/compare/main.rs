//! The benchmark against peers: `cargo bench --bench compare [-- FILTER]`.
//!
//! It starts everything itself on free loopback ports in temporary folders: a counting upstream, the peers (Debian's
//! docker-registry and nginx) and the daemon, puts the same load on each of them in turn, and prints tables of ratios.
//! A server's CPU is what the kernel charged to its own processes, so the load generator does not blur it.

mod client;
mod content;
mod contestants;
mod figures;
mod gauge;
mod load;
mod options;
mod pull;
mod report;
mod scenarios;
mod stock;
mod upstream;

#[path = "../shared/mod.rs"]
mod shared;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;

use crate::options::Options;
use crate::shared::{machine, progress};

fn main() -> ExitCode {
    let options = Options::parse();
    shared::run(measure(&options))
}

async fn measure(options: &Options) -> Result<()> {
    let load = machine::load_average(); // before our own load is in it
    let notes = contestants::ensure_peers(options)?;
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
    shared::publish(&text, options.markdown.as_deref())?;
    anyhow::ensure!(failed.is_empty(), "no figures for: {}", failed.join(", "));
    Ok(())
}
