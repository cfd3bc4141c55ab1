//! `wharfinger scrub`, and the same by itself every now and then: each blob and manifest is hashed again, at a bounded
//! rate. What turns out rotten is out of service at once, and fetched again before anybody asks.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, Error, Places};
use crate::clock::Timestamp;
use crate::job::{Job, Progress, Unit};
use crate::oci::Digest;
use crate::storage::{Change, Hasher, Health, Index};

use super::pace::Pace;

/// Rows read from the index at a time: a manifest may have 4 MiB.
const PAGE: usize = 16;

/// Where the last pass stopped, and when the last whole one ended: names in the index's `meta`.
const CURSOR: &str = "scrub.cursor";
const FINISHED: &str = "scrub.finished";

/// Bytes after which the cursor is written down.
const WRITE_EVERY: u64 = 256 * 1024 * 1024;

/// How long a pass that failed is not tried again.
const PAUSE: Duration = Duration::from_mins(10);

/// The job.
#[derive(Clone)]
pub struct Scrub {
    cache: Cache,
    places: Places,
    /// Bytes a second; zero is no limit.
    rate: u64,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScrubOptions {
    /// Bytes a second instead of `storage.scrub_rate`; zero is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
}

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrubbed {
    /// Blobs that were hashed.
    pub blobs: u64,
    /// Manifests that were hashed.
    pub manifests: u64,
    /// Bytes that were hashed.
    pub bytes: u64,
    /// Blobs and manifests that were not what they should be.
    pub rotten: u64,
    /// Of these, those that were fetched again.
    pub healed: u64,
    /// Whether it was stopped before its end.
    pub stopped: bool,
}

/// How far a pass has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cursor {
    Blobs(Option<Digest>),
    Manifests(Option<Digest>),
}

impl Cursor {
    /// As it is written down: `blobs sha256:...`, the digest that was looked at last.
    fn to_text(self) -> String {
        let (what, after) = match self {
            Self::Blobs(after) => ("blobs", after),
            Self::Manifests(after) => ("manifests", after),
        };
        let after = after.map(|digest| digest.to_string()).unwrap_or_default();
        format!("{what} {after}")
    }

    /// What [`Cursor::to_text`] wrote; anything else is no cursor.
    fn parse(text: &[u8]) -> Option<Self> {
        let (what, after) = std::str::from_utf8(text).ok()?.split_once(' ')?;
        let after = after.parse().ok();
        match what {
            "blobs" => Some(Self::Blobs(after)),
            "manifests" => Some(Self::Manifests(after)),
            _ => None,
        }
    }
}

/// A pass that runs.
struct Pass<'a> {
    scrub: &'a Scrub,
    progress: &'a Progress,
    pace: Pace,
    done: Scrubbed,
    total: u64,
    cursor: Cursor,
    /// Whether the cursor is written down, after so many bytes the last time.
    noted_at: Option<u64>,
}

impl Scrub {
    /// The job over `cache`, at `rate` bytes a second; zero is no limit.
    pub fn new(cache: Cache, places: Places, rate: u64) -> Self {
        Self { cache, places, rate }
    }

