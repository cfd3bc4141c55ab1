//! What each repository holds: links, manifests, tags and referrers, answered from memory when warm.
//!
//! A repository is named by its key, upstream prefix and name: `docker-hub/library/nginx`. Called by `cache`.

pub mod hosted;
pub mod immutability;
pub mod lifecycle;
mod manifests;
mod memory;
mod tags;

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::oci::{Descriptor, Digest};
use crate::storage::{Change, Error, Index, LinkRow, Proof, ReferrersRow};
use memory::Memory;

pub use manifests::StoredManifest;
pub use tags::TagState;

/// A repository's key. Cheap to clone.
pub type Key = Arc<str>;

/// All repositories.
pub struct Repositories {
    index: Arc<Index>,
    memory: Arc<Memory>,
}

/// Content that a repository may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Size in bytes.
    pub size: u64,
    /// How we know.
    pub proof: Proof,
    /// Whether it is a manifest: not to be had as a blob.
    pub manifest: bool,
}

impl Repositories {
    /// Rooms over `index`. What is removed from it is forgotten here too, whoever removed it.
    pub fn new(index: Arc<Index>) -> Self {
        let memory = Arc::new(Memory::new());
        let its = memory.clone();
        index.on_removed(move |removed| its.forget(removed));
        Self { index, memory }
    }

    /// The link of `repository` to `digest`, if it may serve it.
    pub async fn link(&self, repository: &Key, digest: &Digest) -> Result<Option<Link>, Error> {
        let key = (repository.clone(), *digest);
        if let Some(link) = self.memory.links.get(&key) {
            return Ok(Some(link));
        }
        let seen = self.memory.removals();
        let (repository, digest) = key.clone();
        let row = self
            .index
            .read(move |index| index.link(&repository, &digest))
            .await?;
        let link = row.map(|row| Link {
            size: row.size,
            proof: row.proof,
            manifest: row.manifest,
        });
        // A newer one may have come while the row was read.
        Ok(link.map(|link| {
            let link = self.memory.links.entry(key.clone()).or_insert(link).into_value();
            if self.memory.removals() != seen {
                self.memory.links.invalidate(&key);
            }
            link
        }))
    }

    /// Forgets that `repository` may serve `digest`: it has to be proved again.
    pub fn remove_link(&self, repository: &Key, digest: &Digest) {
        self.memory.links.invalidate(&(repository.clone(), *digest));
        self.index.submit(vec![Change::remove_link(repository, digest)]);
    }

    /// Forgets the referrers of `subject`.
    pub fn remove_referrers(&self, repository: &Key, subject: &Digest) {
        self.index
            .submit(vec![Change::remove_referrers(repository, subject)]);
    }

    /// Remembers that `repository` may serve `digest`.
    pub fn put_link(&self, repository: &Key, digest: &Digest, link: Link) {
        let known = self.memory.links.get(&(repository.clone(), *digest));
        if known.is_some_and(|known| known.manifest && !link.manifest) {
            // Some registries give manifests out as blobs too: that must not make a manifest unservable.
            return;
        }
        let change = self.link_change(repository, digest, link);
        // Lost in a crash, a link is proved again; so nobody waits for the disk here.
        self.index.submit(vec![change]);
    }

    fn link_change(&self, repository: &Key, digest: &Digest, link: Link) -> Change {
        self.memory.links.insert((repository.clone(), *digest), link);
        let Link {
            size,
            proof,
            manifest,
        } = link;
        Change::put_link(
            repository,
            digest,
            &LinkRow {
                size,
                proof,
                manifest,
                at: None,
            },
        )
    }

    /// Waits until what was submitted is in the index, for questions that memory does not answer.
    async fn written(&self) {
        // A writer that has stopped writes nothing more.
        let _ = self.index.commit(Vec::new()).await;
    }

    /// The referrers of `subject` as last heard, and when.
    pub async fn referrers(
        &self,
        repository: &Key,
        subject: &Digest,
    ) -> Result<Option<(Vec<Descriptor>, Timestamp)>, Error> {
        self.written().await;
        let (repository, subject) = (repository.clone(), *subject);
        let row = self
            .index
            .read(move |index| index.referrers(&repository, &subject))
            .await?;
        Ok(row.map(|row| (row.descriptors, row.validated_at)))
    }

    /// Remembers the referrers of `subject`.
    pub fn put_referrers(&self, repository: &Key, subject: &Digest, descriptors: Vec<Descriptor>) {
        let row = ReferrersRow {
            descriptors,
            validated_at: Timestamp::now(),
        };
        self.index
            .submit(vec![Change::put_referrers(repository, subject, &row)]);
    }
}
