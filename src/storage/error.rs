//! What can go wrong below: the disk, the index, or a data folder that is not ours to use.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::oci::Digest;

use super::space::NoRoom;

/// A failure of storage. Cheap to clone, since many waiters share one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What it said.
        source: Arc<io::Error>,
    },
    /// The index refused.
    #[error("index: {0}")]
    Index(String),
    /// The index's file is not what it should be.
    #[error(
        "index: its file is damaged ({0}): `wharfinger rebuild-index` makes a new one of what the data folder holds"
    )]
    Damaged(String),
    /// Another daemon uses the data folder.
    #[error("{}: another wharfinger is using this data folder; stop it, or give this one its own storage.data_dir", .0.display())]
    Locked(PathBuf),
    /// The folder holds something else than our data.
    #[error("{}: not empty and not a wharfinger data folder (its marker {marker} is missing: is the right volume mounted?)", path.display(), marker = super::layout::MARKER)]
    Foreign {
        /// The folder.
        path: PathBuf,
    },
    /// The folder was written by a version with another format.
    #[error("{}: data format {found}, but this version reads format {expected} and older ones", path.display())]
    Format {
        /// The folder.
        path: PathBuf,
        /// What its marker says.
        found: String,
        /// What this version writes.
        expected: u64,
    },
    /// The bytes are not those of the digest.
    #[error("wrong content: expected {expected}, received {actual}")]
    WrongDigest {
        /// What was asked for.
        expected: Box<Digest>,
        /// What came.
        actual: Box<Digest>,
    },
    /// Most blobs have lost their files.
    #[error("{}: of {looked} blobs that were looked for, {lost} have no file: is the right volume mounted? If they are really lost, start once with --accept-loss, and they will be fetched again", path.display())]
    Lost {
        /// The folder.
        path: PathBuf,
        /// Rows that were looked at.
        looked: usize,
        /// Rows without file.
        lost: usize,
    },
    /// The cap or the disk leaves no room.
    #[error("no room ({} bytes are missing)", .0.missing)]
    NoRoom(NoRoom),
    /// A repository would hold more than this many bytes, which are its quota.
    #[error("the repository's quota of {0} bytes is used up")]
    Quota(u64),
    /// So many upload sessions are open for one already.
    #[error("{0} uploads are open")]
    TooManyUploads(usize),
    /// What was to be put into a hosted repository found it gone, or another one of its name.
    #[error("the repository is no more")]
    RepositoryGone,
    /// More or fewer bytes than announced.
    #[error("wrong size: expected {expected} bytes, received {actual}")]
    WrongSize {
        /// What was announced.
        expected: u64,
        /// What came (at least).
        actual: u64,
    },
}

impl Error {
    /// Whether the index was well, and did not let something in.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Quota(_) | Self::RepositoryGone)
    }

    /// Names the path that an operation failed on.
    pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io {
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }

    /// Wraps any of redb's errors.
    pub(super) fn index(error: impl Into<redb::Error>) -> Self {
        Self::Index(error.into().to_string())
    }
}
