//! The command line of the benchmark, and the counts that follow from it. Read by `main` and every scenario.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// A small manifest that every server already has, by tag and by digest.
    Manifest,
    /// A 64 MiB blob that every server already has.
    Blob,
    /// An image of 8 layers that no server has.
    Cold,
    /// Twenty clients at once for one blob that no server has.
    Herd,
    /// Anonymous memory under 200 concurrent blob streams.
    Memory,
    /// A folder with a million blobs against an empty one: starts, warm answers, eviction.
    Index,
    /// A thousand clients at once for one blob that no server has.
    Crowd,
    /// An image that no server has, pulled by skopeo and crane.
    Clients,
    /// Pushes, large ones and many, and tokens.
    Push,
}

/// Measures the daemon against docker-registry and nginx on this machine.
#[derive(Parser, Debug)]
#[command(name = "compare")]
pub(crate) struct Options {
    /// Runs only the scenarios whose name contains this.
    filter: Option<String>,
    /// Runs only these scenarios.
    #[arg(long, value_enum)]
    only: Vec<Scenario>,
    /// A tenth of the counts: a check that everything runs, not a measurement.
    #[arg(long)]
    pub(crate) quick: bool,
    /// How often each measurement is repeated; the median is reported.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Writes the tables to this file, too.
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// The daemon to measure, instead of the one that cargo has just built.
    #[arg(long, value_name = "PATH")]
    pub(crate) binary: Option<PathBuf>,
    /// Where the servers keep their data; some GiB. Default: the system's folder for temporary files.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) scratch: Option<PathBuf>,
    /// Leaves the daemon's and the peers' folders (configuration, logs, data) behind for a look.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Cargo passes this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// The scenarios that `--only` and the filter leave, in the order of the report.
    pub(crate) fn chosen(&self) -> Vec<Scenario> {
        let matches = |scenario: &Scenario| {
            let name = format!("{scenario:?}").to_lowercase();
            self.filter
                .as_ref()
                .is_none_or(|filter| name.contains(&filter.to_lowercase()))
                && (self.only.is_empty() || self.only.contains(scenario))
        };
        Scenario::value_variants()
            .iter()
            .copied()
            .filter(matches)
            .collect()
    }

    /// Rounds of a cheap measurement.
    pub(crate) fn rounds(&self) -> usize {
        if self.quick { 1 } else { self.rounds.max(1) }
    }

    /// Rounds of a measurement that starts servers afresh or moves gigabytes: at most three.
    pub(crate) fn slow_rounds(&self) -> usize {
        self.rounds().min(3)
    }

    /// A tenth of `full` with `--quick`.
    pub(crate) fn count(&self, full: u64) -> u64 {
        if self.quick { full.div_ceil(10) } else { full }
    }

    /// The daemon's executable.
    pub(crate) fn daemon(&self) -> PathBuf {
        self.binary
            .clone()
            .unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_wharfinger")))
    }
}
