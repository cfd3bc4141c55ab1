//! How a daemon ends, and what must be left.

use serde_json::Value;

use crate::admin::run;
use crate::crash::audit;
use crate::support::prelude::*;

use super::World;
use super::state::Repository;

impl World {
    /// A graceful one, perhaps in the middle of a download, which ends first.
    pub(super) async fn restart(&mut self, repository: Repository) {
        let arriving = self.begin(repository, "restart").await;
        self.daemon.restart().await;
        if let Some((repository, digest)) = arriving {
            assert!(self.is_on_disk(&digest), "{digest} was given up");
            self.state.put_blob(repository, &digest);
        }
        self.forget_troubles();
        self.durable = self.state.clone();
        self.compare().await;
    }

    /// `kill -9`, perhaps in the middle of a download.
    pub(super) async fn kill(&mut self, repository: Repository) {
        let arriving = self.begin(repository, "kill").await;
        self.daemon.kill().await;
        audit(&self.daemon).await;
        self.daemon.restart().await;
        self.resumed().await;
        let ran = run(&self.daemon, &["sweep", "--json"]).await;
        let told: Value = serde_json::from_str(ran.text().lines().last().expect("an end")).expect("JSON");
        assert_eq!(told["result"]["dropped"], 0, "a row without bytes: {told}");
        let before = self.state.clone();
        self.learn().await;
        before.check_kill(&self.durable, arriving.as_ref(), &self.state);
        self.forget_troubles();
        self.durable = self.state.clone();
        self.compare().await;
    }

    /// Starts a download that the next step meets, sometimes, and when the upstream serves.
    pub(super) async fn begin(&mut self, repository: Repository, step: &str) -> Option<(Repository, String)> {
        let digest = self.library.any_blob(&mut self.random);
        let begins = self.mood.serves() && self.random.bool() && !self.library.blobs[&digest].is_empty();
        let amid = if begins {
            format!("{repository}@{digest}")
        } else {
            "nothing".to_owned()
        };
        self.note(format!("{step} amid {amid}"));
        if !begins {
            self.settle().await;
            return None;
        }
        let mut client = open(self.blob_url(repository, &digest)).await;
        client.read(1).await;
        Some((repository, digest))
    }

    pub(super) fn forget_troubles(&mut self) {
        for tag in self.state.tags.values_mut() {
            tag.troubled = false;
        }
    }

    /// Waits until what an earlier process had to leave is whole.
    pub(super) async fn resumed(&self) {
        if self.mood.serves() {
            let left = async { while self.status().await["room"]["interrupted"] != 0 {} };
            soon("interrupted downloads to be taken up", left).await;
        }
        self.settle().await;
    }
}
