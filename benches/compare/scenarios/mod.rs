//! The measurements, one file each, and what they share.

mod blob;
mod clients;
mod cold;
mod crowd;
mod herd;
mod index;
mod manifest;
mod memory;
mod push;

use std::io::Write as _;

use anyhow::Result;

use crate::contestants::{Caching, Contestant as _, OURS, Plain, Proxy, Static};
use crate::figures::Figures;
use crate::options::{Options, Scenario};
use crate::report::{Row, Section, Target};

/// Runs one scenario.
pub(crate) async fn run(scenario: Scenario, options: &Options) -> Result<Section> {
    match scenario {
        Scenario::Manifest => manifest::run(options).await,
        Scenario::Blob => blob::run(options).await,
        Scenario::Cold => cold::run(options).await,
        Scenario::Herd => herd::run(options).await,
        Scenario::Memory => memory::run(options).await,
        Scenario::Index => index::run(options).await,
        Scenario::Crowd => crowd::run(options).await,
        Scenario::Clients => clients::run(options).await,
        Scenario::Push => push::run(options).await,
    }
}

/// Makes a turn's start the same for everybody: what the one before wrote is not this one's disk time, and the page
/// cache finds memory that is really there. In a virtual machine the hypervisor takes free memory back, and whoever
/// writes first after that pays several times the write for getting it again.
fn even_start(options: &Options) -> Result<()> {
    const SIZE: usize = 1 << 30;
    let folder = options.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let path = folder.join(format!("wharfinger-compare-{}", std::process::id()));
    let piece = vec![0x5a; 1 << 20];
    let written = std::fs::File::create(&path)
        .and_then(|mut file| (0..SIZE / piece.len()).try_for_each(|_| file.write_all(&piece)));
    std::fs::remove_file(&path)?;
    written?;
    rustix::fs::sync();
    Ok(())
}

/// A row that holds our value of a measure against the same of a peer.
fn against(figures: &Figures, peer: &str, measure: &str, target: Target) -> Row {
    Row {
        measure: measure.to_owned(),
        ours: figures.of(OURS, measure),
        peer: peer.to_owned(),
        theirs: figures.of(peer, measure),
        target,
    }
}

/// The peers' names, in the tables' order.
fn static_files() -> &'static str {
    Static.name()
}

fn caching() -> &'static str {
    Caching.name()
}

fn proxy() -> &'static str {
    Proxy.name()
}

fn plain() -> &'static str {
    Plain.name()
}
