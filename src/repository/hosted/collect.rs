//! Garbage collection, online: blobs that no manifest of their repository names go, and uploads that nobody went on with.
//! Page by page, so that who calls (`maintenance`) can pace it and stop in between.
//!
//! What a client was told that it is here is leased for the grace period, and nothing goes in the first grace period of a
//! process, since leases do not outlive one. A push that comes meanwhile waits for a link that is about to go, and then
//! hears that it is gone; it never relies on one that goes.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::oci::{Digest, RepositoryName};
use crate::repository::Key;
use crate::storage::{HOSTED, allocated};

use super::blobs::{detached, needed};
use super::{Error, Hosted, HostedRepository};

/// Links, or repositories, that are looked at together.
const PAGE: usize = 1000;

/// Manifests that leave a repository together.
const BATCH: usize = 100;

/// What a collection did, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs that left a repository.
    pub unlinked: u64,
    /// Blobs that left the disk, since no other repository holds them.
    pub removed: u64,
    /// The bytes that this freed.
    pub bytes: u64,
}

/// A collection that runs, of one repository or of many.
#[derive(Debug)]
pub struct Collecting {
    /// Nothing is done, only counted.
    dry: bool,
    now: Timestamp,
    /// Of blobs that several repositories hold: from how many a dry run would have taken it.
    taken: HashMap<Digest, usize>,
    /// What it has done so far, or would have.
    pub collected: Collected,
}

/// How far a page went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Links that were looked at.
    pub looked: u64,
    /// Where the next page begins; none after the last.
    pub last: Option<Digest>,
}

impl Collecting {
    /// One that begins now. `dry`: only says what would go.
    pub fn new(dry: bool) -> Self {
        Self {
            dry,
            now: Timestamp::now(),
            taken: HashMap::new(),
            collected: Collected::default(),
        }
    }
}

impl Hosted {
    /// How long nothing is collected yet: the rest of the first grace period of the process.
    pub fn held_for(&self, now: Timestamp) -> Duration {
        self.shared
            .grace
            .saturating_sub(now.since(self.shared.leases_since))
    }

    /// Collects one repository. `dry`: only says what would go.
    pub async fn collect(&self, repository: &HostedRepository, dry: bool) -> Result<Collected, Error> {
        let (mut run, mut after) = (Collecting::new(dry), None);
        loop {
            after = self.collect_page(repository, after, &mut run).await?.last;
            if after.is_none() {
                return Ok(run.collected);
            }
        }
    }

    /// Collects the next page of a repository.
    pub async fn collect_page(
        &self,
        repository: &HostedRepository,
        after: Option<Digest>,
        run: &mut Collecting,
    ) -> Result<Walked, Error> {
        if !run.dry && !self.held_for(run.now).is_zero() {
            return Ok(Walked::default());
        }
        let (key, now, grace) = (repository.key.clone(), run.now, self.shared.grace);
        let read = self.shared.index.read(move |index| {
            let page = index.links_after(&key, after, PAGE)?;
            let walked = Walked {
                looked: page.len() as u64,
                last: page.last().map(|(digest, _)| *digest),
            };
            let mut loose = Vec::new();
            for (digest, row) in page {
                let young = now.since(row.at.unwrap_or(Timestamp(0))) < grace;
                if !row.manifest && !young && !needed(index, &key, &digest)? {
                    loose.push(digest);
                }
            }
            Ok((walked, loose))
        });
        let (walked, loose) = read.await?;
        for digest in loose {
            if run.dry {
                self.count_loose(&repository.key, digest, run).await?;
            } else {
                self.collect_blob(&repository.key, digest, run).await?;
            }
        }
        Ok(walked)
    }

    /// What [`Hosted::collect_blob`] would do.
    async fn count_loose(&self, key: &Key, digest: Digest, run: &mut Collecting) -> Result<(), Error> {
        if self.shared.leases.contains_key(&(key.clone(), digest)) {
            return Ok(());
        }
        self.count_unlinked(digest, run).await
    }

    /// One repository less holds the blob; the last takes it along.
    async fn count_unlinked(&self, digest: Digest, run: &mut Collecting) -> Result<(), Error> {
        let taken = run.taken.get(&digest).copied().unwrap_or_default();
        let read = self.shared.index.read(move |index| {
            let holders = index.holders(&digest, taken + 2)?;
            Ok((holders.len(), index.blob(&digest)?))
        });
        let (holders, row) = read.await?;
        run.collected.unlinked += 1;
        if holders > taken + 1 {
            run.taken.insert(digest, taken + 1);
        } else if let Some(row) = row {
            run.taken.remove(&digest);
            run.collected.removed += 1;
            run.collected.bytes += allocated(row.size);
        }
        Ok(())
    }

    async fn collect_blob(&self, key: &Key, digest: Digest, run: &mut Collecting) -> Result<(), Error> {
        let (its, pair) = (self.clone(), (key.clone(), digest));
        let (unlinked, freed) = detached(async move {
            if its.shared.leases.contains_key(&pair) {
                return Ok((false, None));
            }
            let turn = its.shared.condemned.claim(&pair).await;
            // Looked at again: who leased it before it was condemned relies on it, who comes now waits.
            if its.shared.leases.contains_key(&pair) || its.is_needed(&pair.0, &digest).await? {
                return Ok((false, None));
            }
            its.unlink(&pair.0, &digest).await?;
            drop(turn);
            let freed = its.shared.blobs.remove_unheld(&digest).await?;
            Ok((true, freed))
        })
        .await?;
        run.collected.add(unlinked, freed);
        Ok(())
    }

