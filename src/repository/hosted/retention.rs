//! Retention: which images of a repository its lifecycle policy expires, and their deletion. A preview and a run ask the
//! same question; a run looks at each image once more before it goes.
//!
//! What refers to an image (a signature) goes with it, as at ECR. The children of an index that expires stay, and are
//! judged by themselves the next time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::oci::{Digest, Tag};
use crate::repository::Key;
use crate::repository::lifecycle::{Act, ImageFacts, Policy, StorageClass, Verdict, evaluate};
use crate::storage::{Error as StorageError, Index};

use super::blobs::{detached, needed};
use super::report::{Expiring, RetentionPreview};
use super::{Error, Hosted, HostedRepository};

/// Rows that one read looks at.
const PAGE: usize = 1000;

/// An image that is to go.
#[derive(Clone, Debug)]
struct Doomed {
    digest: Digest,
    tags: Vec<Tag>,
    pushed_at: Timestamp,
    reason: Reason,
}

#[derive(Clone, Copy, Debug)]
enum Reason {
    /// A rule of this priority.
    Rule(u64),
    /// It refers to this one, which goes.
    Subject(Digest),
}

/// An image of the repository.
struct Image {
    facts: ImageFacts,
    /// Whether an index here names it, or one that is just being pushed.
    named: bool,
    /// What refers to it, as far as that is here.
    referrers: Vec<Digest>,
}

/// What came of a run over one repository.
#[derive(Clone, Debug, Default)]
pub struct Expired {
    /// What was deleted, in this order.
    pub deleted: Vec<Expiring>,
    /// Images that were to go, and got another tag meanwhile, or an index that names them.
    pub spared: u64,
}

impl Hosted {
    /// What `policy` would delete now. Deletes nothing.
    pub async fn preview_retention(
        &self,
        repository: &HostedRepository,
        policy: &Policy,
    ) -> Result<RetentionPreview, Error> {
        let (manifests, doomed) = self.doomed(repository, policy, Timestamp::now()).await?;
        Ok(RetentionPreview {
            name: repository.name.to_string(),
            manifests,
            expiring: doomed.iter().map(Doomed::told).collect(),
        })
    }

    /// Deletes what `policy` expires now. `deleted` hears of each image that went, and says whether to go on.
    pub async fn expire(
        &self,
        repository: &HostedRepository,
        policy: &Policy,
        mut deleted: impl FnMut(&Expiring) -> bool,
    ) -> Result<Expired, Error> {
        let (_, doomed) = self.doomed(repository, policy, Timestamp::now()).await?;
        let mut expired = Expired::default();
        for one in doomed {
            let told = one.told();
            if !self.delete_doomed(&repository.key, one).await? {
                expired.spared += 1;
                continue;
            }
            let go_on = deleted(&told);
            expired.deleted.push(told);
            if !go_on {
                break;
            }
        }
        Ok(expired)
    }

