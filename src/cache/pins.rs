//! Pins, as an operator sees them: what is never evicted, by which names, and how much that is. What a pin does is in
//! `storage::index::pins` and `eviction`.

use std::collections::HashSet;

use crate::clock::Timestamp;
use crate::oci::{Digest, Kind, Manifest, MediaType, Reference};
use crate::storage::{self, Change, Index, PinRow};

use super::error::Error;
use super::inspect::written;
use super::report::{Pin, PinTotals, Pinned, Pins, State, Unpinned};
use super::{Cache, Place};

/// Pins read from the index at a time.
const PAGE: usize = 256;

/// Indexes within indexes are followed so deep.
const MOST_DEEP: usize = 4;

/// The name by which an index keeps a pin.
fn pin_name(place: &Place, reference: &Reference) -> String {
    written(place, reference)
}

impl Cache {
    /// Pins what `reference` means here, durably. `listed`: a list of the configuration says so; `platforms`: for which it
    /// is to be here. Whether it is pinned now: not, when it is not here.
    pub async fn pin(
        &self,
        place: &Place,
        reference: &Reference,
        listed: bool,
        platforms: &[String],
    ) -> Result<bool, Error> {
        let now = Timestamp::now();
        let change = match reference {
            Reference::Tag(tag) => Change::pin_tag(&place.key, tag, listed, platforms, now),
            Reference::Digest(digest) => Change::pin_digest(&place.key, digest, listed, platforms, now),
        };
        let index = &self.shared.storage.index;
        index.commit(vec![change]).await?;
        let (place, reference) = (place.clone(), reference.clone());
        let pinned = index.read(move |index| holder(index, &place, &reference)).await?;
        Ok(pinned.is_some())
    }

    /// Takes the pin of `reference` away, durably.
    pub async fn unpin(&self, place: &Place, reference: &Reference) -> Result<Unpinned, Error> {
        let index = &self.shared.storage.index;
        let (its, wanted) = (place.clone(), reference.clone());
        // What was submitted a moment ago is to be seen.
        index.commit(Vec::new()).await?;
        let found = index.read(move |index| holder(index, &its, &wanted)).await?;
        let name = pin_name(place, reference);
        let mut told = Unpinned {
            reference: name.clone(),
            unpinned: found.is_some(),
            still_by: Vec::new(),
        };
        if let Some((digest, _)) = found {
            index.commit(vec![Change::unpin(&name)]).await?;
            let left = index.read(move |index| index.pinned_by(&digest)).await?;
            told.still_by = left.map(|(digest, row)| names(&digest, &row)).unwrap_or_default();
        } else if let Reference::Digest(digest) = reference {
            let digest = *digest;
            let left = index.read(move |index| index.pinned_by(&digest)).await?;
            told.still_by = left.map(|(digest, row)| names(&digest, &row)).unwrap_or_default();
        }
        Ok(told)
    }

