//! What is on disk is served from disk after any end of the daemon, and a damaged data folder heals or is refused.

use crate::scene::{NAME, REPO, Scene};
use crate::support::prelude::*;

#[tokio::test]
async fn a_restart_serves_everything_without_the_upstream() {
    let scene = Scene::start().await;
    let Scene { upstream, mut daemon } = scene;
    let index = Index::of_platforms(2);
    upstream.put(REPO, "latest", &index);
    let url = |daemon: &Daemon, reference: &str| daemon.manifest_url(NAME, reference);
    let mut manifests = vec![("latest".to_owned(), index.root())];
    manifests.extend(
        [index.root()]
            .into_iter()
            .chain(index.children())
            .map(|part| (part.digest.clone(), part)),
    );
    for (reference, part) in &manifests {
        assert!(get(url(&daemon, reference)).await.ok() == part.bytes);
    }
    for part in index.blobs() {
        assert!(get(daemon.blob_url(NAME, &part.digest)).await.ok() == part.bytes);
    }
    upstream.refuse().await;
    // Whatever is still on its way to the disk when the signal comes is finished first.
    for _ in 0..2 {
        daemon.restart().await;
        upstream.forget_requests();
        for (reference, part) in &manifests {
            let answer = get(url(&daemon, reference)).await;
            assert_eq!(answer.header("cache-status"), "wharfinger; hit", "{reference}");
            assert_eq!(answer.header("content-type"), part.media_type);
            assert_eq!(answer.header("docker-content-digest"), part.digest);
            assert!(answer.ok() == part.bytes);
            let answer = head(url(&daemon, reference)).await;
            assert_eq!(
                (answer.status, answer.header("docker-content-digest")),
                (200, part.digest.as_str())
            );
        }
        for part in index.blobs() {
            let url = daemon.blob_url(NAME, &part.digest);
            assert_eq!(
                head(&url).await.header("content-length"),
                part.bytes.len().to_string()
            );
            let answer = get_with(&url, &[("range", "bytes=1-9")]).await;
            assert_eq!((answer.status, &answer.body), (206, &part.bytes.slice(1..10)));
            let answer = get(&url).await;
            assert_eq!(answer.header("cache-status"), "wharfinger; hit");
            assert!(answer.ok() == part.bytes);
        }
        assert_eq!(upstream.requests().len(), 0);
    }
}

#[tokio::test]
async fn a_blob_whose_file_is_gone_or_short_is_fetched_again() {
    let mut scene = Scene::start().await;
    let sizes = [70_000, 70_001, 70_002, 1];
    let digests: Vec<_> = (1..)
        .zip(sizes)
        .map(|(seed, size)| scene.put(random(seed, size)))
        .collect();
    for blob in &digests {
        scene.hit(blob).await;
    }
    scene.daemon.stop().await;
    let resize = |path: std::path::PathBuf, size| {
        let file = std::fs::File::options()
            .write(true)
            .open(path)
            .expect("a blob's file");
        file.set_len(size).expect("a writable file");
    };
    std::fs::remove_file(scene.file(&digests[0])).expect("a blob's file");
    resize(scene.file(&digests[1]), 100);
    resize(scene.file(&digests[2]), 0);
    resize(scene.file(&digests[3]), 2);
    scene.daemon.restart().await;
    for old in digests {
        let blob = scene.known(old.digest, old.bytes);
        assert_eq!(scene.gets(&blob), 1);
        let answer = get(&blob.url).await;
        assert_eq!(answer.header("cache-status"), "wharfinger; fwd=miss; stored");
        assert!(answer.ok() == blob.bytes);
        scene.hit(&blob).await;
        assert_eq!(scene.ranges(&blob), ["", ""]);
        assert_eq!(scene.file(&blob).metadata().expect("a file").len(), blob.size());
        scene.logged(&["missing or short", &blob.digest]).await;
    }
}

#[tokio::test]
async fn a_kill_in_the_middle_of_a_download_leaves_nothing_wrong() {
    let mut scene = Scene::start().await;
    let (kept, cut) = (scene.put(random(5, 400_000)), scene.put(random(6, 1 << 20)));
    scene.hit(&kept).await;
    let gate = scene.upstream.stall(cut.get(), 600_000);
    let mut client = Raw::get(&cut.url).await;
    client.head().await.expect("a head");
    assert!(client.read(600_000).await == cut.bytes[..600_000]);
    scene.daemon.kill().await;
    let (rest, ending) = client.finish().await;
    assert!(rest.is_empty() && ending != Ending::Complete, "{ending:?}");
    gate.cut();
    scene.daemon.restart().await;
    let partial = scene.daemon.data_dir().join("partial");
    assert_eq!(partial.read_dir().expect("a folder").count(), 0);
    let (kept, cut) = (
        scene.known(kept.digest, kept.bytes),
        scene.known(cut.digest, cut.bytes),
    );
    assert!(get(&cut.url).await.ok() == cut.bytes);
    scene.hit(&cut).await;
    assert_eq!(scene.gets(&cut), 2);
    assert!(get(&kept.url).await.ok() == kept.bytes);
    // Bytes are on disk before their row; the row of its link may be lost, and is proved again by one byte.
    assert!(
        scene
            .ranges(&kept)
            .iter()
            .skip(1)
            .all(|range| range == "bytes=0-0"),
        "{:?}",
        scene.ranges(&kept)
    );
}

#[tokio::test]
async fn kills_at_any_moment_leave_every_blob_right() {
    let mut scene = Scene::start().await;
    let contents: Vec<_> = (0..6).map(|seed| random(50 + seed, 150_000)).collect();
    for round in 0..6 {
        let blobs: Vec<_> = contents.iter().map(|bytes| scene.put(bytes.clone())).collect();
        let clients: Vec<_> = blobs
            .iter()
            .map(|blob| tokio::spawn(get(blob.url.clone())))
            .collect();
        // After so many whole answers, somewhere between the steps of keeping the last of them.
        for client in clients.into_iter().take(round) {
            assert!(soon("a client", client).await.expect("no panic").is_complete());
        }
        scene.daemon.kill().await;
        scene.daemon.restart().await;
        for bytes in &contents[..=round] {
            let blob = scene.known(sha256(bytes), bytes.clone());
            assert!(get(&blob.url).await.ok() == blob.bytes);
        }
    }
}

#[tokio::test]
async fn one_data_folder_has_one_daemon() {
    let scene = Scene::start().await;
    let folder = scene.daemon.data_dir();
    let setting = format!("{:?}", folder.to_str().expect("a plain path"));
    let (status, log) = Daemon::over(&scene.upstream)
        .setting("storage.data_dir", &setting)
        .fail()
        .await;
    assert_eq!(status.code(), Some(1));
    let said = log
        .iter()
        .any(|line| line.contains("another wharfinger") && line.contains("storage.data_dir"));
    assert!(said, "{log:?}");
    let blob = scene.put(random(7, 1000));
    scene.hit(&blob).await;
}

#[tokio::test]
async fn a_folder_that_is_not_ours_is_left_alone() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("thesis.tex"), "work of years").expect("a writable folder");
    let setting = format!("{:?}", folder.path().to_str().expect("a plain path"));
    let (status, log) = Daemon::over(&upstream)
        .setting("storage.data_dir", &setting)
        .fail()
        .await;
    assert_eq!(status.code(), Some(1));
    assert!(
        log.iter()
            .any(|line| line.contains("not a wharfinger data folder")),
        "{log:?}"
    );
    let names: Vec<_> = folder
        .path()
        .read_dir()
        .expect("a folder")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(names, ["thesis.tex"]);
}
