//! Fetching what a drill found lacking, through the same doors as a client's pull: nothing is asked for twice, a client
//! that wants the same joins, and clients come first.

use std::collections::HashSet;

use futures_util::StreamExt as _;
use futures_util::stream;

use crate::cache::{Cache, Error, Place};
use crate::job::{Progress, Unit};
use crate::oci::Reference;

use super::super::lack::{Lack, What};
use super::{Filled, Image};

/// Looks at one image: what was fetched may name more.
const MOST_ROUNDS: usize = 6;
/// Blobs that are fetched at a time, as a client would.
const AT_A_TIME: usize = 3;

/// What is being filled, counted.
struct Work<'a> {
    cache: &'a Cache,
    progress: &'a Progress,
    filled: Filled,
    total: u64,
    /// Asked for already, well or not: not again in this run.
    tried: HashSet<String>,
}

/// Fetches what lacks of `images`, which are about `total` bytes.
pub(super) async fn fill(
    cache: &Cache,
    images: Vec<Image>,
    total: u64,
    progress: &Progress,
) -> Result<Filled, Error> {
    let mut work = Work {
        cache,
        progress,
        filled: Filled::default(),
        total,
        tried: HashSet::new(),
    };
    progress.at(0, Some(total), Unit::Bytes);
    for image in images {
        if progress.is_stopped() {
            break;
        }
        work.image(image).await?;
    }
    Ok(work.filled)
}

/// What is asked for because of a lack.
fn question(image: &Image, lack: &Lack) -> String {
    match &lack.digest {
        Some(digest) if lack.what != What::Tag => {
            format!("{} {} {digest}", image.place.key, lack.what.as_str())
        }
        _ => image.written(),
    }
}

impl Work<'_> {
    async fn image(&mut self, mut image: Image) -> Result<(), Error> {
        let name = image.written();
        image.place = image.place.in_background();
        for _ in 0..MOST_ROUNDS {
            let lacks = std::mem::take(&mut image.closure.lacks);
            let place = image.place.clone();
            let new: Vec<_> = lacks
                .into_iter()
                .filter(|lack| self.tried.insert(question(&image, lack)))
                .collect();
            if new.is_empty() || self.progress.is_stopped() {
                return Ok(());
            }
            let (blobs, others): (Vec<_>, Vec<_>) = new.into_iter().partition(|lack| lack.what == What::Blob);
            for lack in &others {
                self.manifest(&image, lack, &name).await;
            }
            self.blobs(&place, blobs, &name).await;
            // The manifests that came name more.
            image.look_again(self.cache).await?;
        }
        Ok(())
    }

    /// Asks for a tag, a manifest, or a list.
    async fn manifest(&mut self, image: &Image, lack: &Lack, name: &str) {
        let place = &image.place;
        let asked = match (lack.what, lack.digest()) {
            (What::Tag, _) => self.cache.manifest(place, &image.reference).await.map(drop),
            (What::Referrers, Some(subject)) => self.cache.referrers(place, &subject).await.map(drop),
            (_, Some(digest)) => {
                let reference = Reference::Digest(digest);
                self.cache.manifest(place, &reference).await.map(drop)
            }
            (_, None) => return,
        };
        match asked {
            Ok(()) => self.filled.manifests += 1,
            Err(error) => self.failed(name, lack, &error.message),
        }
    }

    async fn blobs(&mut self, place: &Place, lacks: Vec<Lack>, name: &str) {
        // One that cannot be served has no digest of ours.
        let wanted: Vec<_> = lacks
            .into_iter()
            .filter_map(|lack| lack.digest().map(|digest| (lack, digest)))
            .collect();
        let cache = self.cache.clone();
        let mut running = stream::iter(wanted)
            .map(|(lack, digest)| {
                let (cache, place) = (cache.clone(), place.clone());
                async move { (lack, cache.fetch_blob(&digest, &place).await) }
            })
            .buffer_unordered(AT_A_TIME);
        loop {
            let next = tokio::select! {
                next = running.next() => next,
                () = self.progress.stopped() => None,
            };
            let Some((lack, fetched)) = next else { break };
            match fetched {
                Ok(true) => {
                    self.filled.blobs += 1;
                    self.filled.bytes += lack.bytes;
                    let done = self.filled.bytes;
                    self.progress.at(done, Some(self.total.max(done)), Unit::Bytes);
                }
                Ok(false) => self.failed(name, &lack, "there is no room to keep it"),
                Err(error) => self.failed(name, &lack, &error.message),
            }
        }
    }

    fn failed(&mut self, name: &str, lack: &Lack, why: &str) {
        self.filled.failed += 1;
        let what = lack.what.as_str();
        let digest = lack.digest.as_deref().unwrap_or_default();
        tracing::warn!(image = name, what, digest, why, "a hole could not be filled");
        self.progress
            .note(format!("{name}: {what} {digest} could not be fetched: {why}"));
    }
}
