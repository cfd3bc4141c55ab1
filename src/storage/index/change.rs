//! What can be asked of the index's writer, as data. Made by `repository`, `storage::blobs` and maintenance; `apply`
//! says what each does to the tables.

use std::collections::HashSet;

use crate::clock::Timestamp;
use crate::oci::{Descriptor, Digest, Kind, Manifest, Reference, RepositoryName, Tag};

use super::admission::Admission;
use super::records::{
    BlobRow, LinkRow, ManifestRow, PinName, PinRow, ReferrersRow, RepositoryRow, TagRow, UnitKind, UseRow,
};

/// What the index has to know of a manifest beside its bytes.
#[derive(Clone, Debug)]
pub struct Outline {
    /// An image or an index.
    pub kind: UnitKind,
    /// The manifest's own size and, of an image, of all that it names, in bytes.
    pub bytes: u64,
    /// Class of value, 0 to 15.
    pub class: u8,
    /// What it names: config and layers, or children; each once.
    pub needs: Vec<Digest>,
}

impl Outline {
    /// The outline of `manifest`, which is `size` bytes long, in the lowest class. What is of an algorithm that cannot
    /// be served is left out.
    pub fn of(manifest: &Manifest, size: u64) -> Self {
        let (mut seen, mut needs, mut bytes) = (HashSet::new(), Vec::new(), size);
        for named in manifest.blobs.iter().chain(&manifest.manifests) {
            if let Ok(digest) = named.digest.parse::<Digest>()
                && seen.insert(digest)
            {
                needs.push(digest);
                bytes = bytes.saturating_add(named.size);
            }
        }
        let index = manifest.kind == Kind::Index;
        Self {
            kind: if index { UnitKind::Index } else { UnitKind::Image },
            bytes: if index { size } else { bytes },
            class: 0,
            needs,
        }
    }
}

/// A change of the index. Those of one submission become durable together.
#[derive(Debug)]
pub struct Change(pub(super) Action);

#[derive(Debug)]
pub(super) enum Action {
    Admit(Admission),
    PutBlob(Digest, BlobRow),
    RemoveBlob(Digest),
    RemoveUnheld(Digest),
    PutManifest(Digest, ManifestRow, Outline, Timestamp),
    RemoveManifest(Digest),
    PutTag(String, Tag, TagRow),
    RemoveTag(String, Tag),
    PutLink(String, Digest, LinkRow),
    RemoveLink(String, Digest),
    PutUploaded(Digest, BlobRow),
    RemoveHosted(String, Digest),
    PutReferrers(String, Digest, ReferrersRow),
    RemoveReferrers(String, Digest),
    AddReferrer(String, Digest, Descriptor),
    RemoveReferrer(String, Digest, Digest),
    PutRepository(RepositoryName, RepositoryRow),
    RemoveRepository(RepositoryName),
    PutIdentity(String, Vec<u8>),
    RemoveIdentity(String),
    Touch(Digest, Timestamp),
    Classify(Digest, u8),
    PutUse(String, Reference, UseRow),
    RemoveUse(String, Reference),
    PutPin(Digest, PinRow),
    RemovePin(Digest),
    PinTag(String, Tag, PinName, Timestamp),
    PinDigest(Digest, PinName, Timestamp),
    Unpin(String),
    PutMeta(String, Vec<u8>),
}

impl Change {
    /// The whole submission is applied only if the hosted repository `repository` that was made at `created_at` is there still,
    /// and then holds no more than `quota` bytes, or no more than before. Else it fails with
    /// [`Error::RepositoryGone`](crate::storage::Error::RepositoryGone) or [`Error::Quota`](crate::storage::Error::Quota), and
    /// nothing of it is written.
    pub fn admit(repository: &RepositoryName, created_at: Timestamp, quota: Option<u64>) -> Self {
        Self(Action::Admit(Admission {
            repository: repository.clone(),
            created_at,
            quota,
        }))
    }

