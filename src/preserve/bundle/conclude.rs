//! The second half of an import: from `index.json` to images. Each one whose manifests, config and layers all came gets its
//! rows and links in one transaction, its tag last; what no image reached is removed again.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::cache::{BroughtManifest, Place};
use crate::oci::{Descriptor, Digest, Kind, MAX_MANIFEST_SIZE, Reference};
use crate::repository::Key;
use crate::storage::BlobReader;

use super::archive::shown;
use super::import::{Imported, ImportedImage};
use super::layout::{confirmed, name_of};
use super::read::Intake;

/// Indexes within indexes are followed so deep.
const MOST_DEEP: usize = 5;

/// What refers to a manifest, by place and subject.
type Referring = HashMap<(Key, Digest), (Place, Vec<Descriptor>)>;

impl Intake {
    /// Takes in what came whole.
    pub(super) async fn conclude(mut self) -> Imported {
        let roots = self.index.take().map_or_else(Vec::new, |index| index.manifests);
        let (mut linked, mut referring) = (HashSet::new(), Referring::new());
        for named in &roots {
            let name = name_of(named);
            let shown = name.as_deref().map_or_else(|| shown(&named.digest), shown);
            let taken = match name {
                Some(name) => self.image(named, &name, &mut linked, &mut referring).await,
                None => Err(
                    "no annotation says which repository it belongs to: write it with its whole name, \
                             like docker.io/library/alpine:3"
                        .to_owned(),
                ),
            };
            match taken {
                Ok(image) => self.imported.images.push(image),
                Err(reason) => self.refuse(shown, reason),
            }
        }
        for ((_, subject), (place, referrers)) in referring {
            if let Err(error) = self.cache.bring_referrers(&place, &subject, referrers).await {
                self.refuse(format!("what refers to {subject}"), error.message);
            }
        }
        let Self {
            cache,
            hold,
            came,
            taken,
            mut imported,
            ..
        } = self;
        drop(hold);
        imported.manifests = taken.len() as u64;
        for (digest, came) in came {
            if linked.contains(&digest) {
                if came.is_new {
                    imported.blobs += 1;
                    imported.bytes += came.size;
                } else {
                    imported.present += 1;
                }
            } else if came.is_new
                && let Err(error) = cache.drop_unlinked(&digest).await
            {
                tracing::warn!(%digest, error = error.message, "what a bundle left could not be removed");
            }
        }
        imported
    }

    async fn image(
        &mut self,
        named: &Descriptor,
        name: &str,
        linked: &mut HashSet<Digest>,
        referring: &mut Referring,
    ) -> Result<ImportedImage, String> {
        let (place, reference) = (self.finder)(name).map_err(|error| error.message)?;
        let digest: Digest = named.digest.parse().map_err(|error| format!("{error}"))?;
        if let Reference::Digest(meant) = &reference
            && *meant != digest
        {
            return Err(format!("it is named by another digest than its own, {digest}"));
        }
        let manifests = self.gather(&place, digest, named).await?;
        // Config documents were held like manifests.
        for (blob, _) in manifests.iter().flat_map(|manifest| &manifest.blobs) {
            if let Some(bytes) = self.held.get(blob).cloned()
                && !self.came.contains_key(blob)
                && !self.store(*blob, bytes).await
            {
                return Err(format!("blob {blob} could not be kept"));
            }
        }
        for manifest in &manifests {
            // One that had to be stored as a blob, for want of memory, is none.
            if self.came.get(&manifest.digest).is_some_and(|came| came.is_new) {
                self.came.remove(&manifest.digest);
                let blobs = &self.cache.storage().blobs;
                blobs
                    .remove(&manifest.digest)
                    .await
                    .map_err(|error| error.to_string())?;
            }
            linked.extend(manifest.blobs.iter().map(|(digest, _)| *digest));
            let Some(subject) = &manifest.outline.subject else {
                continue;
            };
            if let Ok(subject) = subject.digest.parse() {
                let key = (place.key.clone(), subject);
                let (_, referrers) = referring
                    .entry(key)
                    .or_insert_with(|| (place.clone(), Vec::new()));
                referrers.push(descriptor(manifest));
            }
        }
        let digests: Vec<_> = manifests.iter().map(|manifest| manifest.digest).collect();
        let tag = match &reference {
            Reference::Tag(tag) => Some((tag.clone(), confirmed(named))),
            Reference::Digest(_) => None,
        };
        let is_tagged = tag.is_some();
        let moved = self.cache.bring_image(&place, manifests, tag).await;
        let moved = moved.map_err(|error| error.message)?;
        self.taken.extend(digests);
        let sign = if is_tagged { ':' } else { '@' };
        Ok(ImportedImage {
            image: format!("{}{sign}{reference}", place.key),
            digest: digest.to_string(),
            tag_kept: is_tagged && !moved,
        })
    }

