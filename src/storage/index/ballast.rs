//! A file that holds some room: when the disk is full it is removed, so that the index can still be written, most of all
//! the rows whose removal makes room. Used by `writer`, and at opening.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FallocateFlags;

/// Its size in bytes: some hundred commits.
const MOST: u64 = 8 * 1024 * 1024;
/// Less is no help.
const LEAST: u64 = 1024 * 1024;

/// It is made again when so many times its size would be left beside it.
const ENOUGH: u64 = 4;

/// What of a cap on all that is kept may be ballast: one part in so many.
const SHARE: u64 = 64;

/// How often that is tried.
const PAUSE: Duration = Duration::from_secs(10);

pub(super) struct Ballast {
    path: PathBuf,
    /// In bytes; 0 is none.
    size: u64,
    /// When making it was last tried; none while it is there.
    missing: Option<Instant>,
}

impl Ballast {
    /// A ballast at `path`, which is made when there is room. A small `cap` on all that is kept has none.
    pub(super) fn new(path: &Path, cap: Option<u64>) -> Self {
        let size = cap.map_or(MOST, |cap| (cap / SHARE).min(MOST));
        let mut ballast = Self {
            path: path.to_owned(),
            size: if size < LEAST { 0 } else { size },
            missing: None,
        };
        ballast.make();
        ballast
    }

    /// Gives its room back to the disk. Whether there was any.
    pub(super) fn release(&mut self) -> bool {
        release(&self.path)
            .inspect(|()| self.missing = Some(Instant::now()))
            .is_ok()
    }

    /// Makes it again, if it is missing and there is room.
    pub(super) fn restore(&mut self) {
        if self.size > 0 && self.missing.is_some_and(|since| since.elapsed() >= PAUSE) {
            self.make();
        }
    }

    fn make(&mut self) {
        self.missing = match self.is_there() {
            Ok(true) => None,
            Ok(false) => Some(Instant::now()),
            Err(error) => {
                // Half of one would be half a help, and it would never be tried again.
                let _ = fs::remove_file(&self.path);
                tracing::debug!(%error, "no room for the ballast");
                Some(Instant::now())
            }
        };
    }

    fn is_there(&self) -> io::Result<bool> {
        let size = self.size;
        if size == 0 {
            return Ok(fs::remove_file(&self.path).is_ok());
        }
        if fs::metadata(&self.path).is_ok_and(|file| file.blocks() * 512 >= size) {
            return Ok(true);
        }
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let disk = rustix::fs::statvfs(folder)?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < size * (1 + ENOUGH) {
            return Ok(false);
        }
        let mut file = File::create(&self.path)?;
        if rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size).is_err() {
            // Not every file system can; none compresses noise.
            let mut noise = vec![0; 1024 * 1024];
            for _ in 0..size.div_ceil(noise.len() as u64) {
                fastrand::fill(&mut noise);
                file.write_all(&noise)?;
            }
        }
        file.sync_all()?;
        Ok(true)
    }
}

/// Removes the ballast at `path`. An error when there was none.
pub(super) fn release(path: &Path) -> io::Result<()> {
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_room_until_it_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ballast");
        let mut ballast = Ballast::new(&path, None);
        assert!(fs::metadata(&path).unwrap().blocks() * 512 >= MOST);
        assert!(ballast.release());
        assert!(!path.exists());
        assert!(!ballast.release(), "it is gone");
        ballast.restore();
        assert!(!path.exists(), "not at once: the room may be needed");
        ballast.missing = Instant::now().checked_sub(PAUSE);
        ballast.restore();
        assert!(path.exists());
        // A small cap is for blobs.
        Ballast::new(&path, Some(LEAST));
        assert!(!path.exists());
    }
}
