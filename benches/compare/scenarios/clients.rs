//! Real clients: a cold pull by skopeo, and by crane where it is installed, directly and through the caches.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{against, even_start, proxy};
use crate::content::{Content, Image, MIB};
use crate::contestants::{self, Contestant, Daemon, Proxy, Server, turns};
use crate::figures::Figures;
use crate::options::Options;
use crate::report::{Section, Target};
use crate::shared::install;
use crate::shared::progress;
use crate::upstream::{Line, Upstream};

const DIRECT: &str = "direct pull";
const LINES: [Line; 2] = [Line::Unlimited, Line::Gigabit];

/// A client that writes an image to a folder.
#[derive(Clone, Copy)]
enum Client {
    Skopeo,
    Crane,
}

impl Client {
    fn name(self) -> &'static str {
        match self {
            Self::Skopeo => "skopeo",
            Self::Crane => "crane",
        }
    }

    /// Its arguments for a pull into `folder`, without TLS.
    fn arguments(self, image: &str, folder: &Path) -> Vec<String> {
        let folder = folder.display();
        let words = match self {
            Self::Skopeo => {
                format!("copy --quiet --insecure-policy --src-tls-verify=false docker://{image} dir:{folder}")
            }
            Self::Crane => format!("pull --insecure --format oci {image} {folder}"),
        };
        words.split(' ').map(str::to_owned).collect()
    }
}

/// Runs it.
pub(crate) async fn run(options: &Options) -> Result<Section> {
    let found: Vec<(Client, PathBuf)> = [Client::Skopeo, Client::Crane]
        .into_iter()
        .filter_map(|client| Some((client, install::find(client.name())?.into())))
        .collect();
    ensure!(!found.is_empty(), "neither skopeo nor crane is installed");
    let image = Image::new(8, 8, 64 * MIB);
    let gigabytes = image.blobs.iter().map(|blob| blob.size).sum::<u64>() as f64 / 1e9;
    let caches: [Box<dyn Contestant>; 2] = [Box::new(Daemon(options.daemon())), Box::new(Proxy)];
    let mut figures = Figures::default();
    for line in LINES {
        let upstream = Upstream::start(Content::image(&image), line)?;
        // Held to a line's speed, a pull takes what the line takes.
        let rounds = if line == Line::Gigabit {
            1
        } else {
            options.slow_rounds()
        };
        for round in 0..rounds {
            for (client, program) in &found {
                even_start(options)?;
                let wall = pull(options, *client, program, &upstream.address().to_string(), &image).await?;
                figures.add(DIRECT, &wall_measure(*client, line), wall.as_secs_f64());
                for contestant in turns(&caches, round) {
                    even_start(options)?;
                    let server = Server::start(&**contestant, &upstream, options).await?;
                    let work = async {
                        let address = server.address.to_string();
                        let wall = pull(options, *client, program, &address, &image).await?;
                        server.process.settle().await;
                        Ok(wall)
                    };
                    let (cpu, wall) = server.charge(work).await?;
                    figures.add(server.name, &wall_measure(*client, line), wall.as_secs_f64());
                    let cpu = cpu.as_secs_f64() / gigabytes;
                    figures.add(server.name, &cpu_measure(*client, line), cpu);
                }
            }
        }
    }
    let mut rows = Vec::new();
    for line in LINES {
        for (client, _) in &found {
            let wall = wall_measure(*client, line);
            rows.push(against(&figures, DIRECT, &wall, Target::Ratio(1.3)));
            rows.push(against(&figures, proxy(), &wall, Target::None));
            let cpu = cpu_measure(*client, line);
            rows.push(against(&figures, proxy(), &cpu, Target::None));
        }
    }
    let names: Vec<&str> = found.iter().map(|(client, _)| client.name()).collect();
    Ok(Section {
        title: "Real clients, cold image of 512 MiB".to_owned(),
        about: format!(
            "{}, writing 8 layers of 64 MiB to a folder, with the client's own defaults; a fresh data folder each time. \
             Client, server and upstream share the cores.",
            names.join(" and ")
        ),
        rows,
    })
}

/// The wall time of a pull into a folder of its own. The client has checked the digests.
async fn pull(
    options: &Options,
    client: Client,
    program: &Path,
    address: &str,
    image: &Image,
) -> Result<Duration> {
    let folder = contestants::scratch(options)?;
    let reference = format!("{address}/{}:latest", Content::REPOSITORY);
    let into = folder.path().join("image");
    let start = Instant::now();
    let output = tokio::process::Command::new(program)
        .args(client.arguments(&reference, &into))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("starting {}", program.display()))?;
    let took = start.elapsed();
    ensure!(
        output.status.success(),
        "{} from {address}: {}",
        client.name(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let expected: u64 = image.blobs.iter().map(|blob| blob.size).sum();
    let got = size(&into)?;
    ensure!(
        got >= expected,
        "{}: {got} bytes in {}",
        client.name(),
        into.display()
    );
    progress(&format!("{} from {address}: {took:.2?}", client.name()));
    Ok(took)
}

/// Bytes of all files under a folder.
fn size(folder: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        total += if metadata.is_dir() {
            size(&entry.path())?
        } else {
            metadata.len()
        };
    }
    Ok(total)
}

fn wall_measure(client: Client, line: Line) -> String {
    format!("{}, {}: wall time, s", client.name(), line.name())
}

fn cpu_measure(client: Client, line: Line) -> String {
    format!("{}, {}: server CPU, s per GB", client.name(), line.name())
}
