//! Who is measured: each server behind one small trait that says how it is started and how content gets into it.

mod daemon;
mod distribution;
mod nginx;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

pub(crate) use self::daemon::{Daemon, Hosting};
pub(crate) use self::distribution::{Plain, Proxy};
pub(crate) use self::nginx::{Caching, Static};
use crate::client::{self, Connection};
use crate::content::{blob_path, manifest_path};
use crate::options::Options;
use crate::pull;
use crate::shared::process::{Launch, Process};
use crate::shared::{install, launch, progress};
use crate::upstream::Upstream;

/// The name of the daemon in figures.
pub(crate) const OURS: &str = "wharfinger";

/// One kind of server.
pub(crate) trait Contestant: Send + Sync {
    /// Its name in tables.
    fn name(&self) -> &'static str;

    /// Whether content is pushed into it once it runs; others pull it through, or had it written at the launch.
    fn takes_pushes(&self) -> bool {
        false
    }

    /// Writes its configuration (and static content) into the folder and says how it is started.
    fn launch(&self, ground: &Ground<'_>) -> Result<Launch>;
}

/// What a launch may use.
pub(crate) struct Ground<'a> {
    /// A folder of its own.
    pub(crate) folder: &'a Path,
    /// A free loopback port.
    pub(crate) address: SocketAddr,
    /// Where the content comes from.
    pub(crate) upstream: &'a Upstream,
}

/// A running server; dropping it ends it and removes its folder.
pub(crate) struct Server {
    /// The contestant's name.
    pub(crate) name: &'static str,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its processes; declared before the folder, so that they end before it goes.
    pub(crate) process: Process,
    folder: TempDir,
}

/// The daemon and all peers.
pub(crate) fn all(options: &Options) -> Vec<Box<dyn Contestant>> {
    vec![
        Box::new(Daemon(options.daemon())),
        Box::new(Static),
        Box::new(Caching),
        Box::new(Proxy),
        Box::new(Plain),
    ]
}

/// The daemon and the peers that fetch from an upstream.
pub(crate) fn caches(options: &Options) -> Vec<Box<dyn Contestant>> {
    vec![
        Box::new(Daemon(options.daemon())),
        Box::new(Proxy),
        Box::new(Caching),
    ]
}

/// An empty folder.
pub(crate) fn scratch(options: &Options) -> Result<TempDir> {
    launch::scratch("compare-", options.scratch.as_deref(), options.keep)
}

/// Installs the peers that are missing. Returns notes for the report: versions.
pub(crate) fn ensure_peers(options: &Options) -> Result<Vec<String>> {
    install::ensure(&["docker-registry", "nginx"])?;
    let nginx = install::find("nginx").unwrap_or_default();
    Ok(vec![
        install::version("wharfinger", Command::new(options.daemon()).arg("--version")),
        install::version(
            "docker-registry",
            Command::new("docker-registry").arg("--version"),
        ),
        install::version("nginx", Command::new(nginx).arg("-v")),
    ])
}

impl Server {
    /// Starts a contestant in a fresh folder in front of `upstream`.
    pub(crate) async fn start(
        contestant: &dyn Contestant,
        upstream: &Upstream,
        options: &Options,
    ) -> Result<Self> {
        let server = Self::start_in(contestant, upstream, scratch(options)?).await?;
        if options.keep {
            progress(&format!("{}: {}", server.name, server.folder().display()));
        }
        if contestant.takes_pushes() {
            pull::push(server.address, upstream.content())
                .await
                .with_context(|| format!("filling {}", server.name))?;
        }
        Ok(server)
    }

    /// Starts a contestant in a folder where it ran before, or that was prepared for it.
    pub(crate) async fn start_in(
        contestant: &dyn Contestant,
        upstream: &Upstream,
        folder: TempDir,
    ) -> Result<Self> {
        let name = contestant.name();
        let address = launch::free_address()?;
        let launch = contestant
            .launch(&Ground {
                folder: folder.path(),
                address,
                upstream,
            })
            .with_context(|| format!("preparing {name}"))?;
        let log = folder.path().join("output.log");
        let (process, address) = Process::start(launch, &log)
            .await
            .with_context(|| format!("starting {name}"))?;
        Ok(Self {
            name,
            address,
            process,
            folder,
        })
    }

    /// Stops it in order, and gives its folder back.
    pub(crate) fn stop(self) -> Result<TempDir> {
        self.process
            .stop()
            .with_context(|| format!("stopping {}", self.name))?;
        Ok(self.folder)
    }

    /// Kills it, and gives its folder back.
    pub(crate) fn kill(self) -> Result<TempDir> {
        self.process.kill()?;
        Ok(self.folder)
    }

    /// Starts every contestant that can be started. The daemon may be missing: then the peers are measured alone.
    pub(crate) async fn start_all(
        contestants: &[Box<dyn Contestant>],
        upstream: &Upstream,
        options: &Options,
    ) -> Result<Vec<Self>> {
        let mut servers = Vec::new();
        for contestant in contestants {
            match Self::start(&**contestant, upstream, options).await {
                Ok(server) => servers.push(server),
                Err(error) if contestant.name() == OURS => {
                    progress(&format!("without the daemon: {error:#}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(servers)
    }

    /// Where it keeps its files.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// GETs everything that the upstream holds until a whole pass costs no upstream GET, and checks lengths.
    /// docker-registry asks for a tag each time, so the passes are bounded.
    pub(crate) async fn warm(&self, upstream: &Upstream) -> Result<()> {
        const PASSES: usize = 8;
        for _ in 0..PASSES {
            let before = upstream.gets();
            self.pass(upstream)
                .await
                .with_context(|| format!("warming {}", self.name))?;
            self.process.settle().await;
            if upstream.gets() == before {
                return Ok(());
            }
        }
        ensure!(
            self.name == Proxy.name(),
            "{} still asks upstream after {PASSES} passes",
            self.name
        );
        Ok(())
    }

    async fn pass(&self, upstream: &Upstream) -> Result<()> {
        let mut connection = Connection::open(self.address).await?;
        let content = upstream.content();
        if let Some(image) = content.the_image() {
            for reference in [image.digest.as_str(), "latest"] {
                let request = client::get(self.address, &manifest_path(reference));
                connection
                    .fetch(&request, image.manifest.len() as u64)
                    .await
                    .context("a manifest")?;
            }
        }
        for blob in content.every_blob() {
            let request = client::get(self.address, &blob_path(&blob.digest));
            connection.fetch(&request, blob.size).await.context("a blob")?;
        }
        Ok(())
    }

    /// Server CPU and result of `work`.
    pub(crate) async fn charge<T>(&self, work: impl Future<Output = Result<T>>) -> Result<(Duration, T)> {
        let before = self.process.cpu();
        let value = work.await.with_context(|| format!("measuring {}", self.name))?;
        Ok((self.process.cpu().saturating_sub(before), value))
    }
}

/// Starts each turn with another one, so that none always follows the same neighbour.
pub(crate) fn turns<T>(items: &[T], round: usize) -> impl Iterator<Item = &T> {
    let first = if items.is_empty() { 0 } else { round % items.len() };
    items[first..].iter().chain(&items[..first])
}