    /// Takes the pins away that lists made and that `is_listed` does not know any more, by their names. Gives those.
    pub async fn unpin_unlisted(
        &self,
        is_listed: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<Vec<String>, Error> {
        let index = &self.shared.storage.index;
        let stale = index
            .read(move |index| {
                let mut stale = Vec::new();
                each(index, |_, row| {
                    let listed = row.names.into_iter().filter(|had| had.listed);
                    stale.extend(listed.map(|had| had.name).filter(|name| !is_listed(name)));
                    Ok(())
                })?;
                Ok(stale)
            })
            .await?;
        if !stale.is_empty() {
            index
                .commit(stale.iter().map(|name| Change::unpin(name)).collect())
                .await?;
        }
        Ok(stale)
    }

    /// All pins, as they are kept.
    pub async fn pin_rows(&self) -> Result<Vec<(Digest, PinRow)>, Error> {
        let read = |index: &Index| {
            let mut rows = Vec::new();
            each(index, |digest, row| {
                rows.push((digest, row));
                Ok(())
            })?;
            Ok(rows)
        };
        Ok(self.shared.storage.index.read(read).await?)
    }

    /// All pins.
    pub async fn pins(&self) -> Result<Pins, Error> {
        let index = &self.shared.storage.index;
        index.commit(Vec::new()).await?;
        let (mut pins, bytes, of_bytes) = index
            .read(|index| {
                let (mut pins, mut all) = (Vec::new(), Closure::default());
                each(index, |digest, row| {
                    let mut own = Closure::default();
                    own.add(index, digest, 0)?;
                    all.add(index, digest, 0)?;
                    pins.push(own.told(&digest, &row));
                    Ok(())
                })?;
                Ok((pins, all.bytes, all.of_bytes))
            })
            .await?;
        pins.sort_by(|a: &Pin, b: &Pin| a.names.cmp(&b.names).then_with(|| a.digest.cmp(&b.digest)));
        let limit = self.room().await?.limit_for_blobs;
        let metrics = &self.shared.metrics.preserve;
        metrics.pinned(pins.len() as u64, bytes);
        Ok(Pins {
            totals: PinTotals {
                pins: pins.len() as u64,
                bytes,
                of_bytes,
                limit,
                too_large: limit.is_some_and(|limit| of_bytes > limit),
            },
            pins,
        })
    }

    /// Tells the log when what is pinned is more than there is room for.
    pub async fn warn_of_pins(&self) -> Result<Pins, Error> {
        let told = self.pins().await?;
        if told.totals.too_large {
            let PinTotals {
                pins,
                of_bytes: bytes,
                limit,
                ..
            } = told.totals;
            tracing::warn!(
                pins,
                bytes,
                limit,
                "what is pinned is larger than the room for it: little else can be kept, and not all of it"
            );
        }
        Ok(told)
    }
}

/// By which names something is pinned; by its digest, where there are none.
fn names(digest: &Digest, row: &PinRow) -> Vec<String> {
    if row.names.is_empty() {
        vec![digest.to_string()]
    } else {
        row.names.iter().map(|had| had.name.clone()).collect()
    }
}

/// The pin that keeps a manifest or blob, as it is told. One look, on a blocking thread.
pub(super) fn pinned(index: &Index, digest: &Digest) -> Result<Option<Pinned>, storage::Error> {
    let found = index.pinned_by(digest)?;
    Ok(found.map(|(by, row)| Pinned {
        names: names(&by, &row),
        since: row.pinned_at,
        by: (by != *digest).then(|| by.to_string()),
    }))
}

/// What a reference pins.
fn holder(
    index: &Index,
    place: &Place,
    reference: &Reference,
) -> Result<Option<(Digest, PinRow)>, storage::Error> {
    let name = pin_name(place, reference);
    let mut found = None;
    each(index, |digest, row| {
        if row.names.iter().any(|had| had.name == name) {
            found = Some((digest, row));
        }
        Ok(())
    })?;
    Ok(found)
}

fn each(
    index: &Index,
    mut visit: impl FnMut(Digest, PinRow) -> Result<(), storage::Error>,
) -> Result<(), storage::Error> {
    let mut after = None;
    loop {
        let page = index.pins_after(after, PAGE)?;
        let Some((last, _)) = page.last() else {
            return Ok(());
        };
        after = Some(*last);
        for (digest, row) in page {
            visit(digest, row)?;
        }
    }
}

/// What a pin keeps: manifests that are here, and all that they name.
#[derive(Default)]
struct Closure {
    seen: HashSet<Digest>,
    manifests: u64,
    blobs: u64,
    of_blobs: u64,
    bytes: u64,
    of_bytes: u64,
}

impl Closure {
    fn add(&mut self, index: &Index, digest: Digest, depth: usize) -> Result<(), storage::Error> {
        if depth > MOST_DEEP || !self.seen.insert(digest) {
            return Ok(());
        }
        let Some(row) = index.manifest(&digest)? else {
            return Ok(());
        };
        self.manifests += 1;
        self.bytes += row.bytes.len() as u64;
        self.of_bytes += row.bytes.len() as u64;
        let Ok(manifest) = Manifest::parse(&row.bytes, Some(&MediaType::new(&row.media_type))) else {
            return Ok(());
        };
        if manifest.kind == Kind::Index {
            for child in manifest
                .manifests
                .iter()
                .filter_map(|child| child.digest.parse().ok())
            {
                self.add(index, child, depth + 1)?;
            }
        }
        for blob in &manifest.blobs {
            let Ok(digest) = blob.digest.parse() else { continue };
            if !self.seen.insert(digest) {
                continue;
            }
            self.of_blobs += 1;
            self.of_bytes += blob.size;
            if let Some(row) = index.blob(&digest)? {
                self.blobs += 1;
                self.bytes += row.size;
            }
        }
        Ok(())
    }

    fn told(&self, digest: &Digest, row: &PinRow) -> Pin {
        let state = if self.manifests == 0 {
            State::Absent
        } else if self.blobs == self.of_blobs {
            State::Here
        } else {
            State::Partial
        };
        Pin {
            digest: digest.to_string(),
            names: names(digest, row),
            listed: !row.names.is_empty() && row.names.iter().all(|had| had.listed),
            since: row.pinned_at,
            state,
            manifests: self.manifests,
            blobs: self.blobs,
            of_blobs: self.of_blobs,
            bytes: self.bytes,
            of_bytes: self.of_bytes,
        }
    }
}
