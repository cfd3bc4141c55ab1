//! A server under measurement: its process with all children, what the kernel charged to them, and their end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;

/// Linux counts user-visible CPU time in hundredths of a second on every architecture that matters here.
const TICK: Duration = Duration::from_millis(10);
const STARTS_WITHIN: Duration = Duration::from_secs(20);
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// Clients and background work included, and closing an index of a million rows.
const STOPS_WITHIN: Duration = Duration::from_mins(1);

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
    /// Starts `command` with its output in `log`, and waits until it is ready.
    pub(crate) async fn start(mut command: Command, ready: Ready, log: &Path) -> Result<(Self, SocketAddr)> {
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

    /// Ends it as a crash does.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn signal(&mut self, signal: Signal) {
        // One that has ended is waited for, and its number may be another's by now.
        if matches!(self.child.try_wait(), Ok(None))
            && let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
        {
            let _gone = kill_process(pid, signal);
        }
    }

    /// User and system time of the process and its children so far, those that have ended included.
    pub(crate) fn cpu(&self) -> Duration {
        self.family().iter().filter_map(|&pid| ticks(pid)).sum::<u32>() * TICK
    }

    /// Anonymous resident memory of the process and its children, in bytes; mapped files do not count.
    pub(crate) fn anonymous(&self) -> u64 {
        let of = |pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        };
        self.family().into_iter().filter_map(of).sum::<u64>() * 1024
    }

    /// Waits until the process uses no more CPU for a while: work behind an answer (syncing, storing) is done then.
    /// Returns its CPU time.
    pub(crate) async fn settle(&self) -> Duration {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut last = (self.cpu(), Instant::now());
        while last.1.elapsed() < Duration::from_millis(400) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = self.cpu();
            if now > last.0 {
                last = (now, Instant::now());
            }
        }
        last.0
    }

    fn family(&self) -> Vec<u32> {
        let mut family = vec![self.child.id()];
        let mut next = 0;
        while let Some(&pid) = family.get(next) {
            let children =
                std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            family.extend(
                children
                    .split_whitespace()
                    .filter_map(|child| child.parse::<u32>().ok()),
            );
            next += 1;
        }
        family
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

/// utime, stime, cutime and cstime of `/proc/PID/stat` (proc(5)), in ticks; the fields follow the name in brackets.
fn ticks(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    Some(
        fields
            .split_whitespace()
            .skip(11)
            .take(4)
            .filter_map(|field| field.parse::<u32>().ok())
            .sum(),
    )
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

/// Takes every large file under `folder` out of the page cache, as far as the kernel lets go of it.
pub(crate) fn chill(folder: &Path) -> Result<()> {
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.is_file() && metadata.len() >= 1 << 20 {
                chill_file(&entry.path())?;
            }
        }
    }
    Ok(())
}

/// The same for one file.
pub(crate) fn chill_file(path: &Path) -> Result<()> {
    let file = std::fs::File::open(path)?;
    file.sync_all()?; // dirty pages cannot be dropped
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(())
}
