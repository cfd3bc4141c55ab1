//! Debian's docker-registry (distribution 2.8), as a proxy and as a plain registry.

use anyhow::Result;

use super::{Contestant, Ground};
use crate::shared::launch;
use crate::shared::process::Launch;

/// docker-registry with `proxy.remoteurl`.
pub(crate) struct Proxy;

/// docker-registry that holds the content itself.
pub(crate) struct Plain;

impl Contestant for Proxy {
    fn name(&self) -> &'static str {
        "docker-registry, proxy"
    }

    fn launch(&self, ground: &Ground<'_>) -> Result<Launch> {
        let proxy = launch::proxy_of(ground.upstream.address());
        launch::distribution(ground.folder, ground.address, &proxy)
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
        launch::distribution(ground.folder, ground.address, "")
    }
}
