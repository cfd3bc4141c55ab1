//! Manifests: kept verbatim by digest, served by the repositories that link them.

use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::oci::{Descriptor, Digest, Manifest, MediaType, Tag};
use crate::storage::{Change, Error, ManifestRow, Proof};

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
}

impl Repositories {
    /// A manifest that is here, whichever repository fetched it: the caller checks the link.
    pub async fn manifest(&self, digest: &Digest) -> Result<Option<Arc<StoredManifest>>, Error> {
        if let Some(manifest) = self.manifests.get(digest) {
            return Ok(Some(manifest));
        }
        let digest = *digest;
        let row = self.index.read(move |index| index.manifest(&digest)).await?;
        Ok(row.map(|row| {
            let manifest = Arc::new(StoredManifest {
                bytes: row.bytes,
                media_type: MediaType::new(&row.media_type),
                digest,
            });
            self.manifests.insert(digest, manifest.clone());
            manifest
        }))
    }

    /// Removes a manifest, whichever repositories serve it: they fetch it again when it is asked for. Whether it was here.
    pub async fn remove_manifest(&self, digest: &Digest) -> Result<bool, Error> {
        let was_here = self.manifest(digest).await?.is_some();
        self.index.commit(vec![Change::remove_manifest(digest)]).await?;
        self.manifests.invalidate(digest);
        Ok(was_here)
    }

    /// Keeps a verified manifest for `repository`, with links to what it names, and points `tag` at it: one
    /// transaction, so that no tag ever points at a manifest that is not here.
    pub fn put_manifest(
        &self,
        repository: &Key,
        stored: &Arc<StoredManifest>,
        outline: &Manifest,
        tag: Option<&Tag>,
    ) {
        let digest = &stored.digest;
        let row = ManifestRow {
            media_type: stored.media_type.as_str().to_owned(),
            bytes: stored.bytes.clone(),
        };
        let mut changes = Vec::with_capacity(3 + outline.blobs.len() + outline.manifests.len());
        changes.push(Change::put_manifest(digest, &row));
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
        self.manifests.insert(*digest, stored.clone());
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

    /// A link to something that a manifest names; none when it is of an algorithm that cannot be served.
    fn named_change(&self, repository: &Key, descriptor: &Descriptor, manifest: bool) -> Option<Change> {
        let digest: Digest = descriptor.digest.parse().ok()?;
        let known = self.links.get(&(repository.clone(), digest));
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
