//! Whole blobs: opened once for many readers, and taken in. A row whose file is missing or short heals into a miss.

use std::fs::{self, File};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::claims::Claims;
use crate::clock::Timestamp;
use crate::oci::Digest;

use super::audit::is_lost;
use super::error::Error;
use super::held::{Held, Slot, StoredBlob};
use super::index::{BlobRow, Change, Index, LinkRow};
use super::ingest::{Ingest, Yard};
use super::layout::Layout;
use super::partial::{Interrupted, Partials};
use super::quarantine::Quarantine;
use super::space::{Account, Space, allocated};
use super::steps;
use super::through::Refetch;
use super::uploads::Upload;

/// Blobs kept open at a time: each costs a descriptor and a mapping.
const MOST_OPEN: u64 = 1024;
/// How long an unused one stays open.
const KEEP_OPEN: Duration = Duration::from_mins(1);

/// The blobs of the data folder. Clones share them.
#[derive(Clone)]
pub struct Blobs {
    pub(super) yard: Arc<Yard>,
    pub(super) index: Arc<Index>,
    pub(super) open: moka::sync::Cache<Digest, Arc<Slot>>,
    held: Arc<Held>,
    pub(super) claims: Claims<Digest>,
    pub(super) quarantine: Arc<Quarantine>,
}

impl Blobs {
    pub(super) fn new(
        layout: Arc<Layout>,
        space: Arc<Space>,
        partials: Partials,
        quarantine: Quarantine,
        index: Arc<Index>,
    ) -> Self {
        let open = moka::sync::Cache::builder()
            .max_capacity(MOST_OPEN)
            .time_to_idle(KEEP_OPEN)
            .build();
        let yard = Arc::new(Yard {
            layout,
            space,
            partials,
        });
        Self {
            yard,
            index,
            open,
            held: Arc::default(),
            claims: Claims::default(),
            quarantine: Arc::new(quarantine),
        }
    }

    /// The room of the data folder.
    pub fn space(&self) -> &Arc<Space> {
        &self.yard.space
    }

    /// A blob that is open already: the warm path, which touches nothing but memory.
    pub fn opened(&self, digest: &Digest) -> Option<Arc<StoredBlob>> {
        self.open.get(digest)?.get().filter(|blob| !blob.is_suspect())
    }

    fn is_suspect(&self, digest: &Digest) -> bool {
        let blob = self.open.get(digest).and_then(|slot| slot.get());
        blob.is_some_and(|blob| blob.is_suspect())
    }

    /// Opens a blob that is here.
    pub async fn open(&self, digest: &Digest) -> Result<Option<Arc<StoredBlob>>, Error> {
        if let Some(blob) = self.opened(digest) {
            return Ok(Some(blob));
        }
        if self.is_suspect(digest) && !self.drop_if_lost(digest).await? {
            // The disk does not give it back.
            self.put_aside(digest).await?;
        }
        let (layout, held, wanted) = (self.yard.layout.clone(), self.held.clone(), *digest);
        let found = self
            .index
            .read(move |index| {
                index
                    .blob(&wanted)?
                    .map(|row| open_file(&layout, &held, &wanted, &row))
                    .transpose()
            })
            .await?;
        match found {
            None => Ok(None),
            Some(Some(blob)) => {
                self.open.insert(*digest, Slot::new(&blob));
                Ok(Some(blob))
            }
            Some(None) => {
                self.drop_if_lost(digest).await?;
                Ok(None)
            }
        }
    }

    /// Starts taking a blob in for `repository`. Blocking.
    ///
    /// # Errors
    /// `NoRoom` when `size` bytes would break the cap or fill the disk.
    pub fn ingest(
        &self,
        digest: Digest,
        size: Option<u64>,
        repository: &str,
        refetch: Arc<dyn Refetch>,
    ) -> Result<Ingest, Error> {
        Ingest::create(self.yard.clone(), digest, size, repository, Some(refetch))
    }

    /// Goes on where an earlier ingest ended. Blocking.
    pub fn resume(&self, digest: Digest, refetch: Arc<dyn Refetch>) -> Option<Ingest> {
        Ingest::resume(self.yard.clone(), digest, Some(refetch))
    }

    /// Takes a blob in for its readers alone: nothing is kept.
    pub fn pass_through(&self, digest: Digest, size: Option<u64>, refetch: Arc<dyn Refetch>) -> Ingest {
        Ingest::pass_through(self.yard.clone(), digest, size, refetch)
    }

    /// Partial files that no ingest holds, oldest first.
    pub fn interrupted(&self) -> Vec<Interrupted> {
        self.yard.partials.list()
    }

    /// Removes a partial file that no ingest holds: bytes of room that this gave back. Blocking.
    pub fn discard_partial(&self, digest: &Digest) -> Option<u64> {
        self.yard.partials.discard(digest)
    }

