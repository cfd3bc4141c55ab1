//! The measurements, one file each, and what they share.

mod blob;
mod cold;
mod herd;
mod manifest;
mod memory;

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
    }
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