    /// A blob's file is in place. Without a manifest here that needs it, it is a unit of its own.
    pub fn put_blob(digest: &Digest, row: &BlobRow) -> Self {
        Self(Action::PutBlob(*digest, row.clone()))
    }

    /// As [`Change::put_blob`], for one whose room is on the hosted account already: its link comes before this, in the same
    /// submission.
    pub fn put_uploaded(digest: &Digest, row: &BlobRow) -> Self {
        Self(Action::PutUploaded(*digest, row.clone()))
    }

    /// A hosted repository no longer holds a manifest: its tags there go, and the manifest itself when no other repository
    /// holds it.
    pub fn remove_hosted(repository: &str, digest: &Digest) -> Self {
        Self(Action::RemoveHosted(repository.to_owned(), *digest))
    }

    /// A blob's file is to go, or is not there. Its links go with it, unless a manifest that is here still names it.
    pub fn remove_blob(digest: &Digest) -> Self {
        Self(Action::RemoveBlob(*digest))
    }

    /// As [`Change::remove_blob`], if no repository may serve it.
    pub fn remove_unheld(digest: &Digest) -> Self {
        Self(Action::RemoveUnheld(*digest))
    }

    /// A manifest's bytes, used at `at`.
    pub fn put_manifest(digest: &Digest, row: &ManifestRow, outline: &Outline, at: Timestamp) -> Self {
        Self(Action::PutManifest(*digest, row.clone(), outline.clone(), at))
    }

    /// A manifest goes, with the tags that point at it, its links and its referrers. Blobs that nothing else needs
    /// become units of their own; links to what is not here go.
    pub fn remove_manifest(digest: &Digest) -> Self {
        Self(Action::RemoveManifest(*digest))
    }

    /// A tag points at a manifest.
    pub fn put_tag(repository: &str, tag: &Tag, row: &TagRow) -> Self {
        Self(Action::PutTag(repository.to_owned(), tag.clone(), row.clone()))
    }

    /// A tag is gone.
    pub fn remove_tag(repository: &str, tag: &Tag) -> Self {
        Self(Action::RemoveTag(repository.to_owned(), tag.clone()))
    }

    /// A repository may serve some content.
    pub fn put_link(repository: &str, digest: &Digest, row: &LinkRow) -> Self {
        Self(Action::PutLink(repository.to_owned(), *digest, row.clone()))
    }

    /// A repository may no longer serve some content.
    pub fn remove_link(repository: &str, digest: &Digest) -> Self {
        Self(Action::RemoveLink(repository.to_owned(), *digest))
    }

    /// Referrers as heard.
    pub fn put_referrers(repository: &str, subject: &Digest, row: &ReferrersRow) -> Self {
        Self(Action::PutReferrers(repository.to_owned(), *subject, row.clone()))
    }

    /// Referrers are forgotten.
    pub fn remove_referrers(repository: &str, subject: &Digest) -> Self {
        Self(Action::RemoveReferrers(repository.to_owned(), *subject))
    }

    /// One more referrer of `subject` in a hosted repository, or its descriptor anew.
    pub fn add_referrer(repository: &str, subject: &Digest, referrer: Descriptor) -> Self {
        Self(Action::AddReferrer(repository.to_owned(), *subject, referrer))
    }

    /// A referrer less.
    pub fn remove_referrer(repository: &str, subject: &Digest, referrer: &Digest) -> Self {
        Self(Action::RemoveReferrer(repository.to_owned(), *subject, *referrer))
    }

    /// A hosted repository exists, with these settings.
    pub fn put_repository(name: &RepositoryName, row: &RepositoryRow) -> Self {
        Self(Action::PutRepository(name.clone(), row.clone()))
    }

    /// A hosted repository, which holds nothing any more, goes.
    pub fn remove_repository(name: &RepositoryName) -> Self {
        Self(Action::RemoveRepository(name.clone()))
    }