    /// How many manifests there are, and which are to go.
    async fn doomed(
        &self,
        repository: &HostedRepository,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<(u64, Vec<Doomed>), Error> {
        let key = repository.key.clone();
        let mut images = self
            .shared
            .index
            .read(move |index| images(index, &key, now))
            .await?;
        for image in &mut images {
            let pair = (repository.key.clone(), image.facts.digest);
            if self.shared.leases.contains_key(&pair) {
                image.named = true;
                image.facts.needed = true;
            }
        }
        Ok((images.len() as u64, choose(policy, &images, now)))
    }

    /// Deletes an image if it is still as it was when it was judged. Whether it went.
    async fn delete_doomed(&self, key: &Key, doomed: Doomed) -> Result<bool, Error> {
        let (its, pair) = (self.clone(), (key.clone(), doomed.digest));
        detached(async move {
            let _turn = its.shared.condemned.claim(&pair).await;
            if its.shared.leases.contains_key(&pair) {
                return Ok(false);
            }
            let key = pair.0.clone();
            let read = its.shared.index.read(move |index| is_same(index, &key, &doomed));
            if !read.await? {
                return Ok(false);
            }
            match its.drop_manifest(&pair.0, &pair.1).await {
                Err(Error::ManifestUnknown) => Ok(false),
                dropped => dropped.map(|()| true),
            }
        })
        .await
    }
}

impl Doomed {
    fn told(&self) -> Expiring {
        let (rule, subject) = match self.reason {
            Reason::Rule(rule) => (Some(rule), None),
            Reason::Subject(subject) => (None, Some(subject.to_string())),
        };
        Expiring {
            digest: self.digest.to_string(),
            tags: self.tags.iter().map(ToString::to_string).collect(),
            pushed_at: self.pushed_at,
            rule,
            subject,
        }
    }
}

/// What the policy expires, and what goes with that. Pure.
fn choose(policy: &Policy, images: &[Image], now: Timestamp) -> Vec<Doomed> {
    let facts: Vec<_> = images.iter().map(|image| image.facts.clone()).collect();
    let by_digest: HashMap<_, _> = images.iter().map(|image| (image.facts.digest, image)).collect();
    let doomed = |image: &Image, reason| Doomed {
        digest: image.facts.digest,
        tags: image.facts.tags.clone(),
        pushed_at: image.facts.pushed_at,
        reason,
    };
    let mut chosen = Vec::new();
    let mut seen = HashSet::new();
    // Nothing is archived here: what a policy would send there stays.
    let expires = |verdict: &Verdict| verdict.action == Act::Expire;
    for verdict in evaluate(policy, &facts, now).into_iter().filter(expires) {
        let Some(image) = by_digest.get(&verdict.digest) else {
            continue;
        };
        let mut queue = vec![(*image, Reason::Rule(verdict.rule_priority))];
        while let Some((image, reason)) = queue.pop() {
            if !seen.insert(image.facts.digest) {
                continue;
            }
            chosen.push(doomed(image, reason));
            let subject = Reason::Subject(image.facts.digest);
            let referrers = image.referrers.iter().filter_map(|digest| by_digest.get(digest));
            // One with a tag, or in an index, is there in its own right.
            let bare = referrers.filter(|referrer| referrer.facts.tags.is_empty() && !referrer.named);
            queue.extend(bare.map(|referrer| (*referrer, subject)));
        }
    }
    chosen
}

/// All images of a repository, in the order of their digests.
fn images(index: &Index, key: &Key, now: Timestamp) -> Result<Vec<Image>, StorageError> {
    let mut tags: HashMap<Digest, Vec<Tag>> = HashMap::new();
    let mut after = String::new();
    loop {
        let page = index.tags_after(key, &after, PAGE)?;
        let Some((last, _)) = page.last() else { break };
        after.clone_from(last);
        for (tag, row) in page {
            if let (Ok(tag), Ok(digest)) = (tag.parse(), row.digest.parse()) {
                tags.entry(digest).or_default().push(tag);
            }
        }
    }
    let mut images = Vec::new();
    let mut after = None;
    loop {
        let page = index.links_after(key, after, PAGE)?;
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        for (digest, row) in page.into_iter().filter(|(_, row)| row.manifest) {
            let listed = index.referrers(key, &digest)?;
            let listed = listed.map(|row| row.descriptors).unwrap_or_default();
            let named = needed(index, key, &digest)?;
            let facts = ImageFacts {
                digest,
                tags: tags.remove(&digest).unwrap_or_default(),
                // Without a time it is as good as new.
                pushed_at: row.at.unwrap_or(now),
                pulled_at: None,
                class: StorageClass::Standard,
                archived_at: None,
                activated_at: None,
                needed: named,
            };
            images.push(Image {
                facts,
                named,
                referrers: listed
                    .iter()
                    .filter_map(|listed| listed.digest.parse().ok())
                    .collect(),
            });
        }
    }
    // Whoever refers to what is here stays as long as that does.
    let referring: HashSet<Digest> = images.iter().flat_map(|image| image.referrers.clone()).collect();
    for image in &mut images {
        image.facts.needed |= referring.contains(&image.facts.digest);
    }
    Ok(images)
}

/// Whether an image is still what was judged: the same push, the same tags, and no index that needs it.
fn is_same(index: &Index, key: &Arc<str>, doomed: &Doomed) -> Result<bool, StorageError> {
    let Some(link) = index.link(key, &doomed.digest)? else {
        return Ok(false);
    };
    let tags: HashSet<_> = index
        .tagged(&doomed.digest, usize::MAX)?
        .into_iter()
        .filter(|(repository, _)| **repository == **key)
        .map(|(_, tag)| tag)
        .collect();
    if !link.manifest
        || link.at.is_some_and(|at| at != doomed.pushed_at)
        || tags != doomed.tags.iter().cloned().collect()
        || needed(index, key, &doomed.digest)?
    {
        return Ok(false);
    }
    match doomed.reason {
        Reason::Rule(_) => Ok(true),
        // Its subject may have been spared.
        Reason::Subject(subject) => Ok(index.link(key, &subject)?.is_none()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{MediaType, Reference};
    use crate::repository::hosted::Pushing;
    use crate::repository::hosted::tests::{Scene, manifest, sha};

    /// Keeps the newest image.
    fn newest() -> Policy {
        let text = r#"{"rules":[{"rulePriority":7,"selection":{"tagStatus":"any",
            "countType":"imageCountMoreThan","countNumber":1},"action":{"type":"expire"}}]}"#;
        Policy::parse(text).unwrap()
    }

    /// What is pushed after this is newer.
    async fn later() {
        let now = Timestamp::now();
        while Timestamp::now() == now {
            tokio::task::yield_now().await;
        }
    }

    async fn doomed(scene: &Scene) -> Vec<Doomed> {
        let now = Timestamp::now();
        scene.hosted.doomed(&scene.app, &newest(), now).await.unwrap().1
    }

    async fn put_index(scene: &Scene, tag: &str, child: &Digest) -> Digest {
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{}","digest":"{child}","size":1}}]}}"#,
            MediaType::oci_manifest().as_str()
        );
        let pushing = Pushing {
            reference: Reference::Tag(tag.parse().unwrap()),
            tags: Vec::new(),
            media_type: Some(MediaType::new("application/vnd.oci.image.index.v1+json")),
            bytes: text.into(),
        };
        scene
            .hosted
            .push_manifest(&scene.app, pushing)
            .await
            .unwrap()
            .digest
    }

    #[tokio::test]
    async fn what_changes_after_it_was_judged_is_spared() {
        let scene = Scene::new().await;
        let layer = scene.upload(b"old").await.unwrap();
        let text = manifest(&[layer], None);
        let old = scene.put("old", &text).await.unwrap().digest;
        later().await;
        scene.image("new", b"new").await;
        let judged = doomed(&scene).await;
        assert_eq!(judged.len(), 1);
        assert_eq!(judged[0].digest, old);
        // Another tag.
        scene.put("again", &text).await.unwrap();
        let key = &scene.app.key;
        let deleted = scene.hosted.delete_doomed(key, judged[0].clone()).await;
        assert!(!deleted.unwrap());
        // An index that names it.
        let judged = doomed(&scene).await;
        assert_eq!(judged[0].tags.len(), 2);
        let index = put_index(&scene, "index", &old).await;
        let deleted = scene.hosted.delete_doomed(key, judged[0].clone()).await;
        assert!(!deleted.unwrap());
        // What an index names is not even judged, and neither is what one that is being pushed may name.
        let digests = |judged: Vec<Doomed>| judged.into_iter().map(|one| one.digest).collect::<Vec<_>>();
        assert!(!digests(doomed(&scene).await).contains(&old));
        scene.hosted.delete_manifest(&scene.app, &index).await.unwrap();
        assert!(!digests(doomed(&scene).await).contains(&old));
        scene.hosted.shared.leases.invalidate_all();
        assert_eq!(digests(doomed(&scene).await), [old]);
        let (policy, mut told) = (newest(), Vec::new());
        let expired = scene.hosted.expire(&scene.app, &policy, |image| {
            told.push(image.clone());
            true
        });
        let expired = expired.await.unwrap();
        assert_eq!((&expired.deleted, expired.spared), (&told, 0));
        assert_eq!(told[0].digest, old.to_string());
        assert_eq!(
            (told[0].rule, &told[0].tags[..]),
            (Some(7), &["again", "old"].map(str::to_owned)[..])
        );
        assert_eq!(scene.hosted.tags(&scene.app, "", 9).await.unwrap(), ["new"]);
    }

    #[tokio::test]
    async fn what_refers_to_an_image_goes_with_it_unless_it_has_a_name() {
        let scene = Scene::new().await;
        let subject = scene.image("old", b"old").await;
        let layer = sha(b"old");
        let signature = scene
            .put("sig", &manifest(&[layer], Some(&subject)))
            .await
            .unwrap()
            .digest;
        let of_signature = manifest(&[layer], Some(&signature));
        let second = scene.put("second", &of_signature).await.unwrap().digest;
        for tag in ["sig", "second"] {
            let tag = tag.parse().unwrap();
            scene.hosted.delete_tag(&scene.app, &tag).await.unwrap();
        }
        let named = manifest(&[layer, sha(b"old")], Some(&subject));
        let named = scene.put("named", &named).await.unwrap().digest;
        later().await;
        scene.image("new", b"new").await;
        let judged = doomed(&scene).await;
        let found: Vec<_> = judged.iter().map(|one| one.digest).collect();
        assert_eq!(found, [subject, signature, second]);
        assert!(!found.contains(&named));
        assert!(matches!(judged[2].reason, Reason::Subject(of) if of == signature));
        // As long as its subject is there, it is not taken away.
        let key = &scene.app.key;
        let deleted = scene.hosted.delete_doomed(key, judged[1].clone()).await;
        assert!(!deleted.unwrap());
        let expired = scene
            .hosted
            .expire(&scene.app, &newest(), |_| true)
            .await
            .unwrap();
        assert_eq!(expired.deleted.len(), 3);
        assert!(
            scene
                .hosted
                .referrers(&scene.app, &subject)
                .await
                .unwrap()
                .iter()
                .all(|listed| listed.digest == named.to_string())
        );
    }
}
