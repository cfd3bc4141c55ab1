//! Taking a blob in: append, hash, verify, and publish by law 3's order. Called by `cache`'s fills.
//!
//! All methods block: they run on blocking threads.

use std::fs::{self, File};
use std::io::{IoSlice, Write};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::oci::Digest;

use super::error::Error;
use super::hasher::Hasher;
use super::layout::{Layout, sync_folder};
use super::tail::{Growing, Tail};

/// A blob on its way in. Dropped before it is published, it tells its readers and leaves nothing behind.
pub struct Ingest {
    layout: Arc<Layout>,
    digest: Digest,
    path: PathBuf,
    growing: Arc<Growing>,
    hasher: Option<Hasher>,
    written: u64,
    size: Option<u64>,
    published: bool,
}

impl Ingest {
    pub(super) fn create(layout: Arc<Layout>, digest: Digest) -> Result<Self, Error> {
        let path = layout.partial(&digest);
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(Error::at(&path))?;
        Ok(Self {
            layout,
            digest,
            path,
            growing: Growing::new(Arc::new(file)),
            hasher: Some(Hasher::new(digest.algorithm())),
            written: 0,
            size: None,
            published: false,
        })
    }

    /// What readers read from.
    pub fn growing(&self) -> &Arc<Growing> {
        &self.growing
    }

    /// A new reader.
    pub fn tail(&self) -> Tail {
        self.growing.tail()
    }

    /// Bytes taken so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The size of the whole, once announced.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Tells the size of the whole to readers.
    pub fn announce_size(&mut self, size: u64) {
        self.size = Some(size);
        self.growing
            .progress
            .send_modify(|progress| progress.size = Some(size));
    }

    /// Fails when the disk has no room for the announced size: better before a response than in its middle.
    pub fn check_room(&self) -> Result<(), Error> {
        let room = rustix::fs::fstatvfs(&self.growing.file)
            .map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        if self.size.is_some_and(|size| size > room) {
            return Err(Error::at(&self.path)(std::io::ErrorKind::StorageFull.into()));
        }
        Ok(())
    }

    /// Takes more bytes; readers see them as soon as they are written.
    pub fn append(&mut self, pieces: &[Bytes]) -> Result<(), Error> {
        let more: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        if let Some(size) = self.size
            && self.written + more > size
        {
            return Err(Error::WrongSize {
                expected: size,
                actual: self.written + more,
            });
        }
        write_all(&self.growing.file, pieces).map_err(Error::at(&self.path))?;
        self.written += more;
        // Readers go on while we hash: the last byte waits for the result in any case.
        self.growing
            .progress
            .send_modify(|progress| progress.written = self.written);
        if let Some(hasher) = &mut self.hasher {
            for piece in pieces {
                hasher.update(piece);
            }
        }
        Ok(())
    }

    /// Compares size and digest; when they match, readers get the last byte.
    pub fn verify(&mut self) -> Result<u64, Error> {
        if let Some(expected) = self.size
            && expected != self.written
        {
            return Err(Error::WrongSize {
                expected,
                actual: self.written,
            });
        }
        let Some(hasher) = self.hasher.take() else {
            return Ok(self.written);
        };
        let actual = hasher.finish();
        if actual != self.digest {
            return Err(Error::WrongDigest {
                expected: self.digest.into(),
                actual: actual.into(),
            });
        }
        self.size = Some(self.written);
        self.growing.progress.send_modify(|progress| {
            progress.size = Some(self.written);
            progress.end = Some(Ok(()));
        });
        Ok(self.written)
    }

    /// Puts the verified file in its place, durably. The index row comes after this.
    pub fn publish(&mut self) -> Result<(), Error> {
        if self.hasher.is_some() {
            self.verify()?;
        }
        let folder = self.layout.ready_blob_folder(&self.digest)?;
        let target = self.layout.blob(&self.digest);
        self.growing.file.sync_all().map_err(Error::at(&self.path))?;
        fs::rename(&self.path, &target).map_err(Error::at(&target))?;
        self.published = true;
        sync_folder(&folder)
    }

    /// Gives up: readers are broken off with `reason`, unless they already have a verified blob.
    pub fn fail(&mut self, reason: &str) {
        self.growing.progress.send_modify(|progress| {
            progress.end.get_or_insert_with(|| Err(reason.into()));
        });
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if !self.published {
            self.fail("the download was given up");
            // Readers that already have the file open keep it; nothing of it is kept as good.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// `write_all_vectored` is not stable; this is its loop.
fn write_all(mut file: &File, pieces: &[Bytes]) -> std::io::Result<()> {
    // Linux takes 1,024 slices a call.
    for group in pieces.chunks(1024) {
        let mut slices: Vec<_> = group.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut rest = slices.as_mut_slice();
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match file.write_vectored(rest) {
                Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
