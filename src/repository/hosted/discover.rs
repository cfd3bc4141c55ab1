//! What hosted repositories hold, in pages: tags, referrers, and the repositories themselves.

use crate::clock::Timestamp;
use crate::oci::{Descriptor, Digest, Manifest, Reference, RepositoryName, referrers_fallback_tag};
use crate::repository::Key;

use super::{Error, Hosted, HostedRepository};

/// Links that one read looks at.
const PAGE: usize = 1000;

impl Hosted {
    /// Tags after `after` in byte order (the spec's "ASCIIbetical"), `most` at the most.
    pub async fn tags(
        &self,
        repository: &HostedRepository,
        after: &str,
        most: usize,
    ) -> Result<Vec<String>, Error> {
        let (key, after) = (repository.key.clone(), after.to_owned());
        let rows = self
            .shared
            .index
            .read(move |index| index.tags_after(&key, &after, most))
            .await?;
        Ok(rows.into_iter().map(|(tag, _)| tag).collect())
    }

    /// What refers to `subject`, which need not be here: what was pushed with it as its subject, and what a client listed
    /// under the fallback tag.
    pub async fn referrers(
        &self,
        repository: &HostedRepository,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, Error> {
        let known = self
            .shared
            .repositories
            .referrers(&repository.key, subject)
            .await?;
        let mut found = known.map(|(descriptors, _)| descriptors).unwrap_or_default();
        let Ok(tag) = referrers_fallback_tag(subject).parse() else {
            return Ok(found);
        };
        match self.manifest(repository, &Reference::Tag(tag)).await {
            Ok(list) => {
                let list = Manifest::parse(&list.bytes, Some(&list.media_type))?;
                for listed in list.manifests {
                    let known = found.iter().any(|known| known.digest == listed.digest);
                    if !known && self.is_manifest_of(repository, &listed).await? {
                        found.push(listed);
                    }
                }
            }
            Err(Error::ManifestUnknown) => {}
            Err(error) => return Err(error),
        }
        Ok(found)
    }

    /// Whether a manifest that a client listed is one of the repository still: lists outlive what they name.
    async fn is_manifest_of(
        &self,
        repository: &HostedRepository,
        listed: &Descriptor,
    ) -> Result<bool, Error> {
        let Ok(digest) = listed.digest.parse() else {
            return Ok(false);
        };
        let link = self.link(&repository.key, &digest).await?;
        Ok(link.is_some_and(|link| link.manifest))
    }

    /// Repositories after `after` in byte order, `most` at the most, of those that `may_see` lets pass.
    pub async fn catalog(
        &self,
        after: &str,
        most: usize,
        may_see: impl Fn(&HostedRepository) -> bool,
    ) -> Result<Vec<RepositoryName>, Error> {
        let (mut found, mut after) = (Vec::new(), after.to_owned());
        while found.len() < most {
            let from = after.clone();
            let page = self
                .shared
                .index
                .read(move |index| index.repositories_after(&from, PAGE))
                .await?;
            let Some((last, _)) = page.last() else { break };
            after.clone_from(last);
            let all = page
                .into_iter()
                .filter_map(|(name, row)| Some(HostedRepository::of(&name.parse().ok()?, row)));
            let seen = all.filter(|repository| may_see(repository));
            found.extend(seen.map(|repository| repository.name));
        }
        found.truncate(most);
        Ok(found)
    }

    /// Whether the repository holds a manifest.
    pub(super) async fn holds_manifests(&self, repository: &HostedRepository) -> Result<bool, Error> {
        let mut after = None;
        loop {
            let page = self.links(&repository.key, after).await?;
            let Some((last, ..)) = page.last() else {
                return Ok(false);
            };
            after = Some(*last);
            if page.iter().any(|(_, manifest, _)| *manifest) {
                return Ok(true);
            }
        }
    }

    /// A page of what the repository holds: digest, whether it is a manifest, and since when.
    pub(super) async fn links(
        &self,
        key: &Key,
        after: Option<Digest>,
    ) -> Result<Vec<(Digest, bool, Timestamp)>, Error> {
        let key = key.clone();
        let rows = self
            .shared
            .index
            .read(move |index| index.links_after(&key, after, PAGE))
            .await?;
        let links = rows
            .into_iter()
            .map(|(digest, row)| (digest, row.manifest, row.at.unwrap_or(Timestamp(0))));
        Ok(links.collect())
    }
}
