//! Memory: what 200 slow readers at once make a server keep, and whether that depends on the size of what they read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{against, caching, proxy};
use crate::client::{self, Connection};
use crate::content::{Blob, Content, MIB, blob_path};
use crate::contestants::{self, OURS, Server};
use crate::figures::Figures;
use crate::options::Options;
use crate::report::{Row, Section, Target};
use crate::shared::progress;
use crate::upstream::{Line, Upstream};

const STREAMS: usize = 200;
/// Different blobs, so that several fills run at once when cold.
const BLOBS: u64 = 4;
const SMALL: u64 = 16 * MIB;
const LARGE: u64 = 256 * MIB;
/// How long all streams are held in the middle of their bodies.
const HELD: Duration = Duration::from_secs(3);
const BEGIN_WITHIN: Duration = Duration::from_mins(2);
/// What one stream reads (about 16 KiB) each time; 200 of them ask for some 60 MB/s together.
const PACE: Duration = Duration::from_millis(50);
/// Allocators round: growth beyond a fifth counts as growth.
const FLAT: f64 = 1.2;

/// Runs it.
pub(crate) async fn run(options: &Options) -> Result<Section> {
    let contestants = contestants::caches(options);
    let mut figures = Figures::default();
    let mut failures = Vec::new();
    for size in [SMALL, LARGE] {
        let blobs: Vec<Blob> = (0..BLOBS).map(|number| Blob::new(500 + number, size)).collect();
        for _ in 0..options.slow_rounds() {
            for contestant in &contestants {
                let upstream = Upstream::start(Content::blobs(&blobs), Line::Unlimited)?;
                let server = match Server::start(&**contestant, &upstream, options).await {
                    Ok(server) => server,
                    Err(error) if contestant.name() == OURS => {
                        progress(&format!("without the daemon: {error:#}"));
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                server.process.settle().await;
                figures.add(server.name, IDLE, mib(server.process.anonymous()));
                let cold = peak(&server, &blobs).await;
                note(&mut figures, &mut failures, server.name, "cold", size, cold)?;
                drop(server);
                // A process of its own for the warm streams: the cold ones' heap must not be counted again.
                let server = Server::start(&**contestant, &upstream, options).await?;
                server.warm(&upstream).await?;
                let warm = peak(&server, &blobs).await;
                note(&mut figures, &mut failures, server.name, "warm", size, warm)?;
            }
        }
    }
    let mut rows = vec![
        against(&figures, proxy(), IDLE, Target::None),
        against(&figures, caching(), IDLE, Target::None),
    ];
    for state in ["cold", "warm"] {
        rows.push(Row {
            measure: format!("{state}: RssAnon at 256 MiB blobs against 16 MiB blobs, MiB"),
            ours: figures.of(OURS, &measure(state, LARGE)),
            peer: format!("{OURS}, 16 MiB blobs"),
            theirs: figures.of(OURS, &measure(state, SMALL)),
            target: Target::Ratio(FLAT),
        });
        for size in [SMALL, LARGE] {
            rows.push(against(&figures, proxy(), &measure(state, size), Target::None));
            rows.push(against(&figures, caching(), &measure(state, size), Target::None));
        }
    }
    let mut about = format!(
        "The peak of RssAnon while {STREAMS} clients stream {BLOBS} blobs, 16 KiB every {} ms each, and all are held in the \
         middle of the body for {} s.",
        PACE.as_millis(),
        HELD.as_secs()
    );
    for failure in failures {
        about.push_str(" Failed: ");
        about.push_str(&failure);
    }
    Ok(Section {
        title: format!("Memory at {STREAMS} concurrent streams"),
        about,
        rows,
    })
}

/// Keeps the figure. A peer that answers an error under this load has no figure in that round, and the report says
/// so; the daemon's error is an error.
fn note(
    figures: &mut Figures,
    failures: &mut Vec<String>,
    server: &str,
    state: &str,
    size: u64,
    peak: Result<u64>,
) -> Result<()> {
    match peak {
        Ok(bytes) => figures.add(server, &measure(state, size), mib(bytes)),
        Err(error) if server == OURS => return Err(error.context(format!("{server}, {state}"))),
        Err(error) => {
            let failure = format!(
                "{server}, {state}, {} MiB blobs, one round: {error:#}.",
                size / MIB
            );
            progress(&failure);
            failures.push(failure);
        }
    }
    Ok(())
}

const IDLE: &str = "idle after start: RssAnon, MiB";

fn measure(state: &str, size: u64) -> String {
    format!("{state}, {} MiB blobs: RssAnon, MiB", size / MIB)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}

/// The largest RssAnon, in bytes, from the first connection until all streams were held for a while.
async fn peak(server: &Server, blobs: &[Blob]) -> Result<u64> {
    let begun = Arc::new(AtomicUsize::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let address = server.address;
    let clients: Vec<_> = blobs
        .iter()
        .cycle()
        .take(STREAMS)
        .map(|blob| {
            let (begun, over) = (Arc::clone(&begun), Arc::clone(&over));
            let request = client::get(address, &blob_path(&blob.digest));
            tokio::spawn(async move {
                let mut connection = Connection::open_narrow(address).await?;
                let head = connection.send(&request).await?;
                ensure!(head.status == 200, "status {}", head.status);
                let mut counted = false;
                while !over.load(Ordering::Relaxed) {
                    ensure!(
                        !connection.piece().await?.is_empty(),
                        "a stream ended before the measurement"
                    );
                    if !counted {
                        counted = true;
                        begun.fetch_add(1, Ordering::Relaxed);
                    }
                    tokio::time::sleep(PACE).await;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    let mut most = 0;
    let started = Instant::now();
    let mut all_since = None;
    while all_since.is_none_or(|since: Instant| since.elapsed() < HELD) {
        most = most.max(server.process.anonymous());
        if all_since.is_none() && begun.load(Ordering::Relaxed) == STREAMS {
            all_since = Some(Instant::now());
        }
        if started.elapsed() > BEGIN_WITHIN || clients.iter().any(tokio::task::JoinHandle::is_finished) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.context("a client")??;
    }
    let begun = begun.load(Ordering::Relaxed);
    ensure!(
        begun == STREAMS && all_since.is_some(),
        "{begun} of {STREAMS} streams began within {BEGIN_WITHIN:?}"
    );
    Ok(most)
}
