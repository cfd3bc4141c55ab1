//! Tags: which manifest each points at, and when that was last confirmed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::clock::Timestamp;
use crate::oci::{Digest, Tag};
use crate::storage::{Change, Error, Removed, TagRow};

use super::{Key, Repositories};

/// What is known of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagState {
    /// The manifest it points at.
    pub digest: Digest,
    /// When the upstream last confirmed that.
    pub validated_at: Timestamp,
    /// Since when a healthy upstream says that the tag does not exist.
    pub gone_since: Option<Timestamp>,
}

/// A tag's state in memory, and how often clients asked for it since it was put there: which is since it was confirmed.
#[derive(Clone)]
pub(super) struct KnownTag {
    state: TagState,
    asked: Arc<AtomicU32>,
}

impl From<TagState> for KnownTag {
    fn from(state: TagState) -> Self {
        let asked = Arc::new(AtomicU32::new(0));
        Self { state, asked }
    }
}

impl Repositories {
    /// The state of a tag that was pulled before.
    pub async fn tag(&self, repository: &Key, tag: &Tag) -> Result<Option<TagState>, Error> {
        Ok(self.known_tag(repository, tag).await?.map(|known| known.state))
    }

    /// The same for a client who asks for it, and how many have since the tag was confirmed, with this one. Those before
    /// memory last let go of it are not counted.
    pub async fn asked_tag(&self, repository: &Key, tag: &Tag) -> Result<Option<(TagState, u32)>, Error> {
        let known = self.known_tag(repository, tag).await?;
        Ok(known.map(|known| {
            let before = known.asked.fetch_add(1, Ordering::Relaxed);
            (known.state, before.wrapping_add(1))
        }))
    }

    async fn known_tag(&self, repository: &Key, tag: &Tag) -> Result<Option<KnownTag>, Error> {
        let key = (repository.clone(), tag.clone());
        if let Some(known) = self.memory.tags.get(&key) {
            return Ok(Some(known));
        }
        let seen = self.memory.removals();
        let (repository, tag) = key.clone();
        let row = self.index.read(move |index| index.tag(&repository, &tag)).await?;
        let state = row.and_then(|row| {
            let digest = row.digest.parse().ok()?;
            Some(TagState {
                digest,
                validated_at: row.validated_at,
                gone_since: row.gone_since,
            })
        });
        // A newer state may have come while the row was read.
        Ok(state.map(|state| {
            let entry = self.memory.tags.entry(key.clone());
            let known = entry.or_insert_with(|| state.into()).into_value();
            if self.memory.removals() != seen {
                self.memory.tags.invalidate(&key);
            }
            known
        }))
    }

    /// Changes the state of a tag whose manifest is here.
    pub fn put_tag(&self, repository: &Key, tag: &Tag, state: TagState) {
        let change = self.tag_change(repository, tag, state);
        // Lost in a crash, the tag is revalidated once more.
        self.index.submit(vec![change]);
    }

    /// Forgets a tag, durably. What its digest reaches stays.
    pub async fn remove_tag(&self, repository: &Key, tag: &Tag) -> Result<(), Error> {
        // First the row: memory would take it up again.
        self.index
            .commit(vec![Change::remove_tag(repository, tag)])
            .await?;
        // A reader that still has the row must not bring it back to memory.
        self.memory.forget(&Removed {
            tags: vec![(repository.to_string(), tag.clone())],
            ..Removed::default()
        });
        Ok(())
    }

    /// Tags of a repository that were pulled before, `most` at the most.
    pub async fn known_tags(&self, repository: &Key, most: usize) -> Result<Vec<String>, Error> {
        self.written().await;
        let repository = repository.clone();
        self.index.read(move |index| index.tags(&repository, most)).await
    }

    pub(super) fn tag_change(&self, repository: &Key, tag: &Tag, state: TagState) -> Change {
        self.memory
            .tags
            .insert((repository.clone(), tag.clone()), state.into());
        let row = TagRow {
            digest: state.digest.to_string(),
            validated_at: state.validated_at,
            gone_since: state.gone_since,
        };
        Change::put_tag(repository, tag, &row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;
    use crate::storage::Index;

    #[tokio::test]
    async fn requests_are_counted_from_when_a_tag_was_confirmed() {
        let folder = tempfile::tempdir().unwrap();
        let index = Arc::new(Index::open(folder.path(), false, None).unwrap());
        let repositories = Repositories::new(index);
        let (repository, tag) = (Key::from("hub/a"), "latest".parse().unwrap());
        let confirmed = |at: u64| TagState {
            digest: Digest::from_hash(Algorithm::Sha256, &[1; 32]).unwrap(),
            validated_at: Timestamp(at),
            gone_since: None,
        };
        let asked = async || repositories.asked_tag(&repository, &tag).await.unwrap();
        assert!(asked().await.is_none());
        for at in [1000, 2000] {
            repositories.put_tag(&repository, &tag, confirmed(at));
            for count in 1..=3 {
                assert_eq!(asked().await.unwrap(), (confirmed(at), count));
            }
            // What nobody asked for by the tag is no request.
            assert!(repositories.tag(&repository, &tag).await.unwrap().is_some());
        }
        // Of a tag that memory let go of, too.
        repositories.written().await;
        repositories.memory.tags.invalidate_all();
        assert_eq!(asked().await.unwrap(), (confirmed(2000), 1));
    }
}
