//! Files against rows: is a blob what its name says, which files does no row know, which rows have lost their file.
//! Called by `maintenance`, and before a start.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::Advice;

use crate::clock::Timestamp;
use crate::oci::{Algorithm, Digest};

use super::blobs::{Blobs, blocking};
use super::error::Error;
use super::hasher::Hasher;
use super::index::{BlobRow, Change, Index};
use super::layout::Layout;
use super::space::{Account, allocated};

/// Bytes hashed at a time.
const PIECE: u64 = 1024 * 1024;

/// Rows looked at before a start, and the least of them that say anything.
const SAMPLES: u8 = 64;
const LEAST_SAMPLES: usize = 8;

/// What a look at a blob's file found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It is what its row says.
    Sound,
    /// It is not, for this reason.
    Rotten(String),
}

/// A blob that is being hashed again, piece by piece.
pub struct Inspection {
    digest: Digest,
    size: u64,
    file: Option<File>,
    hasher: Option<Hasher>,
    position: u64,
    /// Whether its pages may leave the page cache afterwards.
    cold: bool,
}

/// Rows that were held against their files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// How many.
    pub looked: u64,
    /// The last of them.
    pub last: Option<Digest>,
    /// Those whose file is missing or short.
    pub lost: Vec<Digest>,
}

/// What a sweep of one folder did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Files without row whose bytes are right: they have one now.
    pub adopted: u64,
    /// Files that were no blobs: removed.
    pub removed: u64,
}

impl Blobs {
    /// Starts to hash a blob again.
    pub async fn inspect(&self, digest: &Digest) -> Result<Option<Inspection>, Error> {
        let wanted = *digest;
        let Some(row) = self.index.read(move |index| index.blob(&wanted)).await? else {
            return Ok(None);
        };
        let (path, cold) = (self.yard.layout.blob(digest), self.opened(digest).is_none());
        let file = blocking(move || {
            let file = match File::open(&path) {
                Ok(file) => Some(file),
                Err(error) if is_of_the_file(&error) => None,
                // Of its bytes this says nothing.
                Err(error) => return Err(Error::at(&path)(error)),
            };
            if let Some(file) = file.as_ref().filter(|_| cold) {
                // What is on the disk is in question, not what memory remembers of it.
                let _ = rustix::fs::fadvise(file, 0, None, Advice::DontNeed);
            }
            Ok(file)
        });
        Ok(Some(Inspection {
            digest: wanted,
            size: row.size,
            file: file.await?,
            hasher: Some(Hasher::new(digest.algorithm())),
            position: 0,
            cold,
        }))
    }

    /// Whether a blob's file is there, and as long as its row says. Blocking.
    pub fn stands(&self, digest: &Digest, row: &BlobRow) -> Result<bool, Error> {
        is_lost(&self.yard.layout, digest, row).map(|lost| !lost)
    }

    /// Files that were put aside as rotten.
    pub fn quarantined(&self) -> Vec<Digest> {
        self.quarantine.list()
    }

    /// Removes rotten files whose blob is here again: a crash may have come between the two.
    pub async fn release_healed(&self) -> Result<(), Error> {
        for digest in self.quarantine.list() {
            let _claim = self.claims.claim(&digest).await;
            if self.index.read(move |index| index.blob(&digest)).await?.is_some() {
                self.quarantine.release(&digest);
            }
        }
        Ok(())
    }

    /// Of the blobs after `after` in the order of digests, `most` at the most: those whose file is missing or short, how
    /// many were looked at, and where to go on; `None` at the end.
    pub async fn lost_after(&self, after: Option<Digest>, most: usize) -> Result<Looked, Error> {
        let layout = self.yard.layout.clone();
        self.index
            .read(move |index| {
                let page = index.blobs_after(after, most)?;
                let mut looked = Looked {
                    looked: page.len() as u64,
                    last: page.last().map(|(digest, _)| *digest),
                    lost: Vec::new(),
                };
                for (digest, row) in &page {
                    if is_lost(&layout, digest, row)? {
                        looked.lost.push(*digest);
                    }
                }
                Ok(looked)
            })
            .await
    }

