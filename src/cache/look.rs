//! What is here of a reference, with all that it names: one pass through the index. Called by `inspect`.

use std::collections::{HashMap, HashSet};

use crate::oci::{Descriptor, Digest, Kind, Manifest, MediaType, Platform};
use crate::storage::{self, Index, ManifestRow};

use super::error::Error;
use super::inflight::Opened;
use super::negative::Missing;
use super::pins::pinned;
use super::report::{BlobReport, EvictionCost, Here, ManifestReport, Pinned, State};
use super::{Cache, Place};

/// Indexes within indexes are followed so deep.
const MOST_DEEP: usize = 4;

/// Images that are looked up of which a blob is part.
const MOST_SHARING: usize = 1000;

/// What `look` finds of a reference.
#[derive(Default)]
pub(super) struct Found {
    pub(super) manifest: Option<ManifestReport>,
    pub(super) blob: Option<BlobReport>,
    pub(super) here: Here,
    pub(super) eviction: EvictionCost,
    pub(super) pinned: Option<Pinned>,
}

impl Cache {
    /// What is here of `digest`, and of all that it names.
    pub(super) async fn look(&self, place: &Place, digest: Digest) -> Result<Found, Error> {
        let fills = self.shared.fills.all().into_iter();
        let running = fills.filter_map(|(digest, _, opened)| match opened {
            Some(Opened::Growing(growing)) => Some((digest, growing.present())),
            _ => None,
        });
        let interrupted = self.shared.storage.blobs.interrupted().into_iter();
        let arriving = interrupted
            .map(|partial| (partial.digest, partial.present))
            .chain(running)
            .collect();
        let (cache, place) = (self.clone(), place.clone());
        let index = &self.shared.storage.index;
        self.flush_access();
        // What was submitted a moment ago is to be seen. A writer that has stopped writes nothing more.
        let _ = index.commit(Vec::new()).await;
        let found = index
            .read(move |index| {
                let mut look = Look {
                    cache: &cache,
                    place: &place,
                    index,
                    arriving,
                    seen: HashSet::new(),
                    found: Found::default(),
                };
                look.root(&digest)?;
                look.found.pinned = pinned(index, &digest)?;
                look.sharing()?;
                Ok(look.found)
            })
            .await?;
        Ok(found)
    }
}

/// One look through the index, on a blocking thread.
struct Look<'a> {
    cache: &'a Cache,
    place: &'a Place,
    index: &'a Index,
    /// Bytes of the blobs that are being fetched.
    arriving: HashMap<Digest, u64>,
    /// What was counted.
    seen: HashSet<Digest>,
    found: Found,
}

impl Look<'_> {
    fn root(&mut self, digest: &Digest) -> Result<(), storage::Error> {
        match self.index.link(&self.place.key, digest)? {
            Some(link) if !link.manifest => {
                self.found.blob = Some(self.blob(digest, link.size, None)?);
            }
            Some(link) => {
                self.found.manifest = Some(self.manifest(digest, link.size, None, 0)?);
            }
            None => {}
        }
        Ok(())
    }

    fn manifest(
        &mut self,
        digest: &Digest,
        size: u64,
        named: Option<&Descriptor>,
        depth: usize,
    ) -> Result<ManifestReport, storage::Error> {
        let linked = self
            .index
            .link(&self.place.key, digest)?
            .is_some_and(|link| link.manifest);
        let row = if linked {
            self.index.manifest(digest)?
        } else {
            None
        };
        let mut report = ManifestReport {
            digest: digest.to_string(),
            kind: None,
            platform: named.and_then(|named| named.platform.as_ref()).map(platform),
            media_type: named.map(|named| named.media_type.clone()),
            state: State::Absent,
            size,
            last_used: self.index.unit(digest)?.map(|unit| unit.key.last_used),
            blobs: Vec::new(),
            manifests: Vec::new(),
        };
        let first = self.seen.insert(*digest);
        let Some(ManifestRow { media_type, bytes }) = row else {
            if first {
                self.found.here.of_bytes += size;
            }
            return Ok(report);
        };
        report.state = State::Here;
        report.size = bytes.len() as u64;
        if first {
            self.found.here.bytes += report.size;
            self.found.here.of_bytes += report.size;
            self.found.eviction.bytes += report.size;
        }
        // It was one when it came.
        if let Ok(outline) = Manifest::parse(&bytes, Some(&MediaType::new(&media_type))) {
            report.kind = Some(word(outline.kind).to_owned());
            for named in &outline.blobs {
                if let Ok(digest) = named.digest.parse() {
                    report.blobs.push(self.blob(&digest, named.size, Some(named))?);
                }
            }
            for named in &outline.manifests {
                if let Ok(digest) = named.digest.parse()
                    && depth < MOST_DEEP
                {
                    let child = self.manifest(&digest, named.size, Some(named), depth + 1)?;
                    report.manifests.push(child);
                }
            }
        }
        report.media_type = Some(media_type);
        Ok(report)
    }

    /// Tells of each blob with how many other images it is shared. Only now is it known which those are.
    fn sharing(&mut self) -> Result<(), storage::Error> {
        let (mut blobs, mut shared) = (Vec::new(), 0);
        if let Some(manifest) = &mut self.found.manifest {
            blobs_of(manifest, &mut blobs);
        }
        blobs.extend(&mut self.found.blob);
        let mut counted = HashSet::new();
        for report in blobs {
            let Ok(digest) = report.digest.parse() else {
                continue;
            };
            let others = self.index.needed_by(&digest, MOST_SHARING)?;
            let others = others.iter().filter(|other| !self.seen.contains(other)).count();
            report.shared_with = Some(others);
            if others > 0 && report.state == State::Here && counted.insert(digest) {
                shared += report.present;
            }
        }
        self.found.eviction.shared_bytes = Some(shared);
        Ok(())
    }

    fn blob(
        &mut self,
        digest: &Digest,
        size: u64,
        named: Option<&Descriptor>,
    ) -> Result<BlobReport, storage::Error> {
        let row = self.index.blob(digest)?;
        let arriving = self.arriving.get(digest).copied().unwrap_or_default();
        let (state, present) = match &row {
            Some(row) => (State::Here, row.size),
            None if arriving > 0 => (State::Partial, arriving),
            None => (State::Absent, 0),
        };
        if self.seen.insert(*digest) {
            let here = &mut self.found.here;
            here.of_blobs += 1;
            here.of_bytes += size;
            here.bytes += present;
            if state == State::Here {
                here.blobs += 1;
                self.found.eviction.bytes += present;
            }
        }
        let negative = self
            .cache
            .shared
            .negative
            .left(self.place, Missing::Blob(*digest));
        Ok(BlobReport {
            digest: digest.to_string(),
            media_type: named.map(|named| named.media_type.clone()),
            size,
            state,
            present,
            stored_at: row.map(|row| row.stored_at),
            shared_with: None,
            negative_seconds: negative.map(|left| left.as_secs()),
        })
    }
}

/// All blobs of a manifest and of its children.
fn blobs_of<'a>(manifest: &'a mut ManifestReport, found: &mut Vec<&'a mut BlobReport>) {
    found.extend(&mut manifest.blobs);
    for child in &mut manifest.manifests {
        blobs_of(child, found);
    }
}

fn platform(platform: &Platform) -> String {
    let mut text = format!("{}/{}", platform.os, platform.architecture);
    for part in [&platform.variant, &platform.os_version].into_iter().flatten() {
        text.push('/');
        text.push_str(part);
    }
    text
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Image => "image",
        Kind::Index => "index",
        Kind::Other => "other",
    }
}
