//! A large index: what a million blobs and a hundred thousand tags cost at a start and in warm answers, and how fast
//! images leave.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::against;
use crate::client::{self, Connection};
use crate::content::{Content, Image, blob_path, manifest_path};
use crate::contestants::{self, Daemon, OURS, Server};
use crate::figures::Figures;
use crate::gauge;
use crate::load;
use crate::options::Options;
use crate::report::{Row, Section, Target};
use crate::shared::launch::{CONFIGURATION, DATA};
use crate::shared::progress;
use crate::stock::{self, Shape};
use crate::upstream::{Line, Upstream};

/// The same daemon over a folder that holds nothing but the images that are asked for.
const EMPTY: &str = "wharfinger, empty";
const BLOBS: u64 = 1_000_000;
const TAGS: u64 = 100_000;
const VICTIMS: u64 = 10_000;
/// Images that are asked for, one layer each.
const ASKED: u64 = 256;
const LAYER: u64 = 64 << 10;
const CONNECTIONS: usize = 16;
const REQUESTS: u64 = 50_000;
/// Requests of one connection in a turn, and turns in a round.
const ALONE: u64 = 1_000;
const TURNS: usize = 10;
const READY_WITHIN: Duration = Duration::from_mins(1);

const IDLE: &str = "idle after start: RssAnon, MiB";
const USED: &str = "after the warm answers: RssAnon, MiB";
const EVICTION: &str = "eviction: victims a second";
const LEFT: [&str; 3] = [
    "stopped in order",
    "stopped in order, index not in the page cache",
    "killed",
];

/// Runs it.
pub(crate) async fn run(options: &Options) -> Result<Section> {
    let images: Vec<Image> = (0..ASKED)
        .map(|number| Image::new(600 + number, 1, LAYER))
        .collect();
    let shape = Shape {
        blobs: options.count(BLOBS),
        tags: options.count(TAGS),
        victims: options.count(VICTIMS),
    };
    let upstream = Upstream::start(Content::default(), Line::Unlimited)?;
    let ground = Ground {
        options,
        upstream: &upstream,
    };
    let mut figures = Figures::default();
    let mut running = Vec::new();
    let mut evictable = 0;
    for (name, shape) in [(OURS, Some(shape)), (EMPTY, None)] {
        let folder = contestants::scratch(options)?;
        let start = Instant::now();
        let victims = stock::write(&folder.path().join(DATA), &images, shape).await?;
        progress(&format!("{name}: folder written in {:.0?}", start.elapsed()));
        evictable += victims;
        // What was written is not the first start's disk time.
        rustix::fs::sync();
        let server = ground.start(&mut figures, name, 0, folder).await?;
        server.process.settle().await;
        figures.add(name, IDLE, mib(server.process.anonymous()));
        running.push((name, server));
    }
    answers(options, &mut figures, &running, &images).await?;
    for (name, server) in &running {
        figures.add(name, USED, mib(server.process.anonymous()));
    }
    if let Some((_, server)) = running.first() {
        let took = evict(options, &server.folder(), evictable, shape.victims).await?;
        figures.add(OURS, EVICTION, shape.victims as f64 / took.as_secs_f64());
    }
    for (name, mut server) in running {
        for _ in 0..options.slow_rounds() {
            server = ground.start(&mut figures, name, 2, server.kill()?).await?;
            server = ground.start(&mut figures, name, 0, server.stop()?).await?;
            let folder = server.stop()?;
            gauge::chill_file(&folder.path().join(DATA).join("index.redb"))?;
            server = ground.start(&mut figures, name, 1, folder).await?;
        }
    }
    Ok(section(&figures, &shape))
}

struct Ground<'a> {
    options: &'a Options,
    upstream: &'a Upstream,
}

impl Ground<'_> {
    /// Starts the daemon in `folder` and notes how long it takes until it is ready.
    async fn start(&self, figures: &mut Figures, name: &str, left: usize, folder: TempDir) -> Result<Server> {
        let start = Instant::now();
        let daemon = Daemon(self.options.daemon());
        let server = Server::start_in(&daemon, self.upstream, folder).await?;
        let request = client::get(server.address, "/readyz");
        loop {
            let mut connection = Connection::open(server.address).await?;
            if connection.send(&request).await?.status == 200 {
                break;
            }
            ensure!(start.elapsed() < READY_WITHIN, "{name} is not ready");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        figures.add(name, &start_measure(LEFT[left]), start.elapsed().as_secs_f64());
        Ok(server)
    }
}

