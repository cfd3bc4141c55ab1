//! A crowd: a thousand clients at once on one blob that the cache does not have. What each of them makes the server
//! keep while the blob arrives, and how fast all are served.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::{against, caching, even_start, proxy};
use crate::client::{self, Connection};
use crate::content::{Blob, Content, MIB, blob_path};
use crate::contestants::{Caching, Contestant, Daemon, Proxy, Server, turns};
use crate::figures::Figures;
use crate::options::Options;
use crate::pull;
use crate::report::{Section, Target};
use crate::upstream::{Line, Upstream};

const CLIENTS: u64 = 1000;
/// Every client of so many checks the digest, the others the length: hashing for all of them would be the measure.
const CHECKS: u64 = 50;
/// So long that all clients are there while it arrives.
const SLOW: (Line, u64) = (Line::Slow, 8 * MIB);
const FAST: (Line, u64) = (Line::Unlimited, 16 * MIB);

/// Runs it.
pub(crate) async fn run(options: &Options) -> Result<Section> {
    let mut figures = Figures::default();
    let ours: Box<dyn Contestant> = Box::new(Daemon(options.daemon()));
    let contestants = [ours, Box::new(Caching)];
    for (line, size) in [SLOW, FAST] {
        let blob = Blob::new(7, size);
        let upstream = Upstream::start(Content::blobs(std::slice::from_ref(&blob)), line)?;
        for round in 0..options.slow_rounds() {
            for contestant in turns(&contestants, round) {
                measure(options, &mut figures, &upstream, &**contestant, &blob, line).await?;
            }
        }
        if line == FAST.0 {
            // It fetches the blob for each client, which takes its time: once is enough.
            measure(options, &mut figures, &upstream, &Proxy, &blob, line).await?;
        }
    }
    let mut rows = Vec::new();
    for (line, _) in [SLOW, FAST] {
        for (measure, target) in [
            (memory_measure(line), Target::Value(64.0)),
            (gets_measure(line), Target::Value(1.0)),
            (rate_measure(line), Target::None),
            (cpu_measure(line), Target::None),
        ] {
            rows.push(against(&figures, caching(), &measure, target));
            if line == FAST.0 {
                rows.push(against(&figures, proxy(), &measure, Target::None));
            }
        }
    }
    let about = format!(
        "{CLIENTS} clients, one connection each, one in {CHECKS} checks the digest; a fresh data folder each time. The \
         upstream sends {} MiB at {} (all clients read while the blob arrives; nginx lets them wait), and {} MiB as fast \
         as loopback is. docker-registry, which fetches the blob once for each client, is measured once, and only there. \
         Memory is the peak of RssAnon beyond that of the idle server.",
        SLOW.1 / MIB,
        SLOW.0.name(),
        FAST.1 / MIB
    );
    Ok(Section {
        title: format!("{CLIENTS} clients on a cold blob"),
        about,
        rows,
    })
}

async fn measure(
    options: &Options,
    figures: &mut Figures,
    upstream: &Upstream,
    contestant: &dyn Contestant,
    blob: &Blob,
    line: Line,
) -> Result<()> {
    even_start(options)?;
    let clients = options.count(CLIENTS);
    let server = Server::start(contestant, upstream, options).await?;
    server.process.settle().await;
    let idle = server.process.anonymous();
    upstream.take_gets();
    let work = async {
        let found = watched(&server, crowd(&server, blob, clients)).await?;
        server.process.settle().await;
        Ok(found)
    };
    let (cpu, (wall, peak)) = server.charge(work).await?;
    let blobs = upstream.take_gets();
    let gets: u64 = blobs
        .iter()
        .filter(|(path, _)| path.contains("/blobs/"))
        .map(|(_, gets)| gets)
        .sum();
    let gigabytes = (clients * blob.size) as f64 / 1e9;
    let each = peak.saturating_sub(idle) as f64 / 1024.0 / clients as f64;
    figures.add(server.name, &memory_measure(line), each);
    figures.add(server.name, &gets_measure(line), gets as f64);
    figures.add(server.name, &rate_measure(line), gigabytes / wall.as_secs_f64());
    figures.add(server.name, &cpu_measure(line), cpu.as_secs_f64() / gigabytes);
    Ok(())
}

/// Waits for `work`, and looks at the server's anonymous memory meanwhile: the peak, in bytes.
async fn watched<T>(server: &Server, work: impl Future<Output = Result<T>>) -> Result<(T, u64)> {
    let mut work = std::pin::pin!(work);
    let mut peak = 0;
    loop {
        let done = tokio::time::timeout(Duration::from_millis(20), &mut work).await;
        peak = peak.max(server.process.anonymous());
        if let Ok(done) = done {
            return Ok((done?, peak));
        }
    }
}

/// Wall time until the last client has everything.
async fn crowd(server: &Server, blob: &Blob, clients: u64) -> Result<Duration> {
    let address = server.address;
    let request = client::get(address, &blob_path(&blob.digest));
    let mut open = Vec::new();
    for _ in 0..clients {
        open.push(Connection::open(address).await?);
    }
    let start = Instant::now();
    let mut tasks = Vec::new();
    for (number, mut connection) in (0..).zip(open) {
        let (blob, request) = (blob.clone(), request.clone());
        tasks.push(tokio::spawn(async move {
            if number % CHECKS == 0 {
                pull::blob(&mut connection, &blob, address).await.map(drop)
            } else {
                connection.fetch(&request, blob.size).await
            }
        }));
    }
    for task in tasks {
        task.await.context("a client")??;
    }
    Ok(start.elapsed())
}

fn memory_measure(line: Line) -> String {
    format!("{}: RssAnon for each client, KiB", line.name())
}

fn gets_measure(line: Line) -> String {
    format!("{}: upstream GETs", line.name())
}

fn rate_measure(line: Line) -> String {
    format!("{}: all clients together, GB/s", line.name())
}

fn cpu_measure(line: Line) -> String {
    format!("{}: server CPU, s per GB", line.name())
}
