//! A warm blob: what a gigabyte costs, from the page cache and from the disk.

use std::time::Duration;

use anyhow::Result;

use super::{against, caching, plain, proxy, static_files};
use crate::content::{Blob, Content, MIB, blob_path};
use crate::contestants::{self, Server, turns};
use crate::figures::Figures;
use crate::gauge;
use crate::load;
use crate::options::Options;
use crate::report::{Section, Target};
use crate::upstream::{Line, Upstream};

const CONNECTIONS: usize = 4;
const SIZE: u64 = 64 * MIB;
const GETS: u64 = 64;
/// GETs from the disk a round; the page cache is emptied before each.
const COLD_CACHE_GETS: u64 = 4;

/// Runs it.
pub(crate) async fn run(options: &Options) -> Result<Section> {
    let blob = Blob::new(2, SIZE);
    let path = blob_path(&blob.digest);
    let upstream = Upstream::start(Content::blobs(std::slice::from_ref(&blob)), Line::Unlimited)?;
    let servers = Server::start_all(&contestants::all(options), &upstream, options).await?;
    for server in &servers {
        server.warm(&upstream).await?;
    }
    let mut figures = Figures::default();
    let gets = options.count(GETS);
    for round in 0..options.slow_rounds() {
        for server in turns(&servers, round) {
            let (cpu, wall) = server
                .charge(load::repeat(server.address, &path, CONNECTIONS, gets, blob.size))
                .await?;
            note(&mut figures, server.name, "page cache", (cpu, wall), gets);
        }
        for server in turns(&servers, round) {
            let (mut cpu, mut wall) = (Duration::ZERO, Duration::ZERO);
            for _ in 0..COLD_CACHE_GETS {
                gauge::chill(&server.folder())?;
                let (used, took) = server
                    .charge(load::repeat(server.address, &path, 1, 1, blob.size))
                    .await?;
                cpu += used;
                wall += took;
            }
            note(&mut figures, server.name, "disk", (cpu, wall), COLD_CACHE_GETS);
        }
    }
    let mut rows = Vec::new();
    for (source, target) in [("page cache", Target::Ratio(1.3)), ("disk", Target::None)] {
        rows.push(against(&figures, static_files(), &cpu_measure(source), target));
        rows.push(against(&figures, caching(), &cpu_measure(source), Target::None));
        rows.push(against(&figures, proxy(), &cpu_measure(source), Target::None));
        rows.push(against(&figures, plain(), &cpu_measure(source), Target::None));
        rows.push(against(
            &figures,
            static_files(),
            &rate_measure(source),
            Target::None,
        ));
        rows.push(against(&figures, proxy(), &rate_measure(source), Target::None));
    }
    let about = format!(
        "From the page cache: {CONNECTIONS} connections, {gets} GETs a round. From the disk: the file's pages are dropped \
         before each of {COLD_CACHE_GETS} GETs, one at a time. GB is 10^9 bytes."
    );
    Ok(Section {
        title: "Warm 64 MiB blob".to_owned(),
        about,
        rows,
    })
}

fn note(figures: &mut Figures, server: &str, source: &str, (cpu, wall): (Duration, Duration), gets: u64) {
    let gigabytes = (gets * SIZE) as f64 / 1e9;
    figures.add(server, &cpu_measure(source), cpu.as_secs_f64() / gigabytes);
    figures.add(server, &rate_measure(source), gigabytes / wall.as_secs_f64());
}

fn cpu_measure(source: &str) -> String {
    format!("from the {source}: server CPU, s per GB")
}

fn rate_measure(source: &str) -> String {
    format!("from the {source}: GB per second")
}