/// What is asked for, in each of its kinds: the paths with the lengths of their answers.
fn kinds(images: &[Image]) -> [(&'static str, Vec<(String, u64)>); 2] {
    let manifests = images
        .iter()
        .zip(0..)
        .map(|(image, number)| (manifest_path(&stock::tag(number)), image.manifest.len() as u64));
    let layers = images.iter().filter_map(|image| image.blobs.last());
    [
        ("manifest by tag", manifests.collect()),
        (
            "64 KiB blob",
            layers.map(|blob| (blob_path(&blob.digest), blob.size)).collect(),
        ),
    ]
}

/// The first answer about each image, from the index and the disk, and then the warm ones.
async fn answers(
    options: &Options,
    figures: &mut Figures,
    running: &[(&'static str, Server)],
    images: &[Image],
) -> Result<()> {
    for (kind, gets) in kinds(images) {
        for (name, server) in running {
            let count = gets.len() as u64;
            let time = load::median(server.address, &gets, count).await?;
            figures.add(name, &first_measure(kind), micros(time, 1));
        }
        for round in 0..options.rounds() {
            for (name, server) in contestants::turns(running, round) {
                let count = options.count(REQUESTS);
                load::each(server.address, &gets, CONNECTIONS, count / 50).await?;
                let work = load::each(server.address, &gets, CONNECTIONS, count);
                let (cpu, _) = server.charge(work).await?;
                figures.add(name, &cpu_measure(kind), micros(cpu, count));
            }
            // In short turns, so that what else the machine does meets both.
            for turn in 0..TURNS {
                for (name, server) in contestants::turns(running, turn) {
                    let time = load::median(server.address, &gets, options.count(ALONE)).await?;
                    figures.add(name, &latency_measure(kind), micros(time, 1));
                }
            }
        }
    }
    Ok(())
}

/// `wharfinger evict`, as an operator calls it; the wall time. Fails when other images went than the victims.
async fn evict(options: &Options, folder: &Path, bytes: u64, victims: u64) -> Result<Duration> {
    let start = Instant::now();
    let output = tokio::process::Command::new(options.daemon())
        .args(["evict", "--json", "--config"])
        .arg(folder.join(CONFIGURATION))
        .arg(bytes.to_string())
        .stdin(Stdio::null())
        .output()
        .await?;
    let took = start.elapsed();
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "evict: {}: {said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let done: serde_json::Value = said
        .lines()
        .last()
        .and_then(|line| serde_json::from_str(line).ok())
        .with_context(|| format!("evict said {said:?}"))?;
    let went = &done["result"]["manifests"];
    ensure!(
        went.as_u64() == Some(victims),
        "{went} images went instead of {victims}"
    );
    Ok(took)
}

fn section(figures: &Figures, shape: &Shape) -> Section {
    let mut rows = Vec::new();
    for left in LEFT {
        rows.push(against(figures, EMPTY, &start_measure(left), Target::Value(2.0)));
    }
    rows.push(against(figures, EMPTY, IDLE, Target::None));
    rows.push(against(figures, EMPTY, USED, Target::None));
    for (kind, _) in kinds(&[]) {
        rows.push(against(figures, EMPTY, &cpu_measure(kind), Target::Ratio(1.2)));
        rows.push(against(
            figures,
            EMPTY,
            &latency_measure(kind),
            Target::Ratio(1.2),
        ));
        rows.push(against(figures, EMPTY, &first_measure(kind), Target::None));
    }
    rows.push(Row {
        peer: String::new(),
        ..against(figures, EMPTY, EVICTION, Target::None)
    });
    let about = format!(
        "{} blobs, {} tags and as many images, written by the library; beside it the same daemon with nothing but the \
         {ASKED} images that are asked for, in turn. Blobs that nobody asks for are files without content. Started is \
         from the process's start until /readyz answers 200. `wharfinger evict` takes {} images of two small files each.",
        shape.blobs, shape.tags, shape.victims
    );
    Section {
        title: "A large index".to_owned(),
        about,
        rows,
    }
}

fn start_measure(left: &str) -> String {
    format!("{left}: start until ready, s")
}

fn cpu_measure(kind: &str) -> String {
    format!("warm {kind}: server CPU, us per request")
}

fn latency_measure(kind: &str) -> String {
    format!("warm {kind}: median request on one connection, us")
}

fn first_measure(kind: &str) -> String {
    format!("first {kind} after the start: median request, us")
}

fn micros(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 / count as f64
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
