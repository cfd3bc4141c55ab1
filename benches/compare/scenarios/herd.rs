//! A herd: twenty clients ask at once for one blob that the cache does not have.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::sync::Barrier;

use super::{against, caching, even_start, proxy};
use crate::client::Connection;
use crate::content::{Blob, Content, MIB};
use crate::contestants::{self, OURS, Server, turns};
use crate::figures::{Figures, Sample};
use crate::options::Options;
use crate::pull;
use crate::report::{Section, Target};
use crate::shared::progress;
use crate::upstream::{Line, Upstream};

const CLIENTS: usize = 20;
const SIZE: u64 = 64 * MIB;
const LINES: [Line; 2] = [Line::Unlimited, Line::Gigabit];

/// Runs it.
pub(crate) async fn run(options: &Options) -> Result<Section> {
    let blob = Blob::new(4, SIZE);
    let contestants = contestants::caches(options);
    let mut figures = Figures::default();
    for line in LINES {
        let upstream = Upstream::start(Content::blobs(std::slice::from_ref(&blob)), line)?;
        for round in 0..options.slow_rounds() {
            for contestant in turns(&contestants, round) {
                even_start(options)?;
                let server = match Server::start(&**contestant, &upstream, options).await {
                    Ok(server) => server,
                    Err(error) if contestant.name() == OURS => {
                        progress(&format!("without the daemon: {error:#}"));
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                upstream.take_gets();
                let work = async {
                    let times = herd(&server, &blob).await?;
                    server.process.settle().await;
                    Ok(times)
                };
                let (cpu, (wall, first)) = server.charge(work).await?;
                let gets: u64 = upstream
                    .take_gets()
                    .iter()
                    .filter(|(path, _)| path.contains("/blobs/"))
                    .map(|(_, n)| n)
                    .sum();
                figures.add(server.name, &gets_measure(line), gets as f64);
                figures.add(server.name, &wall_measure(line), wall.as_secs_f64());
                figures.add(
                    server.name,
                    &first_measure(line),
                    first.median().unwrap_or_default(),
                );
                figures.add(server.name, &cpu_measure(line), cpu.as_secs_f64());
            }
        }
    }
    let mut rows = Vec::new();
    for line in LINES {
        for (measure, target) in [
            (gets_measure(line), Target::Value(1.0)),
            (wall_measure(line), Target::None),
            (first_measure(line), Target::None),
            (cpu_measure(line), Target::None),
        ] {
            rows.push(against(&figures, proxy(), &measure, target));
            rows.push(against(&figures, caching(), &measure, Target::None));
        }
    }
    let about = format!(
        "{CLIENTS} clients, one connection each, that check the digest; a fresh data folder each time. CPU includes what \
         a server does after the last byte was sent. nginx has proxy_cache_lock on, with time-outs that never let a \
         client through."
    );
    Ok(Section {
        title: "Herd on a cold 64 MiB blob".to_owned(),
        about,
        rows,
    })
}

/// Wall time until the last client has everything, and the seconds to each one's first byte.
async fn herd(server: &Server, blob: &Blob) -> Result<(Duration, Sample)> {
    let barrier = Arc::new(Barrier::new(CLIENTS + 1));
    let mut clients = Vec::with_capacity(CLIENTS);
    for _ in 0..CLIENTS {
        let (barrier, blob, address) = (Arc::clone(&barrier), blob.clone(), server.address);
        let mut connection = Connection::open(address).await?;
        clients.push(tokio::spawn(async move {
            barrier.wait().await;
            pull::blob(&mut connection, &blob, address).await
        }));
    }
    barrier.wait().await;
    let start = Instant::now();
    let mut first = Vec::with_capacity(CLIENTS);
    for client in clients {
        first.push(client.await.context("a client")??.as_secs_f64());
    }
    Ok((start.elapsed(), first.into_iter().collect()))
}

fn gets_measure(line: Line) -> String {
    format!("{}: upstream GETs", line.name())
}

fn wall_measure(line: Line) -> String {
    format!("{}: wall time until all have it, s", line.name())
}

fn first_measure(line: Line) -> String {
    format!("{}: time to first byte, median client, s", line.name())
}

fn cpu_measure(line: Line) -> String {
    format!("{}: server CPU, s", line.name())
}
