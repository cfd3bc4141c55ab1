//! Debian's docker-registry (distribution 2.8), as a proxy and as a plain registry, with the package's log level.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Contestant, Ground, Launch};
use crate::install;
use crate::process::Ready;

/// docker-registry with `proxy.remoteurl`.
pub(crate) struct Proxy;

/// docker-registry that holds the content itself.
pub(crate) struct Plain;

impl Contestant for Proxy {
    fn name(&self) -> &'static str {
        "docker-registry, proxy"
    }

    fn launch(&self, ground: &Ground<'_>) -> Result<Launch> {
        launch(
            ground,
            &format!("proxy:\n  remoteurl: http://{}\n", ground.upstream.address),
        )
    }
}

impl Contestant for Plain {
    fn name(&self) -> &'static str {
        "docker-registry, plain"
    }

    fn takes_pushes(&self) -> bool {
        true
    }

    fn launch(&self, ground: &Ground<'_>) -> Result<Launch> {
        launch(ground, "")
    }
}

fn launch(ground: &Ground<'_>, more: &str) -> Result<Launch> {
    let file = ground.folder.join("config.yml");
    let configuration = format!(
        "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {}\n  secret: compare\n{more}",
        ground.folder.join("data").display(),
        ground.address,
    );
    fs::write(&file, configuration)?;
    let mut command =
        Command::new(install::find("docker-registry").context("docker-registry is not installed")?);
    command.arg("serve").arg(file).env("OTEL_TRACES_EXPORTER", "none");
    Ok(Launch {
        command,
        ready: Ready::At(ground.address),
    })
}