    /// A pass every `interval`, going on where the last process stopped, until `stop`. A rate of zero is never.
    pub async fn keep(&self, interval: Duration, stop: CancellationToken) {
        if self.rate == 0 {
            return;
        }
        let progress = Progress::unheard(stop.clone());
        while !stop.is_cancelled() {
            let wait = match self.keep_once(interval, &progress).await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::error!(error = error.message, "scrubbing failed");
                    PAUSE
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Does a pass if one is due; says how long there is none.
    async fn keep_once(&self, interval: Duration, progress: &Progress) -> Result<Duration, Error> {
        let index = &self.cache.storage().index;
        let (cursor, finished) = index
            .read(|index| Ok((index.meta(CURSOR)?, index.meta(FINISHED)?)))
            .await?;
        let cursor = cursor.and_then(|text| Cursor::parse(&text));
        let finished = finished.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
        let Some(finished) = finished.map(Timestamp) else {
            // All that is here was verified when it came, a moment ago.
            self.finished();
            return Ok(interval);
        };
        let age = Timestamp::now().since(finished);
        if cursor.is_none() && age < interval {
            return Ok(interval.saturating_sub(age));
        }
        let start = cursor.unwrap_or(Cursor::Blobs(None));
        let done = self.pass(start, self.rate, progress, true).await?;
        let Scrubbed {
            blobs,
            manifests,
            bytes,
            rotten,
            healed,
            stopped,
        } = done;
        tracing::info!(blobs, manifests, bytes, rotten, healed, stopped, "scrubbed");
        Ok(if stopped { Duration::ZERO } else { interval })
    }

    fn finished(&self) {
        let now = Timestamp::now().0.to_string().into_bytes();
        let gone = Change::put_meta(CURSOR, Vec::new());
        let index = &self.cache.storage().index;
        index.submit(vec![Change::put_meta(FINISHED, now), gone]);
    }

    async fn pass(
        &self,
        cursor: Cursor,
        rate: u64,
        progress: &Progress,
        noted: bool,
    ) -> Result<Scrubbed, Error> {
        let index = &self.cache.storage().index;
        let totals = index.read(Index::totals).await?;
        let mut pass = Pass {
            scrub: self,
            progress,
            pace: Pace::new(rate),
            done: Scrubbed::default(),
            total: totals.blob_bytes + totals.manifest_bytes,
            cursor,
            noted_at: noted.then_some(0),
        };
        let outcome = pass.run().await;
        if noted {
            if outcome.is_ok() && !pass.done.stopped {
                self.finished();
            } else {
                pass.note();
            }
        }
        outcome?;
        Ok(pass.done)
    }
}

impl Pass<'_> {
    async fn run(&mut self) -> Result<(), Error> {
        let index = &self.scrub.cache.storage().index;
        while let Cursor::Blobs(after) = self.cursor {
            let page = index.read(move |index| index.blobs_after(after, PAGE)).await?;
            if page.is_empty() {
                self.cursor = Cursor::Manifests(None);
            }
            for (digest, _) in page {
                self.blob(&digest).await?;
                if self.done.stopped {
                    return Ok(());
                }
                self.cursor = Cursor::Blobs(Some(digest));
                self.note_sometimes();
            }
        }
        while let Cursor::Manifests(after) = self.cursor {
            let page = index
                .read(move |index| index.manifests_after(after, PAGE))
                .await?;
            if page.is_empty() {
                break;
            }
            for (digest, row) in page {
                let bytes = row.bytes.len() as u64;
                if !self.wait(bytes).await {
                    return Ok(());
                }
                self.done.manifests += 1;
                let actual = Hasher::digest(digest.algorithm(), &row.bytes);
                if actual != digest {
                    self.rotten_manifest(&digest, &actual).await?;
                }
                self.cursor = Cursor::Manifests(Some(digest));
                self.note_sometimes();
            }
        }
        Ok(())
    }

    async fn blob(&mut self, digest: &Digest) -> Result<(), Error> {
        let blobs = &self.scrub.cache.storage().blobs;
        let Some(mut inspection) = blobs.inspect(digest).await? else {
            return Ok(());
        };
        let health = loop {
            if !self.wait(inspection.next_piece()).await {
                return Ok(());
            }
            let step = move || {
                let health = inspection.step();
                (inspection, health)
            };
            let (same, health) = tokio::task::spawn_blocking(step)
                .await
                .map_err(|_| Error::internal("hashing a blob was given up"))?;
            inspection = same;
            if let Some(health) = health {
                break health;
            }
        };
        self.done.blobs += 1;
        match health {
            Health::Sound => Ok(()),
            // Evicted meanwhile.
            Health::Rotten(_) if blobs.inspect(digest).await?.is_none() => Ok(()),
            Health::Rotten(reason) => self.rotten_blob(digest, &reason).await,
        }
    }

    async fn rotten_blob(&mut self, digest: &Digest, reason: &str) -> Result<(), Error> {
        tracing::error!(%digest, reason, "a blob is rotten: put aside, and fetched again");
        let healed = self.scrub.cache.heal_blob(digest, &self.scrub.places).await?;
        self.count("blob", digest, healed, reason);
        Ok(())
    }

    async fn rotten_manifest(&mut self, digest: &Digest, actual: &Digest) -> Result<(), Error> {
        tracing::error!(%digest, %actual, "a manifest is rotten: removed, and fetched again");
        let healed = self.scrub.cache.heal_manifest(digest, &self.scrub.places).await?;
        self.count("manifest", digest, healed, &format!("its digest is {actual}"));
        Ok(())
    }

    fn count(&mut self, what: &str, digest: &Digest, healed: bool, reason: &str) {
        self.done.rotten += 1;
        self.done.healed += u64::from(healed);
        self.scrub.cache.metrics().storage.rotten(what, healed);
        let again = if healed {
            "fetched again"
        } else {
            "could not be fetched again yet"
        };
        self.progress
            .note(format!("{what} {digest} was rotten ({reason}): {again}"));
    }

    /// Waits until another `bytes` may be read; false when the pass is to stop.
    async fn wait(&mut self, bytes: u64) -> bool {
        let at = self.pace.next(bytes);
        tokio::select! {
            biased;
            () = self.progress.stopped() => {
                self.done.stopped = true;
                return false;
            }
            () = tokio::time::sleep_until(at) => {}
        }
        self.done.bytes += bytes;
        self.scrub.cache.metrics().storage.scrubbed(bytes);
        self.progress.at(
            self.done.bytes,
            Some(self.total.max(self.done.bytes)),
            Unit::Bytes,
        );
        true
    }

    fn note_sometimes(&mut self) {
        if self
            .noted_at
            .is_some_and(|at| self.done.bytes - at >= WRITE_EVERY)
        {
            self.note();
        }
    }

    /// Writes the cursor down.
    fn note(&mut self) {
        self.noted_at = Some(self.done.bytes);
        let cursor = self.cursor.to_text().into_bytes();
        let index = &self.scrub.cache.storage().index;
        index.submit(vec![Change::put_meta(CURSOR, cursor)]);
    }
}

impl Job for Scrub {
    const NAME: &'static str = "scrub";
    type Options = ScrubOptions;
    type Summary = Scrubbed;

    async fn run(&self, options: ScrubOptions, progress: Progress) -> Result<Scrubbed, String> {
        let rate = options.rate.unwrap_or(self.rate);
        self.pass(Cursor::Blobs(None), rate, &progress, false)
            .await
            .map_err(|error| error.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn cursors_survive_being_written() {
        let digest = Digest::from_hash(Algorithm::Sha256, &[7; 32]);
        for cursor in [
            Cursor::Blobs(None),
            Cursor::Blobs(digest),
            Cursor::Manifests(digest),
        ] {
            assert_eq!(Cursor::parse(cursor.to_text().as_bytes()), Some(cursor));
        }
        for text in ["", "blobs", "tags sha256:00"] {
            assert_eq!(Cursor::parse(text.as_bytes()), None, "{text}");
        }
    }
}
