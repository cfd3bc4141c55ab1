//! A cold image: what a first pull costs the server, and how much longer it takes than pulling directly.

use anyhow::{Context as _, Result};

use super::{against, caching, even_start, proxy};
use crate::content::{Content, Image, MIB};
use crate::contestants::{self, OURS, Server, turns};
use crate::figures::Figures;
use crate::options::Options;
use crate::pull;
use crate::report::{Section, Target};
use crate::shared::progress;
use crate::upstream::{Line, Upstream};

const DIRECT: &str = "direct pull";
const LINES: [Line; 2] = [Line::Unlimited, Line::Gigabit];

/// Runs it.
pub(crate) async fn run(options: &Options) -> Result<Section> {
    let image = Image::new(3, 8, 64 * MIB);
    let gigabytes = image.blobs.iter().map(|blob| blob.size).sum::<u64>() as f64 / 1e9;
    let contestants = contestants::caches(options);
    let mut figures = Figures::default();
    for line in LINES {
        let upstream = Upstream::start(Content::image(&image), line)?;
        for round in 0..options.slow_rounds() {
            let wall = pull::image(upstream.address(), &image)
                .await
                .context("pulling directly")?;
            figures.add(DIRECT, &wall_measure(line), wall.as_secs_f64());
            upstream.take_gets();
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
                let work = async {
                    let wall = pull::image(server.address, &image).await?;
                    server.process.settle().await;
                    Ok(wall)
                };
                let (cpu, wall) = server.charge(work).await?;
                let most = upstream
                    .take_gets()
                    .into_iter()
                    .filter(|(path, _)| path.contains("/blobs/"));
                figures.add(server.name, &cpu_measure(line), cpu.as_secs_f64() / gigabytes);
                figures.add(server.name, &wall_measure(line), wall.as_secs_f64());
                let gets = most.map(|(_, gets)| gets).max().unwrap_or_default();
                figures.add(server.name, GETS, gets as f64);
            }
        }
    }
    let mut rows = Vec::new();
    for line in LINES {
        rows.push(against(
            &figures,
            proxy(),
            &cpu_measure(line),
            Target::Ratio(1.0 / 3.0),
        ));
        rows.push(against(&figures, caching(), &cpu_measure(line), Target::None));
        rows.push(against(&figures, DIRECT, &wall_measure(line), Target::Ratio(1.3)));
        rows.push(against(&figures, proxy(), &wall_measure(line), Target::None));
        rows.push(against(&figures, caching(), &wall_measure(line), Target::None));
    }
    rows.push(against(&figures, proxy(), GETS, Target::Value(1.0)));
    rows.push(against(&figures, caching(), GETS, Target::None));
    let about = "8 layers of 64 MiB, pulled three at a time by a client that checks each digest, as Docker does; a fresh \
         data folder each time. CPU includes what a server does after the last byte was sent. The upstream is in the \
         harness, once as fast as loopback is (client, server and upstream then share the cores), and once held to \
         1 Gbit/s. nginx verifies nothing. Before \
         each turn a file of that size is written and removed, so that nobody pays for memory that the hypervisor \
         had taken back."
        .to_owned();
    Ok(Section {
        title: "Cold image of 512 MiB".to_owned(),
        about,
        rows,
    })
}

const GETS: &str = "upstream GETs of one blob, the most";

fn cpu_measure(line: Line) -> String {
    format!("{}: server CPU, s per GB", line.name())
}

fn wall_measure(line: Line) -> String {
    format!("{}: wall time, s", line.name())
}
