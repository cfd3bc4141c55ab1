//! What an operator is told of hosted repositories: the JSON of the admin API, which the subcommands read back.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::repository::Key;
use crate::storage::{Error as StorageError, Index};

use super::{Error, Hosted, HostedRepository, Settings, key_of};

/// Rows that one read looks at.
const PAGE: usize = 1000;

/// A repository.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RepositoryReport {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom; empty when nobody said.
    pub created_by: String,
    /// The bytes that it holds; what it shares with others counts for each.
    pub bytes: u64,
    /// What was decided of it.
    #[serde(flatten)]
    pub settings: Settings,
    /// What it holds, where that was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<Holdings>,
}

/// What a repository holds, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holdings {
    /// Images, indexes and artifacts.
    pub manifests: u64,
    /// Tags that point at them.
    pub tags: u64,
    /// Their blobs, and those that nothing names yet.
    pub blobs: u64,
    /// Uploads that wait to go on.
    pub uploads: u64,
}

/// What a lifecycle policy would do.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RetentionPreview {
    /// The repository.
    pub name: String,
    /// The manifests that it holds.
    pub manifests: u64,
    /// Those of them that would be deleted, in this order.
    pub expiring: Vec<Expiring>,
}

/// An image that expires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiring {
    /// Its digest.
    pub digest: String,
    /// Its tags, which go with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// When it was pushed.
    pub pushed_at: Timestamp,
    /// The priority of the rule that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<u64>,
    /// Without a rule: the image that it refers to (as a signature does), which expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

impl Hosted {
    /// A repository, with what it holds.
    pub async fn report(&self, repository: &HostedRepository) -> Result<RepositoryReport, Error> {
        let key = repository.key.clone();
        let uploads = self.resting_uploads();
        let uploads = uploads.iter().filter(|upload| *upload.repository == *key);
        let uploads = uploads.count() as u64;
        let wanted = key.clone();
        let read = self.shared.index.read(move |index| {
            let holds = Holdings {
                uploads,
                ..count(index, &wanted)?
            };
            Ok((index.usage(&wanted)?, holds))
        });
        let (bytes, holds) = read.await?;
        Ok(RepositoryReport {
            name: repository.name.to_string(),
            created_at: repository.created_at,
            created_by: repository.created_by.to_string(),
            bytes,
            settings: repository.settings.clone(),
            holds: Some(holds),
        })
    }

    /// Repositories after `after` in byte order, `most` at the most, without what they hold.
    pub async fn reports(&self, after: &str, most: usize) -> Result<Vec<RepositoryReport>, Error> {
        let after = after.to_owned();
        let read = self.shared.index.read(move |index| {
            let mut reports = Vec::new();
            for (name, row) in index.repositories_after(&after, most)? {
                let Ok(parsed) = name.parse() else { continue };
                reports.push(RepositoryReport {
                    bytes: index.usage(&key_of(&parsed))?,
                    name,
                    created_at: row.created_at,
                    created_by: row.created_by,
                    settings: Settings::of_json(row.settings),
                    holds: None,
                });
            }
            Ok(reports)
        });
        Ok(read.await?)
    }
}

fn count(index: &Index, key: &Key) -> Result<Holdings, StorageError> {
    let mut holds = Holdings::default();
    let mut after = None;
    loop {
        let page = index.links_after(key, after, PAGE)?;
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        let manifests = page.iter().filter(|(_, row)| row.manifest).count();
        holds.manifests += manifests as u64;
        holds.blobs += (page.len() - manifests) as u64;
    }
    let mut after = String::new();
    loop {
        let page = index.tags_after(key, &after, PAGE)?;
        let Some((last, _)) = page.last() else {
            return Ok(holds);
        };
        after.clone_from(last);
        holds.tags += page.len() as u64;
    }
}