    /// Gives up the sessions that nobody went on with for `idle`, of one repository or of all: how many, and their bytes.
    /// `dry`: only counts them.
    pub async fn reap_uploads(
        &self,
        of: Option<&HostedRepository>,
        idle: Duration,
        now: Timestamp,
        dry: bool,
    ) -> (u64, u64) {
        let since = Timestamp(
            now.0
                .saturating_sub(u64::try_from(idle.as_millis()).unwrap_or(u64::MAX)),
        );
        let key = of.map(|of| of.key.clone());
        self.give_up_uploads(key, since, dry).await
    }

    async fn give_up_uploads(&self, of: Option<Key>, since: Timestamp, dry: bool) -> (u64, u64) {
        let mut old = self.resting_uploads();
        old.retain(|upload| upload.at <= since && of.as_ref().is_none_or(|key| **key == *upload.repository));
        if dry {
            return (old.len() as u64, old.iter().map(|upload| upload.size).sum());
        }
        let uploads = self.shared.uploads.clone();
        let reaped = tokio::task::spawn_blocking(move || {
            // Who went on with one meanwhile keeps it.
            let gone = old.iter().filter_map(|upload| uploads.discard(upload.id, since));
            gone.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size))
        });
        reaped.await.unwrap_or_default()
    }

    /// Takes away what repositories left that no longer exist, when their removal was cut short. How many.
    pub async fn clear_abandoned(&self, run: &mut Collecting) -> Result<u64, Error> {
        let (mut cleared, mut after) = (0, String::new());
        loop {
            let from = after.clone();
            let read = self
                .shared
                .index
                .read(move |index| index.holding_after(&from, PAGE));
            let page = read.await?;
            let Some(last) = page.last() else {
                return Ok(cleared);
            };
            after.clone_from(last);
            for key in page {
                let name = key.strip_prefix(HOSTED).and_then(|name| name.parse().ok());
                if let Some(name) = name
                    && self.clear_if_abandoned(&name, run).await?
                {
                    cleared += 1;
                }
            }
        }
    }

    async fn clear_if_abandoned(&self, name: &RepositoryName, run: &mut Collecting) -> Result<bool, Error> {
        let key = super::key_of(name);
        if self.repository(name).await?.is_some() {
            return Ok(false);
        }
        if run.dry {
            let mut after = None;
            loop {
                let page = self.links(&key, after).await?;
                let Some((last, ..)) = page.last() else {
                    return Ok(true);
                };
                after = Some(*last);
                for (digest, ..) in page.into_iter().filter(|(_, manifest, _)| !manifest) {
                    self.count_unlinked(digest, run).await?;
                }
            }
        }
        let (its, name) = (self.clone(), name.clone());
        let collected = detached(async move {
            let _turn = its.shared.changing.claim(&name).await;
            // Somebody may have made it anew.
            match its.repository(&name).await? {
                Some(_) => Ok(None),
                None => its.clear(&key).await.map(Some),
            }
        });
        let collected = collected.await?;
        if let Some(collected) = collected {
            run.collected.unlinked += collected.unlinked;
            run.collected.removed += collected.removed;
            run.collected.bytes += collected.bytes;
        }
        Ok(collected.is_some())
    }

    /// Takes everything out of a repository that does not exist. The caller has claimed it.
    pub(super) async fn clear(&self, key: &Key) -> Result<Collected, Error> {
        let mut collected = Collected::default();
        self.give_up_uploads(Some(key.clone()), Timestamp(u64::MAX), false)
            .await;
        loop {
            let page = self.links(key, None).await?;
            if page.is_empty() {
                break;
            }
            let digests = |wanted| {
                let wanted = page.iter().filter(move |(_, manifest, _)| *manifest == wanted);
                wanted.map(|(digest, ..)| *digest).collect::<Vec<_>>()
            };
            for batch in digests(true).chunks(BATCH) {
                let mut changes = Vec::new();
                for digest in batch {
                    changes.extend(self.removal(key, digest).await?);
                }
                self.shared.index.commit(changes).await?;
            }
            // One by one: what is in no repository any more, and still on the disk when it is killed, nobody would find.
            for digest in digests(false) {
                self.unlink(key, &digest).await?;
                let freed = self.shared.blobs.remove_unheld(&digest).await?;
                collected.add(true, freed);
            }
        }
        // Tags of manifests that were lost.
        loop {
            let wanted = key.clone();
            let read = self.shared.index.read(move |index| index.tags(&wanted, PAGE));
            let tags: Vec<_> = read.await?.iter().filter_map(|tag| tag.parse().ok()).collect();
            if tags.is_empty() {
                return Ok(collected);
            }
            for tag in &tags {
                self.shared.repositories.remove_tag(key, tag).await?;
            }
        }
    }
}

impl Collected {
    fn add(&mut self, unlinked: bool, freed: Option<u64>) {
        self.unlinked += u64::from(unlinked);
        if let Some(bytes) = freed {
            self.removed += 1;
            self.bytes += bytes;
        }
    }
}
