//! How the daemon and its peer, Debian's docker-registry as a proxy, are configured and started in a folder of their
//! own in front of a scripted upstream.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::install;
use super::process::{Launch, Ready};

/// The file in a server's folder that configures the daemon.
pub(crate) const CONFIGURATION: &str = "wharfinger.toml";
/// Where in a server's folder the daemon keeps its data.
pub(crate) const DATA: &str = "data";

/// An empty folder, in `parent` or among the system's temporary ones; `keep` leaves it behind.
pub(crate) fn scratch(name: &str, parent: Option<&Path>, keep: bool) -> Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(name).disable_cleanup(keep);
    match parent {
        Some(parent) => builder.tempdir_in(parent),
        None => builder.tempdir(),
    }
    .context("a temporary folder")
}

/// A free loopback port. Bound and let go: it may be taken in between, which a start then reports.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// The daemon with its defaults, with `upstream` for Docker Hub, and with `more` configuration.
pub(crate) fn daemon(binary: &Path, folder: &Path, upstream: SocketAddr, more: &str) -> Result<Launch> {
    ensure!(binary.is_file(), "{} does not exist", binary.display());
    let file = folder.join(CONFIGURATION);
    let configuration = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n\n[storage]\ndata_dir = \"{}\"\n\n[upstream.docker-hub]\nurl = \"http://{upstream}\"\n{more}",
        folder.join(DATA).display(),
    );
    fs::write(&file, configuration)?;
    let mut command = Command::new(binary);
    // A setting from the caller's environment would measure something else than the file says.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WHARFINGER"))
    {
        command.env_remove(name);
    }
    command
        .env_remove("RUST_LOG")
        .arg("serve")
        .arg("--config")
        .arg(file);
    Ok(Launch {
        command,
        ready: Ready::Logged,
    })
}

/// Debian's docker-registry (distribution 2.8) with the package's log level, and with `more` configuration.
pub(crate) fn distribution(folder: &Path, address: SocketAddr, more: &str) -> Result<Launch> {
    let file = folder.join("config.yml");
    let configuration = format!(
        "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n  secret: benchmark\n{more}",
        folder.join(DATA).display(),
    );
    fs::write(&file, configuration)?;
    let mut command =
        Command::new(install::find("docker-registry").context("docker-registry is not installed")?);
    command.arg("serve").arg(file).env("OTEL_TRACES_EXPORTER", "none");
    Ok(Launch {
        command,
        ready: Ready::At(address),
    })
}

/// The configuration that makes docker-registry a proxy.
pub(crate) fn proxy_of(upstream: SocketAddr) -> String {
    format!("proxy:\n  remoteurl: http://{upstream}\n")
}
