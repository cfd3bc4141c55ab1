//! `wharfinger rebuild-index`: a new index of what the data folder holds, when the old one is damaged or lost. Nothing is
//! taken from any upstream, and the old file is kept.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::config::StorageConfig;
use crate::oci::{Algorithm, Digest};

use super::audit::{Health, Inspection};
use super::error::Error;
use super::index::{self, BlobRow};
use super::layout::{Layout, sync_folder};

/// What a rebuilt index was made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuilt {
    /// Where manifests, tags and links come from: `index` when all of the old one could be read, else `journal`.
    pub source: String,
    /// Manifests.
    pub manifests: u64,
    /// Tags.
    pub tags: u64,
    /// Links: which repository may serve what.
    pub links: u64,
    /// Blobs, one for each file.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Records of the journal that could not be read.
    pub damaged_records: u64,
    /// Manifests with other bytes than their digest says, left out.
    pub wrong_manifests: u64,
    /// Tags whose manifest is not there, left out.
    pub dangling_tags: u64,
    /// Blobs with other bytes than their digest says, put aside into `quarantine`.
    pub rotten_blobs: Vec<String>,
    /// Files among the blobs that are none, left alone.
    pub foreign_files: Vec<PathBuf>,
    /// Where the old index is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_index: Option<PathBuf>,
}

/// Makes a new index. Hashes all blobs with `verify`. `tell` hears of the bytes of blobs that were taken in, and of how
/// many there are. Blocking.
///
/// # Errors
/// `Locked` while a daemon runs, `Foreign` when it is no data folder.
pub fn rebuild(
    config: &StorageConfig,
    verify: bool,
    mut tell: impl FnMut(u64, u64),
) -> Result<Rebuilt, Error> {
    let layout = Layout::new(&config.data_dir);
    layout.is_ours()?;
    let _lock = layout.prepare()?;
    let mut rebuilt = Rebuilt::default();
    let mut found = Vec::new();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        for first in 0..=u8::MAX {
            list(&layout, algorithm, first, &mut found, &mut rebuilt)?;
        }
    }
    let total = found.iter().map(|(_, row)| row.size).sum();
    let (root, path) = (layout.root().to_owned(), layout.index());
    let new = path.with_extension("redb.new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::at(&new)(error)),
        _ => {}
    }
    let mut rotten = Vec::new();
    let (mut done, mut bytes) = (0, 0);
    let blobs = found.into_iter().filter_map(|(digest, row)| {
        done += row.size;
        tell(done, total);
        // Without hashing, an empty file at least is told from a blob.
        let sound = if verify || row.size == 0 {
            is_sound(&layout, &digest, row.size)
        } else {
            Ok(true)
        };
        match sound {
            Ok(true) => {
                bytes += row.size;
                Some(Ok((digest, row)))
            }
            Ok(false) => {
                rotten.push(digest.to_string());
                let aside = fs::rename(layout.blob(&digest), layout.quarantined(&digest));
                aside
                    .err()
                    .map(|error| Err(Error::at(&layout.blob(&digest))(error)))
            }
            Err(error) => Some(Err(error)),
        }
    });
    let restored = index::restore(&root, &new, blobs)?;
    rebuilt.source = String::from(if restored.of_index { "index" } else { "journal" });
    rebuilt.manifests = restored.manifests;
    rebuilt.tags = restored.tags;
    rebuilt.links = restored.links;
    rebuilt.blobs = restored.blobs;
    rebuilt.blob_bytes = bytes;
    rebuilt.damaged_records = restored.damaged;
    rebuilt.wrong_manifests = restored.wrong;
    rebuilt.dangling_tags = restored.dangling;
    rebuilt.rotten_blobs = rotten;
    rebuilt.old_index = keep_old(&path)?;
    fs::rename(&new, &path).map_err(Error::at(&path))?;
    sync_folder(&root)?;
    layout.mark()?;
    Ok(rebuilt)
}

/// Keeps the old index under another name too: it loses its own to the new one in the same step in which that gets it, so
/// that there is an index at every moment.
fn keep_old(path: &Path) -> Result<Option<PathBuf>, Error> {
    let old = path.with_extension("redb.old");
    match fs::remove_file(&old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::at(&old)(error)),
        _ => {}
    }
    match fs::hard_link(path, &old) {
        Ok(()) => Ok(Some(old)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // Not every file system has links.
        Err(_) => fs::rename(path, &old)
            .map(|()| Some(old))
            .map_err(Error::at(path)),
    }
}

/// Adds the blobs of one folder.
fn list(
    layout: &Layout,
    algorithm: Algorithm,
    first: u8,
    found: &mut Vec<(Digest, BlobRow)>,
    rebuilt: &mut Rebuilt,
) -> Result<(), Error> {
    let folder = layout.folder(algorithm, first);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::at(&folder)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(Error::at(&folder))?;
        let (path, name) = (entry.path(), entry.file_name());
        let digest = name
            .to_str()
            .and_then(|name| format!("{}:{name}", algorithm.name()).parse::<Digest>().ok())
            // Somewhere else nobody would find it.
            .filter(|digest| layout.blob(digest) == path);
        let metadata = entry.metadata().map_err(Error::at(&path))?;
        let Some(digest) = digest.filter(|_| metadata.is_file()) else {
            rebuilt.foreign_files.push(path);
            continue;
        };
        let since = metadata
            .modified()
            .ok()
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let stored_at = since.map_or_else(Timestamp::now, |since| Timestamp(0).after(since));
        let size = metadata.len();
        found.push((digest, BlobRow { size, stored_at }));
    }
    Ok(())
}

fn is_sound(layout: &Layout, digest: &Digest, size: u64) -> Result<bool, Error> {
    let path = layout.blob(digest);
    let file = File::open(&path).map_err(Error::at(&path))?;
    let mut inspection = Inspection::of(digest, file, size);
    loop {
        if let Some(health) = inspection.step() {
            return Ok(health == Health::Sound);
        }
    }
}
