//! `wharfinger bundle export`: writes a bundle as it is read, without a copy. Each content is hashed on its way: a bundle
//! never carries rot away.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use serde::{Deserialize, Serialize};

use crate::cache::{Cache, Hold, Places};
use crate::oci::Digest;
use crate::storage::{BlobReader, Hasher};
use crate::transfer::{Export, Outgoing};

use super::super::Finder;
use super::super::drill::thirty;
use super::archive::{END, head, padding};
use super::layout::{DOCKER_FILE, INDEX_FILE, LAYOUT, LAYOUT_FILE, blob_path};
use super::plan::{Item, plan};

pub use super::plan::Exported;

/// What gives bundles away.
#[derive(Clone)]
pub struct BundleExport {
    cache: Cache,
    places: Places,
    finder: Finder,
}

/// What can be asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportOptions {
    /// What was pulled within so many days, when nothing is named.
    #[serde(default = "thirty")]
    pub days: u64,
    /// Images, as people write them.
    #[serde(default)]
    pub refs: Vec<String>,
    /// Whether images of which something lacks are left out; else there is no bundle then.
    #[serde(default)]
    pub skip_incomplete: bool,
}

impl BundleExport {
    /// The bundles of `cache`; images are named by `finder`.
    pub fn new(cache: Cache, places: Places, finder: Finder) -> Self {
        Self {
            cache,
            places,
            finder,
        }
    }
}

impl Export for BundleExport {
    const NAME: &'static str = "bundle-export";
    type Options = ExportOptions;

    async fn open(&self, options: ExportOptions) -> Result<Outgoing, String> {
        let plan = plan(&self.cache, &self.places, &self.finder, &options).await?;
        let about = serde_json::to_string(&plan.exported).map_err(|error| error.to_string())?;
        let size = plan.exported.bytes;
        // Until the last byte has gone, nothing of it is evicted.
        let hold = self
            .cache
            .hold(plan.items.iter().map(|item| *item.digest()).collect());
        let mut writer = Writer {
            cache: self.cache.clone(),
            ready: VecDeque::new(),
            items: plan.items.into_iter(),
            reading: None,
            ended: false,
            _hold: hold,
        };
        writer.file(LAYOUT_FILE, Bytes::from_static(LAYOUT))?;
        writer.file(INDEX_FILE, plan.index.into())?;
        if !plan.docker.is_empty() {
            writer.file(DOCKER_FILE, plan.docker.into())?;
        }
        let pieces = stream::unfold(Some(writer), |writer| async move {
            let mut writer = writer?;
            match writer.next().await {
                Ok(piece) => Some((Ok(piece?), Some(writer))),
                Err(reason) => {
                    tracing::error!(reason, "a bundle could not be written to its end");
                    Some((Err(reason), None))
                }
            }
        });
        Ok(Outgoing {
            size,
            about,
            pieces: pieces.boxed(),
        })
    }
}

/// A bundle on its way out.
struct Writer {
    cache: Cache,
    ready: VecDeque<Bytes>,
    items: std::vec::IntoIter<Item>,
    reading: Option<Reading>,
    ended: bool,
    _hold: Hold,
}

/// A blob that is being read.
struct Reading {
    digest: Digest,
    reader: BlobReader,
    position: u64,
    size: u64,
    hasher: Hasher,
}

impl Writer {
    /// A whole file.
    fn file(&mut self, path: &str, content: Bytes) -> Result<(), String> {
        let size = content.len() as u64;
        let head = head(path, size).map_err(|error| error.to_string())?;
        self.ready.push_back(head.into());
        self.ready.push_back(content);
        self.pad(size);
        Ok(())
    }

    fn pad(&mut self, size: u64) {
        static EMPTY: [u8; 1024] = [0; 1024];
        let padding = usize::try_from(padding(size)).unwrap_or_default();
        self.ready.push_back(Bytes::from_static(&EMPTY[..padding]));
    }

    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                if piece.is_empty() {
                    continue;
                }
                return Ok(Some(piece));
            }
            if let Some(reading) = &mut self.reading {
                let size = reading.size;
                if let Some(piece) = reading.next().await? {
                    return Ok(Some(piece));
                }
                self.reading = None;
                self.pad(size);
                continue;
            }
            match self.items.next() {
                Some(Item::Manifest(digest, size)) => self.manifest(digest, size).await?,
                Some(Item::Blob(digest, size)) => {
                    let reading = Reading::open(&self.cache, digest, size).await?;
                    let head = head(&blob_path(&digest), size).map_err(|error| error.to_string())?;
                    self.ready.push_back(head.into());
                    self.reading = Some(reading);
                }
                None if self.ended => return Ok(None),
                None => {
                    self.ended = true;
                    self.ready.push_back(vec![0; END as usize].into());
                }
            }
        }
    }

    async fn manifest(&mut self, digest: Digest, size: u64) -> Result<(), String> {
        let index = &self.cache.storage().index;
        let row = index.read(move |index| index.manifest(&digest)).await;
        let row = row.map_err(|error| error.to_string())?;
        let bytes = row
            .filter(|row| row.bytes.len() as u64 == size)
            .ok_or_else(|| format!("manifest {digest} went away meanwhile"))?
            .bytes;
        if Hasher::digest(digest.algorithm(), &bytes) != digest {
            return Err(format!(
                "manifest {digest} is rotten: `wharfinger scrub` fetches it again"
            ));
        }
        self.file(&blob_path(&digest), bytes)
    }
}

impl Reading {
    async fn open(cache: &Cache, digest: Digest, size: u64) -> Result<Self, String> {
        let blob = cache.storage().blobs.open(&digest).await;
        let blob = blob.map_err(|error| error.to_string())?;
        let blob = blob
            .filter(|blob| blob.size() == size)
            .ok_or_else(|| format!("blob {digest} went away meanwhile"))?;
        Ok(Self {
            digest,
            reader: BlobReader::Stored(blob),
            position: 0,
            size,
            hasher: Hasher::new(digest.algorithm()),
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        let piece = self.reader.read(self.position, None, false).await;
        let piece = piece.map_err(|error| format!("blob {}: {error}", self.digest))?;
        let Some(piece) = piece else {
            let hasher = std::mem::replace(&mut self.hasher, Hasher::new(self.digest.algorithm()));
            if self.position == self.size && hasher.finish() == self.digest {
                return Ok(None);
            }
            return Err(format!(
                "blob {} is rotten: `wharfinger scrub` fetches it again",
                self.digest
            ));
        };
        self.position += piece.len() as u64;
        let mut hasher = self.hasher.clone();
        let hashed = tokio::task::spawn_blocking(move || {
            hasher.update(&piece);
            (hasher, piece)
        });
        let (hasher, piece) = hashed.await.map_err(|_| "hashing was given up".to_owned())?;
        self.hasher = hasher;
        Ok(Some(piece))
    }
}
