//! A data folder of any size, written through the library's own storage instead of pulled: a million blobs cannot be
//! pulled in a minute. Made for the `index` scenario, before a daemon starts in it.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use wharfinger::clock::Timestamp;
use wharfinger::config::StorageConfig;
use wharfinger::oci::{Algorithm, Digest};
use wharfinger::storage::{
    BlobRow, Change, LinkRow, ManifestRow, Outline, Proof, Storage, TagRow, UnitKind, allocated,
};

use crate::content::{Blob, Content, Image, MANIFEST_TYPE};

/// The prefix of the upstream that the daemon is configured with.
const PREFIX: &str = "docker-hub";
/// Changes in one transaction.
const BATCH: usize = 100_000;
/// Images of a repository that nobody asks for.
const IN_ONE_REPOSITORY: u64 = 100;
const DAY: Duration = Duration::from_hours(24);

/// What lies in the folder beside the images that are asked for.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Blobs, those of the images that are asked for and of the victims included.
    pub(crate) blobs: u64,
    /// Tags, one an image.
    pub(crate) tags: u64,
    /// Images of a config and a layer, a few KiB each, which were not used for longest.
    pub(crate) victims: u64,
}

/// Writes a data folder with `images`, tagged as [`tag`] says, and with what `shape` asks for. Returns the bytes that
/// the victims' files take up. Blocking work on this thread: nothing else is to be measured meanwhile.
pub(crate) async fn write(folder: &Path, images: &[Image], shape: Option<Shape>) -> Result<u64> {
    let storage = Storage::open(&StorageConfig::in_folder(folder.to_owned())).context("a new data folder")?;
    let mut stock = Stock {
        blobs: folder.join("blobs/sha256"),
        folders: HashSet::new(),
        storage,
        changes: Vec::new(),
        now: Timestamp::now(),
    };
    let mut freed = 0;
    if let Some(shape) = shape {
        stock.crowd(&shape, images).await?;
        for number in 0..shape.victims {
            let victim = Image::new(1_000_000 + number, 1, 4096);
            freed += victim.blobs.iter().map(|blob| allocated(blob.size)).sum::<u64>();
            let repository = format!("{PREFIX}/old/image-{}", number / IN_ONE_REPOSITORY);
            let used = Timestamp(stock.now.0 - 60 * DAY.as_millis() as u64 + number);
            let victim = Stored::of(&victim)?;
            stock.image(&repository, &tag(number), &victim, used).await?;
        }
    }
    let repository = format!("{PREFIX}/{}", Content::REPOSITORY);
    for (number, image) in images.iter().enumerate() {
        let stored = Stored::of(image)?;
        let now = stock.now;
        stock
            .image(&repository, &tag(number as u64), &stored, now)
            .await?;
    }
    stock.flush().await?;
    stock.storage.close();
    Ok(freed)
}

/// The tag of the image of that number.
pub(crate) fn tag(number: u64) -> String {
    format!("v{number}")
}

struct Stock {
    storage: Storage,
    blobs: PathBuf,
    /// Folders that are there.
    folders: HashSet<u8>,
    changes: Vec<Change>,
    now: Timestamp,
}

/// An image as rows and files.
struct Stored<'i> {
    digest: Digest,
    manifest: bytes::Bytes,
    /// Digest and size of each blob, and its bytes; without bytes the file is a hole.
    blobs: Vec<(Digest, u64, Option<&'i Blob>)>,
}

impl<'i> Stored<'i> {
    fn of(image: &'i Image) -> Result<Self> {
        let blobs = image.blobs.iter();
        Ok(Self {
            digest: image.digest.parse()?,
            manifest: image.manifest.clone(),
            blobs: blobs
                .map(|blob| Ok((blob.digest.parse()?, blob.size, Some(blob))))
                .collect::<Result<_>>()?,
        })
    }
}

