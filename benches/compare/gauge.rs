//! What the kernel charged to a server with all its children, and how a measurement handles its process and files.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::shared::process::Process;

/// Linux counts user-visible CPU time in hundredths of a second on every architecture that matters here.
const TICK: Duration = Duration::from_millis(10);

impl Process {
    /// Ends it as a crash does.
    pub(crate) fn kill(self) -> Result<()> {
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("a process without a number")?, Signal::KILL)?;
        drop(self); // waits for it
        Ok(())
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
        let mut family = vec![self.id()];
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
