//! Every path under the data folder, and its preparation: marker, lock, folders. Called by `Storage::open`.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::oci::{Algorithm, Digest};

use super::error::Error;
use super::index;

/// The file that says "this is our data folder, of this format". Its absence from a folder that is not empty means
/// an unmounted or foreign volume.
pub(super) const MARKER: &str = "wharfinger.json";
/// The marker while it is written.
const NEW_MARKER: &str = "wharfinger.json.new";

/// Version of the layout and of the tables. A folder of format 1 is brought to this one when it is opened.
const FORMAT: u64 = 2;
const OLDEST_FORMAT: u64 = 1;

pub(super) struct Layout {
    root: PathBuf,
    /// Folders of blobs that this process knows to be durable.
    ready: Mutex<HashSet<PathBuf>>,
}

impl Layout {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            ready: Mutex::default(),
        }
    }

    pub(super) fn index(&self) -> PathBuf {
        self.root.join(index::FILE)
    }

    pub(super) fn ballast(&self) -> PathBuf {
        self.root.join(index::BALLAST)
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.root.join(index::JOURNAL)
    }

    /// The folder of a digest's file: 256 of them an algorithm, so that none grows too long.
    pub(super) fn blob_folder(&self, digest: &Digest) -> PathBuf {
        let first = digest.hash().first().copied().unwrap_or_default();
        self.folder(digest.algorithm(), first)
    }

    /// One of the 256 folders of an algorithm.
    pub(super) fn folder(&self, algorithm: Algorithm, first: u8) -> PathBuf {
        self.root
            .join("blobs")
            .join(algorithm.name())
            .join(format!("{first:02x}"))
    }

    /// [`Layout::blob_folder`], there and durable: made when its first blob comes, since making all of them would cost
    /// the first start a good part of a second.
    pub(super) fn ready_blob_folder(&self, digest: &Digest) -> Result<PathBuf, Error> {
        let folder = self.blob_folder(digest);
        // Held while one is made, so that nobody relies on a folder whose creation is not synced. An earlier process
        // may have ended between the two steps, so each folder is synced once a process.
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if !ready.contains(&folder) {
            fs::create_dir_all(&folder).map_err(Error::at(&folder))?;
            if let Some(parent) = folder.parent() {
                sync_folder(parent)?;
            }
            ready.insert(folder.clone());
        }
        Ok(folder)
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blob_folder(digest).join(digest.hex())
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn notes(&self) -> PathBuf {
        self.root.join("notes")
    }

    pub(super) fn partials(&self) -> PathBuf {
        self.root.join("partial")
    }

    pub(super) fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    pub(super) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    pub(super) fn quarantined(&self, digest: &Digest) -> PathBuf {
        self.quarantine().join(file_name(digest))
    }

    pub(super) fn partial(&self, digest: &Digest) -> PathBuf {
        self.partials().join(file_name(digest))
    }

    /// Creates what is missing, checks the marker, and takes the lock, which lasts as long as the returned file.
    pub(super) fn prepare(&self) -> Result<File, Error> {
        let root = &self.root;
        if !root.exists() {
            // Hashes of passwords will be in it.
            if let Some(parent) = root.parent() {
                fs::create_dir_all(parent).map_err(Error::at(parent))?;
            }
            let made = DirBuilder::new().mode(0o700).create(root);
            made.or_else(|error| if root.exists() { Ok(()) } else { Err(error) })
                .map_err(Error::at(root))?;
        }
        let marker = root.join(MARKER);
        match fs::read_to_string(&marker) {
            Ok(text) => self.check_format(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.refuse_foreign()?,
            Err(error) => return Err(Error::at(&marker)(error)),
        }
        let lock_path = root.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(Error::at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked(root.clone())),
            Err(TryLockError::Error(error)) => return Err(Error::at(&lock_path)(error)),
        }
        // Each time: somebody may have emptied `blobs/` or removed `partial/` by hand.
        self.create_folders()?;
        if !marker.exists() {
            self.mark()?;
        }
        Ok(lock)
    }

    /// Whether the folder is still there, and not what an unmounted volume leaves.
    pub(super) fn is_ours(&self) -> Result<(), Error> {
        if self.root.join(MARKER).exists() {
            return Ok(());
        }
        Err(Error::Foreign {
            path: self.root.clone(),
        })
    }

    /// Whether the marker is of an older format, and an older version may have written last.
    pub(super) fn is_outdated(&self) -> Result<bool, Error> {
        let marker = self.root.join(MARKER);
        let text = fs::read_to_string(&marker).map_err(Error::at(&marker))?;
        Ok(format_of(&text).and_then(|format| format.as_u64()) != Some(FORMAT))
    }

    /// Writes the marker of the present format: older versions refuse the folder from here on.
    pub(super) fn mark(&self) -> Result<(), Error> {
        let (marker, new) = (self.root.join(MARKER), self.root.join(NEW_MARKER));
        let mut file = File::create(&new).map_err(Error::at(&new))?;
        writeln!(file, "{{\"format\":{FORMAT}}}").map_err(Error::at(&new))?;
        file.sync_all().map_err(Error::at(&new))?;
        fs::rename(&new, &marker).map_err(Error::at(&marker))?;
        sync_folder(&self.root)
    }

    fn check_format(&self, text: &str) -> Result<(), Error> {
        let found = format_of(text);
        let number = found.as_ref().and_then(serde_json::Value::as_u64);
        if number.is_some_and(|format| (OLDEST_FORMAT..=FORMAT).contains(&format)) {
            return Ok(());
        }
        let found = found.map_or_else(|| "unreadable".to_owned(), |found| found.to_string());
        Err(Error::Format {
            path: self.root.clone(),
            found,
            expected: FORMAT,
        })
    }

    /// A folder without marker must be empty (but for what a file system or an interrupted first start leaves).
    fn refuse_foreign(&self) -> Result<(), Error> {
        let root = &self.root;
        for entry in fs::read_dir(root).map_err(Error::at(root))? {
            let name = entry.map_err(Error::at(root))?.file_name();
            if ![
                "lost+found",
                "lock",
                "blobs",
                "partial",
                "uploads",
                "quarantine",
                "notes",
                NEW_MARKER,
            ]
            .iter()
            .any(|known| name == *known)
            {
                return Err(Error::Foreign { path: root.clone() });
            }
        }
        Ok(())
    }

    fn create_folders(&self) -> Result<(), Error> {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let folder = self.root.join("blobs").join(algorithm.name());
            fs::create_dir_all(&folder).map_err(Error::at(&folder))?;
        }
        sync_folder(&self.root.join("blobs"))?;
        for folder in [self.partials(), self.uploads(), self.quarantine(), self.notes()] {
            fs::create_dir_all(&folder).map_err(Error::at(&folder))?;
        }
        Ok(())
    }
}

