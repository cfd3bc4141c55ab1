//! The peers must be there before anything is measured: missing ones are installed with apt-get where that is
//! possible, and named in the report where it is not.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::options::Options;
use crate::progress;

/// Program and Debian package of each peer.
const PEERS: [(&str, &str); 2] = [("docker-registry", "docker-registry"), ("nginx", "nginx")];

/// Installs what is missing. Returns notes for the report: versions. Fails when a peer cannot be had: figures
/// without their peers say nothing.
pub(crate) fn ensure_peers(options: &Options) -> Result<Vec<String>> {
    let missing: Vec<_> = PEERS
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .collect();
    if !missing.is_empty() {
        let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
        progress(&format!("installing {}", packages.join(", ")));
        install(&packages);
    }
    let still: Vec<&str> = PEERS
        .iter()
        .map(|(program, _)| *program)
        .filter(|program| find(program).is_none())
        .collect();
    if !still.is_empty() {
        bail!(
            "missing: {}. Install the Debian packages docker-registry and nginx",
            still.join(", ")
        );
    }
    let daemon = options.daemon();
    Ok(vec![
        version("wharfinger", Command::new(&daemon).arg("--version")),
        version(
            "docker-registry",
            Command::new("docker-registry").arg("--version"),
        ),
        version("nginx", Command::new(find("nginx").unwrap_or_default()).arg("-v")),
    ])
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

/// A line such as `nginx 1.22.1`: the last word that starts with a digit in what the program says of itself.
fn version(name: &str, command: &mut Command) -> String {
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
