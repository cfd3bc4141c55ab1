//! A server that a benchmark starts: how to see that it is up, and how it ends. `compare/gauge` measures it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;

const STARTS_WITHIN: Duration = Duration::from_secs(20);
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// Clients and background work included, and closing an index of a million rows.
const STOPS_WITHIN: Duration = Duration::from_mins(1);

/// How a server is started.
pub(crate) struct Launch {
    /// The program with its arguments.
    pub(crate) command: Command,
    /// How to see that it is up.
    pub(crate) ready: Ready,
}

/// How to see that a server is up.
#[derive(Clone, Copy)]
pub(crate) enum Ready {
    /// It accepts connections here.
    At(SocketAddr),
    /// Its log has a line with `listening` and `address=IP:PORT`.
    Logged,
}

/// A running server; dropping it ends it (its log then stays where it was).
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts a server with its output in `log`, and waits until it is ready. Returns where it listens, too.
    pub(crate) async fn start(launch: Launch, log: &Path) -> Result<(Self, SocketAddr)> {
        let Launch { mut command, ready } = launch;
        let file = std::fs::File::create(log).with_context(|| format!("creating {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = command
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        let mut process = Self { child };
        let deadline = Instant::now() + STARTS_WITHIN;
        loop {
            let address = match ready {
                Ready::At(address) => TcpStream::connect(address).await.ok().map(|_| address),
                Ready::Logged => logged_address(log),
            };
            if let Some(address) = address {
                return Ok((process, address));
            }
            if let Some(status) = process.child.try_wait()? {
                bail!(
                    "{} ended with {status}: {}",
                    command.get_program().display(),
                    tail(log)
                );
            }
            if Instant::now() > deadline {
                bail!(
                    "{} is not ready after {STARTS_WITHIN:?}: {}",
                    command.get_program().display(),
                    tail(log)
                );
            }
            tokio::time::sleep(Duration::from_millis(2)).await; // start-up times are measured with it
        }
    }

    /// Asks it to end, and waits until it has ended well.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + STOPS_WITHIN;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "ended with {status}");
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("has not stopped within {STOPS_WITHIN:?}")
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn signal(&mut self, signal: Signal) {
        // One that has ended is waited for, and its number may be another's by now.
        if matches!(self.child.try_wait(), Ok(None))
            && let Some(pid) = i32::try_from(self.id()).ok().and_then(Pid::from_raw)
        {
            let _gone = kill_process(pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // TERM first: killed outright, nginx's master would leave its workers behind.
        self.signal(Signal::TERM);
        let deadline = Instant::now() + ENDS_WITHIN;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// The address in the log's line about listening, if it is there yet. Colours, quotes and commas are looked through.
fn logged_address(log: &Path) -> Option<SocketAddr> {
    let text = std::fs::read_to_string(log).ok()?;
    text.lines()
        .filter(|line| line.contains("listening"))
        .find_map(|line| {
            let (_, behind) = line.split_once("address")?;
            let from = behind.find("127.0.0.1:")?;
            let end = behind[from..].find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'));
            behind[from..]
                .get(..end.unwrap_or(behind.len() - from))?
                .parse()
                .ok()
        })
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}
