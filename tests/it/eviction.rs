//! The hard cap: whole images go, least valuable first, and never what an image that stays needs.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::admin::{asked, run};
use crate::scene::{NAME, REPO, files_of};
use crate::support::prelude::*;

const MIB: usize = 1 << 20;

/// A daemon that may use 16 MiB, of which about 14 are for blobs.
async fn capped() -> (Upstream, Daemon) {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream)
        .setting("storage.max_size", "\"16MiB\"")
        .start()
        .await;
    (upstream, daemon)
}

/// Allocated bytes below a folder.
pub fn blocks(folder: &Path) -> u64 {
    let mut sum = 0;
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        // What is removed meanwhile takes up nothing.
        sum += match std::fs::symlink_metadata(&path) {
            Ok(it) if it.is_dir() => blocks(&path),
            Ok(it) if it.is_file() => it.blocks() * 512,
            _ => 0,
        };
    }
    sum
}

async fn pull(daemon: &Daemon, tag: &str, image: &Image) {
    let manifest = get(daemon.manifest_url(NAME, tag)).await;
    assert_eq!(manifest.status, 200);
    for part in image.layers().into_iter().chain([image.config()]) {
        let answer = get(daemon.blob_url(NAME, &part.digest)).await;
        assert!(answer.ok() == part.bytes, "{tag}");
    }
    idle(daemon).await;
}

/// Waits until all that was pulled is in its place.
pub async fn idle(daemon: &Daemon) {
    let running = |metrics: String| !metrics.lines().any(|line| line == "wharfinger_fills_running 0");
    let wait = async { while running(daemon.metrics().await) {} };
    soon("the end of all fills", wait).await;
}

async fn evict(daemon: &Daemon, size: &str) {
    run(daemon, &["evict", size]).await.text();
}

fn here(daemon: &Daemon, digest: &str) -> bool {
    files_of(daemon, digest)
        .iter()
        .any(|file| file.components().any(|part| part.as_os_str() == "blobs"))
}

#[tokio::test]
async fn the_cap_holds_while_a_mirror_of_more_is_pulled() {
    let (upstream, daemon) = capped().await;
    let images: Vec<Image> = (0..12)
        .map(|seed| {
            Image::new()
                .layer(random(seed * 2, MIB))
                .layer(random(seed * 2 + 1, 2 * MIB))
        })
        .collect();
    for (number, image) in images.iter().enumerate() {
        upstream.put(REPO, &format!("v{number}"), image);
    }
    let watched = daemon.data_dir();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let watch = tokio::spawn(async move {
        let mut most = 0;
        while stopped.try_recv().is_err() {
            most = most.max(blocks(&watched));
            tokio::task::yield_now().await;
        }
        most
    });
    for (number, image) in images.iter().enumerate() {
        pull(&daemon, &format!("v{number}"), image).await;
    }
    stop.send(()).expect("the watcher");
    let most = watch.await.expect("no panic");
    assert!(most <= 16 * MIB as u64, "{most}");
    // What was pulled last is here, and what was pulled first is not, its manifest included.
    let last = images.last().expect("images");
    assert!(last.layers().iter().all(|layer| here(&daemon, &layer.digest)));
    assert!(
        images[0]
            .layers()
            .iter()
            .all(|layer| !here(&daemon, &layer.digest))
    );
    upstream.refuse().await;
    assert_eq!(get(daemon.manifest_url(NAME, "v11")).await.status, 200);
    assert_eq!(get(daemon.manifest_url(NAME, "v0")).await.status, 503);
}

#[tokio::test]
async fn a_shared_layer_stays_as_long_as_one_image_needs_it() {
    let (upstream, daemon) = capped().await;
    let base = random(100, 4 * MIB);
    let image = |seed| Image::new().layer(base.clone()).layer(random(seed, 2 * MIB));
    let (old, new) = (image(1), image(2));
    upstream.put(REPO, "old", &old);
    upstream.put(REPO, "new", &new);
    pull(&daemon, "old", &old).await;
    pull(&daemon, "new", &new).await;
    let told = run(&daemon, &["evict", "1MiB"]).await;
    assert!(
        told.text().starts_with("freed 2.0 MiB: 1 manifest, 2 blobs"),
        "{}",
        told.text()
    );
    assert!(!here(&daemon, &old.layer_digest(1)));
    assert!(here(&daemon, &new.layer_digest(0)) && here(&daemon, &new.layer_digest(1)));
    // Whoever asks for the evicted image gets it again, and only what lacks is fetched.
    upstream.forget_requests();
    pull(&daemon, "old", &old).await;
    assert_eq!(upstream.blob_gets(&old.layer_digest(1)), 1);
    evict(&daemon, "14MiB").await;
    assert!(
        [&old, &new]
            .iter()
            .all(|image| !here(&daemon, &image.layer_digest(0)))
    );
    let status = asked(&daemon, &["status"]).await;
    assert_eq!(status["content"]["blobs"], 0, "{status}");
    assert_eq!(status["content"]["manifests"], 0);
    assert_eq!(status["room"]["used"], 0);
}

