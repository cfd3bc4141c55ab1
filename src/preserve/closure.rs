//! All that an image needs to be pulled from here alone: its manifests, their config and layers, what refers to them; and
//! what of that lacks. One pass through the index, on a blocking thread. Used by `drill` and `bundle`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::cache::{Cache, Fate, Place};
use crate::clock::Timestamp;
use crate::oci::{Descriptor, Digest, Kind, Manifest, MediaType, Platform, Reference};
use crate::storage::{self, Index, ManifestRow};

use super::lack::{Lack, Reason, What};

/// Indexes within indexes, and referrers of referrers, are followed so deep.
const MOST_DEEP: usize = 5;

/// A manifest of a closure.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) size: u64,
    pub(super) artifact_type: Option<String>,
    /// Config and layers, where it is an image that a machine could run.
    pub(super) parts: Vec<Digest>,
    /// Found because it refers to another one.
    pub(super) is_referrer: bool,
}

/// An image with all that it needs.
#[derive(Clone, Debug, Default)]
pub(super) struct Closure {
    /// What the image's name means; `None` when nobody knows any more.
    pub(super) root: Option<Digest>,
    /// When the tag's upstream last confirmed it.
    pub(super) confirmed: Option<Timestamp>,
    /// For how much longer the tag would be served without its upstream; `None` for ever.
    pub(super) served_for: Option<std::time::Duration>,
    /// Each after those that name it.
    pub(super) manifests: Vec<Piece>,
    /// With their sizes.
    pub(super) blobs: Vec<(Digest, u64)>,
    pub(super) lacks: Vec<Lack>,
}

impl Closure {
    /// All that was looked at, here or not.
    pub(super) fn reached(&self) -> impl Iterator<Item = Digest> {
        let lacking = self.lacks.iter().filter_map(Lack::digest);
        let here = self.manifests.iter().map(|piece| piece.digest);
        here.chain(lacking).collect::<Vec<_>>().into_iter()
    }
}

/// Which manifests of an index belong to an image.
pub(super) enum Choice {
    /// Those that clients pulled, and those of the platforms that they pulled.
    Pulled(Pulled),
    /// Those that are here whole.
    Here,
}

/// What clients pulled of one repository.
#[derive(Default)]
pub(super) struct Pulled {
    pub(super) digests: Arc<HashSet<Digest>>,
    pub(super) platforms: HashSet<String>,
}

impl Pulled {
    /// What they pulled, and of which platforms that was, as the indexes here say.
    pub(super) fn of(index: &Index, digests: Arc<HashSet<Digest>>) -> Result<Self, storage::Error> {
        /// Indexes that are looked at for each digest.
        const MOST_PARENTS: usize = 16;
        let mut platforms = HashSet::new();
        let mut read = HashSet::new();
        for digest in digests.iter() {
            for parent in index.needed_by(digest, MOST_PARENTS)? {
                if !read.insert(parent) {
                    continue;
                }
                for named in outline(index.manifest(&parent)?).map_or_else(Vec::new, |(_, one)| one.manifests)
                {
                    let is_pulled = named.digest.parse().is_ok_and(|named| digests.contains(&named));
                    platforms.extend(named.platform.as_ref().filter(|_| is_pulled).map(platform));
                }
            }
        }
        Ok(Self { digests, platforms })
    }

    fn wants(&self, named: &Descriptor, digest: &Digest) -> bool {
        let is_of = |its: &Platform| self.platforms.contains(&platform(its));
        self.digests.contains(digest) || named.platform.as_ref().is_some_and(is_of)
    }
}

fn platform(platform: &Platform) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    let (variant, version) = (part(&platform.variant), part(&platform.os_version));
    format!("{}/{}/{variant}/{version}", platform.os, platform.architecture)
}

fn outline(row: Option<ManifestRow>) -> Option<(ManifestRow, Manifest)> {
    let row = row?;
    let outline = Manifest::parse(&row.bytes, Some(&MediaType::new(&row.media_type))).ok()?;
    Some((row, outline))
}

/// Config and layers of an image that a machine could run; none of anything else, such as what BuildKit attests.
fn runnable(outline: &Manifest) -> Vec<Digest> {
    const CONFIGS: [&str; 2] = [
        "application/vnd.docker.container.image.v1+json",
        "application/vnd.oci.image.config.v1+json",
    ];
    let Some((config, layers)) = outline.blobs.split_first() else {
        return Vec::new();
    };
    let is_layer = |layer: &Descriptor| layer.media_type.contains("tar");
    if !CONFIGS.contains(&config.media_type.as_str()) || !layers.iter().all(is_layer) {
        return Vec::new();
    }
    let parts = outline.blobs.iter().map(|part| part.digest.parse());
    parts.collect::<Result<_, _>>().unwrap_or_default()
}

