//! Small named JSON files in the data folder, for what is worth more than one run and less than the index: what a
//! credential may still pull, what an operator switched. One is replaced whole or not at all. Called by `app` and by
//! the jobs that keep something; blocking.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::layout::Layout;

/// A note of more bytes than this is none of ours.
const MOST: u64 = 16 * 1024 * 1024;

/// The notes of a data folder.
#[derive(Debug)]
pub struct Notes {
    folder: PathBuf,
    /// Held while one is written: two writers of one name would share the draft.
    writing: Mutex<()>,
}

impl Notes {
    pub(super) fn new(layout: &Layout) -> Self {
        Self {
            folder: layout.notes(),
            writing: Mutex::default(),
        }
    }

    /// The content of the note `name`; `None` when there is none, or it cannot be read (which the log tells).
    pub fn load(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.path(name).ok()?;
        match read(&path) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "a note cannot be read, and is taken for none");
                }
                None
            }
        }
    }

    /// Replaces the note `name`, durably. A crash leaves the old one or the new one.
    ///
    /// # Errors
    /// `InvalidInput` for a name of other characters than `a-z`, `0-9` and `-`; else the disk's.
    pub fn save(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(name)?;
        let draft = path.with_extension("new");
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have removed it by hand.
        fs::create_dir_all(&self.folder)?;
        // Some notes are secrets.
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, &path)?;
        File::open(&self.folder)?.sync_all()
    }

    fn path(&self, name: &str) -> io::Result<PathBuf> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || !name.chars().all(plain) {
            let message = format!("`{name}` is no name of a note");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(self.folder.join(format!("{name}.json")))
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let size = fs::metadata(path)?.len();
    if size > MOST {
        let message = format!("it has {size} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    fs::read(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes() -> (tempfile::TempDir, Notes) {
        let root = tempfile::tempdir().unwrap();
        let notes = Notes::new(&Layout::new(root.path()));
        (root, notes)
    }

    #[test]
    fn a_note_is_what_was_saved_last_and_leaves_no_draft() {
        let (root, notes) = notes();
        assert_eq!(notes.load("budgets"), None);
        for text in ["{\"a\":1}", "{}"] {
            notes.save("budgets", text.as_bytes()).unwrap();
            assert_eq!(notes.load("budgets").unwrap(), text.as_bytes());
        }
        notes.save("offline", b"x").unwrap();
        assert_eq!(notes.load("budgets").unwrap(), b"{}");
        let files = fs::read_dir(root.path().join("notes")).unwrap();
        let mut names: Vec<_> = files.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["budgets.json", "offline.json"]);
    }

    #[test]
    fn a_draft_of_a_crash_is_no_note_and_in_nobodys_way() {
        let (root, notes) = notes();
        notes.save("pins", b"old").unwrap();
        fs::write(root.path().join("notes/pins.new"), b"ne").unwrap();
        assert_eq!(notes.load("pins").unwrap(), b"old");
        notes.save("pins", b"new").unwrap();
        assert_eq!(notes.load("pins").unwrap(), b"new");
    }

    #[test]
    fn names_stay_in_the_folder_and_what_is_no_file_is_no_note() {
        let (root, notes) = notes();
        for name in ["", "../x", "a/b", "a.b", "A", "ä", "a\0"] {
            let error = notes.save(name, b"x").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}");
            assert_eq!(notes.load(name), None, "{name}");
        }
        fs::create_dir_all(root.path().join("notes/folder.json")).unwrap();
        assert_eq!(notes.load("folder"), None);
        let huge = File::create(root.path().join("notes/huge.json")).unwrap();
        huge.set_len(MOST + 1).unwrap();
        assert_eq!(notes.load("huge"), None);
        assert!(notes.save("folder", b"x").is_err());
    }
}
