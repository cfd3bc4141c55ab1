//! The command line of the simulation, and how time is compressed. Read by `main`, `script` and `run`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::contestant::Contestant;

/// Docker Hub counts pulls over six hours.
const SIX_HOURS: Duration = Duration::from_hours(6);

/// A day of CI behind one address: what it costs at Docker Hub, and what of it fails, directly and through caches.
#[derive(Parser, Debug)]
#[command(name = "fleet")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Options {
    /// Runs only these.
    #[arg(long, value_enum)]
    only: Vec<Contestant>,
    /// CI jobs of the day; each pulls one image.
    #[arg(long, default_value_t = 500)]
    jobs: usize,
    /// The script of the day: equal seeds and counts give equal images, jobs and releases.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How many seconds six hours are.
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS")]
    window: f64,
    /// A fifth of the time and of the jobs: a check that everything runs.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Tells every failed job, not only those that must not fail.
    #[arg(long)]
    pub(crate) failures: bool,
    /// Writes the tables to this file, too.
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// The daemon to measure, instead of the one that cargo has just built.
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Where the servers keep their data. Default: the system's folder for temporary files.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) scratch: Option<PathBuf>,
    /// Leaves the servers' folders (configuration, logs, data) behind for a look.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Cargo passes this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Who takes part.
    pub(crate) fn chosen(&self) -> Vec<Contestant> {
        let every = Contestant::value_variants().iter().copied();
        every
            .filter(|one| self.only.is_empty() || self.only.contains(one))
            .collect()
    }

    /// Jobs of the day.
    pub(crate) fn jobs(&self) -> usize {
        let share = if self.quick { 5 } else { 1 };
        self.jobs.div_ceil(share)
    }

    /// How time passes.
    pub(crate) fn pace(&self) -> Pace {
        let share = if self.quick { 5.0 } else { 1.0 };
        let seconds = (self.window / share).clamp(5.0, 21_600.0);
        Pace {
            window: Duration::from_secs_f64(seconds),
        }
    }

    /// The daemon's executable.
    pub(crate) fn daemon(&self) -> PathBuf {
        self.binary
            .clone()
            .unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_wharfinger")))
    }
}

/// Compressed time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// How long six hours take.
    pub(crate) window: Duration,
}

impl Pace {
    /// How long a span of the day takes here.
    pub(crate) fn of(self, span: Duration) -> Duration {
        span.mul_f64(self.window.as_secs_f64() / SIX_HOURS.as_secs_f64())
    }
}