/// What is known beside the index, taken once for many closures.
pub(super) struct Surroundings {
    cache: Cache,
    /// Bytes of blobs that are here in part.
    arriving: HashMap<Digest, u64>,
    rotten: HashSet<Digest>,
}

impl Surroundings {
    pub(super) fn of(cache: &Cache) -> Self {
        let blobs = &cache.storage().blobs;
        let partials = blobs.interrupted().into_iter();
        let running = cache
            .fills()
            .into_iter()
            .filter_map(|fill| Some((fill.digest.parse().ok()?, fill.present)));
        Self {
            cache: cache.clone(),
            arriving: partials
                .map(|partial| (partial.digest, partial.present))
                .chain(running)
                .collect(),
            rotten: blobs.quarantined().into_iter().collect(),
        }
    }

    /// The closure of what `reference` means in `place`; `remembered` is what it meant when it was last pulled.
    /// Blocking.
    pub(super) fn closure(
        &self,
        index: &Index,
        place: &Place,
        reference: &Reference,
        remembered: Option<Digest>,
        choice: &Choice,
    ) -> Result<Closure, storage::Error> {
        let mut walk = Walk {
            surroundings: self,
            index,
            place,
            choice,
            seen: HashSet::new(),
            found: Closure::default(),
        };
        let root = match reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(tag) => {
                if let Some(row) = index.tag(&place.key, tag)? {
                    let fate = self.cache.fate_of(place, tag, &row);
                    let digest = row.digest.parse().ok();
                    walk.found.confirmed = Some(row.validated_at);
                    match fate {
                        Fate::Served(left) => walk.found.served_for = left,
                        Fate::TooOld => walk.lack(What::Tag, digest, Reason::TooOld, 0),
                        Fate::Gone => walk.lack(What::Tag, digest, Reason::Gone, 0),
                    }
                    digest
                } else {
                    walk.lack(What::Tag, remembered, Reason::Absent, 0);
                    None
                }
            }
        };
        walk.found.root = root;
        if let Some(root) = root {
            walk.manifest(&root, 0, What::Manifest, 0)?;
        }
        Ok(walk.found)
    }
}

/// One walk from a root, on a blocking thread.
struct Walk<'a> {
    surroundings: &'a Surroundings,
    index: &'a Index,
    place: &'a Place,
    choice: &'a Choice,
    seen: HashSet<Digest>,
    found: Closure,
}

