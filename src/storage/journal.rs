//! The journal: what the index holds of manifests, tags, links, referrers, pins, hosted repositories and
//! identities, once more, as a log. `rebuild` makes a new index of it when the old one is lost.
//!
//! `journal/<n>.log` are read in the order of their numbers. The index's writer appends after each commit and does not
//! sync: what a crash takes from the log the next start writes again. A compaction replaces the files up to a number by
//! one that holds what lives.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::error::Error;
use super::layout::sync_folder;

/// Each file begins with this; the last letter but one is the version.
const MAGIC: &[u8; 8] = b"whjrnl1\n";

/// Length and checksum.
const HEAD: usize = 8;

/// No record is longer, in bytes: a manifest, its type and its key.
const LONGEST: usize = 8 * 1024 * 1024;

/// Files are not compacted while they are smaller than this together.
const LEAST: u64 = 16 * 1024 * 1024;

/// How soon a compaction that failed is tried again.
const PAUSE: Duration = Duration::from_mins(1);

/// What of the index is journaled. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Manifest = 1,
    Tag = 2,
    Link = 3,
    Referrers = 4,
    Pin = 5,
    Repository = 6,
    Identity = 7,
    Namespace = 8,
}

impl Kept {
    pub(super) const ALL: [Self; 8] = [
        Self::Manifest,
        Self::Tag,
        Self::Link,
        Self::Referrers,
        Self::Pin,
        Self::Repository,
        Self::Identity,
        Self::Namespace,
    ];
}

/// A row put, or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) table: Kept,
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
}

impl Entry {
    /// Length (four bytes, little-endian), CRC-32, and: the table's number, whether there is a value, the key's length,
    /// the key, the value.
    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEAD]);
        out.push(self.table as u8);
        out.push(u8::from(self.value.is_some()));
        // Keys are names and digests: some hundred bytes.
        out.extend_from_slice(&(self.key.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.key);
        out.extend_from_slice(self.value.as_deref().unwrap_or_default());
        let (head, payload) = out[start..].split_at_mut(HEAD);
        head[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        head[4..].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let ([table, has_value], rest) = payload.split_first_chunk::<2>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (key, value) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        Some(Self {
            table: *Kept::ALL.iter().find(|kept| **kept as u8 == *table)?,
            key: key.to_vec(),
            value: (*has_value == 1).then(|| value.to_vec()),
        })
    }
}

/// The journal, open for appending.
pub(super) struct Journal {
    folder: PathBuf,
    /// The file that grows, with its number.
    current: Option<File>,
    next: u64,
    /// Bytes of all files.
    size: u64,
    /// Not all that the index holds is in the log.
    behind: bool,
    /// The running compaction, or the last one.
    compaction: Option<Arc<Compaction>>,
    compacted_at: Option<Instant>,
    /// Size of what lived at the last compaction.
    base: u64,
}

/// A compaction, as seen by the journal and by the thread that does it.
pub(super) struct Compaction {
    folder: PathBuf,
    /// It replaces the files up to this one.
    number: u64,
    ended: AtomicBool,
    stopped: AtomicBool,
    /// Its size in bytes, once it has succeeded.
    written: AtomicU64,
    /// Bytes of the files that it replaced.
    replaced: AtomicU64,
}

