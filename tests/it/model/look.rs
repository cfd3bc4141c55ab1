//! What is here, as the daemon and its files tell.

use std::path::PathBuf;

use serde_json::Value;

use crate::scene::files_of;
use crate::support::prelude::*;

use super::World;
use super::library::{REPOSITORIES, TAGS};
use super::state::State;

impl World {
    pub(super) async fn status(&self) -> Value {
        get(format!("{}/api/status", self.daemon.url())).await.json()
    }

    /// Waits until nothing is on its way.
    pub(super) async fn settle(&self) {
        let running = async {
            while self.status().await["fills"]
                .as_array()
                .is_none_or(|fills| !fills.is_empty())
            {}
        };
        soon("the end of all fills", running).await;
    }

    pub(super) fn is_on_disk(&self, digest: &str) -> bool {
        let whole = |file: &PathBuf| file.components().any(|part| part.as_os_str() == "blobs");
        files_of(&self.daemon, digest).iter().any(whole)
    }

    /// What is here, as the files and `explain` tell.
    pub(super) async fn look(&self) -> State {
        let blobs = self.library.blobs.keys();
        let mut found = State {
            blobs: blobs.filter(|blob| self.is_on_disk(blob)).cloned().collect(),
            ..State::default()
        };
        for (repository, name) in REPOSITORIES.iter().enumerate() {
            let name = format!("docker-hub/{name}");
            let explain = async |reference: String| {
                let url = format!("{}/api/explain?ref={name}{reference}", self.daemon.url());
                get(url).await.json()
            };
            for digest in self.library.manifests.keys() {
                let told = explain(format!("@{digest}")).await;
                if told["manifest"].is_object() {
                    found.links.insert((repository, digest.clone()));
                }
                if told["manifest"]["state"] == "here" {
                    assert_eq!(told["expected"], "hit", "{told}");
                    found.manifests.insert(digest.clone());
                }
            }
            for digest in self.library.blobs.keys() {
                let told = explain(format!("@{digest}")).await;
                if told["blob"].is_object() {
                    found.links.insert((repository, digest.clone()));
                    assert_eq!(
                        told["blob"]["state"] == "here",
                        found.blobs.contains(digest),
                        "{told}"
                    );
                }
            }
            for tag in TAGS {
                let told = explain(format!(":{tag}")).await;
                let Some(digest) = told["tag"]["digest"].as_str() else {
                    continue;
                };
                found.put_tag(repository, tag, digest);
                if let Some(found) = found.tags.get_mut(&(repository, tag.to_owned())) {
                    found.gone = told["tag"]["gone_since"].is_u64();
                    found.troubled = self
                        .state
                        .tags
                        .get(&(repository, tag.to_owned()))
                        .is_some_and(|tag| tag.troubled);
                }
            }
        }
        found
    }

    /// Takes what is here for what is known.
    pub(super) async fn learn(&mut self) {
        self.settle().await;
        self.state = self.look().await;
        // `explain` waits until what was queued is written.
        self.durable = self.state.clone();
    }

    /// Holds everything that is here against the model, and what is said of it.
    pub(super) async fn compare(&mut self) {
        self.settle().await;
        let found = self.look().await;
        assert_eq!(found, self.state);
        self.durable = self.state.clone();
        let status = self.status().await;
        let counted =
            [&found.blobs.len(), &found.manifests.len(), &found.tags.len()].map(|count| *count as u64);
        let told = ["blobs", "manifests", "tags"].map(|what| status["content"][what].as_u64().unwrap_or(0));
        assert_eq!(told, counted, "{status}");
        if status["room"]["interrupted"] == 0 {
            let blocks = |digest: &String| (self.library.blobs[digest].len() as u64).next_multiple_of(4096);
            let used: u64 = found.blobs.iter().map(blocks).sum();
            // The room of a removed blob is free when its last reader lets go.
            let free = async { while self.status().await["room"]["used"] != used {} };
            soon(&format!("the room of {used} bytes that blobs take up"), free).await;
        }
    }
}
