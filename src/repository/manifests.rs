//! Manifests: kept verbatim by digest, served by the repositories that link them.

use std::sync::Arc;

use bytes::Bytes;

use crate::clock::{LastUse, Timestamp};
use crate::oci::{Descriptor, Digest, Manifest, MediaType, Tag};
use crate::storage::{Change, Error, ManifestRow, Outline, Proof, Removed};

use super::tags::TagState;
use super::{Key, Link, Repositories};

/// A manifest as it came.
#[derive(Debug)]
pub struct StoredManifest {
    /// Its bytes.
    pub bytes: Bytes,
    /// The type it came with.
    pub media_type: MediaType,
    /// Its digest.
    pub digest: Digest,
    /// When its last use was noted.
    pub last_use: LastUse,
}

impl Repositories {
    /// A manifest that is here, whichever repository fetched it: the caller checks the link.
    pub async fn manifest(&self, digest: &Digest) -> Result<Option<Arc<StoredManifest>>, Error> {
        if let Some(manifest) = self.memory.manifests.get(digest) {
            return Ok(Some(manifest));
        }
        let digest = *digest;
        let seen = self.memory.removals();
        let row = self.index.read(move |index| index.manifest(&digest)).await?;
        Ok(row.map(|row| {
            let manifest = Arc::new(StoredManifest {
                bytes: row.bytes,
                media_type: MediaType::new(&row.media_type),
                digest,
                last_use: LastUse::default(),
            });
            self.memory.manifests.insert(digest, manifest.clone());
            if self.memory.removals() != seen {
                self.memory.manifests.invalidate(&digest);
            }
            manifest
        }))
    }

    /// Removes a manifest from all repositories, with the tags that point at it; says what went with it and which blobs
    /// nobody needs any more. Durable when it returns.
    pub async fn remove_manifest(&self, digest: &Digest) -> Result<Removed, Error> {
        self.index.remove(vec![Change::remove_manifest(digest)]).await
    }

    /// Keeps a verified manifest for `repository`, with links to what it names, and points `tag` at it: one
    /// transaction, so that no tag ever points at a manifest that is not here. `class_of` tells the class of eviction
    /// of so many bytes.
    pub fn put_manifest(
        &self,
        repository: &Key,
        stored: &Arc<StoredManifest>,
        outline: &Manifest,
        tag: Option<&Tag>,
        class_of: impl FnOnce(u64) -> u8,
    ) {
        let digest = &stored.digest;
        let row = ManifestRow {
            media_type: stored.media_type.as_str().to_owned(),
            bytes: stored.bytes.clone(),
        };
        let mut changes = Vec::with_capacity(3 + outline.blobs.len() + outline.manifests.len());
        let mut needs = Outline::of(outline, stored.bytes.len() as u64);
        needs.class = class_of(needs.bytes);
        changes.push(Change::put_manifest(digest, &row, &needs, Timestamp::now()));
        let own = Link {
            size: stored.bytes.len() as u64,
            proof: Proof::Fetched,
            manifest: true,
        };
        changes.push(self.link_change(repository, digest, own));
        for (descriptors, manifest) in [(&outline.blobs, false), (&outline.manifests, true)] {
            let named = descriptors
                .iter()
                .filter_map(|named| self.named_change(repository, named, manifest));
            changes.extend(named);
        }
        self.memory.manifests.insert(*digest, stored.clone());
        if let Some(tag) = tag {
            let state = TagState {
                digest: *digest,
                validated_at: Timestamp::now(),
                gone_since: None,
            };
            changes.push(self.tag_change(repository, tag, state));
        }
        // A pull may be answered before this is durable (law 3); the writer tells of failures.
        self.index.submit(changes);
    }

    /// Changes that keep a manifest which an operator brought for `repository`, with links to it and to `blobs`, and to
    /// nothing else that it names. Memory has them at once; the caller commits.
    pub fn brought(
        &self,
        repository: &Key,
        stored: &Arc<StoredManifest>,
        outline: &Manifest,
        blobs: &[(Digest, u64)],
        class_of: impl FnOnce(u64) -> u8,
    ) -> Vec<Change> {
        let size = stored.bytes.len() as u64;
        let row = ManifestRow {
            media_type: stored.media_type.as_str().to_owned(),
            bytes: stored.bytes.clone(),
        };
        let mut needs = Outline::of(outline, size);
        needs.class = class_of(needs.bytes);
        let mut changes = vec![Change::put_manifest(
            &stored.digest,
            &row,
            &needs,
            Timestamp::now(),
        )];
        let own = Link {
            size,
            proof: Proof::Imported,
            manifest: true,
        };
        changes.push(self.link_change(repository, &stored.digest, own));
        for (digest, size) in blobs {
            let known = self.memory.links.get(&(repository.clone(), *digest));
            if known.is_some_and(|known| known.manifest) {
                // The same bytes are a manifest here: that must not become unservable.
                continue;
            }
            let link = Link {
                size: *size,
                proof: Proof::Imported,
                manifest: false,
            };
            changes.push(self.link_change(repository, digest, link));
        }
        self.memory.manifests.insert(stored.digest, stored.clone());
        changes
    }

    /// The change that points a tag at a manifest which an operator brought.
    pub fn tag_brought(&self, repository: &Key, tag: &Tag, state: TagState) -> Change {
        self.tag_change(repository, tag, state)
    }

    /// A link to something that a manifest names; none when it is of an algorithm that cannot be served.
    fn named_change(&self, repository: &Key, descriptor: &Descriptor, manifest: bool) -> Option<Change> {
        let digest: Digest = descriptor.digest.parse().ok()?;
        let known = self.memory.links.get(&(repository.clone(), digest));
        let same = |link: &Link| link.size == descriptor.size && link.manifest == manifest;
        if known.is_some_and(|link| link.proof != Proof::Named || same(&link)) {
            // Already proved, and better than by name: BuildKit's indexes name blobs as if they were manifests.
            return None;
        }
        let link = Link {
            size: descriptor.size,
            proof: Proof::Named,
            manifest,
        };
        Some(self.link_change(repository, &digest, link))
    }
}
