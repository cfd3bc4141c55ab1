//! A kill between each two steps of publishing and removing a blob (law 3), whatever it was that published or removed:
//! after the next start files, rows and the room that is counted agree, and all that was here is to be had.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::admin::{asked, run};
use crate::crash::audit;
use crate::eviction::blocks;
use crate::maintenance::rot;
use crate::scene::{NAME, REPO, Scene, files_of};
use crate::support::prelude::*;

const MIB: usize = 1 << 20;

/// The daemon of a debug build ends itself before the step that this names.
const DIE: &str = "WHARFINGER_DIE_BEFORE";

const PUBLISHING: [&str; 6] = [
    "publish: sync",
    "publish: rename",
    "publish: drop record",
    "publish: sync folder",
    "publish: commit",
    "publish: release",
];
const REMOVING: [&str; 2] = ["remove: commit", "remove: unlink"];

/// What the daemon dies of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// A pull.
    Fetching,
    /// A pull that goes on where an earlier process was killed.
    GoingOn,
    Evicting,
    /// A scrub that found a rotten blob: it is removed, put aside, and published once more.
    Healing,
}

struct Case {
    doing: Doing,
    step: &'static str,
    scene: Scene,
    image: Image,
}

impl Case {
    async fn new(doing: Doing, step: &'static str) -> Self {
        let upstream = Upstream::start().await;
        let daemon = Daemon::over(&upstream)
            // Nothing goes on by itself.
            .setting("cache.finish_fill", "\"never\"")
            .start()
            .await;
        let image = Image::new().layer(random(1, MIB)).layer(random(2, MIB));
        upstream.put(REPO, "1", &image);
        get(daemon.manifest_url(NAME, "1")).await.ok();
        let scene = Scene { upstream, daemon };
        Self {
            doing,
            step,
            scene,
            image,
        }
    }

    fn url(&self, layer: usize) -> String {
        self.scene.daemon.blob_url(NAME, &self.image.layer_digest(layer))
    }

    async fn pull_all(&self) {
        for (number, layer) in self.image.layers().iter().enumerate() {
            assert!(get(self.url(number)).await.ok() == layer.bytes);
        }
        self.scene.metric("wharfinger_fills_running 0").await;
    }

    fn files(&self) -> Vec<PathBuf> {
        files_of(&self.scene.daemon, &self.image.layer_digest(0))
    }

    /// What was before.
    async fn prepare(&mut self) {
        match self.doing {
            Doing::Fetching => {
                self.scene.daemon.stop().await;
            }
            Doing::GoingOn => {
                let first = blob(&self.image.layer_digest(0)).get();
                let gate = self.scene.upstream.stall(first, 600_000);
                let mut client = open(self.url(0)).await;
                client.read(600_000).await;
                let is_recorded = || self.files().iter().any(|file| file.extension().is_some());
                let recorded = async {
                    while !is_recorded() {
                        self.scene.daemon.metrics().await;
                    }
                };
                soon("a record of what is there", recorded).await;
                self.scene.daemon.kill().await;
                gate.cut();
            }
            Doing::Evicting => {
                self.pull_all().await;
                self.scene.daemon.stop().await;
            }
            Doing::Healing => {
                self.pull_all().await;
                self.scene.daemon.stop().await;
                rot(&self.files()[0]);
            }
        }
    }

    /// Has the daemon die.
    async fn die(&mut self) {
        let daemon = &mut self.scene.daemon;
        daemon.set_env(DIE, Some(self.step));
        daemon.run_again().await;
        match self.doing {
            // The answer may be whole before the process ends.
            Doing::Fetching | Doing::GoingOn => drop(try_get(&self.url(0), &[]).await),
            Doing::Evicting => drop(run(&self.scene.daemon, &["evict", "2MiB"]).await),
            Doing::Healing => drop(run(&self.scene.daemon, &["scrub", "--rate", "0"]).await),
        }
        let status = self.scene.daemon.exited().await;
        assert_eq!(status.code(), None, "it was to end itself");
        self.scene.daemon.set_env(DIE, None);
        // Until its row is gone, a rotten blob is as it was.
        if (self.doing, self.step) != (Doing::Healing, "remove: commit") {
            audit(&self.scene.daemon).await;
        }
    }

    /// The next process, and one more.
    async fn live_on(&mut self) {
        self.scene.daemon.run_again().await;
        // What lies there without a row is taken in or removed behind the start: asked for, it has been.
        run(&self.scene.daemon, &["sweep"]).await.text();
        self.assert_room().await;
        if self.doing == Doing::Healing {
            run(&self.scene.daemon, &["scrub", "--rate", "0"]).await.text();
        }
        get(self.scene.daemon.manifest_url(NAME, "1")).await.ok();
        self.pull_all().await;
        self.assert_room().await;
        self.scene.upstream.refuse().await;
        self.scene.daemon.restart().await;
        self.pull_all().await;
        self.scene.daemon.stop().await;
        assert_eq!(audit(&self.scene.daemon).await, 2);
        let files = self.files();
        assert!(files.len() == 1 && is_below(&files[0], "blobs"), "{files:?}");
        assert_eq!(fs::metadata(&files[0]).expect("a file").len(), MIB as u64);
    }

    /// Room that the daemon counts, against the blocks that its files take up.
    async fn assert_room(&self) {
        let agree = async {
            loop {
                let counted = asked(&self.scene.daemon, &["status"]).await["room"]["used"].clone();
                let folder = self.scene.daemon.data_dir();
                let folders = ["blobs", "partial", "quarantine"];
                let files: u64 = folders.iter().map(|name| blocks(&folder.join(name))).sum();
                // The records beside partial files are not counted.
                let records = self.files().into_iter().filter(|file| file.extension().is_some());
                let records: u64 = records
                    .map(|file| fs::metadata(file).map_or(0, |file| file.blocks() * 512))
                    .sum();
                if counted == files - records {
                    return;
                }
            }
        };
        soon("room and files to agree", agree).await;
    }
}

fn is_below(file: &Path, folder: &str) -> bool {
    file.components().any(|part| part.as_os_str() == folder)
}

async fn killed(doing: Doing, steps: &[&'static str]) {
    for step in steps {
        let mut case = Case::new(doing, step).await;
        case.prepare().await;
        case.die().await;
        case.live_on().await;
    }
}

#[tokio::test]
async fn fetching() {
    killed(Doing::Fetching, &PUBLISHING).await;
}

#[tokio::test]
async fn going_on() {
    killed(Doing::GoingOn, &PUBLISHING).await;
}

#[tokio::test]
async fn evicting() {
    killed(Doing::Evicting, &REMOVING).await;
}

#[tokio::test]
async fn healing() {
    killed(Doing::Healing, &REMOVING).await;
    killed(Doing::Healing, &PUBLISHING).await;
}
