//! What clients do, and what they must get.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use crate::support::prelude::*;

use super::library::REPOSITORIES;
use super::parts::Part;
use super::state::Repository;
use super::{Mood, World};

impl World {
    pub(super) fn manifest_url(&self, repository: Repository, reference: &str) -> String {
        let name = format!("docker-hub/{}", REPOSITORIES[repository]);
        self.daemon.manifest_url(&name, reference)
    }

    pub(super) fn blob_url(&self, repository: Repository, digest: &str) -> String {
        let name = format!("docker-hub/{}", REPOSITORIES[repository]);
        self.daemon.blob_url(&name, digest)
    }

    /// An answer that is this manifest.
    pub(super) fn check_manifest(&self, answer: &Answer, digest: &str) {
        let part = &self.library.manifests[digest];
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("docker-content-digest"), digest);
        assert_eq!(answer.header("content-type"), part.media_type);
        assert_eq!(answer.header("content-length"), part.bytes.len().to_string());
        assert!(answer.is_complete() && (answer.body.is_empty() || answer.body == part.bytes));
    }

    /// GETs, or HEADs: no difference to what is here.
    pub(super) async fn ask(&mut self, url: String) -> Answer {
        if self.random.u32(..4) == 0 {
            head(url).await
        } else {
            let answer = get(url).await;
            assert!(answer.status != 200 || !answer.body.is_empty());
            answer
        }
    }

    pub(super) async fn pull_tag(&mut self, repository: Repository, tag: &str) {
        self.note(format!("pull {repository}:{tag}"));
        let answer = self.ask(self.manifest_url(repository, tag)).await;
        let key = (repository, tag.to_owned());
        let current = self.library.tag(repository, tag);
        let told = answer.header("cache-status").to_owned();
        let Some(known) = self.state.tags.get(&key).cloned() else {
            match current {
                _ if !self.mood.serves() => assert_failed(&answer),
                None => assert_eq!(answer.status, 404, "{}", answer.text()),
                Some(digest) => {
                    self.check_manifest(&answer, &digest);
                    self.state.put_manifest(&self.library.names, repository, &digest);
                    self.state.put_tag(repository, tag, &digest);
                }
            }
            return;
        };
        if self.keeps_tags && !known.gone {
            assert_eq!(told, "wharfinger; hit");
            self.check_manifest(&answer, &known.digest);
            return assert_eq!(self.upstream.requests().len(), 0);
        }
        if told.starts_with("wharfinger; fwd=stale") {
            self.check_manifest(&answer, &known.digest);
            // Who is refused leaves no trace.
            let left_alone = self.upstream.requests().is_empty() && self.mood != Mood::Refusing;
            if left_alone {
                return assert!(known.troubled, "left alone without a reason: {told}");
            }
            assert!(!self.mood.serves() || current.is_none(), "the upstream has it");
            let state = self.state.tags.get_mut(&key).expect("it was there");
            state.gone |= self.mood.serves();
            state.troubled = true;
            return;
        }
        let digest = current
            .filter(|_| self.mood.serves())
            .expect("the upstream's word");
        self.check_manifest(&answer, &digest);
        self.state.have_manifest(&self.library.names, repository, &digest);
        self.state.put_tag(repository, tag, &digest);
    }

    /// As a client pulls: the manifest, then all that it names at once.
    pub(super) async fn pull_image(&mut self, repository: Repository) {
        let mut left = vec![self.pick(false)];
        while let Some(digest) = left.pop() {
            self.pull_manifest(repository, &digest).await;
            if self.state.serves_manifest(repository, &digest) {
                let named = self.library.names[&digest].clone();
                let (blobs, manifests) = named
                    .into_iter()
                    .partition::<Vec<_>, _>(|digest| self.library.blobs.contains_key(digest));
                left.extend(manifests);
                let blobs = blobs.into_iter().map(|blob| (blob, Part::Whole)).collect();
                self.pull_blobs(repository, blobs).await;
            }
        }
    }

    pub(super) async fn pull_manifest(&mut self, repository: Repository, digest: &str) {
        self.note(format!("pull {repository}@{digest}"));
        let answer = self.ask(self.manifest_url(repository, digest)).await;
        if self.state.serves_manifest(repository, digest) {
            self.check_manifest(&answer, digest);
            assert_eq!(answer.header("cache-status"), "wharfinger; hit");
            assert_eq!(self.upstream.requests().len(), 0);
        } else if self.mood.serves() {
            self.check_manifest(&answer, digest);
            self.state.put_manifest(&self.library.names, repository, digest);
        } else {
            assert_failed(&answer);
        }
    }

    /// One client, or several at once, for the same blob.
    pub(super) async fn pull_blob(&mut self, repository: Repository) {
        let digest = self.pick(true);
        let size = self.library.blobs[&digest].len() as u64;
        let clients = if self.random.u32(..4) == 0 { 3 } else { 1 };
        let pulls = (0..clients).map(|_| (digest.clone(), Part::any(&mut self.random, size)));
        let pulls = pulls.collect();
        self.pull_blobs(repository, pulls).await;
    }

    pub(super) async fn pull_blobs(&mut self, repository: Repository, pulls: Vec<(String, Part)>) {
        self.note(format!("pull from {repository}: {pulls:?}"));
        let answers = join_all(pulls.iter().map(|(digest, part)| {
            let url = self.blob_url(repository, digest);
            async move { part.get(&url).await }
        }));
        let answers = answers.await;
        for ((digest, part), answer) in pulls.iter().zip(&answers) {
            let bytes = &self.library.blobs[digest];
            let here = self.state.serves_blob(repository, digest);
            let asked = self.upstream.requests_of(&blob(digest));
            if here {
                assert_eq!(asked.len(), 0, "{digest} is here");
            } else if self.state.blobs.contains(digest) {
                // For others: only the right to read it is asked for.
                assert!(asked.iter().all(|asked| asked.header("range") == "bytes=0-0"));
            }
            // The size is known from a manifest.
            let known = *part == Part::Head && self.state.is_linked(repository, digest);
            if here || known || self.mood.serves() {
                part.check(answer, bytes);
            } else {
                assert_failed(answer);
            }
            if here && answer.status < 400 {
                assert_eq!(answer.header("cache-status"), "wharfinger; hit");
            }
        }
        if !self.mood.serves() {
            return;
        }
        let digests: BTreeSet<_> = pulls.iter().map(|(digest, _)| digest).collect();
        for digest in digests {
            if !self.state.serves_blob(repository, digest) {
                let mut of_it = pulls.iter().filter(|(other, _)| other == digest);
                self.arrived(repository, digest, of_it.any(|(_, part)| part.needs_bytes()))
                    .await;
            }
        }
    }

    /// A client that goes away in the middle: the download is nobody's.
    pub(super) async fn leave(&mut self, repository: Repository) {
        let digest = self.pick(true);
        self.note(format!("pull a bit of blob {repository}@{digest}"));
        let here = self.state.serves_blob(repository, &digest);
        let mut client = open(self.blob_url(repository, &digest)).await;
        if here || self.mood.serves() {
            let some = client.read(1000).await.to_owned();
            assert!(self.library.blobs[&digest].starts_with(&some));
            drop(client);
            self.arrived(repository, &digest, true).await;
        } else {
            assert_failed(&client.finish().await);
        }
    }

    /// A blob was asked for. When `surely` some of it was read, it comes whole.
    pub(super) async fn arrived(&mut self, repository: Repository, digest: &str, surely: bool) {
        self.settle().await;
        if surely {
            assert!(self.is_on_disk(digest), "{digest} was fetched, and is not here");
            let new = self.state.blobs.insert(digest.to_owned());
            self.state.put_blob(repository, digest);
            if new {
                // Its row is durable, and so is what was queued before.
                self.durable = self.state.clone();
            }
            return;
        }
        let mut before = self.state.clone();
        self.learn().await;
        if self.state.blobs.contains(digest) {
            before.blobs.insert(digest.to_owned());
        }
        if self.state.is_linked(repository, digest) {
            before.links.insert((repository, digest.to_owned()));
        }
        assert_eq!(self.state, before, "nothing else changes");
    }
}

/// An answer that says that the upstream failed, and nothing about what exists.
fn assert_failed(answer: &Answer) {
    let failed: BTreeSet<u16> = [429, 500, 502, 503, 504].into();
    assert!(
        failed.contains(&answer.status),
        "{} {}",
        answer.status,
        answer.text()
    );
}
