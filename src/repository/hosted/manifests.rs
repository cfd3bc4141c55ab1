//! Manifests and tags of hosted repositories: taken in verbatim once all that they name is here, and removed.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::{LastUse, Timestamp};
use crate::oci::{Algorithm, Descriptor, Digest, Manifest, ManifestError, MediaType, Reference, Tag};
use crate::repository::immutability::TagChange;
use crate::repository::{Key, Link, StoredManifest, TagState};
use crate::storage::{Change, Hasher, LinkRow, ManifestRow, Outline, Proof, TagRow};

use super::blobs::detached;
use super::{Error, Hosted, HostedRepository};

/// A manifest that a client puts.
pub struct Pushing {
    /// The tag or digest that it is put as.
    pub reference: Reference,
    /// Tags that are to point at it too.
    pub tags: Vec<Tag>,
    /// The type that the client says it is.
    pub media_type: Option<MediaType>,
    /// Its bytes.
    pub bytes: Bytes,
}

/// What a push did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The manifest.
    pub digest: Digest,
    /// What it refers to, which its client is told that we list.
    pub subject: Option<Digest>,
}

impl Hosted {
    /// A manifest of the repository, by tag or digest.
    ///
    /// # Errors
    /// `ManifestUnknown`.
    pub async fn manifest(
        &self,
        repository: &HostedRepository,
        reference: &Reference,
    ) -> Result<Arc<StoredManifest>, Error> {
        let repositories = &self.shared.repositories;
        let digest = match reference {
            Reference::Digest(digest) => *digest,
            Reference::Tag(tag) => {
                let state = repositories.tag(&repository.key, tag).await?;
                state.ok_or(Error::ManifestUnknown)?.digest
            }
        };
        let link = self.link(&repository.key, &digest).await?;
        if !link.is_some_and(|link| link.manifest) {
            return Err(Error::ManifestUnknown);
        }
        let found = repositories.manifest(&digest).await?;
        found.ok_or_else(|| {
            tracing::error!(repository = %repository.name, %digest, "a manifest that was pushed here is lost");
            Error::ManifestUnknown
        })
    }

    /// Takes a manifest in, durably, and points its tags at it.
    ///
    /// # Errors
    /// `ManifestInvalid`, `DigestInvalid`, `Dangling`, `TagImmutable`, `Quota`, and `NameUnknown` when the repository went
    /// meanwhile: then nothing was changed.
    pub async fn push_manifest(
        &self,
        repository: &HostedRepository,
        pushing: Pushing,
    ) -> Result<Pushed, Error> {
        let manifest = Manifest::of_its_word(&pushing.bytes, pushing.media_type.as_ref())?;
        let algorithm = match &pushing.reference {
            Reference::Digest(digest) => digest.algorithm(),
            Reference::Tag(_) => Algorithm::Sha256,
        };
        let digest = Hasher::digest(algorithm, &pushing.bytes);
        let mut tags: BTreeSet<Tag> = pushing.tags.into_iter().collect();
        match pushing.reference {
            Reference::Digest(named) if named != digest => return Err(Error::DigestInvalid(digest.into())),
            Reference::Digest(_) => {}
            Reference::Tag(tag) => {
                tags.insert(tag);
            }
        }
        let subject = subject_of(&manifest)?;
        let named = manifest.blobs.iter().chain(&manifest.manifests);
        let named = named.filter_map(|named| named.digest.parse().ok());
        let named = self.shared.naming.name(&repository.key, named);
        self.check_named(repository, &manifest).await?;
        let known = self.link(&repository.key, &digest).await?;
        if known.is_none() {
            self.within_quota(repository, pushing.bytes.len() as u64).await?;
        }
        let stored = Arc::new(StoredManifest {
            bytes: pushing.bytes,
            media_type: manifest.media_type.clone(),
            digest,
            last_use: LastUse::default(),
        });
        let (its, repository) = (self.clone(), repository.clone());
        let work = async move {
            // In their order, so that two pushes never wait for each other.
            let mut turns = Vec::new();
            for tag in &tags {
                turns.push(
                    its.shared
                        .moving
                        .claim(&(repository.key.clone(), tag.clone()))
                        .await,
                );
                its.may_point(&repository, tag, &digest).await?;
            }
            // A deletion of the same manifest comes before this or after it, and never in between.
            let pair = (repository.key.clone(), digest);
            let turn = its.shared.condemned.claim(&pair).await;
            let known = its.link(&repository.key, &digest).await?;
            its.keep(&repository, &stored, &manifest, subject, &tags, known)
                .await?;
            drop((turn, turns, named));
            Ok(Pushed { digest, subject })
        };
        detached(work).await
    }

    /// Removes a tag. What it pointed at stays.
    ///
    /// # Errors
    /// `ManifestUnknown`.
    pub async fn delete_tag(&self, repository: &HostedRepository, tag: &Tag) -> Result<(), Error> {
        let (its, key, tag) = (self.clone(), repository.key.clone(), tag.clone());
        detached(async move {
            let _turn = its.shared.moving.claim(&(key.clone(), tag.clone())).await;
            let repositories = &its.shared.repositories;
            if repositories.tag(&key, &tag).await?.is_none() {
                return Err(Error::ManifestUnknown);
            }
            Ok(repositories.remove_tag(&key, &tag).await?)
        })
        .await
    }

