//! What goes when room is needed: whole images, least valuable first, and never a blob that an image which stays
//! needs.
//!
//! The value of a unit is how lately it was used times what it would cost to fetch again, for each byte that it takes
//! up: an image is worth its bytes and, where pulls are counted, the pull. The index keeps the units of each class of
//! cost in the order of their use, so a victim is found among the oldest of sixteen classes.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::storage::{self, Index, Unit, UnitKey, UnitKind};

use super::error::Error;
use super::{Cache, Shared};

/// Classes of cost.
const CLASSES: u8 = 16;

/// What a pull from an upstream that counts them is worth, in bytes: 100 of them for six hours is a budget of 6 GiB.
const PULL: u64 = 64 * 1024 * 1024;

/// The share of the room in percent from which on units go by themselves, and down to which.
const HIGH: u64 = 95;
const LOW: u64 = 90;

/// How often the room is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Images that are looked up of which a blob is part.
const MOST_IMAGES: usize = 1000;

/// Units of a class looked at to get past those that cannot go at the moment.
const PAGE: usize = 32;

/// The class of a unit of `bytes` bytes: the binary logarithm of what a byte of it costs to fetch again, of an upstream
/// that counts pulls or does not.
pub(super) fn class_of(bytes: u64, counted: bool) -> u8 {
    let pull = if counted { PULL } else { 0 };
    let density = 1 + pull / bytes.max(1);
    // Below 64, so it fits.
    (density.ilog2() as u8).min(CLASSES - 1)
}

/// Of the oldest unit of each class, the one that is worth least at `now`.
fn least_valuable(candidates: &[Unit], now: Timestamp) -> Option<&Unit> {
    candidates.iter().min_by(|a, b| {
        let value = |unit: &Unit| {
            let age = now.since(unit.key.last_used).as_secs_f64() + 1.0;
            f64::from(1u32 << unit.key.class.min(CLASSES - 1)) / age
        };
        value(a).total_cmp(&value(b))
    })
}

/// What an eviction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Evicted {
    /// Bytes of room that became free, or will when the last reader lets go.
    pub bytes: u64,
    /// Images and indexes.
    pub manifests: u64,
    /// Blobs.
    pub blobs: u64,
    /// Partial files of interrupted downloads.
    pub partials: u64,
}

impl Evicted {
    fn count_blob(&mut self, bytes: Option<u64>) {
        self.bytes += bytes.unwrap_or(0);
        self.blobs += u64::from(bytes.is_some());
    }
}

impl Cache {
    /// Evicts until `bytes` are free, or nothing more can go; `tell` hears of each step and says whether to go on.
    /// Waits for an eviction that runs.
    pub async fn evict(&self, bytes: u64, tell: impl FnMut(&Evicted) -> bool) -> Result<Evicted, Error> {
        self.shared.evict(bytes, HashSet::new(), tell).await
    }

