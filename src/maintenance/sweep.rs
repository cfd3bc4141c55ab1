//! `wharfinger sweep`, and the same behind a start that follows no clean stop: files and rows are held against each
//! other. A file without row is adopted if its bytes are right, else removed; a row without file is dropped.

use serde::{Deserialize, Serialize};

use crate::cache::{Cache, Error};
use crate::job::{Job, Progress, Unit};
use crate::oci::Algorithm;
use crate::storage::Index;

/// Rows that are looked at together.
const PAGE: usize = 1000;

/// The job.
#[derive(Clone)]
pub struct Sweep {
    cache: Cache,
}

/// Nothing can be asked for.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepOptions {}

/// What a sweep found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweptAll {
    /// Rows that were held against their files.
    pub rows: u64,
    /// Rows whose file was missing or short: dropped, so that the blob is fetched again.
    pub dropped: u64,
    /// Files without row whose bytes are right: they have one now.
    pub adopted: u64,
    /// Files without row with other bytes than their name says: removed.
    pub removed: u64,
    /// Whether it was stopped before its end.
    pub stopped: bool,
}

impl Sweep {
    /// The job over `cache`.
    pub fn new(cache: Cache) -> Self {
        Self { cache }
    }

    /// Sweeps by itself, and tells the log.
    pub async fn once(&self, progress: Progress) {
        match self.sweep(&progress).await {
            Ok(swept) => {
                let SweptAll {
                    rows,
                    dropped,
                    adopted,
                    removed,
                    stopped,
                } = swept;
                if dropped + adopted + removed == 0 {
                    tracing::debug!(rows, stopped, "swept: files and index agree");
                } else {
                    tracing::warn!(
                        rows,
                        dropped,
                        adopted,
                        removed,
                        stopped,
                        "swept: files and index agree again"
                    );
                }
            }
            Err(error) => tracing::error!(error = error.message, "sweeping failed"),
        }
    }

    async fn sweep(&self, progress: &Progress) -> Result<SweptAll, Error> {
        let mut swept = SweptAll::default();
        let storage = self.cache.storage();
        let totals = storage.index.read(Index::totals).await?;
        let folders = 2 * 256;
        let total = Some(totals.blobs + folders);
        let mut after = None;
        loop {
            if progress.is_stopped() {
                swept.stopped = true;
                return Ok(swept);
            }
            let looked = storage.blobs.lost_after(after, PAGE).await?;
            if looked.last.is_none() {
                break;
            }
            swept.rows += looked.looked;
            for digest in &looked.lost {
                swept.dropped += u64::from(storage.blobs.drop_if_lost(digest).await?);
            }
            progress.at(swept.rows, total, Unit::Items);
            after = looked.last;
        }
        let mut done = swept.rows;
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for first in 0..=u8::MAX {
                if progress.is_stopped() {
                    swept.stopped = true;
                    return Ok(swept);
                }
                let is_busy = |digest: &_| self.cache.is_fetching(digest);
                let folder = storage.blobs.sweep_folder(algorithm, first, is_busy).await?;
                swept.adopted += folder.adopted;
                swept.removed += folder.removed;
                done += 1;
                progress.at(done, total, Unit::Items);
            }
        }
        storage.blobs.release_healed().await?;
        Ok(swept)
    }
}

impl Job for Sweep {
    const NAME: &'static str = "sweep";
    type Options = SweepOptions;
    type Summary = SweptAll;

    async fn run(&self, _: SweepOptions, progress: Progress) -> Result<SweptAll, String> {
        self.sweep(&progress).await.map_err(|error| error.message)
    }
}
