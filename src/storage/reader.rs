//! Reading a blob, whole or still arriving, by one interface. `api` turns it into a response body.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use crate::mapped::MappedFile;
use crate::oci::Span;

use super::held::StoredBlob;
use super::tail::{Found, Tail};

/// Bytes handed over at a time: large enough for few system calls, small enough for one buffer a client.
pub(super) const PIECE: u64 = 256 * 1024;

/// Mapping pays from here on; below it a read costs less.
const WORTH_MAPPING: u64 = 64 * 1024;

/// Why reading stopped before the end. The response has to be broken off.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The download that feeds the file failed.
    #[error("{0}")]
    Broken(Arc<str>),
    /// The disk failed.
    #[error("reading a blob: {0}")]
    Io(Arc<std::io::Error>),
}

impl ReadError {
    /// Whether the file is short, or the disk does not give it back; and no shortage of memory or descriptors.
    fn is_of_the_disk(&self) -> bool {
        let Self::Io(error) = self else { return false };
        error.kind() == std::io::ErrorKind::UnexpectedEof
            || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
    }
}

impl From<std::io::Error> for ReadError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// A blob to read.
pub enum BlobReader {
    /// Whole and verified.
    Stored(Arc<StoredBlob>),
    /// Arriving.
    Growing(Tail),
}

impl BlobReader {
    /// Size of the whole in bytes, when it is known.
    pub fn size(&self) -> Option<u64> {
        match self {
            Self::Stored(blob) => Some(blob.size()),
            Self::Growing(tail) => tail.size(),
        }
    }

    /// Whether the blob is kept; else it only passes through, since there is no room for it.
    pub fn is_kept(&self) -> bool {
        match self {
            Self::Stored(_) => true,
            Self::Growing(tail) => tail.growing.is_kept(),
        }
    }

    /// Says which part will be read next, once for each part before its first read. `bounded`: the client named its
    /// end (`a-b`, `-n`), so that its bytes may be given before the blob is verified. Whether they may be so.
    pub fn want(&mut self, span: Span, bounded: bool) -> bool {
        match self {
            Self::Stored(_) => false,
            Self::Growing(tail) => tail.want(span, bounded),
        }
    }

    /// Waits until the size is known.
    pub async fn settle_size(&mut self) -> Result<u64, ReadError> {
        match self {
            Self::Stored(blob) => Ok(blob.size()),
            Self::Growing(tail) => tail.settle_size().await,
        }
    }

    /// The next piece at `position`, ending before `end` (`None`: the blob's end): waits for bytes that have yet to
    /// arrive. `None` at the end. With `mapped`, large pieces are slices of the mapped file, for plain HTTP/1 only.
    pub async fn read(
        &mut self,
        position: u64,
        end: Option<u64>,
        mapped: bool,
    ) -> Result<Option<Bytes>, ReadError> {
        let piece = self.read_piece(position, end, mapped).await;
        if let (Err(error), Self::Stored(blob)) = (&piece, &self)
            && error.is_of_the_disk()
        {
            tracing::error!(%error, position, "a stored blob cannot be read: it will be fetched again");
            blob.suspect();
        }
        piece
    }

    async fn read_piece(
        &mut self,
        position: u64,
        end: Option<u64>,
        mapped: bool,
    ) -> Result<Option<Bytes>, ReadError> {
        if end.is_some_and(|end| position >= end) {
            return Ok(None);
        }
        let (until, size) = match self {
            Self::Stored(blob) => (blob.size(), Some(blob.size())),
            Self::Growing(tail) => match tail.find(position, end).await? {
                Some(Found::File { until, size }) => (until, size),
                Some(Found::Memory(mut bytes)) => {
                    let most = PIECE.min(end.map_or(u64::MAX, |end| end - position));
                    bytes.truncate(usize::try_from(most).unwrap_or(usize::MAX));
                    return Ok(Some(bytes));
                }
                None => return Ok(None),
            },
        };
        let until = until.min(end.unwrap_or(u64::MAX)).min(position + PIECE);
        if until <= position {
            return Ok(None);
        }
        if mapped
            && let Some(size) = size.filter(|size| *size >= WORTH_MAPPING)
            && let Some(map) = self.map(size)
        {
            if !map.is_resident(position..until) {
                let map = map.clone();
                blocking(move || map.read_ahead(position..until)).await?;
            }
            return Ok(Some(map.slice(position..until)?));
        }
        let file = self
            .file()
            .ok_or_else(|| ReadError::Broken("there is no file".into()))?;
        let bytes = blocking(move || {
            let mut buffer = vec![0; (until - position) as usize];
            file.read_exact_at(&mut buffer, position)?;
            Ok(Bytes::from(buffer))
        })
        .await?;
        Ok(Some(bytes))
    }

    fn map(&self, size: u64) -> Option<&Arc<MappedFile>> {
        match self {
            Self::Stored(blob) => blob.mapped(),
            Self::Growing(tail) => tail.growing.mapped(size),
        }
    }

    fn file(&self) -> Option<Arc<File>> {
        match self {
            Self::Stored(blob) => Some(blob.file().clone()),
            Self::Growing(tail) => tail.growing.file.clone(),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, ReadError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(ReadError::Broken("reading was given up".into())),
    }
}
