//! What operators do: refresh, purge, evict.

use serde_json::Value;

use crate::admin::{asked, run};

use super::World;
use super::library::REPOSITORIES;
use super::state::Repository;

impl World {
    pub(super) fn reference(repository: Repository, tag: &str) -> String {
        format!("docker-hub/{}:{tag}", REPOSITORIES[repository])
    }

    pub(super) async fn refresh(&mut self, repository: Repository, tag: &str) {
        self.note(format!("refresh {repository}:{tag}"));
        let ran = run(
            &self.daemon,
            &["refresh", &Self::reference(repository, tag), "--json"],
        )
        .await;
        let told: Value = serde_json::from_str(ran.printed()).expect("JSON");
        let current = self.library.tag(repository, tag);
        let known = self.state.tags.get_mut(&(repository, tag.to_owned()));
        let outcome = match (known, current) {
            (None, _) if !self.mood.serves() => "failed",
            (Some(known), _) if !self.mood.serves() => {
                known.troubled = true;
                "failed"
            }
            (None, None) => "gone",
            (Some(known), None) => {
                (known.gone, known.troubled) = (true, true);
                "gone"
            }
            (None, Some(digest)) => {
                self.state.put_manifest(&self.library.names, repository, &digest);
                self.state.put_tag(repository, tag, &digest);
                "new"
            }
            (Some(known), Some(digest)) => {
                let outcome = if known.digest == digest {
                    "unchanged"
                } else {
                    "moved"
                };
                self.state.have_manifest(&self.library.names, repository, &digest);
                self.state.put_tag(repository, tag, &digest);
                outcome
            }
        };
        assert_eq!(told["outcome"], outcome, "{told}");
    }

    pub(super) async fn purge_tag(&mut self, repository: Repository, tag: &str) {
        self.note(format!("purge {repository}:{tag}"));
        let told = asked(&self.daemon, &["purge", &Self::reference(repository, tag)]).await;
        let known = self.state.tags.remove(&(repository, tag.to_owned()));
        assert_eq!(told["removed"], known.is_some(), "{told}");
        self.durable = self.state.clone();
    }

    pub(super) async fn purge_digest(&mut self, repository: Repository) {
        let digest = self.library.any_manifest(&mut self.random);
        self.note(format!("purge {repository}@{digest}"));
        let reference = format!("docker-hub/{}@{digest}", REPOSITORIES[repository]);
        let told = asked(&self.daemon, &["purge", &reference]).await;
        let here = self.state.serves_manifest(repository, &digest);
        assert_eq!(told["removed"], here, "{told}");
        if here {
            self.state.remove_manifest(&self.library.names, &digest);
            self.durable = self.state.clone();
        }
        self.learn().await;
    }

    pub(super) async fn purge_with_content(&mut self, repository: Repository, tag: &str) {
        self.note(format!("purge {repository}:{tag} with its content"));
        let reference = Self::reference(repository, tag);
        let told = asked(&self.daemon, &["purge", "--with-content", &reference]).await;
        let before = self.state.clone();
        if let Some(known) = self.state.tags.get(&(repository, tag.to_owned())).cloned() {
            let reached = self.state.reached_by(&self.library.names, &known);
            assert_eq!(told["kept"].is_null(), !reached.is_empty(), "{told}");
            self.state.tags.remove(&(repository, tag.to_owned()));
            for manifest in &reached {
                self.state.remove_manifest(&self.library.names, manifest);
            }
            // Blobs that nothing needs now go, but for one that is still being read.
            for blob in reached.iter().flat_map(|manifest| &self.library.names[manifest]) {
                let needed = self.state.needing(&self.library.names, blob).next().is_some();
                if before.blobs.contains(blob) && !needed && !self.is_on_disk(blob) {
                    self.state.blobs.remove(blob);
                }
            }
            let went: Vec<_> = before.blobs.difference(&self.state.blobs).cloned().collect();
            assert_eq!(
                told["freed"]["blobs"].as_u64().unwrap_or(0),
                went.len() as u64,
                "{told}"
            );
            self.state
                .forget(&self.library.names, went.iter().map(String::as_str));
        } else {
            assert_eq!(told["removed"], false);
        }
        self.durable = self.state.clone();
        self.compare().await;
    }

    pub(super) async fn evict(&mut self) {
        let bytes = match self.random.u32(..3) {
            0 if self.random.bool() => 1 << 30,
            _ => self.random.u64(1..4_000_000),
        };
        self.note(format!("evict {bytes}"));
        // What was pulled a moment ago may not be in the index yet, and would not be found.
        self.compare().await;
        let ran = run(&self.daemon, &["evict", &format!("{bytes}B"), "--json"]).await;
        let told: Value = serde_json::from_str(ran.text().lines().last().expect("an end")).expect("JSON");
        let before = self.state.clone();
        self.learn().await;
        let after = &self.state;
        before.check_eviction(&self.library.names, after);
        let enough = told["result"]["bytes"]
            .as_u64()
            .is_some_and(|freed| freed >= bytes);
        assert!(
            enough || (after.blobs.is_empty() && after.manifests.is_empty()),
            "{told}"
        );
    }
}
