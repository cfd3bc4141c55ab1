//! A warm manifest: what one small answer costs, by tag and by digest.

use anyhow::Result;

use super::{against, caching, plain, proxy, static_files};
use crate::content::{Content, Image, manifest_path};
use crate::contestants::{self, Server, turns};
use crate::figures::Figures;
use crate::load;
use crate::options::Options;
use crate::report::{Section, Target};
use crate::upstream::{Line, Upstream};

const CONNECTIONS: usize = 16;
const REQUESTS: u64 = 50_000;
/// docker-registry takes milliseconds a request.
const REQUESTS_TO_SLOW: u64 = 2_000;

/// Runs it.
pub(crate) async fn run(options: &Options) -> Result<Section> {
    let image = Image::new(1, 8, 1024);
    let size = image.manifest.len() as u64;
    let upstream = Upstream::start(Content::image(&image), Line::Unlimited)?;
    let servers = Server::start_all(&contestants::all(options), &upstream, options).await?;
    for server in &servers {
        server.warm(&upstream).await?;
    }
    let mut figures = Figures::default();
    for round in 0..options.rounds() {
        for (kind, reference) in [("tag", "latest"), ("digest", image.digest.as_str())] {
            let path = manifest_path(reference);
            for server in turns(&servers, round) {
                let slow = server.name == proxy() || server.name == plain();
                let requests = options.count(if slow { REQUESTS_TO_SLOW } else { REQUESTS });
                load::repeat(server.address, &path, CONNECTIONS, requests / 50, size).await?;
                let work = load::repeat(server.address, &path, CONNECTIONS, requests, size);
                let (cpu, wall) = server.charge(work).await?;
                figures.add(
                    server.name,
                    &cpu_measure(kind),
                    cpu.as_secs_f64() * 1e6 / requests as f64,
                );
                figures.add(
                    server.name,
                    &rate_measure(kind),
                    requests as f64 / wall.as_secs_f64(),
                );
            }
        }
    }
    let mut rows = Vec::new();
    for kind in ["tag", "digest"] {
        rows.push(against(
            &figures,
            static_files(),
            &cpu_measure(kind),
            Target::Ratio(1.0),
        ));
        rows.push(against(&figures, caching(), &cpu_measure(kind), Target::None));
        rows.push(against(&figures, proxy(), &cpu_measure(kind), Target::None));
        rows.push(against(&figures, plain(), &cpu_measure(kind), Target::None));
        rows.push(against(
            &figures,
            static_files(),
            &rate_measure(kind),
            Target::None,
        ));
        rows.push(against(&figures, proxy(), &rate_measure(kind), Target::None));
    }
    let about = format!(
        "{size} bytes, {CONNECTIONS} keep-alive connections, {} requests a round ({} to docker-registry).",
        options.count(REQUESTS),
        options.count(REQUESTS_TO_SLOW)
    );
    Ok(Section {
        title: "Warm manifest".to_owned(),
        about,
        rows,
    })
}

fn cpu_measure(kind: &str) -> String {
    format!("by {kind}: server CPU, us per request")
}

fn rate_measure(kind: &str) -> String {
    format!("by {kind}: requests per second")
}
