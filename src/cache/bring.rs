//! Content that an operator brings, where no upstream is asked: the same files, rows and links as what a fill leaves, in
//! law 3's order and within the cap. Called by `preserve`'s import.
//!
//! A manifest that is brought is no proof for what it names (law 8): only what came with it, byte for byte, is linked.

use std::sync::Arc;

use bytes::Bytes;

use crate::clock::{LastUse, Timestamp};
use crate::oci::{Descriptor, Digest, Manifest, MediaType, Tag};
use crate::repository::{StoredManifest, TagState};
use crate::storage::{self, Ingest, NextPiece, NoRoom, Pieces, Refetch};
use crate::upstream::{Purpose, SharedPurpose};

use super::error::{Error, ErrorKind};
use super::eviction;
use super::inflight::{Lead, Opened};
use super::{Cache, Place};

/// For whom it comes, as `status` tells it; no repository can be called so.
const BROUGHT: &str = "a bundle";

/// What becomes of a blob that is brought.
pub enum Bring {
    /// It is here already.
    Here,
    /// It is taken in.
    Taken(Box<Bringing>),
}

/// A blob on its way in. Dropped before its end, nothing of it is kept.
pub struct Bringing {
    cache: Cache,
    digest: Digest,
    ingest: Option<Ingest>,
    /// Clients that want it read behind us, each with its own proof.
    lead: Lead,
}

/// There is nowhere to fetch it from again.
struct Nowhere;

impl Refetch for Nowhere {
    fn fetch(&self, _: u64, _: Option<u64>) -> Box<dyn Pieces> {
        Box::new(Self)
    }
}

impl Pieces for Nowhere {
    fn next(&mut self) -> NextPiece<'_> {
        Box::pin(async { Err("it is brought by an operator, and not fetched".into()) })
    }
}

impl Cache {
    /// Runs work that writes and hashes in place, on the threads of the fills.
    pub async fn on_fill_threads<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        let running = self.shared.fill_threads.spawn(work);
        running
            .await
            .map_err(|_| Error::internal("work that an operator asked for was given up"))
    }

    /// Begins to take in a blob of `size` bytes. Waits for a fill of the same, if one runs.
    ///
    /// # Errors
    /// When there is no room for it.
    pub async fn bring_blob(&self, digest: &Digest, size: u64) -> Result<Bring, Error> {
        let shared = &self.shared;
        let lead = loop {
            if shared.storage.blobs.open(digest).await?.is_some() {
                return Ok(Bring::Here);
            }
            let mut lead = None;
            // For no repository: whoever joins has to prove that it is its own.
            let (fill, _) = shared.fills.lead_or_join(
                *digest,
                &BROUGHT.into(),
                SharedPurpose::new(Purpose::Background),
                |its| lead = Some(its),
            );
            match lead {
                Some(lead) => break lead,
                None => fill.gone().await,
            }
        };
        match self.begin(digest, size).await {
            Ok(ingest) => {
                lead.open(Ok(Opened::Growing(ingest.growing().clone())));
                Ok(Bring::Taken(Box::new(Bringing {
                    cache: self.clone(),
                    digest: *digest,
                    ingest: Some(ingest),
                    lead,
                })))
            }
            Err(error) => {
                lead.leave();
                lead.open(Err(error.clone()));
                Err(error)
            }
        }
    }

    async fn begin(&self, digest: &Digest, size: u64) -> Result<Ingest, Error> {
        let mut again = true;
        loop {
            let (shared, wanted) = (self.shared.clone(), *digest);
            let create = move || {
                // What an interrupted fill left would be in our way.
                shared.storage.blobs.discard_partial(&wanted);
                shared
                    .storage
                    .blobs
                    .ingest(wanted, Some(size), BROUGHT, Arc::new(Nowhere))
            };
            let created = tokio::task::spawn_blocking(create)
                .await
                .map_err(|_| Error::internal("opening a partial file was given up"))?;
            match created {
                Err(storage::Error::NoRoom(NoRoom { missing })) => {
                    let retry = missing > 0 && std::mem::take(&mut again);
                    if !retry || !self.shared.make_room(missing, digest).await {
                        return Err(no_room());
                    }
                }
                created => return Ok(created?),
            }
        }
    }

    /// Takes an image in for a repository, in one transaction: its manifests with what of them came along, and the tag
    /// that points at the first. `confirmed`: when the tag's upstream last said so, as far as that is known. Whether the
    /// tag points there now: one that was confirmed later stays.
    pub async fn bring_image(
        &self,
        place: &Place,
        manifests: Vec<BroughtManifest>,
        tag: Option<(Tag, Option<Timestamp>)>,
    ) -> Result<bool, Error> {
        let repositories = &self.shared.repositories;
        let counted = place.upstream.counts_pulls(&place.name);
        let root = manifests.first().map(|manifest| manifest.digest);
        let mut changes = Vec::new();
        for brought in manifests {
            let stored = Arc::new(StoredManifest {
                bytes: brought.bytes,
                media_type: brought.outline.media_type.clone(),
                digest: brought.digest,
                last_use: LastUse::default(),
            });
            let class_of = |bytes| eviction::class_of(bytes, counted);
            let links = &brought.blobs;
            changes.extend(repositories.brought(&place.key, &stored, &brought.outline, links, class_of));
        }
        let mut moved = false;
        if let (Some((tag, confirmed)), Some(digest)) = (&tag, root) {
            let now = Timestamp::now();
            let known = repositories.tag(&place.key, tag).await?;
            let is_newer = |known: &TagState| {
                known.gone_since.is_none() && confirmed.is_some_and(|told| known.validated_at > told)
            };
            moved = !known.as_ref().is_some_and(is_newer);
            if moved {
                // Due at once: where the upstream can be reached, it has the last word.
                let ttl = u64::try_from(place.freshness_of(tag).tag_ttl.as_millis()).unwrap_or(u64::MAX);
                let state = TagState {
                    digest,
                    validated_at: Timestamp(now.0.saturating_sub(ttl)),
                    gone_since: None,
                };
                changes.push(repositories.tag_brought(&place.key, tag, state));
            }
        }
        self.shared.storage.index.commit(changes).await?;
        self.shared.note_brought(place);
        if let Some((tag, _)) = &tag {
            self.shared.troubled.forget(place, tag);
        }
        Ok(moved)
    }

    /// Takes in what refers to a manifest of a repository, beside what is known to.
    pub async fn bring_referrers(
        &self,
        place: &Place,
        subject: &Digest,
        referrers: Vec<Descriptor>,
    ) -> Result<(), Error> {
        let repositories = &self.shared.repositories;
        let known = repositories.referrers(&place.key, subject).await?;
        let mut all = known.map(|(known, _)| known).unwrap_or_default();
        for one in referrers {
            if !all.iter().any(|known| known.digest == one.digest) {
                all.push(one);
            }
        }
        repositories.put_referrers(&place.key, subject, all);
        Ok(())
    }

    /// Removes a blob that was brought and that nothing links.
    pub async fn drop_unlinked(&self, digest: &Digest) -> Result<(), Error> {
        let wanted = *digest;
        let index = &self.shared.storage.index;
        let linked = index.read(move |index| Ok(!index.holders(&wanted, 1)?.is_empty()));
        if !linked.await? && !self.shared.is_in_use(digest) {
            self.shared.storage.blobs.remove(digest).await?;
        }
        Ok(())
    }
}