    /// Keeps the room below its high watermark, for as long as it is polled.
    pub async fn keep_room(&self) {
        loop {
            let space = self.shared.storage.blobs.space().clone();
            let look = move || (space.usage(), space.excess(HIGH), space.excess(LOW));
            if let Ok((usage, high, low)) = tokio::task::spawn_blocking(look).await {
                self.shared
                    .metrics
                    .storage
                    .room(usage.used, usage.limit_for_blobs);
                if high > 0
                    && let Err(error) = self.evict(low, |_| true).await
                {
                    tracing::error!(error = error.message, "eviction failed");
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Shared {
    /// Frees `bytes` for a fill of `digest`; says whether it could. Other parts of the same image stay: of one that is
    /// larger than the room, what fits is kept, and the rest passes through.
    pub(super) async fn make_room(self: &Arc<Self>, bytes: u64, digest: &Digest) -> bool {
        let content = *digest;
        let images = self
            .storage
            .index
            .read(move |index| index.needed_by(&content, MOST_IMAGES))
            .await;
        let kept = images.unwrap_or_default().into_iter().collect();
        match self.evict(bytes, kept, |_| true).await {
            Ok(evicted) => evicted.bytes >= bytes,
            Err(error) => {
                tracing::error!(error = error.message, "eviction failed");
                false
            }
        }
    }

    async fn evict(
        self: &Arc<Self>,
        bytes: u64,
        mut kept: HashSet<Digest>,
        mut tell: impl FnMut(&Evicted) -> bool,
    ) -> Result<Evicted, Error> {
        let mut evicted = Evicted::default();
        // One at a time: each would take the same victims. It is never closed.
        let Ok(_turn) = self.evictions.acquire().await else {
            return Ok(evicted);
        };
        self.flush_access();
        // What was pulled a moment ago may still be on its way into the index. A writer that has stopped writes nothing more.
        let _ = self.storage.index.commit(Vec::new()).await;
        self.discard_partials(bytes, &mut evicted).await;
        let mut after: Passed = [None; CLASSES as usize];
        while evicted.bytes < bytes && tell(&evicted) {
            let (skip, from) = (kept.clone(), after);
            let oldest = move |index: &Index| oldest_of_each(index, &skip, from);
            let (candidates, passed) = self.storage.index.read(oldest).await?;
            after = passed;
            let Some(unit) = least_valuable(&candidates, Timestamp::now()) else {
                break;
            };
            if !self.evict_unit(unit, &mut evicted).await? {
                kept.insert(unit.key.digest);
            }
        }
        self.metrics.storage.evicted(evicted.bytes, evicted.manifests);
        Ok(evicted)
    }

    /// Interrupted downloads are worth least: nobody waits for them, and they are no image.
    async fn discard_partials(self: &Arc<Self>, bytes: u64, evicted: &mut Evicted) {
        let shared = self.clone();
        let discard = move || {
            let (mut freed, mut count) = (0, 0);
            for partial in shared.storage.blobs.interrupted() {
                if freed >= bytes {
                    break;
                }
                if let Some(more) = shared.storage.blobs.discard_partial(&partial.digest) {
                    freed += more;
                    count += 1;
                }
            }
            (freed, count)
        };
        let (freed, count) = tokio::task::spawn_blocking(discard).await.unwrap_or_default();
        evicted.bytes += freed;
        evicted.partials += count;
    }

    /// Evicts a unit, unless it is in use; whether it did.
    async fn evict_unit(self: &Arc<Self>, unit: &Unit, evicted: &mut Evicted) -> Result<bool, Error> {
        let digest = unit.key.digest;
        if unit.kind == UnitKind::Blob {
            let pinned = move |index: &Index| index.is_pinned(&digest);
            if self.is_in_use(&digest) || self.storage.index.read(pinned).await? {
                return Ok(false);
            }
            evicted.count_blob(self.evict_blob(&digest).await?);
            return Ok(true);
        }
        let Some(contents) = self
            .storage
            .index
            .read(move |index| contents(index, &digest))
            .await?
        else {
            return Ok(false);
        };
        if self.holds.has(&digest) || contents.iter().any(|content| self.is_in_use(content)) {
            return Ok(false);
        }
        self.remove_image(digest, evicted).await?;
        tracing::info!(%digest, last_used = unit.key.last_used.0, bytes = unit.bytes, "evicted");
        Ok(true)
    }

    /// Removes a manifest, the blobs that nobody else here needs, and the indexes of which it was the last child.
    pub(super) async fn remove_image(&self, digest: Digest, evicted: &mut Evicted) -> Result<(), Error> {
        let mut manifests = vec![digest];
        while let Some(manifest) = manifests.pop() {
            let removed = self.repositories.remove_manifest(&manifest).await?;
            evicted.manifests += removed.manifests.len() as u64;
            // All at once, so that one commit takes them.
            let gone = join_all(removed.loose.iter().map(|blob| self.evict_blob(blob))).await;
            for bytes in gone {
                evicted.count_blob(bytes?);
            }
            manifests.extend(removed.childless);
        }
        Ok(())
    }

    /// Bytes that become free; none when it stays.
    async fn evict_blob(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        // Somebody may have begun to read it: then it stays, as a unit of its own.
        if self.is_in_use(digest) {
            return Ok(None);
        }
        Ok(self.storage.blobs.remove(digest).await?)
    }

    /// Whether the blob is being read, fetched or held.
    pub(super) fn is_in_use(&self, digest: &Digest) -> bool {
        self.storage.blobs.is_read(digest) || self.fills.get(digest).is_some() || self.holds.has(digest)
    }
}

/// What is to go with a manifest; `None` when it must stay: it is pinned, or an index with children.
fn contents(index: &Index, digest: &Digest) -> Result<Option<Vec<Digest>>, storage::Error> {
    if index.is_pinned(digest)? || index.child(digest)?.is_some() {
        return Ok(None);
    }
    index.needs(digest).map(Some)
}

type Passed = [Option<UnitKey>; CLASSES as usize];

/// The oldest unit of each class that is not in `skip`, and how far each class was passed over.
fn oldest_of_each(
    index: &Index,
    skip: &HashSet<Digest>,
    mut after: Passed,
) -> Result<(Vec<Unit>, Passed), storage::Error> {
    let mut candidates = Vec::new();
    for class in 0..CLASSES {
        let Some(passed) = after.get_mut(usize::from(class)) else {
            continue;
        };
        'pages: loop {
            let page = index.oldest(class, *passed, PAGE)?;
            let whole = page.len() == PAGE;
            for unit in page {
                if !skip.contains(&unit.key.digest) {
                    candidates.push(unit);
                    break 'pages;
                }
                // What cannot go now is not looked at again in this run.
                *passed = Some(unit.key);
            }
            if !whole {
                break;
            }
        }
    }
    Ok((candidates, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn classes_of_cost() {
        let cases = [
            (5000 * MIB, false, 0),
            (1, false, 0),
            (5000 * MIB, true, 0),
            (64 * MIB, true, 1),
            (30 * MIB, true, 1),
            (20 * MIB, true, 2),
            (MIB, true, 6),
            (1, true, 15),
            (0, true, 15),
        ];
        for (bytes, counted, class) in cases {
            assert_eq!(class_of(bytes, counted), class, "{bytes} {counted}");
        }
    }

    #[test]
    fn the_victim_is_old_and_cheap() {
        let unit = |name: u8, class, last_used: u64| Unit {
            key: UnitKey {
                class,
                last_used: Timestamp(last_used * 1000),
                digest: Digest::from_hash(Algorithm::Sha256, &[name; 32]).unwrap(),
            },
            kind: UnitKind::Image,
            bytes: 1,
        };
        let victim = |units: &[Unit], now: u64| {
            least_valuable(units, Timestamp(now * 1000)).map(|unit| unit.key.digest.hash()[0])
        };
        assert_eq!(victim(&[], 100), None);
        // Of one class, the older one.
        assert_eq!(victim(&[unit(1, 0, 50), unit(2, 0, 40)], 100), Some(2));
        // Four times as dear to fetch: used four times as long ago, it is worth the same.
        assert_eq!(victim(&[unit(1, 0, 1000), unit(2, 2, 900)], 1100), Some(1));
        assert_eq!(victim(&[unit(1, 0, 1000), unit(2, 2, 500)], 1100), Some(2));
        // A clock that was set back makes nothing look ancient.
        assert_eq!(victim(&[unit(1, 0, 2000), unit(2, 0, 900)], 1000), Some(2));
    }
}