impl Journal {
    /// Opens the journal in `folder`. `complete`: it was closed in order, so that nothing is missing from it.
    pub(super) fn open(folder: &Path, complete: bool) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(Error::at(folder))?;
        let files = files(folder).map_err(Error::at(folder))?;
        Ok(Self {
            folder: folder.to_owned(),
            current: None,
            next: files.last().map_or(1, |file| file.number + 1),
            size: files.iter().map(|file| file.size).sum(),
            // Somebody may have removed it, and an older version had none.
            behind: !complete || files.is_empty(),
            compaction: None,
            compacted_at: None,
            base: files.first().map_or(0, |file| file.size),
        })
    }

    /// Whether there is one in `folder`.
    pub(super) fn is_there(folder: &Path) -> bool {
        files(folder).is_ok_and(|files| !files.is_empty())
    }

    /// Appends what a commit wrote. A failure is told once, and made good by a compaction.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        if entries.is_empty() {
            return;
        }
        let mut bytes = Vec::new();
        for entry in entries {
            entry.encode(&mut bytes);
        }
        match self.write(&bytes) {
            Ok(()) => self.size += bytes.len() as u64,
            Err(error) => {
                if !self.behind {
                    tracing::warn!(%error, folder = %self.folder.display(), "the journal cannot be written: it is made good later");
                }
                self.is_behind();
            }
        }
    }

    /// Something that the index holds may be missing from the log.
    pub(super) fn is_behind(&mut self) {
        self.behind = true;
        // Half a record may stand at its end.
        self.current = None;
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(file) = &mut self.current {
            return file.write_all(bytes);
        }
        let path = path(&self.folder, self.next);
        let mut file = File::options().append(true).create_new(true).open(path)?;
        self.next += 1;
        file.write_all(MAGIC)?;
        file.write_all(bytes)?;
        self.current = Some(file);
        Ok(())
    }

    /// Begins a compaction when one is due: what is appended from here on comes after it.
    pub(super) fn compact(&mut self) -> Option<Arc<Compaction>> {
        if let Some(last) = &self.compaction {
            if !last.ended.load(Ordering::Acquire) {
                return None;
            }
            let written = last.written.load(Ordering::Acquire);
            if written > 0 {
                self.base = written;
                self.size = (self.size + written).saturating_sub(last.replaced.load(Ordering::Acquire));
            } else {
                self.behind = true;
            }
            self.compaction = None;
        }
        let rested = self.compacted_at.is_none_or(|at| at.elapsed() >= PAUSE);
        let grown = self.size >= LEAST.max(2 * self.base);
        if !rested || !(self.behind || grown) {
            return None;
        }
        // A number of its own, after all that was written and before all that will be.
        let compaction = Arc::new(Compaction {
            folder: self.folder.clone(),
            number: self.next,
            ended: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            written: AtomicU64::new(0),
            replaced: AtomicU64::new(0),
        });
        self.next += 1;
        self.current = None;
        self.behind = false;
        self.compacted_at = Some(Instant::now());
        self.compaction = Some(compaction.clone());
        Some(compaction)
    }

    /// Makes the log durable, and ends a compaction. Whether the log holds all that the index does.
    pub(super) fn close(&mut self) -> bool {
        let stopped = self.compaction.take().is_some_and(|compaction| {
            compaction.stopped.store(true, Ordering::Release);
            compaction.written.load(Ordering::Acquire) == 0
        });
        let synced = self.current.take().is_none_or(|file| file.sync_all().is_ok());
        !stopped && !self.behind && synced && sync_folder(&self.folder).is_ok()
    }
}