    /// Removes a manifest from the repository, with the tags that point at it.
    ///
    /// # Errors
    /// `ManifestUnknown`.
    pub async fn delete_manifest(&self, repository: &HostedRepository, digest: &Digest) -> Result<(), Error> {
        let (its, key, digest) = (self.clone(), repository.key.clone(), *digest);
        detached(async move {
            let _turn = its.shared.condemned.claim(&(key.clone(), digest)).await;
            its.drop_manifest(&key, &digest).await
        })
        .await
    }

    /// The same, for who has claimed it.
    pub(super) async fn drop_manifest(&self, key: &Key, digest: &Digest) -> Result<(), Error> {
        let link = self.link(key, digest).await?;
        if !link.is_some_and(|link| link.manifest) {
            return Err(Error::ManifestUnknown);
        }
        let changes = self.removal(key, digest).await?;
        Ok(self.shared.index.commit(changes).await?)
    }

    /// What takes a manifest out of a repository.
    pub(super) async fn removal(&self, key: &Key, digest: &Digest) -> Result<Vec<Change>, Error> {
        let mut changes = vec![Change::remove_hosted(key, digest)];
        // One that is lost can be removed all the same.
        if let Some(stored) = self.shared.repositories.manifest(digest).await? {
            let manifest = Manifest::parse(&stored.bytes, Some(&stored.media_type)).ok();
            if let Some(Ok(Some(subject))) = manifest.as_ref().map(subject_of) {
                changes.push(Change::remove_referrer(key, &subject, digest));
            }
        }
        Ok(changes)
    }

    /// Whether all that a manifest names is here; from here on it stays for the grace period.
    async fn check_named(&self, repository: &HostedRepository, manifest: &Manifest) -> Result<(), Error> {
        let key = &repository.key;
        let mut missing = Vec::new();
        for named in manifest.blobs.iter().chain(&manifest.manifests) {
            // Foreign layers are where their URLs say.
            if !named.urls.is_empty() {
                continue;
            }
            let digest = digest_of(named)?;
            self.lease(key, &digest).await;
            if self.link(key, &digest).await?.is_none() {
                self.forget_lease(key, &digest);
                if !missing.contains(&digest) {
                    missing.push(digest);
                }
            }
        }
        if missing.is_empty() || repository.settings.sparse {
            return Ok(());
        }
        Err(Error::Dangling(missing))
    }

    async fn may_point(
        &self,
        repository: &HostedRepository,
        tag: &Tag,
        digest: &Digest,
    ) -> Result<(), Error> {
        let state = self.shared.repositories.tag(&repository.key, tag).await?;
        let present = state.map(|state| state.digest);
        match repository.settings.tags.judge(tag, present.as_ref(), digest) {
            TagChange::Refused => Err(Error::TagImmutable(tag.to_string())),
            TagChange::New | TagChange::Same | TagChange::Moved => Ok(()),
        }
    }

    /// One transaction; memory hears of it afterwards.
    async fn keep(
        &self,
        repository: &HostedRepository,
        stored: &Arc<StoredManifest>,
        manifest: &Manifest,
        subject: Option<Digest>,
        tags: &BTreeSet<Tag>,
        known: Option<Link>,
    ) -> Result<(), Error> {
        let (digest, size, now) = (stored.digest, stored.bytes.len() as u64, Timestamp::now());
        let row = ManifestRow {
            media_type: stored.media_type.as_str().to_owned(),
            bytes: stored.bytes.clone(),
        };
        let key = &repository.key;
        let mut changes = vec![repository.admission()];
        if !known.is_some_and(|link| link.manifest) {
            let link = LinkRow {
                size,
                proof: Proof::Pushed,
                manifest: true,
                at: Some(now),
            };
            changes.push(Change::put_link(key, &digest, &link));
        }
        changes.push(Change::put_manifest(
            &digest,
            &row,
            &Outline::of(manifest, size),
            now,
        ));
        if let Some(subject) = &subject {
            changes.push(Change::add_referrer(key, subject, entry_of(stored, manifest)));
        }
        let state = TagState {
            digest,
            validated_at: now,
            gone_since: None,
        };
        for tag in tags {
            let row = TagRow {
                digest: digest.to_string(),
                validated_at: now,
                gone_since: None,
            };
            changes.push(Change::put_tag(key, tag, &row));
        }
        self.shared.index.commit(changes).await?;
        let memory = &self.shared.repositories.memory;
        let link = Link {
            size,
            proof: Proof::Pushed,
            manifest: true,
        };
        memory.links.insert((key.clone(), digest), link);
        memory.manifests.insert(digest, stored.clone());
        for tag in tags {
            memory.tags.insert((key.clone(), tag.clone()), state.into());
        }
        Ok(())
    }
}

/// The entry of a manifest in the list of what refers to its subject (distribution spec, "Listing Referrers").
pub(super) fn entry_of(stored: &StoredManifest, manifest: &Manifest) -> Descriptor {
    Descriptor {
        media_type: stored.media_type.as_str().to_owned(),
        digest: stored.digest.to_string(),
        size: stored.bytes.len() as u64,
        artifact_type: manifest.artifact_type.clone(),
        annotations: manifest.annotations.clone(),
        urls: Vec::new(),
        platform: None,
    }
}

fn subject_of(manifest: &Manifest) -> Result<Option<Digest>, Error> {
    manifest.subject.as_ref().map(digest_of).transpose()
}

fn digest_of(named: &Descriptor) -> Result<Digest, Error> {
    let malformed = |error| ManifestError::Malformed(format!("{}: {error}", named.digest));
    Ok(named.digest.parse().map_err(malformed)?)
}
