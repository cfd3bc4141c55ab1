//! The cache as a few sets: what is here, who may read it, where tags point. And what each removal takes along.

use std::collections::{BTreeMap, BTreeSet};

/// A repository, by number.
pub type Repository = usize;

/// A tag that was pulled.
#[derive(Clone, Debug)]
pub struct Tag {
    pub digest: String,
    /// The upstream has said that it does not exist.
    pub gone: bool,
    /// The upstream was asked in vain since the daemon's start, and may be left alone for a while.
    pub troubled: bool,
}

impl PartialEq for Tag {
    /// Troubles are no content.
    fn eq(&self, other: &Self) -> bool {
        (&self.digest, self.gone) == (&other.digest, other.gone)
    }
}

/// What a cache holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Blobs whose bytes are here.
    pub blobs: BTreeSet<String>,
    /// Manifests that are here.
    pub manifests: BTreeSet<String>,
    /// Content that a repository may serve.
    pub links: BTreeSet<(Repository, String)>,
    pub tags: BTreeMap<(Repository, String), Tag>,
}

/// What each manifest of the world names.
pub type Names = BTreeMap<String, Vec<String>>;

impl State {
    pub fn serves_blob(&self, repository: Repository, digest: &str) -> bool {
        self.blobs.contains(digest) && self.is_linked(repository, digest)
    }

    pub fn serves_manifest(&self, repository: Repository, digest: &str) -> bool {
        self.manifests.contains(digest) && self.is_linked(repository, digest)
    }

    pub fn is_linked(&self, repository: Repository, digest: &str) -> bool {
        self.links.contains(&(repository, digest.to_owned()))
    }

    pub fn put_blob(&mut self, repository: Repository, digest: &str) {
        self.blobs.insert(digest.to_owned());
        self.links.insert((repository, digest.to_owned()));
    }

    pub fn put_manifest(&mut self, names: &Names, repository: Repository, digest: &str) {
        self.manifests.insert(digest.to_owned());
        for linked in names[digest].iter().map(String::as_str).chain([digest]) {
            self.links.insert((repository, linked.to_owned()));
        }
    }

    /// A manifest that was fetched, unless it was here already.
    pub fn have_manifest(&mut self, names: &Names, repository: Repository, digest: &str) {
        if !self.serves_manifest(repository, digest) {
            self.put_manifest(names, repository, digest);
        }
    }

    pub fn put_tag(&mut self, repository: Repository, tag: &str, digest: &str) {
        let state = Tag {
            digest: digest.to_owned(),
            gone: false,
            troubled: false,
        };
        self.tags.insert((repository, tag.to_owned()), state);
    }

    /// The manifests here that name some content.
    pub fn needing<'a>(&'a self, names: &'a Names, digest: &'a str) -> impl Iterator<Item = &'a String> {
        let needs = move |manifest: &&String| names[*manifest].iter().any(|named| named == digest);
        self.manifests.iter().filter(needs)
    }

    /// A manifest goes, with the tags that point at it.
    pub fn remove_manifest(&mut self, names: &Names, digest: &str) {
        self.manifests.remove(digest);
        self.tags.retain(|_, tag| tag.digest != digest);
        self.forget(names, names[digest].iter().map(String::as_str).chain([digest]));
    }

    /// Links to content that is not here, and that no manifest here names, go as well.
    pub fn forget<'a>(&mut self, names: &Names, removed: impl IntoIterator<Item = &'a str>) {
        for digest in removed {
            let stays = self.blobs.contains(digest)
                || self.manifests.contains(digest)
                || self.needing(names, digest).next().is_some();
            if !stays {
                self.links.retain(|(_, linked)| linked != digest);
            }
        }
    }

    /// What `purge --with-content` of a tag takes: its manifest and the manifests that only it needs; none when
    /// something else needs it.
    pub fn reached_by(&self, names: &Names, tag: &Tag) -> Vec<String> {
        let pointed_at = self
            .tags
            .values()
            .filter(|other| other.digest == tag.digest)
            .count()
            > 1;
        if pointed_at || self.needing(names, &tag.digest).next().is_some() {
            return Vec::new();
        }
        let (mut reached, mut left) = (Vec::new(), vec![tag.digest.clone()]);
        while let Some(manifest) = left.pop() {
            for child in &names[&manifest] {
                let parents: Vec<_> = self.needing(names, child).collect();
                if self.manifests.contains(child) && parents == [&manifest] {
                    left.push(child.clone());
                }
            }
            reached.push(manifest);
        }
        reached
    }

    /// Holds `after` against what an eviction may do to this.
    pub fn check_eviction(&self, names: &Names, after: &Self) {
        assert!(after.blobs.is_subset(&self.blobs) && after.manifests.is_subset(&self.manifests));
        for manifest in &after.manifests {
            for named in &names[manifest] {
                assert!(
                    !self.blobs.contains(named) || after.blobs.contains(named),
                    "{named} was taken out of {manifest}, which stays"
                );
            }
        }
        for manifest in &self.manifests {
            let has_child = names[manifest]
                .iter()
                .any(|named| after.manifests.contains(named));
            assert!(
                !has_child || after.manifests.contains(manifest),
                "{manifest} went before its last child"
            );
        }
        let mut expected = self.clone();
        expected.blobs.clone_from(&after.blobs);
        for manifest in self.manifests.difference(&after.manifests) {
            expected.remove_manifest(names, manifest);
        }
        expected.forget(names, self.blobs.difference(&after.blobs).map(String::as_str));
        assert_eq!(after, &expected, "tags or links are not what is left");
    }

    /// Holds what is here after a kill against this, which was here before, and `durable`, which was on the disk.
    pub fn check_kill(&self, durable: &Self, arriving: Option<&(Repository, String)>, after: &Self) {
        let arrives = |digest: &String| arriving.is_some_and(|(_, its)| its == digest);
        let between = |before: &BTreeSet<String>, durable: &BTreeSet<String>, after: &BTreeSet<String>| {
            for kept in before.intersection(durable) {
                assert!(after.contains(kept), "{kept} was durable, and is lost");
            }
            for new in after
                .iter()
                .filter(|new| !before.contains(*new) && !durable.contains(*new))
            {
                assert!(arrives(new), "{new} came from nowhere");
            }
        };
        between(&self.blobs, &durable.blobs, &after.blobs);
        between(&self.manifests, &durable.manifests, &after.manifests);
        for lost in self.links.intersection(&durable.links) {
            assert!(
                after.links.contains(lost),
                "the link {lost:?} was durable, and is lost"
            );
        }
        for new in &after.links {
            let known = self.links.contains(new) || durable.links.contains(new);
            assert!(
                known || arriving == Some(new),
                "the link {new:?} came from nowhere"
            );
        }
        for key in self
            .tags
            .keys()
            .chain(durable.tags.keys())
            .chain(after.tags.keys())
        {
            let is = after.tags.get(key);
            let was = [self.tags.get(key), durable.tags.get(key)];
            assert!(was.contains(&is), "the tag {key:?} is {is:?} after {was:?}");
        }
    }
}