    /// The manifests of an image, the first first, each with those of its blobs that came.
    async fn gather(
        &mut self,
        place: &Place,
        root: Digest,
        named: &Descriptor,
    ) -> Result<Vec<BroughtManifest>, String> {
        let mut found: Vec<BroughtManifest> = Vec::new();
        let mut seen = HashSet::from([root]);
        let mut left = VecDeque::from([(root, named.clone(), 0)]);
        while let Some((digest, named, depth)) = left.pop_front() {
            let bytes = self.bytes(&digest).await?;
            let bytes = bytes.ok_or_else(|| format!("manifest {digest} is not in the bundle"))?;
            if bytes.len() as u64 != named.size {
                return Err(format!(
                    "manifest {digest} has {} bytes, and is said to have {}",
                    bytes.len(),
                    named.size
                ));
            }
            let read = BroughtManifest::read(digest, bytes, &named.media_type);
            let mut manifest = read.map_err(|reason| format!("manifest {digest}: {reason}"))?;
            for blob in manifest.outline.blobs.clone() {
                self.blob(place, &mut manifest, &blob).await?;
            }
            let mut children = 0;
            for child in manifest.outline.manifests.clone() {
                let Ok(its) = child.digest.parse::<Digest>() else {
                    continue;
                };
                // An index may name more platforms than somebody wanted.
                if !self.has(&its) {
                    continue;
                }
                children += 1;
                let bytes = self.bytes(&its).await?;
                let is_manifest =
                    bytes.is_some_and(|bytes| BroughtManifest::read(its, bytes, &child.media_type).is_ok());
                if !is_manifest {
                    self.blob(place, &mut manifest, &child).await?;
                } else if depth < MOST_DEEP && seen.insert(its) {
                    left.push_back((its, child, depth + 1));
                }
            }
            if children == 0 && manifest.outline.kind == Kind::Index && !manifest.outline.manifests.is_empty()
            {
                return Err(format!("nothing that the index {digest} names is in the bundle"));
            }
            found.push(manifest);
        }
        Ok(found)
    }

    /// A config or layer: it came, or this repository has it already.
    async fn blob(
        &mut self,
        place: &Place,
        manifest: &mut BroughtManifest,
        named: &Descriptor,
    ) -> Result<(), String> {
        let digest: Digest = named
            .digest
            .parse()
            .map_err(|error| format!("{}: {error}", shown(&named.digest)))?;
        let held = self.held.get(&digest).map(|bytes| bytes.len() as u64);
        if let Some(size) = self.came.get(&digest).map(|came| came.size).or(held) {
            if size != named.size {
                return Err(format!(
                    "blob {digest} has {size} bytes, and is said to have {}",
                    named.size
                ));
            }
            manifest.blobs.push((digest, size));
            return Ok(());
        }
        let key = place.key.clone();
        let index = &self.cache.storage().index;
        let is_here = index.read(move |index| {
            let link = index.link(&key, &digest)?;
            Ok(link.is_some_and(|link| !link.manifest) && index.blob(&digest)?.is_some())
        });
        // Clients take foreign layers from where they are.
        if is_here.await.map_err(|error| error.to_string())? || !named.urls.is_empty() {
            return Ok(());
        }
        Err(format!("blob {digest} is not in the bundle"))
    }

    fn has(&self, digest: &Digest) -> bool {
        self.held.contains_key(digest) || self.came.contains_key(digest)
    }

    /// The bytes of what came and may be a manifest; none of what is too large for one.
    async fn bytes(&mut self, digest: &Digest) -> Result<Option<bytes::Bytes>, String> {
        if let Some(bytes) = self.held.get(digest) {
            return Ok(Some(bytes.clone()));
        }
        let most = MAX_MANIFEST_SIZE as u64;
        let Some(came) = self.came.get(digest).filter(|came| came.size <= most) else {
            return Ok(None);
        };
        let blob = self.cache.storage().blobs.open(digest).await;
        let Some(blob) = blob.map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        let (mut reader, mut bytes) = (BlobReader::Stored(blob), bytes::BytesMut::new());
        while (bytes.len() as u64) < came.size {
            let piece = reader.read(bytes.len() as u64, None, false).await;
            match piece.map_err(|error| error.to_string())? {
                Some(piece) => bytes.extend_from_slice(&piece),
                None => break,
            }
        }
        Ok(Some(bytes.freeze()))
    }
}

/// A manifest as a list of referrers tells it (distribution spec, "Listing Referrers").
fn descriptor(manifest: &BroughtManifest) -> Descriptor {
    let outline = &manifest.outline;
    Descriptor {
        media_type: outline.media_type.as_str().to_owned(),
        digest: manifest.digest.to_string(),
        size: manifest.bytes.len() as u64,
        artifact_type: outline.artifact_type.clone(),
        annotations: outline.annotations.clone(),
        urls: Vec::new(),
        platform: None,
    }
}
