//! The index made anew of what the data folder holds: nothing has to be fetched again.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::admin::{asked, run, run_offline};
use crate::scene::{NAME, REPO, Scene};
use crate::support::prelude::*;

const MIB: usize = 1 << 20;

/// A daemon that has pulled an index of two platforms by a tag, and has stopped.
async fn stopped() -> (Scene, Index) {
    let mut scene = Scene::start().await;
    let index = Index::of_platforms(0)
        .image(Image::simple(1, MIB).platform("linux", "amd64"))
        .image(Image::simple(2, MIB).platform("linux", "arm64"));
    scene.upstream.put(REPO, "1", &index);
    pull(&scene, &index).await;
    scene.daemon.stop().await;
    (scene, index)
}

async fn pull(scene: &Scene, index: &Index) {
    assert!(get(scene.daemon.manifest_url(NAME, "1")).await.ok() == index.root().bytes);
    for part in index.children() {
        assert!(get(scene.daemon.manifest_url(NAME, &part.digest)).await.ok() == part.bytes);
    }
    for part in index.blobs() {
        assert!(get(scene.daemon.blob_url(NAME, &part.digest)).await.ok() == part.bytes);
    }
    scene.metric("wharfinger_fills_running 0").await;
}

fn index_file(scene: &Scene) -> PathBuf {
    scene.daemon.data_dir().join("index.redb")
}

async fn rebuilt(scene: &Scene, arguments: &[&str]) -> Value {
    let mut all = vec!["rebuild-index", "--json"];
    all.extend(arguments);
    let ran = run(&scene.daemon, &all).await;
    serde_json::from_str(ran.text()).expect("JSON")
}

/// All of it is served although the upstream is down.
async fn all_is_here(scene: &mut Scene, index: &Index) {
    scene.upstream.refuse().await;
    scene.daemon.restart().await;
    pull(scene, index).await;
    let explained = asked(&scene.daemon, &["explain", &format!("{NAME}:1")]).await;
    assert_eq!(explained["expected"], "hit", "{explained}");
}

#[tokio::test]
async fn a_lost_index_is_made_of_the_journal() {
    let (mut scene, index) = stopped().await;
    fs::remove_file(index_file(&scene)).expect("an index");
    let status = scene.daemon.fail_again().await;
    assert_eq!(status.code(), Some(1));
    scene
        .daemon
        .wait_for_log("`wharfinger rebuild-index` makes a new one")
        .await;
    let told = rebuilt(&scene, &[]).await;
    let expected = [
        ("manifests", 3),
        ("tags", 1),
        ("blobs", 4),
        ("damaged_records", 0),
        ("dangling_tags", 0),
    ];
    for (what, count) in expected {
        assert_eq!(told[what], count, "{what}: {told}");
    }
    assert_eq!(
        (&told["source"], &told["old_index"]),
        (&"journal".into(), &Value::Null)
    );
    all_is_here(&mut scene, &index).await;
}

#[tokio::test]
async fn a_damaged_index_is_refused_and_made_anew() {
    for damage in ["garbage", "half", "holes"] {
        let (mut scene, index) = stopped().await;
        let path = index_file(&scene);
        let mut bytes = fs::read(&path).expect("an index");
        match damage {
            "garbage" => bytes = random(7, bytes.len()).to_vec(),
            "half" => bytes.truncate(bytes.len() / 2),
            _ => {
                for page in bytes.chunks_mut(4096).skip(1) {
                    page[..64].fill(0xAA);
                }
            }
        }
        fs::write(&path, &bytes).expect("an index");
        let told = rebuilt(&scene, &[]).await;
        assert_eq!(told["source"], "journal", "{damage}: {told}");
        assert_eq!(
            (&told["manifests"], &told["tags"]),
            (&3.into(), &1.into()),
            "{damage}: {told}"
        );
        let old = told["old_index"].as_str().expect("the old file");
        assert!(fs::read(old).expect("the old file").len() == bytes.len());
        all_is_here(&mut scene, &index).await;
    }
}

#[tokio::test]
async fn a_start_with_garbage_for_an_index_says_what_to_do() {
    let (mut scene, _) = stopped().await;
    let length = fs::metadata(index_file(&scene)).expect("an index").len();
    fs::write(index_file(&scene), random(7, length as usize)).expect("an index");
    assert_eq!(scene.daemon.fail_again().await.code(), Some(1));
    scene
        .daemon
        .wait_for_log("`wharfinger rebuild-index` makes a new one")
        .await;
}

#[tokio::test]
async fn what_is_whole_is_taken_from_the_index_and_verified() {
    let (mut scene, index) = stopped().await;
    let blobs = index.blobs();
    let [first, second] =
        [0, 1].map(|number| crate::scene::files_of(&scene.daemon, &blobs[number].digest).remove(0));
    let mut bytes = fs::read(&first).expect("a blob");
    bytes[10] ^= 1;
    fs::write(&first, bytes).expect("a blob");
    let notes = second.with_file_name("notes.txt");
    fs::write(&notes, "mine").expect("a file");
    // A row that nobody could have made in order: the tag of a manifest that is not there.
    let told = rebuilt(&scene, &["--verify"]).await;
    assert_eq!(
        (&told["source"], &told["blobs"]),
        (&"index".into(), &3.into()),
        "{told}"
    );
    assert_eq!(told["rotten_blobs"], serde_json::json!([blobs[0].digest]));
    assert_eq!(told["foreign_files"], serde_json::json!([notes]));
    scene.daemon.restart().await;
    scene.upstream.forget_requests();
    pull(&scene, &index).await;
    assert_eq!(scene.upstream.requests().len(), 1, "the rotten one alone");
}

#[tokio::test]
async fn not_while_a_daemon_runs_and_not_in_any_folder() {
    let scene = Scene::start().await;
    let told = run_offline(&scene.daemon.config_path(), &["rebuild-index"]).await;
    assert!(
        told.contains("another wharfinger is using this data folder"),
        "{told}"
    );
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("wharfinger.toml");
    fs::write(&config, format!("[storage]\ndata_dir = {:?}\n", folder.path())).expect("a file");
    let told = run_offline(&config, &["rebuild-index"]).await;
    assert!(told.contains("not a wharfinger data folder"), "{told}");
    assert!(!folder.path().join("lock").exists());
}

#[tokio::test]
async fn the_journal_is_made_good_after_a_kill_and_without_it() {
    let (mut scene, index) = stopped().await;
    // As an earlier version left it: an index without journal.
    fs::remove_dir_all(scene.daemon.data_dir().join("journal")).expect("a journal");
    scene.daemon.restart().await;
    pull(&scene, &index).await;
    // Something to write, so that the writer looks.
    run(&scene.daemon, &["refresh", &format!("{NAME}:1")])
        .await
        .text();
    let folder = scene.daemon.data_dir().join("journal");
    let made = async {
        let is_made = || {
            let files = fs::read_dir(&folder).into_iter().flatten().flatten();
            // Under its own name it is whole.
            let files = files.filter(|file| file.file_name() != "new");
            files
                .filter_map(|file| file.metadata().ok())
                .any(|file| file.len() > 2000)
        };
        while !is_made() {
            scene.daemon.metrics().await;
        }
    };
    soon("a new journal", made).await;
    scene.daemon.kill().await;
    fs::remove_file(index_file(&scene)).expect("an index");
    let told = rebuilt(&scene, &[]).await;
    assert_eq!(
        (&told["manifests"], &told["tags"]),
        (&3.into(), &1.into()),
        "{told}"
    );
    all_is_here(&mut scene, &index).await;
}