impl Stock {
    /// Images that nobody asks for, up to the shape's numbers. Their digests are those of nothing, and ascend with the
    /// image's number: written in the order of keys, the tables take seconds. What is measured has real digests, which
    /// lie anywhere among these.
    async fn crowd(&mut self, shape: &Shape, images: &[Image]) -> Result<()> {
        let real = images.iter().map(|image| image.blobs.len() as u64).sum::<u64>() + 2 * shape.victims;
        let count = shape.tags.saturating_sub(images.len() as u64 + shape.victims);
        let blobs = shape.blobs.saturating_sub(real);
        let mut random = fastrand::Rng::with_seed(7);
        for number in 0..count {
            let place = (number << 32) / count.max(1);
            let (first, end) = (number * blobs / count, (number + 1) * blobs / count);
            let blobs: Vec<_> = (first..end)
                .map(|_| Ok((invented(place, &mut random)?, 1 + random.u64(..1 << 20), None)))
                .collect::<Result<_>>()?;
            let mut text = format!("{{\"schemaVersion\":2,\"mediaType\":\"{MANIFEST_TYPE}\",\"layers\":[");
            for (at, (digest, size, _)) in blobs.iter().enumerate() {
                let comma = if at == 0 { "" } else { "," };
                let _infallible = write!(
                    text,
                    "{comma}{{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\
                     \"digest\":\"{digest}\",\"size\":{size}}}"
                );
            }
            text.push_str("]}");
            let image = Stored {
                digest: invented(place, &mut random)?,
                manifest: text.into(),
                blobs,
            };
            let repository = format!("{PREFIX}/crowd/image-{:06}", number / IN_ONE_REPOSITORY);
            let used = Timestamp(self.now.0 - DAY.as_millis() as u64 + number);
            self.image(&repository, &tag(number), &image, used).await?;
        }
        self.flush().await
    }

    /// One image: files first, then rows.
    async fn image(
        &mut self,
        repository: &str,
        tag: &str,
        image: &Stored<'_>,
        used: Timestamp,
    ) -> Result<()> {
        for (digest, size, blob) in &image.blobs {
            self.file(digest, *size, *blob)?;
        }
        let size = image.manifest.len() as u64;
        let row = ManifestRow {
            media_type: MANIFEST_TYPE.to_owned(),
            bytes: image.manifest.clone(),
        };
        let outline = Outline {
            kind: UnitKind::Image,
            bytes: size + image.blobs.iter().map(|(_, size, _)| size).sum::<u64>(),
            class: 0,
            needs: image.blobs.iter().map(|(digest, _, _)| *digest).collect(),
        };
        let link = |size, manifest| LinkRow {
            at: None,
            size,
            proof: Proof::Fetched,
            manifest,
        };
        self.changes
            .push(Change::put_manifest(&image.digest, &row, &outline, used));
        self.changes
            .push(Change::put_link(repository, &image.digest, &link(size, true)));
        for (digest, size, _) in &image.blobs {
            let row = BlobRow {
                size: *size,
                stored_at: used,
            };
            self.changes.push(Change::put_blob(digest, &row));
            self.changes
                .push(Change::put_link(repository, digest, &link(*size, false)));
        }
        let row = TagRow {
            digest: image.digest.to_string(),
            // As if it had just been confirmed, however long the measurement takes.
            validated_at: self.now.after(DAY),
            gone_since: None,
        };
        self.changes
            .push(Change::put_tag(repository, &tag.parse()?, &row));
        if self.changes.len() >= BATCH {
            self.flush().await?;
        }
        Ok(())
    }

    fn file(&mut self, digest: &Digest, size: u64, blob: Option<&Blob>) -> Result<()> {
        let first = digest.hash().first().copied().unwrap_or_default();
        let folder = self.blobs.join(format!("{first:02x}"));
        if self.folders.insert(first) {
            fs::create_dir_all(&folder)?;
        }
        let mut file = File::create(folder.join(digest.hex()))?;
        let Some(blob) = blob else {
            return Ok(file.set_len(size)?);
        };
        let mut at = 0;
        while at < size {
            let piece = blob.piece(at);
            file.write_all(&piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        let changes = std::mem::take(&mut self.changes);
        self.storage.index.commit(changes).await.context("writing rows")
    }
}

/// A digest of nothing that begins with `place`.
fn invented(place: u64, random: &mut fastrand::Rng) -> Result<Digest> {
    let mut hash = [0; 32];
    random.fill(&mut hash);
    hash[..4].copy_from_slice(&(place as u32).to_be_bytes());
    Digest::from_hash(Algorithm::Sha256, &hash).context("a digest")
}