    /// Makes a verified blob durable and known, in law 3's order.
    pub async fn publish(&self, mut ingest: Ingest, digest: &Digest, size: u64) -> Result<(), Error> {
        let _claim = self.claims.claim(digest).await;
        let growing = ingest.growing().clone();
        blocking(move || ingest.place()).await?;
        self.forget_opened(digest);
        // Who came while it arrived reads on, and is a reader like any other.
        let stored = growing.file.clone().map(|file| self.held.put(digest, file, size));
        if let Some(stored) = &stored {
            growing.has_become(stored.clone());
        }
        let row = BlobRow {
            size,
            stored_at: Timestamp::now(),
        };
        steps::before("publish: commit");
        if let Err(error) = self.index.commit(vec![Change::put_blob(digest, &row)]).await
            && !self
                .is_there_after_all(digest, size, stored.as_deref(), Account::Cached)
                .await
        {
            return Err(error);
        }
        steps::before("publish: release");
        self.quarantine.release(digest);
        Ok(())
    }

    /// Makes an upload the blob `digest` of a hosted repository, durable and known, in law 3's order: `links` link it.
    /// What is here already is only linked.
    ///
    /// # Errors
    /// `WrongDigest`, when the upload is something else: it goes on. `Quota` and `RepositoryGone`, when `links` are not
    /// admitted: nothing is kept.
    pub async fn publish_upload(
        &self,
        mut upload: Upload,
        digest: &Digest,
        mut links: Vec<Change>,
    ) -> Result<u64, Error> {
        // A row whose file is lost goes, and this takes its place.
        self.open(digest).await?;
        let _claim = self.claims.claim(digest).await;
        let (size, wanted) = (upload.size(), *digest);
        let here = self.index.read(move |index| index.blob(&wanted)).await?;
        if here.is_some() {
            let upload = blocking(move || upload.confirm(&wanted).map(|()| upload)).await?;
            let linked = self.index.commit(links).await;
            return blocking(move || {
                // Without the link it waits: its client may try again.
                linked.map(|()| upload.cancel())?;
                Ok(size)
            })
            .await;
        }
        let file = blocking(move || upload.place(&wanted)).await?;
        self.forget_opened(digest);
        let stored = self.held.put(digest, file, size);
        let row = BlobRow {
            size,
            stored_at: Timestamp::now(),
        };
        steps::before("publish: commit");
        links.push(Change::put_uploaded(digest, &row));
        if let Err(error) = self.index.commit(links).await {
            let is_there = self
                .is_there_after_all(digest, size, Some(&stored), Account::Hosted)
                .await;
            if error.is_refusal() || !is_there {
                return Err(error);
            }
        }
        steps::before("publish: release");
        self.quarantine.release(digest);
        Ok(size)
    }

    /// After a commit that failed: whether the row was written all the same. If it was not, the file goes.
    async fn is_there_after_all(
        &self,
        digest: &Digest,
        size: u64,
        stored: Option<&StoredBlob>,
        account: Account,
    ) -> bool {
        let wanted = *digest;
        match self.index.read(move |index| index.blob(&wanted)).await {
            Ok(Some(_)) => return true,
            Ok(None) => {}
            // Nobody knows: the next start looks.
            Err(_) => return false,
        }
        // The disk may be full: then the file, too, is in the way.
        let path = self.yard.layout.blob(digest);
        let removed = blocking(move || fs::remove_file(&path).map_err(Error::at(&path))).await;
        if removed.is_ok() {
            let room = self.yard.space.reclaim(account, allocated(size));
            if let Some(stored) = stored {
                stored.give_back(room);
            }
        }
        false
    }

    /// Removes a blob, in law 3's order: first the row, durably, then the file. Gives the room that becomes free, when
    /// the last reader has let go; `None` when it was not here.
    pub async fn remove(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        self.take_away(digest, Fate::Unlinked).await
    }

    /// Removes a blob that no repository may serve, in the same order: the bytes that become free, if it was such a one.
    pub async fn remove_unheld(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        self.take_away(digest, Fate::Unheld).await
    }

    /// Commits links to a blob if the blob is here, so that it is not removed in between. Whether it is.
    ///
    /// # Errors
    /// `Quota` and `RepositoryGone`, when `links` are not admitted.
    pub async fn link_if_here(&self, digest: &Digest, links: Vec<Change>) -> Result<bool, Error> {
        let (blobs, digest) = (self.clone(), *digest);
        let work = async move {
            // A row whose file is lost goes: who was told that it is here would not push it.
            blobs.open(&digest).await?;
            let _claim = blobs.claims.claim(&digest).await;
            if blobs
                .index
                .read(move |index| index.blob(&digest))
                .await?
                .is_none()
            {
                return Ok(false);
            }
            blobs.index.commit(links).await.map(|()| true)
        };
        tokio::spawn(work)
            .await
            .unwrap_or_else(|panic| Err(Error::Index(format!("linking a blob failed: {panic}"))))
    }

    /// Takes a rotten blob out of service, in the same order, and puts its file aside. Whether it was here.
    pub async fn put_aside(&self, digest: &Digest) -> Result<bool, Error> {
        Ok(self.take_away(digest, Fate::Quarantined).await?.is_some())
    }