impl Compaction {
    /// Writes what `rows` gives into the file that replaces the older ones. Blocking; told of failures by the log.
    pub(super) fn run(&self, rows: impl FnOnce(&mut Compacted<'_>) -> Result<(), Error>) {
        match self.replace(rows) {
            Ok(()) => {}
            Err(error) if self.is_stopped() => tracing::debug!(%error, "a compaction was stopped"),
            Err(error) => {
                tracing::warn!(%error, "the journal could not be compacted: it is tried again later");
            }
        }
        self.ended.store(true, Ordering::Release);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn replace(&self, rows: impl FnOnce(&mut Compacted<'_>) -> Result<(), Error>) -> Result<(), Error> {
        let (new, path) = (self.folder.join("new"), path(&self.folder, self.number));
        let mut file = BufWriter::new(File::create(&new).map_err(Error::at(&new))?);
        file.write_all(MAGIC).map_err(Error::at(&new))?;
        let mut compacted = Compacted {
            compaction: self,
            file: &mut file,
            written: MAGIC.len() as u64,
        };
        let result = rows(&mut compacted);
        let written = compacted.written;
        if let Err(error) = result {
            let _ = fs::remove_file(&new);
            return Err(error);
        }
        let file = file
            .into_inner()
            .map_err(|error| Error::at(&new)(error.into_error()))?;
        file.sync_all().map_err(Error::at(&new))?;
        fs::rename(&new, &path).map_err(Error::at(&path))?;
        sync_folder(&self.folder)?;
        let mut replaced = 0;
        for file in files(&self.folder).map_err(Error::at(&self.folder))? {
            if file.number < self.number {
                fs::remove_file(&file.path).map_err(Error::at(&file.path))?;
                replaced += file.size;
            }
        }
        self.replaced.store(replaced, Ordering::Release);
        self.written.store(written, Ordering::Release);
        tracing::debug!(written, replaced, "the journal was compacted");
        Ok(())
    }
}

/// The file that a compaction writes.
pub(super) struct Compacted<'c> {
    compaction: &'c Compaction,
    file: &'c mut BufWriter<File>,
    written: u64,
}

impl Compacted<'_> {
    /// Adds rows that live.
    pub(super) fn add(&mut self, entries: &[Entry]) -> Result<(), Error> {
        if self.compaction.is_stopped() {
            return Err(Error::Index("the index is being closed".to_owned()));
        }
        let mut bytes = Vec::new();
        for entry in entries {
            entry.encode(&mut bytes);
        }
        self.written += bytes.len() as u64;
        self.file
            .write_all(&bytes)
            .map_err(Error::at(&self.compaction.folder))
    }
}

struct LogFile {
    number: u64,
    path: PathBuf,
    size: u64,
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number}.log"))
}

/// The files of a journal, in their order.
fn files(folder: &Path) -> io::Result<Vec<LogFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_suffix(".log")?.parse().ok());
        if let Some(number) = number {
            files.push(LogFile {
                number,
                path: entry.path(),
                size: entry.metadata()?.len(),
            });
        }
    }
    files.sort_unstable_by_key(|file| file.number);
    Ok(files)
}

/// Reads the journal in `folder` in order. Gives how many records, or stretches of unreadable bytes, were damaged.
///
/// # Errors
/// When a file cannot be read, or `visit` fails.
pub(super) fn replay(folder: &Path, mut visit: impl FnMut(Entry) -> Result<(), Error>) -> Result<u64, Error> {
    let files = match files(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        files => files.map_err(Error::at(folder))?,
    };
    let mut damaged = 0;
    for file in files {
        let opened = File::open(&file.path).map_err(Error::at(&file.path))?;
        damaged += replay_file(BufReader::new(opened), &mut visit, &file.path)?;
    }
    Ok(damaged)
}

fn replay_file(
    mut file: impl Read,
    visit: &mut impl FnMut(Entry) -> Result<(), Error>,
    path: &Path,
) -> Result<u64, Error> {
    let mut magic = [0; MAGIC.len()];
    if !fill(&mut file, &mut magic).map_err(Error::at(path))? || magic != *MAGIC {
        return Ok(1);
    }
    let (mut damaged, mut payload) = (0, Vec::new());
    loop {
        let mut head = [0; HEAD];
        let read = file.read(&mut head[..1]).map_err(Error::at(path))?;
        if read == 0 {
            return Ok(damaged);
        }
        if !fill(&mut file, &mut head[1..]).map_err(Error::at(path))? {
            return Ok(damaged + 1);
        }
        let [a, b, c, d, checksum @ ..] = head;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        // A length that cannot be says nothing of where the next record begins.
        if length > LONGEST {
            return Ok(damaged + 1);
        }
        payload.resize(length, 0);
        if !fill(&mut file, &mut payload).map_err(Error::at(path))? {
            return Ok(damaged + 1);
        }
        let whole = crc32fast::hash(&payload) == u32::from_le_bytes(checksum);
        match Entry::decode(&payload).filter(|_| whole) {
            Some(entry) => visit(entry)?,
            None => damaged += 1,
        }
    }
}

/// Fills `bytes`; `false` when the file ends before.
fn fill(file: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
