//! A disk that is really full: a small file system of its own. No pull fails, nothing has to be restarted, and when there is
//! room again blobs are kept again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::scene::{NAME, REPO, Scene};
use crate::support::prelude::*;

const MIB: usize = 1 << 20;

/// A file system in memory, gone when it is dropped.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// None where mounting is not allowed.
    #[expect(clippy::print_stderr, reason = "a test that was left out says so")]
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"])
            .arg(folder.path())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self { folder });
        }
        eprintln!("left out: mounting a file system is not allowed here");
        None
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// Takes all room that is left, as somebody else would.
    fn fill_up(&self) -> PathBuf {
        let path = self.path().join("somebody-elses");
        let noise = vec![1; 64 * 1024];
        let mut file = fs::File::create(&path).expect("a file");
        while std::io::Write::write_all(&mut file, &noise).is_ok() {}
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

async fn scene(disk: &Disk) -> Scene {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream)
        .setting("storage.data_dir", &format!("\"{}\"", disk.data().display()))
        .setting("storage.min_free", "\"0MiB\"")
        .start()
        .await;
    Scene { upstream, daemon }
}

async fn pull(scene: &Scene, tag: &str, image: &Image) {
    let answer = get(scene.daemon.manifest_url(NAME, tag)).await;
    assert!(answer.ok() == image.root().bytes, "{tag}");
    for part in image.layers().into_iter().chain([image.config()]) {
        let answer = get(scene.daemon.blob_url(NAME, &part.digest)).await;
        assert!(answer.ok() == part.bytes, "{tag}");
    }
}

/// Images of which eight have been pulled.
async fn images(scene: &Scene) -> Vec<Image> {
    let images: Vec<_> = (0..12).map(|seed| Image::simple(seed, 4 * MIB)).collect();
    for (number, image) in images.iter().enumerate() {
        scene.upstream.put(REPO, &format!("v{number}"), image);
    }
    for (number, image) in images[..8].iter().enumerate() {
        pull(scene, &format!("v{number}"), image).await;
    }
    images
}

/// Pulls an image until it is kept.
async fn kept(scene: &Scene, tag: &str, image: &Image) {
    let kept = async {
        loop {
            pull(scene, tag, image).await;
            let url = scene.daemon.blob_url(NAME, &image.layer_digest(0));
            if get(&url).await.header("cache-status") == "wharfinger; hit" {
                return;
            }
        }
    };
    soon("a blob that is kept again", kept).await;
}

#[tokio::test]
async fn the_ballast_lets_evictions_make_room() {
    let Some(disk) = Disk::mount("96m") else { return };
    let scene = scene(&disk).await;
    let images = images(&scene).await;
    assert!(disk.data().join("ballast").exists());
    let theirs = disk.fill_up();
    // Not a byte is free, and what is evicted must be written into the index first.
    for (number, image) in images.iter().enumerate().skip(8) {
        kept(&scene, &format!("v{number}"), image).await;
    }
    assert!(theirs.exists());
}

#[tokio::test]
async fn no_pull_fails_and_nothing_has_to_be_restarted() {
    // Too small for a ballast.
    let Some(disk) = Disk::mount("32m") else { return };
    let scene = scene(&disk).await;
    let images = images(&scene).await;
    // And now somebody else takes the rest, to the last byte.
    let theirs = disk.fill_up();
    for (number, image) in images.iter().enumerate().skip(8) {
        pull(&scene, &format!("v{number}"), image).await;
    }
    fs::remove_file(theirs).expect("a file");
    // Room again: kept again, with the index's rows, by the same process.
    let last = images.len() - 1;
    kept(&scene, &format!("v{last}"), &images[last]).await;
    scene.upstream.refuse().await;
    let mut scene = scene;
    scene.daemon.restart().await;
    pull(&scene, &format!("v{last}"), &images[last]).await;
}
