//! Tags: which manifest each points at, and when that was last confirmed.

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

impl Repositories {
    /// The state of a tag that was pulled before.
    pub async fn tag(&self, repository: &Key, tag: &Tag) -> Result<Option<TagState>, Error> {
        let key = (repository.clone(), tag.clone());
        if let Some(state) = self.memory.tags.get(&key) {
            return Ok(Some(state));
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
            let state = self.memory.tags.entry(key.clone()).or_insert(state).into_value();
            if self.memory.removals() != seen {
                self.memory.tags.invalidate(&key);
            }
            state
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
        self.memory.tags.insert((repository.clone(), tag.clone()), state);
        let row = TagRow {
            digest: state.digest.to_string(),
            validated_at: state.validated_at,
            gone_since: state.gone_since,
        };
        Change::put_tag(repository, tag, &row)
    }
}
