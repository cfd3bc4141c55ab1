//! Why a hosted repository does not do what it was asked for. `api` gives each its code of the distribution spec.

use crate::oci::{Digest, ManifestError};
use crate::storage::Error as StorageError;

/// A refusal, or a failure of the disk.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No such repository.
    #[error("there is no repository of this name")]
    NameUnknown,
    /// It holds manifests.
    #[error("the repository still holds images")]
    NotEmpty,
    /// No such tag or manifest.
    #[error("there is no such manifest in this repository")]
    ManifestUnknown,
    /// No such blob.
    #[error("there is no such blob in this repository")]
    BlobUnknown,
    /// No such upload session, or one of somebody else.
    #[error("there is no such upload: it has ended, or was given up for too long")]
    UploadUnknown,
    /// So many upload sessions are open already, for one identity or address.
    #[error("{0} uploads of yours are open, which is the most: end or cancel one of them first")]
    TooManyUploads(usize),
    /// Another request works on the upload session.
    #[error("another request works on this upload")]
    UploadBusy,
    /// The next byte of an upload is another one.
    #[error("the upload goes on at byte {0}")]
    UploadRange(u64),
    /// Another chunk follows one that was shorter than so many bytes.
    #[error(
        "the chunk before was shorter than OCI-Chunk-Min-Length ({0} bytes), so nothing can follow it: end the upload, or begin \
         another one"
    )]
    ShortChunk(u64),
    /// The bytes are those of another digest.
    #[error("the content is that of {0}")]
    DigestInvalid(Box<Digest>),
    /// No manifest that could be kept.
    #[error(transparent)]
    ManifestInvalid(#[from] ManifestError),
    /// A manifest names what the repository does not hold.
    #[error("the manifest names content that was not pushed to this repository: {}", list(.0))]
    Dangling(Vec<Digest>),
    /// The tag is immutable, and points elsewhere.
    #[error("the tag {0} exists, and tags of this repository are immutable")]
    TagImmutable(String),
    /// A manifest of the repository needs the blob.
    #[error("an image of this repository needs the blob")]
    BlobNeeded,
    /// The repository's quota is used up.
    #[error("the repository's quota of {0} bytes is used up")]
    Quota(u64),
    /// `storage.hosted_max_size`, or the disk, leaves no room.
    #[error("there is no room for it")]
    NoRoom,
    /// Our own disk or index.
    #[error(transparent)]
    Storage(StorageError),
}

/// The first few, for people.
fn list(digests: &[Digest]) -> String {
    const FEW: usize = 5;
    let mut shown: Vec<_> = digests.iter().take(FEW).map(ToString::to_string).collect();
    if digests.len() > FEW {
        shown.push(format!("and {} more", digests.len() - FEW));
    }
    shown.join(", ")
}
