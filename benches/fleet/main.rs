//! A fleet of CI jobs behind one address and Docker Hub's limit: `cargo bench --bench fleet [-- --quick]`.
//!
//! A day in compressed time, on loopback: a scripted Docker Hub that counts each GET of a manifest, clients that pull as
//! dockerd, containerd, Podman and crane do, tags that move, a limit used up by others, an outage. The same script runs
//! directly, through docker-registry as a proxy, and through the daemon, each before a Hub of its own, at the same time.
//! It fails when a job fails through the daemon for an image seen before, or when it costs more pulls than it should.

mod catalogue;
mod clients;
mod contestant;
mod hub;
mod options;
mod report;
mod run;
mod script;
mod tally;

#[path = "../shared/mod.rs"]
mod shared;

use std::process::{Command, ExitCode};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;

use crate::catalogue::Catalogue;
use crate::contestant::Contestant;
use crate::options::Options;
use crate::run::Day;
use crate::shared::{install, machine, progress};
use crate::tally::Tally;

fn main() -> ExitCode {
    let options = Arc::new(Options::parse());
    shared::run(simulate(options))
}

async fn simulate(options: Arc<Options>) -> Result<()> {
    let load = machine::load_average(); // before our own load is in it
    let chosen = options.chosen();
    let versions = ensure_peers(&chosen, &options)?;
    let catalogue = Arc::new(Catalogue::new(options.seed));
    let script = Arc::new(script::write(
        &catalogue,
        options.seed,
        options.jobs(),
        options.pace(),
    ));
    let days = chosen.into_iter().map(|contestant| {
        let (catalogue, script, options) =
            (Arc::clone(&catalogue), Arc::clone(&script), Arc::clone(&options));
        tokio::spawn(async move { run::run(contestant, &catalogue, &script, &options).await })
    });
    let mut done = Vec::new();
    for day in days.collect::<Vec<_>>() {
        done.push(day.await.context("a contestant")??);
    }
    for day in &done {
        explain(day, &options);
    }
    let text = report::document(&done, &script, &versions, load, &options);
    shared::publish(&text, options.markdown.as_deref())?;
    done.iter()
        .filter(|day| day.contestant == Contestant::Wharfinger)
        .try_for_each(judge)
}

fn ensure_peers(chosen: &[Contestant], options: &Options) -> Result<Vec<String>> {
    let mut versions = vec![install::version(
        "wharfinger",
        Command::new(options.daemon()).arg("--version"),
    )];
    if chosen.contains(&Contestant::Distribution) {
        install::ensure(&["docker-registry"])?;
        let mut command = Command::new("docker-registry");
        versions.push(install::version("docker-registry", command.arg("--version")));
    }
    Ok(versions)
}

/// What went wrong, for whoever wants to mend it.
fn explain(day: &Day, options: &Options) {
    let name = day.contestant.name();
    let ours = day.contestant == Contestant::Wharfinger;
    for (seen, failure) in &day.failures {
        if options.failures || (ours && *seen) {
            let seen = if *seen { "seen before" } else { "never seen" };
            progress(&format!("{name}: failed ({seen}): {failure}"));
        }
    }
    if ours {
        let asked = Tally::total(&day.phases).asked;
        for (digest, times) in &day.counts.pulled {
            if *times > 1 {
                progress(&format!("{name}: pulled {times} times: {digest}"));
            }
            if !asked.contains(digest) {
                progress(&format!("{name}: pulled, and never asked for: {digest}"));
            }
        }
    }
}

/// What does not depend on how fast the machine is.
fn judge(day: &Day) -> Result<()> {
    let total = Tally::total(&day.phases);
    let (failed, ratio, most) = (total.failed_seen, total.ratio(), report::MOST);
    ensure!(failed == 0, "{failed} jobs failed for an image seen before");
    ensure!(
        ratio <= most,
        "{} counted pulls for {} distinct manifests: {ratio:.3} instead of {most}",
        total.pulls,
        total.asked.len()
    );
    Ok(())
}
