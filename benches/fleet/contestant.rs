//! Who takes part: the clients alone, docker-registry as a proxy, and the daemon; each before a Docker Hub of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use tempfile::TempDir;

use crate::options::{Options, Pace};
use crate::shared::launch;
use crate::shared::process::Process;
use crate::shared::progress;

/// What stands between the fleet and Docker Hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Contestant {
    /// Nothing.
    Direct,
    /// docker-registry with `proxy.remoteurl`.
    Distribution,
    /// The daemon.
    Wharfinger,
}

impl Contestant {
    /// For the tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Distribution => "docker-registry, proxy",
            Self::Wharfinger => "wharfinger",
        }
    }
}

/// Where the fleet pulls from.
pub(crate) struct Door {
    /// Where clients connect.
    pub(crate) address: SocketAddr,
    server: Option<Process>,
    _folder: Option<TempDir>,
}

impl Door {
    /// Starts what the contestant needs before this upstream.
    pub(crate) async fn open(
        contestant: Contestant,
        upstream: SocketAddr,
        options: &Options,
    ) -> Result<Self> {
        if contestant == Contestant::Direct {
            return Ok(Self {
                address: upstream,
                server: None,
                _folder: None,
            });
        }
        let folder = launch::scratch("fleet-", options.scratch.as_deref(), options.keep)?;
        let path = folder.path();
        if options.keep {
            progress(&format!("{}: {}", contestant.name(), path.display()));
        }
        let launch = if contestant == Contestant::Wharfinger {
            launch::daemon(&options.daemon(), path, upstream, &spans(options.pace()))?
        } else {
            launch::distribution(path, launch::free_address()?, &launch::proxy_of(upstream))?
        };
        let (server, address) = Process::start(launch, &log(path)).await?;
        Ok(Self {
            address,
            server: Some(server),
            _folder: Some(folder),
        })
    }

    /// Ends it; the daemon has to stop in order.
    pub(crate) fn close(mut self, contestant: Contestant) -> Result<()> {
        match self.server.take() {
            Some(server) if contestant == Contestant::Wharfinger => server.stop(),
            _ => Ok(()),
        }
    }
}

fn log(folder: &Path) -> std::path::PathBuf {
    folder.join("output.log")
}

/// The daemon's defaults in compressed time. What it waits for on the network is not compressed, as the network is not.
fn spans(pace: Pace) -> String {
    let span = |real| pace.of(real).as_millis().max(1);
    format!(
        "\n[cache]\ntag_ttl = \"{}ms\"\nnegative_ttl = \"{}ms\"\nstale_if_error = \"{}ms\"\ngone_ttl = \"{}ms\"\n",
        span(Duration::from_mins(5)),
        span(Duration::from_secs(10)),
        span(Duration::from_hours(30 * 24)),
        span(Duration::from_hours(24)),
    )
}
