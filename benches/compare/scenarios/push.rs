//! Pushes: an image of 1 GiB in 16 layers, two hundred clients with a small image each, and tokens made for clients that
//! log in.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{against, even_start, plain};
use crate::client::Connection;
use crate::content::{Content, Image, MIB};
use crate::contestants::{Contestant, Hosting, OURS, Plain, Server, turns};
use crate::figures::{Figures, Sample};
use crate::options::Options;
use crate::pull;
use crate::report::{Row, Section, Target};
use crate::upstream::{Line, Upstream};

const LAYERS: u64 = 16;
const CLIENTS: u64 = 200;
const TOKENS: u64 = 20_000;

const CPU: &str = "1 GiB in 16 layers: server CPU, s per GB";
const WALL: &str = "1 GiB in 16 layers: wall, s";
const SMALL_CPU: &str = "200 clients, a small image each: server CPU, ms per image";
const SMALL_WALL: &str = "200 clients, a small image each: wall, s";
const TOKEN_CPU: &str = "tokens by name and password: server CPU, us each";
const TOKEN_RATE: &str = "tokens by name and password: per second";

/// Runs it.
pub(crate) async fn run(options: &Options) -> Result<Section> {
    let mut figures = Figures::default();
    let ours: Box<dyn Contestant> = Box::new(Hosting(options.daemon()));
    let contestants = [ours, Box::new(Plain)];
    // Nothing is pulled: it is there because each server is started with one.
    let upstream = Upstream::start(Content::default(), Line::Unlimited)?;
    for round in 0..options.slow_rounds() {
        for contestant in turns(&contestants, round) {
            large(options, &mut figures, &upstream, &**contestant).await?;
            small(options, &mut figures, &upstream, &**contestant).await?;
        }
        tokens(options, &mut figures, &upstream).await?;
    }
    let mut rows = vec![
        against(&figures, plain(), CPU, Target::Ratio(1.0)),
        against(&figures, plain(), WALL, Target::None),
        against(&figures, plain(), SMALL_CPU, Target::Ratio(1.0)),
        against(&figures, plain(), SMALL_WALL, Target::None),
    ];
    for measure in [TOKEN_CPU, TOKEN_RATE] {
        rows.push(Row {
            measure: measure.to_owned(),
            ours: figures.of(OURS, measure),
            peer: "none".to_owned(),
            theirs: Sample::default(),
            target: Target::None,
        });
    }
    let about = format!(
        "Each blob by POST and PUT, then the manifest; a fresh data folder each time. We sync what we answer for to the \
         disk before we say 201, docker-registry leaves that to the system. {CLIENTS} clients push at once, each to a \
         repository of its own that its push makes: a config and one layer of 16 KiB. Tokens are asked for over 8 \
         connections with the same login, for one repository: {TOKENS} of them."
    );
    Ok(Section {
        title: "Pushes".to_owned(),
        about,
        rows,
    })
}

async fn large(
    options: &Options,
    figures: &mut Figures,
    upstream: &Upstream,
    contestant: &dyn Contestant,
) -> Result<()> {
    even_start(options)?;
    let server = Server::start(contestant, upstream, options).await?;
    let image = Image::new(41, LAYERS, options.count(64) * MIB);
    let bytes: u64 = image.blobs.iter().map(|blob| blob.size).sum();
    server.process.settle().await;
    let work = async {
        let start = Instant::now();
        pull::push_image(server.address, Content::REPOSITORY, &image).await?;
        let wall = start.elapsed();
        server.process.settle().await;
        Ok(wall)
    };
    let (cpu, wall) = server.charge(work).await?;
    figures.add(server.name, CPU, cpu.as_secs_f64() * 1e9 / bytes as f64);
    figures.add(server.name, WALL, wall.as_secs_f64());
    Ok(())
}

async fn small(
    options: &Options,
    figures: &mut Figures,
    upstream: &Upstream,
    contestant: &dyn Contestant,
) -> Result<()> {
    even_start(options)?;
    let server = Server::start(contestant, upstream, options).await?;
    server.process.settle().await;
    let clients = options.count(CLIENTS);
    let work = async {
        let wall = crowd(server.address, clients).await?;
        server.process.settle().await;
        Ok(wall)
    };
    let (cpu, wall) = server.charge(work).await?;
    figures.add(server.name, SMALL_CPU, cpu.as_secs_f64() * 1e3 / clients as f64);
    figures.add(server.name, SMALL_WALL, wall.as_secs_f64());
    Ok(())
}

async fn crowd(address: SocketAddr, clients: u64) -> Result<Duration> {
    let start = Instant::now();
    let mut tasks = Vec::new();
    for number in 0..clients {
        tasks.push(tokio::spawn(async move {
            let image = Image::new(1000 + number, 1, 16 << 10);
            let repository = format!("{}-{number}", Content::REPOSITORY);
            pull::push_image(address, &repository, &image).await
        }));
    }
    for task in tasks {
        task.await.context("a client")??;
    }
    Ok(start.elapsed())
}

async fn tokens(options: &Options, figures: &mut Figures, upstream: &Upstream) -> Result<()> {
    let hosting = Hosting(options.daemon());
    let server = Server::start(&hosting, upstream, options).await?;
    add_user(&server, options)?;
    let address = server.address;
    let request = format!(
        "GET /token?service=wharfinger&scope=repository:{}:pull,push HTTP/1.1\r\nHost: {address}\r\n\
         Authorization: Basic YmVuY2g6Y29ycmVjdCBob3JzZQ==\r\n\r\n",
        Content::REPOSITORY
    );
    let (total, connections) = (options.count(TOKENS), 8);
    server.process.settle().await;
    let work = async {
        let start = Instant::now();
        let mut tasks = Vec::new();
        for _ in 0..connections {
            let request = request.clone();
            tasks.push(tokio::spawn(async move {
                let mut connection = Connection::open(address).await?;
                for _ in 0..total / connections {
                    let head = connection.send(request.as_bytes()).await?;
                    ensure!(head.status == 200, "a token was answered {}", head.status);
                    connection.discard().await?;
                }
                Ok(())
            }));
        }
        for task in tasks {
            task.await.context("a client")??;
        }
        Ok(start.elapsed())
    };
    let (cpu, wall) = server.charge(work).await?;
    figures.add(server.name, TOKEN_CPU, cpu.as_secs_f64() * 1e6 / total as f64);
    figures.add(server.name, TOKEN_RATE, total as f64 / wall.as_secs_f64());
    Ok(())
}

/// Makes the user `bench`, through the daemon's own subcommand.
fn add_user(server: &Server, options: &Options) -> Result<()> {
    let mut child = std::process::Command::new(options.daemon())
        .args(["user", "add", "bench", "--password-stdin", "--config"])
        .arg(server.folder().join(crate::shared::launch::CONFIGURATION))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let mut input = child.stdin.take().context("no standard input")?;
    input.write_all(b"correct horse\n")?;
    drop(input);
    ensure!(child.wait()?.success(), "the user could not be made");
    Ok(())
}