impl Walk<'_> {
    fn lack(&mut self, what: What, digest: Option<Digest>, reason: Reason, bytes: u64) {
        self.found.lacks.push(Lack {
            what,
            digest: digest.map(|digest| digest.to_string()),
            reason,
            bytes,
        });
    }

    /// A digest as written; one that cannot be served lacks.
    fn parsed(&mut self, what: What, named: &Descriptor) -> Option<Digest> {
        let digest = named.digest.parse().ok();
        if digest.is_none() {
            self.found.lacks.push(Lack {
                what,
                digest: Some(named.digest.clone()),
                reason: Reason::Unsupported,
                bytes: named.size,
            });
        }
        digest
    }

    fn manifest(
        &mut self,
        digest: &Digest,
        size: u64,
        what: What,
        depth: usize,
    ) -> Result<(), storage::Error> {
        if depth > MOST_DEEP || !self.seen.insert(*digest) {
            return Ok(());
        }
        let linked = self
            .index
            .link(&self.place.key, digest)?
            .is_some_and(|link| link.manifest);
        let Some((row, outline)) = outline(self.index.manifest(digest)?) else {
            self.lack(what, Some(*digest), Reason::Absent, size);
            return Ok(());
        };
        let size = row.bytes.len() as u64;
        if !linked {
            self.lack(what, Some(*digest), Reason::Unlinked, size);
            return Ok(());
        }
        self.found.manifests.push(Piece {
            digest: *digest,
            media_type: row.media_type,
            size,
            parts: runnable(&outline),
            artifact_type: outline.artifact_type.filter(|_| outline.kind != Kind::Index),
            is_referrer: what == What::Referrer,
        });
        for named in &outline.blobs {
            self.blob(named)?;
        }
        let child = if what == What::Referrer {
            What::Referrer
        } else {
            What::Manifest
        };
        match self.choice {
            // What refers to an image belongs to it as a whole.
            Choice::Pulled(pulled) if what == What::Manifest => {
                for named in &outline.manifests {
                    let Ok(digest) = named.digest.parse() else {
                        continue;
                    };
                    if self.is_blob(&digest)? {
                        self.blob(named)?;
                    } else if pulled.wants(named, &digest) {
                        self.manifest(&digest, named.size, child, depth + 1)?;
                    }
                }
            }
            Choice::Pulled(_) => {
                for named in &outline.manifests {
                    if let Some(digest) = self.parsed(child, named) {
                        self.manifest(&digest, named.size, child, depth + 1)?;
                    }
                }
            }
            Choice::Here => self.children_here(&outline.manifests, child, depth)?,
        }
        self.referrers(digest, depth)
    }

    /// Those of an index's manifests that are here whole; one at the least, or what lacks of the first.
    fn children_here(
        &mut self,
        named: &[Descriptor],
        what: What,
        depth: usize,
    ) -> Result<(), storage::Error> {
        let (mut taken, mut spoilt) = (0, None);
        for named in named {
            let Ok(digest) = named.digest.parse::<Digest>() else {
                continue;
            };
            if self.is_blob(&digest)? {
                self.blob(named)?;
                taken += 1;
                continue;
            }
            let seen = self.seen.clone();
            let before = std::mem::take(&mut self.found);
            self.manifest(&digest, named.size, what, depth + 1)?;
            let one = std::mem::replace(&mut self.found, before);
            if one.lacks.iter().any(Lack::is_of_content) {
                self.seen = seen;
                spoilt.get_or_insert(one.lacks);
            } else {
                taken += 1;
                self.found.manifests.extend(one.manifests);
                self.found.blobs.extend(one.blobs);
                self.found.lacks.extend(one.lacks);
            }
        }
        if taken == 0 {
            self.found.lacks.extend(spoilt.unwrap_or_default());
        }
        Ok(())
    }

    /// Whether clients of this repository pulled it as a blob: BuildKit's caches are indexes of layers.
    fn is_blob(&self, digest: &Digest) -> Result<bool, storage::Error> {
        let link = self.index.link(&self.place.key, digest)?;
        Ok(link.is_some_and(|link| !link.manifest))
    }

    /// What is known to refer to a manifest.
    fn referrers(&mut self, subject: &Digest, depth: usize) -> Result<(), storage::Error> {
        let Some(row) = self.index.referrers(&self.place.key, subject)? else {
            return Ok(());
        };
        if row.descriptors.is_empty() {
            return Ok(());
        }
        let cache = &self.surroundings.cache;
        if !cache.list_is_told(self.place, row.validated_at) {
            self.lack(What::Referrers, Some(*subject), Reason::TooOld, 0);
        }
        for named in &row.descriptors {
            if let Some(digest) = self.parsed(What::Referrer, named) {
                self.manifest(&digest, named.size, What::Referrer, depth + 1)?;
            }
        }
        Ok(())
    }

    fn blob(&mut self, named: &Descriptor) -> Result<(), storage::Error> {
        let Some(digest) = self.parsed(What::Blob, named) else {
            return Ok(());
        };
        if !self.seen.insert(digest) {
            return Ok(());
        }
        let around = self.surroundings;
        let Some(row) = self.index.blob(&digest)? else {
            // Clients take it from there.
            if !named.urls.is_empty() {
                return Ok(());
            }
            let present = around.arriving.get(&digest).copied().unwrap_or_default();
            let reason = match present {
                _ if around.rotten.contains(&digest) => Reason::Rotten,
                0 => Reason::Absent,
                _ => Reason::Partial,
            };
            self.lack(
                What::Blob,
                Some(digest),
                reason,
                named.size.saturating_sub(present),
            );
            return Ok(());
        };
        let link = self.index.link(&self.place.key, &digest)?;
        if !around.cache.storage().blobs.stands(&digest, &row)? {
            self.lack(What::Blob, Some(digest), Reason::Lost, row.size);
        } else if link.is_none_or(|link| link.manifest) {
            self.lack(What::Blob, Some(digest), Reason::Unlinked, 0);
        } else {
            self.found.blobs.push((digest, row.size));
        }
        Ok(())
    }
}
