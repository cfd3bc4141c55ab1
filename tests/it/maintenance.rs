//! Scrubbing and sweeping: what rots is put aside and fetched again before anybody asks, and files and rows agree again
//! whatever happened to either.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bytes::Bytes;
use serde_json::Value;
use wharfinger::clock::Timestamp;
use wharfinger::config::StorageConfig;
use wharfinger::oci::Digest;
use wharfinger::storage::{Change, ManifestRow, Outline, Storage, UnitKind};

use crate::admin::{asked, run};
use crate::scene::{Blob, NAME, REPO, Scene};
use crate::support::prelude::*;

const MIB: usize = 1 << 20;

/// Flips a bit in the middle of a file.
pub fn rot(path: &Path) {
    let file = File::options().read(true).write(true).open(path).expect("a file");
    let middle = file.metadata().expect("its size").len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).expect("a byte");
    file.write_all_at(&[byte[0] ^ 1], middle).expect("a byte");
}

/// Runs a job of the daemon, and gives its last event.
async fn job(daemon: &Daemon, arguments: &[&str]) -> Value {
    let mut arguments = arguments.to_vec();
    arguments.push("--json");
    let told = run(daemon, &arguments).await;
    let last = told.printed().lines().last().expect("an event");
    serde_json::from_str(last).expect("JSON")
}

/// Pulls blobs until they are in their places.
async fn pulled(scene: &Scene, seeds: std::ops::Range<u64>) -> Vec<Blob> {
    let mut blobs = Vec::new();
    for seed in seeds {
        let blob = scene.put(random(seed, MIB));
        scene.hit(&blob).await;
        blobs.push(blob);
    }
    blobs
}

/// Works on the index of a daemon that does not run.
fn with_storage<T>(folder: &Path, work: impl FnOnce(&Storage) -> T) -> T {
    let config = StorageConfig::in_folder(folder.to_owned());
    let storage = Storage::open(&config).expect("a data folder");
    let result = work(&storage);
    storage.close();
    result
}

