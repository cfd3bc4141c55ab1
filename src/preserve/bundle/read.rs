//! The first half of an import: what an archive holds is verified and stored while it arrives, in whatever order that is.
//! Small documents wait in memory, since they may be manifests; the rest become blobs that nothing links yet.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use crate::cache::{Bring, Bringing, Cache, Hold};
use crate::job::{Progress, Unit};
use crate::oci::{Digest, MAX_MANIFEST_SIZE};
use crate::storage::Hasher;
use crate::transfer::Incoming;

use super::super::Finder;
use super::archive::{Archive, ArchiveError, Entry, shown};
use super::import::{Imported, Refusal};
use super::layout::{INDEX_FILE, IndexDocument, LAYOUT_FILE, LayoutDocument, digest_of};

/// Bytes of documents that are held in memory at the most; more of them become blobs for a while.
const MOST_HELD: usize = 64 * 1024 * 1024;

/// Bytes of `oci-layout` and `index.json` at the most.
const MOST_LAYOUT: u64 = 64 * 1024;
const MOST_INDEX: u64 = 64 * 1024 * 1024;

/// A blob that came.
#[derive(Clone, Copy)]
pub(super) struct Came {
    pub(super) size: u64,
    /// Whether it was not here before.
    pub(super) is_new: bool,
}

/// A bundle on its way in.
pub(super) struct Intake {
    pub(super) cache: Cache,
    pub(super) finder: Finder,
    archive: Archive,
    progress: Progress,
    total: Option<u64>,
    /// Until they are linked, what came is for nobody, and would be the first to go.
    pub(super) hold: Hold,
    pub(super) held: HashMap<Digest, Bytes>,
    held_bytes: usize,
    pub(super) came: HashMap<Digest, Came>,
    pub(super) index: Option<IndexDocument>,
    /// Manifests of images that were taken in.
    pub(super) taken: HashSet<Digest>,
    pub(super) imported: Imported,
}

impl Intake {
    pub(super) fn new(cache: &Cache, finder: &Finder, incoming: Incoming, progress: Progress) -> Self {
        Self {
            cache: cache.clone(),
            finder: finder.clone(),
            archive: Archive::new(incoming.pieces),
            progress,
            total: incoming.size,
            hold: cache.hold(Vec::new()),
            held: HashMap::new(),
            held_bytes: 0,
            came: HashMap::new(),
            index: None,
            taken: HashSet::new(),
            imported: Imported::default(),
        }
    }

    /// All of it: what came whole is kept, whatever the rest is like.
    pub(super) async fn run(mut self) -> Imported {
        let progress = self.progress.clone();
        // Who sends it may be slow, or silent.
        let read = tokio::select! {
            read = self.read() => read,
            () = progress.stopped() => Ok(()),
        };
        self.imported.stopped = progress.is_stopped();
        if let Err(error) = &read {
            self.refuse("the archive", error.to_string());
        } else if self.index.is_none() && !self.imported.stopped {
            let reason = format!("there is no {INDEX_FILE} in it: it is no OCI image layout");
            self.refuse("the archive", reason);
        }
        if read.is_err() && !self.imported.stopped {
            self.archive.drain().await;
        }
        self.conclude().await
    }

    pub(super) fn refuse(&mut self, what: impl Into<String>, reason: impl Into<String>) {
        let (what, reason) = (what.into(), reason.into());
        self.progress.note(format!("{what}: {reason}"));
        self.imported.refused.push(Refusal { what, reason });
    }

    async fn read(&mut self) -> Result<(), ArchiveError> {
        while let Some(entry) = self.archive.next().await? {
            match entry.path.as_str() {
                LAYOUT_FILE => {
                    let text = self.document(&entry, MOST_LAYOUT).await?;
                    let layout = serde_json::from_slice::<LayoutDocument>(&text)
                        .map_err(|error| ArchiveError::Layout(format!("{LAYOUT_FILE}: {error}")))?;
                    if !layout.image_layout_version.starts_with("1.") {
                        let version = shown(&layout.image_layout_version);
                        return Err(ArchiveError::Layout(format!(
                            "it is an OCI image layout of version {version}; 1.0.0 is understood"
                        )));
                    }
                }
                INDEX_FILE if self.index.is_none() => {
                    let text = self.document(&entry, MOST_INDEX).await?;
                    let index = serde_json::from_slice(&text)
                        .map_err(|error| ArchiveError::Layout(format!("{INDEX_FILE}: {error}")))?;
                    self.index = Some(index);
                }
                INDEX_FILE => return Err(ArchiveError::Layout(format!("a second {INDEX_FILE}"))),
                path => match digest_of(path) {
                    Some(Ok(digest)) => self.content(digest, &entry).await?,
                    Some(Err(reason)) => self.refuse(shown(path), reason),
                    // `manifest.json` of docker save, and what else may lie beside a layout.
                    None => {}
                },
            }
            self.tell();
        }
        Ok(())
    }

