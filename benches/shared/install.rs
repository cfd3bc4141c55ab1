//! The peers must be there before anything is measured: missing ones are installed with apt-get where that is
//! possible, and named in the report where it is not.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use super::progress;

/// Installs those of `peers` (programs, which are their Debian packages' names) that are missing. Fails when one
/// cannot be had: figures without their peers say nothing.
pub(crate) fn ensure(peers: &[&str]) -> Result<()> {
    let missing = || -> Vec<&str> {
        let lacks = |program: &&str| find(program).is_none();
        peers.iter().copied().filter(lacks).collect()
    };
    let wanted = missing();
    if !wanted.is_empty() {
        progress(&format!("installing {}", wanted.join(", ")));
        install(&wanted);
    }
    let still = missing();
    if !still.is_empty() {
        bail!(
            "missing: {}. Install the Debian packages of that name",
            still.join(", ")
        );
    }
    Ok(())
}

/// Where a program is; nginx lives in `sbin`, which is not in every user's path.
pub(crate) fn find(program: &str) -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut folders: Vec<&str> = path.split(':').collect();
    folders.extend(["/usr/sbin", "/usr/bin"]);
    folders
        .iter()
        .map(|folder| format!("{folder}/{program}"))
        .find(|file| Path::new(file).is_file())
}

fn install(packages: &[&str]) {
    // Debian may start the packages' own services (ports 80 and 5000); nothing here uses those ports.
    let root = rustix::process::getuid().is_root();
    for arguments in [
        vec!["update"],
        [
            vec!["install", "-y", "--no-install-recommends"],
            packages.to_vec(),
        ]
        .concat(),
    ] {
        let mut command = Command::new(if root { "apt-get" } else { "sudo" });
        if !root {
            command.args(["-n", "apt-get"]);
        }
        command
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(Stdio::null());
        match command.status() {
            Ok(status) if status.success() => {}
            Ok(status) => progress(&format!("apt-get: {status}")),
            Err(error) => progress(&format!("apt-get: {error}")),
        }
    }
}

/// A note for the report such as `nginx 1.22.1`: the last word that starts with a digit in what the program says of itself.
pub(crate) fn version(name: &str, command: &mut Command) -> String {
    let said = command
        .stdin(Stdio::null())
        .output()
        .map(|output| [output.stdout, output.stderr].concat());
    let said = String::from_utf8(said.unwrap_or_default()).unwrap_or_default();
    let number = said
        .split(|c: char| c.is_whitespace() || c == '/')
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    format!("{name} {}", number.unwrap_or("(version unknown)"))
}
