//! Whole blobs: opened once for many readers, and taken in. A row whose file is missing or short heals into a miss.

use std::fs::File;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::mapped::MappedFile;
use crate::oci::Digest;

use super::error::Error;
use super::index::{BlobRow, Change, Index};
use super::ingest::Ingest;
use super::layout::Layout;

/// Blobs kept open at a time: each costs a descriptor and a mapping.
const MOST_OPEN: u64 = 1024;
/// How long an unused one stays open.
const KEEP_OPEN: Duration = Duration::from_mins(1);

/// A blob that is here, whole and verified.
pub struct StoredBlob {
    file: Arc<File>,
    size: u64,
    mapped: OnceLock<Option<Arc<MappedFile>>>,
}

impl StoredBlob {
    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// The file mapped, once for all readers; `None` where it cannot be.
    pub(super) fn mapped(&self) -> Option<&Arc<MappedFile>> {
        self.mapped
            .get_or_init(|| MappedFile::new(self.file.clone(), self.size).ok())
            .as_ref()
    }
}

/// The blobs of the data folder.
pub struct Blobs {
    layout: Arc<Layout>,
    index: Arc<Index>,
    open: moka::sync::Cache<Digest, Arc<StoredBlob>>,
}

impl Blobs {
    pub(super) fn new(layout: Arc<Layout>, index: Arc<Index>) -> Self {
        let open = moka::sync::Cache::builder()
            .max_capacity(MOST_OPEN)
            .time_to_idle(KEEP_OPEN)
            .build();
        Self { layout, index, open }
    }

    /// A blob that is open already: the warm path, which touches nothing but memory.
    pub fn opened(&self, digest: &Digest) -> Option<Arc<StoredBlob>> {
        self.open.get(digest)
    }

    /// Opens a blob that is here.
    pub async fn open(&self, digest: &Digest) -> Result<Option<Arc<StoredBlob>>, Error> {
        if let Some(blob) = self.open.get(digest) {
            return Ok(Some(blob));
        }
        let (layout, wanted) = (self.layout.clone(), *digest);
        let found = self
            .index
            .read(move |index| {
                index
                    .blob(&wanted)?
                    .map(|row| open_file(&layout, &wanted, &row))
                    .transpose()
            })
            .await?;
        match found {
            None => Ok(None),
            Some(Some(blob)) => {
                self.open.insert(*digest, blob.clone());
                Ok(Some(blob))
            }
            Some(None) => {
                tracing::error!(%digest, "a blob's file is missing or short: it will be fetched again");
                self.index.commit(vec![Change::remove_blob(digest)]).await?;
                Ok(None)
            }
        }
    }

    /// Starts taking a blob in. Blocking.
    pub fn ingest(&self, digest: Digest) -> Result<Ingest, Error> {
        Ingest::create(self.layout.clone(), digest)
    }

    /// Makes a published blob known. Its file is durable already.
    pub async fn adopt(&self, digest: &Digest, size: u64) -> Result<(), Error> {
        let row = BlobRow {
            size,
            stored_at: Timestamp::now(),
        };
        self.index.commit(vec![Change::put_blob(digest, &row)]).await
    }
}

/// `None` when the file is not what its row says.
fn open_file(layout: &Layout, digest: &Digest, row: &BlobRow) -> Result<Option<Arc<StoredBlob>>, Error> {
    let path = layout.blob(digest);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::at(&path)(error)),
    };
    let size = file.metadata().map_err(Error::at(&path))?.len();
    if size != row.size {
        // The file stays where it is: the next one is renamed over it.
        return Ok(None);
    }
    Ok(Some(Arc::new(StoredBlob {
        file: Arc::new(file),
        size,
        mapped: OnceLock::new(),
    })))
}