    /// Holds the files of one folder of blobs against the rows: what no row knows is adopted if its bytes are right,
    /// else removed. `is_busy` says what others work on.
    pub async fn sweep_folder(
        &self,
        algorithm: Algorithm,
        first: u8,
        is_busy: impl Fn(&Digest) -> bool,
    ) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        let layout = self.yard.layout.clone();
        let names = blocking(move || names(&layout.folder(algorithm, first))).await?;
        for name in names {
            let digest = format!("{}:{name}", algorithm.name()).parse::<Digest>();
            let Ok(digest) = digest else {
                tracing::warn!(name, "a file that is no blob lies among them; it is left alone");
                continue;
            };
            // A fill publishes in two steps, and this would be between them.
            if is_busy(&digest) {
                continue;
            }
            let _claim = self.claims.claim(&digest).await;
            if self.index.read(move |index| index.blob(&digest)).await?.is_some() {
                continue;
            }
            let layout = self.yard.layout.clone();
            let size = blocking(move || adoptable(&layout.blob(&digest), &digest)).await?;
            if let Some(size) = size {
                self.yard.space.adopt(Account::Cached, allocated(size)).keep();
                let row = BlobRow {
                    size,
                    stored_at: Timestamp::now(),
                };
                self.index.commit(vec![Change::put_blob(&digest, &row)]).await?;
                swept.adopted += 1;
            } else {
                let layout = self.yard.layout.clone();
                tracing::warn!(%digest, "a file without row has other bytes than its name says: removed");
                blocking(move || {
                    fs::remove_file(layout.blob(&digest)).map_err(Error::at(&layout.blob(&digest)))
                })
                .await?;
                swept.removed += 1;
            }
        }
        Ok(swept)
    }
}

impl Inspection {
    /// Of a file that nobody reads.
    pub(super) fn of(digest: &Digest, file: File, size: u64) -> Self {
        Self {
            digest: *digest,
            size,
            file: Some(file),
            hasher: Some(Hasher::new(digest.algorithm())),
            position: 0,
            cold: true,
        }
    }

    /// Bytes that the next step hashes.
    pub fn next_piece(&self) -> u64 {
        (self.size - self.position).min(PIECE)
    }

    /// Hashes another piece; the result, after the last. Blocking.
    pub fn step(&mut self) -> Option<Health> {
        let rotten = |what: String| Some(Health::Rotten(what));
        let Some(file) = &self.file else {
            return rotten("its file is missing".to_owned());
        };
        let length = self.next_piece();
        if length > 0 {
            let mut buffer = vec![0; length as usize];
            if let Err(error) = file.read_exact_at(&mut buffer, self.position) {
                return rotten(format!("it cannot be read at byte {}: {error}", self.position));
            }
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&buffer);
            }
            self.position += length;
            if self.position < self.size {
                return None;
            }
        }
        if file.metadata().map_or(0, |file| file.len()) != self.size {
            return rotten("its file has another size".to_owned());
        }
        if self.cold {
            // What nobody read before is not to push out what somebody does.
            let _ = rustix::fs::fadvise(file, 0, None, Advice::DontNeed);
        }
        let actual = self.hasher.take()?.finish();
        Some(if actual == self.digest {
            Health::Sound
        } else {
            Health::Rotten(format!("its digest is {actual}"))
        })
    }
}

/// Refuses to start when many rows have lost their files: a volume that is not mounted must not look like deletion.
pub(super) fn check_samples(layout: &Layout, index: &Index) -> Result<(), Error> {
    let (mut looked, mut lost) = (0, 0);
    let mut seen = None;
    for step in 0..SAMPLES {
        let start = Digest::from_hash(Algorithm::Sha256, &[step * (u8::MAX / SAMPLES + 1); 32]);
        let Some((digest, row)) = index.blobs_after(start, 1)?.pop() else {
            break;
        };
        if seen.replace(digest) == Some(digest) {
            continue;
        }
        looked += 1;
        lost += usize::from(is_lost(layout, &digest, &row)?);
    }
    if looked >= LEAST_SAMPLES && lost * 2 > looked {
        return Err(Error::Lost {
            path: layout.root().to_owned(),
            looked,
            lost,
        });
    }
    Ok(())
}

/// Whether a file is missing, or the disk does not give it back: no shortage of memory or descriptors.
fn is_of_the_file(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// Whether a blob's file is missing or short, in a folder that is there.
pub(super) fn is_lost(layout: &Layout, digest: &Digest, row: &BlobRow) -> Result<bool, Error> {
    let lost = match fs::metadata(layout.blob(digest)) {
        Ok(file) => file.len() != row.size,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if lost {
        layout.is_ours()?;
    }
    Ok(lost)
}

fn names(folder: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::at(folder)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(Error::at(folder))?.file_name();
        names.extend(name.into_string());
    }
    Ok(names)
}

/// The size of a file whose bytes are those of `digest`.
fn adoptable(path: &Path, digest: &Digest) -> Result<Option<u64>, Error> {
    let file = File::open(path).map_err(Error::at(path))?;
    let size = file.metadata().map_err(Error::at(path))?.len();
    let mut inspection = Inspection::of(digest, file, size);
    loop {
        match inspection.step() {
            None => {}
            Some(Health::Sound) => return Ok(Some(size)),
            Some(_) => return Ok(None),
        }
    }
}