#[tokio::test]
async fn an_index_goes_after_its_last_child() {
    let (upstream, daemon) = capped().await;
    let images = [1, 2].map(|seed| Image::new().layer(random(seed, 3 * MIB)));
    let [first, second] = images.clone();
    let index = Index::of_platforms(0).image(first).image(second);
    upstream.put(REPO, "latest", &index);
    assert_eq!(get(daemon.manifest_url(NAME, "latest")).await.status, 200);
    for image in index.images() {
        let url = daemon.manifest_url(NAME, &image.root().digest);
        assert_eq!(get(url).await.status, 200);
        for part in image.layers().into_iter().chain([image.config()]) {
            assert!(get(daemon.blob_url(NAME, &part.digest)).await.ok() == part.bytes);
        }
    }
    idle(&daemon).await;
    evict(&daemon, "1MiB").await;
    let left = asked(&daemon, &["status"]).await;
    assert_eq!(
        (&left["content"]["manifests"], &left["content"]["tags"]),
        (&2.into(), &1.into())
    );
    evict(&daemon, "1MiB").await;
    let left = asked(&daemon, &["status"]).await;
    assert_eq!(
        (&left["content"]["manifests"], &left["content"]["tags"]),
        (&0.into(), &0.into())
    );
}

#[tokio::test]
async fn what_was_used_a_moment_ago_is_not_the_oldest() {
    let (upstream, daemon) = capped().await;
    let [old, new] = [1, 2].map(|seed| Image::new().layer(random(seed, 2 * MIB)));
    upstream.put(REPO, "old", &old);
    upstream.put(REPO, "new", &new);
    pull(&daemon, "old", &old).await;
    pull(&daemon, "new", &new).await;
    pull(&daemon, "old", &old).await;
    evict(&daemon, "1MiB").await;
    assert!(here(&daemon, &old.layer_digest(0)));
    assert!(!here(&daemon, &new.layer_digest(0)));
}

#[tokio::test]
async fn what_is_read_since_it_arrived_stays() {
    let (upstream, daemon) = capped().await;
    let image = Image::new().layer(random(1, 6 * MIB));
    upstream.put(REPO, "1", &image);
    assert_eq!(get(daemon.manifest_url(NAME, "1")).await.status, 200);
    let url = daemon.blob_url(NAME, &image.layer_digest(0));
    let mut reader = Raw::connect_slow(&url).await;
    reader.ask("GET", &url, &[]).await;
    reader.head().await.expect("a head");
    idle(&daemon).await;
    evict(&daemon, "6MiB").await;
    assert!(here(&daemon, &image.layer_digest(0)));
    let (body, ending) = reader.finish().await;
    assert_eq!(ending, Ending::Complete);
    assert!(body == image.layers()[0].bytes);
}

#[tokio::test]
async fn what_is_being_read_stays() {
    let (upstream, daemon) = capped().await;
    let image = Image::new().layer(random(1, 6 * MIB));
    upstream.put(REPO, "1", &image);
    pull(&daemon, "1", &image).await;
    let url = daemon.blob_url(NAME, &image.layer_digest(0));
    let mut reader = Raw::connect_slow(&url).await;
    reader.ask("GET", &url, &[]).await;
    reader.head().await.expect("a head");
    evict(&daemon, "6MiB").await;
    assert!(here(&daemon, &image.layer_digest(0)));
    let (body, ending) = reader.finish().await;
    assert_eq!(ending, Ending::Complete);
    assert!(body == image.layers()[0].bytes);
    let gone = async {
        while here(&daemon, &image.layer_digest(0)) {
            evict(&daemon, "6MiB").await;
        }
    };
    soon("the eviction", gone).await;
}

#[tokio::test]
async fn an_image_larger_than_the_cap_is_pulled_all_the_same() {
    let (upstream, daemon) = capped().await;
    let small = Image::new().layer(random(1, MIB));
    let mut large = Image::new();
    for seed in 10..16 {
        large = large.layer(random(seed, 4 * MIB));
    }
    upstream.put(REPO, "small", &small);
    upstream.put(REPO, "large", &large);
    pull(&daemon, "small", &small).await;
    for _ in 0..2 {
        pull(&daemon, "large", &large).await;
    }
    let kept = large
        .layers()
        .iter()
        .filter(|layer| here(&daemon, &layer.digest))
        .count();
    assert!((1..6).contains(&kept), "{kept}");
    let explained = asked(&daemon, &["explain", "app:large"]).await;
    assert_eq!(explained["here"]["blobs"], kept as u64 + 1, "{explained}");
}
