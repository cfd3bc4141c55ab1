//! The daemon itself, with its defaults, in front of the harness's upstream.

use std::path::PathBuf;

use anyhow::Result;

use super::{Contestant, Ground, OURS};
use crate::shared::launch;
use crate::shared::process::Launch;

/// The executable to measure.
pub(crate) struct Daemon(pub(crate) PathBuf);

impl Contestant for Daemon {
    fn name(&self) -> &'static str {
        OURS
    }

    fn launch(&self, ground: &Ground<'_>) -> Result<Launch> {
        launch::daemon(&self.0, ground.folder, ground.upstream.address(), "")
    }
}

/// The daemon with repositories of its own, which everybody may push to.
pub(crate) struct Hosting(pub(crate) PathBuf);

impl Contestant for Hosting {
    fn name(&self) -> &'static str {
        OURS
    }

    fn launch(&self, ground: &Ground<'_>) -> Result<Launch> {
        const HOSTED: &str = "\n[[hosted.template]]\npattern = \"library/*\"\n\n[auth]\nanonymous = [\"pull\", \"push\"]\nwriters = [\"bench\"]\n";
        launch::daemon(&self.0, ground.folder, ground.upstream.address(), HOSTED)
    }
}