    fn tell(&self) {
        let at = self.archive.position();
        let total = self.total.map(|total| total.max(at));
        self.progress.at(at, total, Unit::Bytes);
    }

    async fn document(&mut self, entry: &Entry, most: u64) -> Result<Bytes, ArchiveError> {
        if entry.size > most {
            return Err(ArchiveError::Layout(format!(
                "{} has {} bytes, more than {most}",
                entry.path, entry.size
            )));
        }
        self.archive.whole().await
    }

    /// The content of a digest: verified, and stored or held.
    async fn content(&mut self, digest: Digest, entry: &Entry) -> Result<(), ArchiveError> {
        if self.held.contains_key(&digest) || self.came.contains_key(&digest) {
            return Ok(());
        }
        let size = usize::try_from(entry.size).unwrap_or(usize::MAX);
        if size <= MAX_MANIFEST_SIZE {
            let bytes = self.archive.whole().await?;
            let actual = Hasher::digest(digest.algorithm(), &bytes);
            if actual != digest {
                self.refuse(
                    format!("blob {digest}"),
                    format!("its bytes are those of {actual}"),
                );
            } else if bytes.trim_ascii_start().starts_with(b"{") && self.held_bytes + size <= MOST_HELD {
                self.held_bytes += size;
                self.held.insert(digest, bytes);
            } else {
                self.store(digest, bytes).await;
            }
            return Ok(());
        }
        match self.cache.bring_blob(&digest, entry.size).await {
            Ok(Bring::Here) => self.compare(digest, entry.size).await,
            Ok(Bring::Taken(bringing)) => self.receive(digest, entry.size, bringing).await,
            Err(error) => {
                self.refuse(format!("blob {digest}"), error.message);
                Ok(())
            }
        }
    }

    /// Keeps bytes that are verified as a blob. Whether it could.
    pub(super) async fn store(&mut self, digest: Digest, bytes: Bytes) -> bool {
        let size = bytes.len() as u64;
        let stored = async {
            match self.cache.bring_blob(&digest, size).await? {
                Bring::Here => Ok(false),
                Bring::Taken(mut bringing) => {
                    bringing.append(&bytes)?;
                    bringing.finish().await.map(|()| true)
                }
            }
        };
        match stored.await {
            Ok(is_new) => self.keep(digest, size, is_new),
            Err(error) => {
                let error: crate::cache::Error = error;
                self.refuse(format!("blob {digest}"), error.message);
                return false;
            }
        }
        true
    }

    fn keep(&mut self, digest: Digest, size: u64, is_new: bool) {
        self.hold.add(digest);
        self.came.insert(digest, Came { size, is_new });
    }

    /// What is here already is only linked where its bytes came along.
    async fn compare(&mut self, digest: Digest, size: u64) -> Result<(), ArchiveError> {
        let mut hasher = Hasher::new(digest.algorithm());
        while let Some(piece) = self.archive.piece().await? {
            hasher.update(&piece);
            self.tell();
        }
        let actual = hasher.finish();
        if actual == digest {
            self.keep(digest, size, false);
        } else {
            self.refuse(
                format!("blob {digest}"),
                format!("its bytes are those of {actual}"),
            );
        }
        Ok(())
    }

    async fn receive(
        &mut self,
        digest: Digest,
        size: u64,
        mut bringing: Box<Bringing>,
    ) -> Result<(), ArchiveError> {
        while let Some(piece) = self.archive.piece().await? {
            if let Err(error) = bringing.append(&piece) {
                self.refuse(format!("blob {digest}"), error.message);
                return Ok(());
            }
            self.tell();
        }
        match bringing.finish().await {
            Ok(()) => self.keep(digest, size, true),
            Err(error) => self.refuse(format!("blob {digest}"), error.message),
        }
        Ok(())
    }
}
