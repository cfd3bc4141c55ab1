//! All content that the world of the model has: images that share layers, in two repositories, under tags that move.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::support::image::Part;
use crate::support::prelude::*;

use super::state::{Names, Repository};

/// At the upstream.
pub const REPOSITORIES: [&str; 2] = ["library/app", "team/other"];
pub const TAGS: [&str; 4] = ["a", "b", "c", "d"];

/// What the upstream holds.
pub struct Library {
    pub manifests: BTreeMap<String, Part>,
    pub blobs: BTreeMap<String, Bytes>,
    pub names: Names,
    tags: BTreeMap<(Repository, String), String>,
}

impl Library {
    /// Every repository has all of it.
    pub fn new(upstream: &Upstream) -> Self {
        let base = random(1, 1_500_000);
        let image = |seed, size| Image::new().layer(base.clone()).layer(random(seed, size));
        let images = [
            image(2, 3000),
            image(3, 200_000).platform("linux", "arm64"),
            image(4, 2_500_000),
            Image::simple(5, 120_000).layer(random(6, 5000)).sha512(),
            Image::simple(7, 40_000).layer(Bytes::new()),
            Image::simple(8, 300_000).docker(),
        ];
        let index = |numbers: &[usize]| {
            let add = |index: Index, number: &usize| index.image(images[*number].clone());
            numbers.iter().fold(Index::of_platforms(0), add)
        };
        let indexes = [index(&[0, 1]), index(&[1, 4, 5])];
        let mut library = Self {
            manifests: BTreeMap::new(),
            blobs: BTreeMap::new(),
            names: Names::new(),
            tags: BTreeMap::new(),
        };
        for image in &images {
            let named = image.blobs().into_iter().map(|part| part.digest).collect();
            library.take(upstream, image, named);
        }
        for index in &indexes {
            let named = index.children().into_iter().map(|part| part.digest).collect();
            library.take(upstream, index, named);
        }
        library
    }

    fn take(&mut self, upstream: &Upstream, content: &impl Content, named: Vec<String>) {
        for repository in REPOSITORIES {
            upstream.put_untagged(repository, content);
        }
        let root = content.root();
        self.names.insert(root.digest.clone(), named);
        self.manifests.insert(root.digest.clone(), root);
        let blobs = content.blobs().into_iter();
        self.blobs.extend(blobs.map(|part| (part.digest, part.bytes)));
    }

    /// Moves a tag at the upstream, or takes it away.
    pub fn point(&mut self, upstream: &Upstream, repository: Repository, tag: &str, to: Option<&str>) {
        let key = (repository, tag.to_owned());
        if let Some(digest) = to {
            upstream.tag(REPOSITORIES[repository], tag, digest);
            self.tags.insert(key, digest.to_owned());
        } else {
            upstream.untag(REPOSITORIES[repository], tag);
            self.tags.remove(&key);
        }
    }

    /// Where a tag points at the upstream.
    pub fn tag(&self, repository: Repository, tag: &str) -> Option<String> {
        self.tags.get(&(repository, tag.to_owned())).cloned()
    }

    pub fn any_manifest(&self, random: &mut fastrand::Rng) -> String {
        any_of(&self.manifests, random)
    }

    pub fn any_blob(&self, random: &mut fastrand::Rng) -> String {
        any_of(&self.blobs, random)
    }
}

fn any_of<T>(map: &BTreeMap<String, T>, random: &mut fastrand::Rng) -> String {
    let digest = map.keys().nth(random.usize(..map.len()));
    digest.expect("a number below the length").clone()
}