/// Metrics lines that count rotten content, of what is not zero.
async fn rotten(daemon: &Daemon) -> Vec<String> {
    let metrics = daemon.metrics().await;
    metrics
        .lines()
        .filter(|line| line.starts_with("wharfinger_rotten_total") && !line.ends_with(" 0"))
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn a_rotten_blob_is_right_again_before_anybody_asks() {
    let scene = Scene::start().await;
    let blobs = pulled(&scene, 1..4).await;
    let sound = job(&scene.daemon, &["scrub", "--rate", "0"]).await;
    assert_eq!(sound["result"]["blobs"], 3, "{sound}");
    assert_eq!(
        (&sound["result"]["rotten"], &sound["result"]["bytes"]),
        (&0.into(), &(3 * MIB).into())
    );

    let path = scene.file(&blobs[1]);
    rot(&path);
    let ran = run(&scene.daemon, &["scrub", "--rate", "0"]).await;
    let text = ran.text().to_owned();
    assert!(
        text.contains(&blobs[1].digest) && text.contains("fetched again"),
        "{text}"
    );
    assert!(text.contains("1 rotten, 1 fetched again"), "{text}");
    assert_eq!(
        rotten(&scene.daemon).await,
        [r#"wharfinger_rotten_total{healed="true",kind="blob"} 1"#]
    );
    // One more GET, by nobody's request.
    assert_eq!(
        blobs.iter().map(|blob| scene.gets(blob)).collect::<Vec<_>>(),
        [1, 2, 1]
    );
    scene.upstream.refuse().await;
    let answer = get(&blobs[1].url).await;
    assert_eq!(answer.header("cache-status"), "wharfinger; hit");
    assert!(answer.ok() == blobs[1].bytes);
    // What was put aside is gone, now that it is right again.
    assert_eq!(scene.files(&blobs[1]), [path]);
}

#[tokio::test]
async fn what_cannot_be_fetched_again_is_out_of_service_until_it_can() {
    let mut scene = Scene::start().await;
    let blob = pulled(&scene, 1..2).await.remove(0);
    rot(&scene.file(&blob));
    scene.upstream.refuse().await;
    let told = job(&scene.daemon, &["scrub"]).await;
    assert_eq!(
        (&told["result"]["rotten"], &told["result"]["healed"]),
        (&1.into(), &0.into())
    );
    let aside = scene.file(&blob);
    assert!(
        aside
            .parent()
            .is_some_and(|folder| folder.ends_with("quarantine")),
        "{}",
        aside.display()
    );
    let status = asked(&scene.daemon, &["status"]).await;
    assert_eq!(status["room"]["quarantined"], 1);
    assert!(get(&blob.url).await.status >= 500);
    scene.daemon.restart().await;
    let blob = scene.known(blob.digest, blob.bytes);
    assert_eq!(asked(&scene.daemon, &["status"]).await["room"]["quarantined"], 1);
    scene.upstream.resume();
    scene.upstream.forget_requests();
    scene.hit(&blob).await;
    // Its link was kept: nothing had to be proved.
    assert_eq!(scene.ranges(&blob), [""]);
    assert!(
        !scene
            .file(&blob)
            .starts_with(scene.daemon.data_dir().join("quarantine"))
    );
}

#[tokio::test]
async fn a_rotten_manifest_is_fetched_again_and_keeps_its_tags() {
    let mut scene = Scene::start().await;
    let image = Image::simple(1, 1000);
    scene.upstream.put(REPO, "latest", &image);
    let root = image.root();
    assert!(get(scene.daemon.manifest_url(NAME, "latest")).await.ok() == root.bytes);
    scene.daemon.stop().await;
    let digest: Digest = root.digest.parse().expect("a digest");
    let mut wrong = root.bytes.to_vec();
    let at = wrong.iter().position(|byte| *byte == b' ').unwrap_or(20);
    wrong[at] ^= 1;
    with_storage(&scene.daemon.data_dir(), |storage| {
        let row = ManifestRow {
            media_type: root.media_type.clone(),
            bytes: Bytes::from(wrong),
        };
        let outline = Outline {
            kind: UnitKind::Image,
            bytes: 2000,
            class: 0,
            needs: Vec::new(),
        };
        let change = Change::put_manifest(&digest, &row, &outline, Timestamp::now());
        storage.index.submit(vec![change]);
    });
    scene.daemon.restart().await;
    let told = job(&scene.daemon, &["scrub"]).await;
    assert_eq!(
        (&told["result"]["rotten"], &told["result"]["healed"]),
        (&1.into(), &1.into()),
        "{told}"
    );
    scene.upstream.refuse().await;
    let answer = get(scene.daemon.manifest_url(NAME, "latest")).await;
    assert_eq!(answer.header("cache-status"), "wharfinger; hit");
    assert!(answer.ok() == root.bytes);
}

#[tokio::test]
async fn a_pass_goes_on_where_the_last_process_stopped() {
    // A piece of 1 MiB, and then none for a day.
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream)
        .setting("storage.scrub_rate", "\"12B\"")
        .start()
        .await;
    let mut scene = Scene { upstream, daemon };
    pulled(&scene, 1..4).await;
    scene.daemon.stop().await;
    with_storage(&scene.daemon.data_dir(), |storage| {
        let long_ago = Change::put_meta("scrub.finished", b"0".to_vec());
        storage.index.submit(vec![long_ago]);
    });
    for _ in 0..3 {
        scene.daemon.restart().await;
        scene
            .metric(&format!("wharfinger_scrubbed_bytes_total {MIB}"))
            .await;
    }
    scene.daemon.restart().await;
    let logs = scene.daemon.logs();
    let passes: Vec<_> = logs
        .iter()
        .filter(|line| line.contains(": scrubbed blobs=1"))
        .collect();
    let ended: Vec<_> = passes
        .iter()
        .map(|line| line.ends_with("stopped=false"))
        .collect();
    assert_eq!(ended, [false, false, true], "{passes:?}");
}

#[tokio::test]
async fn a_sweep_takes_in_what_is_right_and_removes_what_is_not() {
    let mut scene = Scene::start().await;
    let blobs = pulled(&scene, 1..4).await;
    let path = scene.file(&blobs[0]);
    scene.daemon.stop().await;
    with_storage(&scene.daemon.data_dir(), |storage| {
        // As if killed between the rename and the row.
        let rows = blobs[..2]
            .iter()
            .map(|blob| Change::remove_blob(&blob.digest.parse().expect("a digest")));
        storage.index.submit(rows.collect());
    });
    rot(&path);
    let foreign = path.with_file_name("notes.txt");
    fs::write(&foreign, "mine").expect("a file");
    fs::remove_file(scene.file(&blobs[2])).expect("a file");
    scene.daemon.restart().await;
    let told = job(&scene.daemon, &["sweep"]).await;
    let expected = [("rows", 1), ("dropped", 1), ("adopted", 1), ("removed", 1)];
    for (what, count) in expected {
        assert_eq!(told["result"][what], count, "{what}: {told}");
    }
    assert!(foreign.exists());
    let again = run(&scene.daemon, &["sweep"]).await;
    assert!(again.text().contains("files and index agree"), "{}", again.text());
    scene.upstream.forget_requests();
    for blob in blobs {
        let blob = scene.known(blob.digest, blob.bytes);
        scene.hit(&blob).await;
    }
    // The adopted one only had to be proved.
    assert_eq!(
        scene
            .upstream
            .requests_of(&crate::support::prelude::blobs().get())
            .len(),
        3
    );
}

#[tokio::test]
async fn after_a_kill_orphans_are_taken_in_without_being_told() {
    let mut scene = Scene::start().await;
    let blobs = pulled(&scene, 1..3).await;
    scene.daemon.kill().await;
    with_storage(&scene.daemon.data_dir(), |storage| {
        let row = Change::remove_blob(&blobs[0].digest.parse().expect("a digest"));
        storage.index.submit(vec![row]);
    });
    // Closed well by the line above: so once more.
    scene.daemon.restart().await;
    scene.daemon.kill().await;
    scene.daemon.restart().await;
    scene
        .logged(&["swept", "rows=1", "adopted=1", "removed=0", "dropped=0"])
        .await;
}

#[tokio::test]
async fn many_rows_without_files_are_no_reason_to_forget_them() {
    let mut scene = Scene::start().await;
    let blobs = pulled(&scene, 1..12).await;
    scene.daemon.stop().await;
    let folder = scene.daemon.data_dir().join("blobs");
    let away = scene.daemon.data_dir().join("elsewhere");
    fs::rename(&folder, &away).expect("a folder");
    let status = scene.daemon.fail_again().await;
    assert_eq!(status.code(), Some(1));
    scene
        .daemon
        .wait_for_log("is the right volume mounted? If they are really lost, start once with --accept-loss")
        .await;
    // Mounted again, nothing is lost.
    fs::remove_dir_all(&folder).expect("a folder");
    fs::rename(&away, &folder).expect("a folder");
    scene.daemon.restart().await;
    scene.upstream.forget_requests();
    for blob in &blobs {
        let answer = get(scene.daemon.blob_url(NAME, &blob.digest)).await;
        assert!(answer.ok() == blob.bytes);
    }
    assert_eq!(scene.upstream.requests().len(), 0);
    // Really lost: fetched again.
    scene.daemon.stop().await;
    fs::remove_dir_all(&folder).expect("a folder");
    scene.daemon.restart_with(&["--accept-loss"]).await;
    scene.logged(&["swept", "dropped=11"]).await;
    let blob = scene.known(blobs[0].digest.clone(), blobs[0].bytes.clone());
    scene.hit(&blob).await;
}

#[tokio::test]
async fn a_data_folder_that_vanishes_while_we_run_is_no_reason_either() {
    let scene = Scene::start().await;
    let blobs = pulled(&scene, 1..3).await;
    let data = scene.daemon.data_dir();
    let away = data.with_file_name("away");
    // Through the socket that is still open: its path goes with the folder.
    let (blob_files, marker) = (data.join("blobs"), data.join("wharfinger.json"));
    fs::create_dir(&away).expect("a folder");
    fs::rename(&blob_files, away.join("blobs")).expect("a folder");
    fs::rename(&marker, away.join("marker")).expect("a file");
    let told = job(&scene.daemon, &["sweep"]).await;
    assert_eq!(told["event"], "failed", "{told}");
    fs::rename(away.join("marker"), marker).expect("a file");
    fs::rename(away.join("blobs"), blob_files).expect("a folder");
    let told = job(&scene.daemon, &["sweep"]).await;
    assert_eq!(
        (&told["result"]["rows"], &told["result"]["dropped"]),
        (&2.into(), &0.into())
    );
    for blob in &blobs {
        assert_eq!(scene.gets(blob), 1);
    }
}

#[tokio::test]
async fn a_file_that_is_cut_while_it_is_open_breaks_off_once_and_heals() {
    let scene = Scene::start().await;
    let blob = pulled(&scene, 1..2).await.remove(0);
    let file = File::options()
        .write(true)
        .open(scene.file(&blob))
        .expect("a file");
    file.set_len(300_000).expect("a shorter file");
    let answer = get(&blob.url).await;
    assert!(!answer.is_complete() && blob.bytes.starts_with(&answer.body));
    scene.hit(&blob).await;
    assert_eq!(scene.gets(&blob), 2);
}