/// A manifest that is brought, with the blobs of it that came along.
pub struct BroughtManifest {
    /// Its digest, which its bytes have.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: Bytes,
    /// What it says.
    pub outline: Manifest,
    /// The blobs that are here and may be linked, with their sizes.
    pub blobs: Vec<(Digest, u64)>,
}

impl BroughtManifest {
    /// Reads a manifest that came as `media_type`.
    ///
    /// # Errors
    /// Why it is none that can be served.
    pub fn read(digest: Digest, bytes: Bytes, media_type: &str) -> Result<Self, String> {
        let media_type = Some(MediaType::new(media_type)).filter(|_| !media_type.is_empty());
        let outline = Manifest::parse(&bytes, media_type.as_ref()).map_err(|error| error.to_string())?;
        Ok(Self {
            digest,
            bytes,
            outline,
            blobs: Vec::new(),
        })
    }
}

impl Bringing {
    /// Takes more bytes. Blocking, for a moment: call it on the threads of the fills.
    pub fn append(&mut self, piece: &Bytes) -> Result<(), Error> {
        let Some(ingest) = &mut self.ingest else {
            return Err(Error::internal("a blob was brought after its end"));
        };
        ingest.append(std::slice::from_ref(piece))?;
        if ingest.is_on_disk() {
            return Ok(());
        }
        ingest.discard("there is no room");
        Err(no_room())
    }

    /// All bytes came: verified, durable and known when it returns. Nothing links it yet.
    ///
    /// # Errors
    /// `UpstreamFailed` when they are not those of the digest.
    pub async fn finish(mut self: Box<Self>) -> Result<(), Error> {
        let Some(mut ingest) = self.ingest.take() else {
            return Err(Error::internal("a blob was brought after its end"));
        };
        let size = match ingest.verify() {
            Ok(size) => size,
            Err(error) => {
                ingest.discard(&error.to_string());
                return Err(error.into());
            }
        };
        let blobs = &self.cache.shared.storage.blobs;
        Ok(blobs.publish(ingest, &self.digest, size).await?)
    }
}

impl Drop for Bringing {
    fn drop(&mut self) {
        // What is left of it is for nobody.
        if let Some(mut ingest) = self.ingest.take() {
            ingest.discard("its bundle broke off");
        }
        self.lead.leave();
    }
}

fn no_room() -> Error {
    Error::new(ErrorKind::Internal, "there is no room for it")
}