fn format_of(marker: &str) -> Option<serde_json::Value> {
    let marker: serde_json::Value = serde_json::from_str(marker).ok()?;
    marker.get("format").cloned()
}

/// The name of a digest's file where all algorithms lie together.
fn file_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().name(), digest.hex())
}

/// The digest that [`file_name`] made a name of.
pub(super) fn digest_of(path: &Path) -> Option<Digest> {
    let name = path.file_name()?.to_str()?;
    name.replacen('-', ":", 1).parse().ok()
}

/// Makes renames and creations in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::at(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_again_locked_foreign_and_other_formats() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path());
        let lock = layout.prepare().unwrap();
        assert!(matches!(layout.prepare(), Err(Error::Locked(_))));
        drop(lock);
        drop(layout.prepare().unwrap());

        fs::write(root.path().join(MARKER), "{\"format\":99}").unwrap();
        let refusal = layout.prepare().unwrap_err().to_string();
        assert!(refusal.contains("data format 99"), "{refusal}");

        // An older folder is taken, and marked once it is upgraded.
        fs::write(root.path().join(MARKER), "{\"format\":1}").unwrap();
        let lock = layout.prepare().unwrap();
        assert!(layout.is_outdated().unwrap());
        layout.mark().unwrap();
        assert!(!layout.is_outdated().unwrap());
        drop(lock);
        drop(layout.prepare().unwrap());

        let foreign = tempfile::tempdir().unwrap();
        fs::write(foreign.path().join("thesis.doc"), "x").unwrap();
        assert!(matches!(
            Layout::new(foreign.path()).prepare(),
            Err(Error::Foreign { .. })
        ));
    }
}