    /// Somebody can log in, as `row` says, which belongs to `identities`.
    pub fn put_identity(name: &str, row: Vec<u8>) -> Self {
        Self(Action::PutIdentity(name.to_owned(), row))
    }

    /// Somebody can no longer log in.
    pub fn remove_identity(name: &str) -> Self {
        Self(Action::RemoveIdentity(name.to_owned()))
    }

    /// A unit was used: its last use moves forward, never back. Nothing, when it is not here.
    pub fn touch(digest: &Digest, at: Timestamp) -> Self {
        Self(Action::Touch(*digest, at))
    }

    /// A unit is of another class of value. Nothing, when it is not here.
    pub fn classify(digest: &Digest, class: u8) -> Self {
        Self(Action::Classify(*digest, class))
    }

    /// Clients pulled something.
    pub fn put_use(repository: &str, reference: &Reference, row: UseRow) -> Self {
        Self(Action::PutUse(repository.to_owned(), reference.clone(), row))
    }

    /// That they did is forgotten.
    pub fn remove_use(repository: &str, reference: &Reference) -> Self {
        Self(Action::RemoveUse(repository.to_owned(), reference.clone()))
    }

    /// A manifest or blob is never to be evicted.
    pub fn put_pin(digest: &Digest, row: &PinRow) -> Self {
        Self(Action::PutPin(*digest, row.clone()))
    }

    /// What a tag points at is never to be evicted, and what it points at later instead, when it moves. `listed`: a list of
    /// the configuration says so, not an operator, whose word stands. Nothing, when the tag is not here.
    pub fn pin_tag(repository: &str, tag: &Tag, listed: bool, platforms: &[String], at: Timestamp) -> Self {
        let name = PinName {
            name: format!("{repository}:{tag}"),
            listed,
            platforms: platforms.to_vec(),
        };
        Self(Action::PinTag(repository.to_owned(), tag.clone(), name, at))
    }

    /// A manifest of a repository is never to be evicted. Nothing, when it is not here.
    pub fn pin_digest(
        repository: &str,
        digest: &Digest,
        listed: bool,
        platforms: &[String],
        at: Timestamp,
    ) -> Self {
        let name = PinName {
            name: format!("{repository}@{digest}"),
            listed,
            platforms: platforms.to_vec(),
        };
        Self(Action::PinDigest(*digest, name, at))
    }

    /// A name ([`PinName`](super::PinName)) pins nothing any more.
    pub fn unpin(name: &str) -> Self {
        Self(Action::Unpin(name.to_owned()))
    }

    /// A pin is taken away, by whatever names.
    pub fn remove_pin(digest: &Digest) -> Self {
        Self(Action::RemovePin(*digest))
    }

    /// Something small to be remembered under a name of the caller's.
    pub fn put_meta(name: &str, value: Vec<u8>) -> Self {
        Self(Action::PutMeta(name.to_owned(), value))
    }
}

/// What went with the blobs and manifests that a submission removed, so that nobody goes on answering from memory. Tags
/// and links that it removed by name are not listed: who does that knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Manifests.
    pub manifests: Vec<Digest>,
    /// Links: repository and content.
    pub links: Vec<(String, Digest)>,
    /// Tags: repository and tag.
    pub tags: Vec<(String, Tag)>,
    /// Blobs that no manifest here needs any more.
    pub loose: Vec<Digest>,
    /// Indexes that have no child here any more.
    pub childless: Vec<Digest>,
    /// Bytes of cached blobs that are hosted now, in blocks.
    pub hosted_bytes: u64,
    /// Bytes of blobs that were hosted, and are no longer.
    pub unhosted_bytes: u64,
}

impl Removed {
    /// Whether memory has nothing to forget.
    pub fn is_empty(&self) -> bool {
        self.manifests.is_empty()
            && self.links.is_empty()
            && self.tags.is_empty()
            && self.hosted_bytes == 0
            && self.unhosted_bytes == 0
    }
}
