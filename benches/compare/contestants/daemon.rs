//! The daemon itself, with its defaults, in front of the harness's upstream.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use super::{Contestant, Ground, Launch, OURS};
use crate::process::Ready;

/// The file in a server's folder that configures the daemon.
pub(crate) const CONFIGURATION: &str = "wharfinger.toml";
/// Where in a server's folder the daemon keeps its data.
pub(crate) const DATA: &str = "data";

/// The executable to measure.
pub(crate) struct Daemon(pub(crate) PathBuf);

impl Contestant for Daemon {
    fn name(&self) -> &'static str {
        OURS
    }

    fn launch(&self, ground: &Ground<'_>) -> Result<Launch> {
        ensure!(self.0.is_file(), "{} does not exist", self.0.display());
        let file = ground.folder.join(CONFIGURATION);
        let configuration = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n\n[storage]\ndata_dir = \"{}\"\n\n[upstream.docker-hub]\nurl = \"http://{}\"\n",
            ground.folder.join(DATA).display(),
            ground.upstream.address,
        );
        fs::write(&file, configuration)?;
        let mut command = Command::new(&self.0);
        // A setting from the caller's environment would measure something else than the file says.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WHARFINGER"))
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
}