    /// Removes the row of a blob whose file is missing or short. Whether it was so.
    ///
    /// # Errors
    /// `Foreign` when the data folder itself is gone, which is no reason to forget what is in it.
    pub async fn drop_if_lost(&self, digest: &Digest) -> Result<bool, Error> {
        Ok(self.take_away(digest, Fate::Lost).await?.is_some())
    }

    /// Lets the cache of opened blobs go of one.
    fn forget_opened(&self, digest: &Digest) {
        if let Some(slot) = self.open.remove(digest) {
            slot.empty();
        }
    }

    /// By a task of its own: half of it must not be done because a client has left.
    async fn take_away(&self, digest: &Digest, fate: Fate) -> Result<Option<u64>, Error> {
        let (blobs, digest) = (self.clone(), *digest);
        tokio::spawn(async move { blobs.take_away_whole(&digest, fate).await })
            .await
            .unwrap_or_else(|panic| Err(Error::Index(format!("removing a blob failed: {panic}"))))
    }

    async fn take_away_whole(&self, digest: &Digest, fate: Fate) -> Result<Option<u64>, Error> {
        let _claim = self.claims.claim(digest).await;
        let (wanted, layout) = (*digest, self.yard.layout.clone());
        let found = self
            .index
            .read(move |index| {
                let Some(row) = index.blob(&wanted)? else {
                    return Ok(None);
                };
                // Looked at in any case: what a folder that is gone lacks is not forgotten.
                let goes = matches!(fate, Fate::Unlinked | Fate::Unheld);
                let lost = !goes && is_lost(&layout, &wanted, &row)?;
                if fate == Fate::Lost && !lost {
                    return Ok(None);
                }
                // Who may read it may do so when it is here again.
                let links = match fate {
                    Fate::Unlinked | Fate::Unheld => Vec::new(),
                    Fate::Quarantined | Fate::Lost => links(index, &wanted)?,
                };
                let account = if index.is_hosted(&wanted)? {
                    Account::Hosted
                } else {
                    Account::Cached
                };
                Ok(Some((row, links, account)))
            })
            .await?;
        let Some((row, links, account)) = found else {
            return Ok(None);
        };
        if fate == Fate::Lost {
            tracing::error!(%digest, "a blob's file is missing or short: it will be fetched again");
        }
        let mut changes = vec![match fate {
            Fate::Unheld => Change::remove_unheld(digest),
            _ => Change::remove_blob(digest),
        }];
        changes.extend(
            links
                .iter()
                .map(|(holder, link)| Change::put_link(holder, digest, link)),
        );
        steps::before("remove: commit");
        self.index.commit(changes).await?;
        if self.index.read(move |index| index.blob(&wanted)).await?.is_some() {
            // Somebody wrote a row past us, or linked it: then its bytes must stay.
            return Ok(None);
        }
        self.forget_opened(digest);
        let opened = self.held.take(digest);
        let layout = self.yard.layout.clone();
        blocking(move || {
            let path = layout.blob(&wanted);
            steps::before("remove: unlink");
            let gone = match fate {
                Fate::Unlinked | Fate::Unheld | Fate::Lost => fs::remove_file(&path),
                Fate::Quarantined => fs::rename(&path, layout.quarantined(&wanted)),
            };
            match gone {
                // Not synced: a file that comes back after a power cut has no row, and a sweep finds it.
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::at(&path)(error)),
                _ => Ok(()),
            }
        })
        .await?;
        let bytes = allocated(row.size);
        let room = self.yard.space.reclaim(account, bytes);
        if fate == Fate::Quarantined {
            self.quarantine.add(*digest, room);
        } else if let Some(blob) = opened {
            blob.give_back(room);
        }
        Ok(Some(bytes))
    }

    /// Whether somebody reads the blob at the moment.
    pub fn is_read(&self, digest: &Digest) -> bool {
        self.held.is_read(digest)
    }
}

/// What happens to the file of a blob that goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Unlinked,
    /// The same, if no repository may serve it.
    Unheld,
    Quarantined,
    /// Missing or short already; else it stays.
    Lost,
}

/// The repositories that may serve a blob.
fn links(index: &Index, digest: &Digest) -> Result<Vec<(String, LinkRow)>, Error> {
    let mut links = Vec::new();
    for holder in index.holders(digest, usize::MAX)? {
        let link = index.link(&holder, digest)?;
        links.extend(link.map(|link| (holder, link)));
    }
    Ok(links)
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| Err(Error::Index(format!("work on a blob failed: {panic}"))))
}

/// `None` when the file is not what its row says.
fn open_file(
    layout: &Layout,
    held: &Arc<Held>,
    digest: &Digest,
    row: &BlobRow,
) -> Result<Option<Arc<StoredBlob>>, Error> {
    let path = layout.blob(digest);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::at(&path)(error)),
    };
    let size = file.metadata().map_err(Error::at(&path))?.len();
    if size != row.size {
        // The file stays where it is: the next one is renamed over it.
        return Ok(None);
    }
    Ok(Some(held.join(digest, file, size)))
}
