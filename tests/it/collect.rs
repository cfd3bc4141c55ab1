//! Garbage collection of hosted repositories while clients push: what no image needs goes, what somebody relies on stays,
//! and a kill in between loses nothing.

use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::admin::{asked, run};
use crate::crash::audit;
use crate::hosting::{APP, Hosting, hosting};
use crate::support::prelude::*;

/// Where others push to.
const OTHER: &str = "acme/other";

/// Runs a job of the daemon: what it ends with.
pub async fn job(hosting: &Hosting, name: &str, options: &Value) -> Value {
    let url = format!("{}/api/{name}", hosting.daemon.url());
    let kind = [("content-type", "application/json")];
    let told = send(Method::POST, url, &kind, options.to_string()).await.ok();
    let text = String::from_utf8(told.to_vec()).expect("text");
    let last: Value = serde_json::from_str(text.lines().last().expect("an event")).expect("JSON");
    assert_eq!(last["event"], "done", "{text}");
    last["result"].clone()
}

async fn collect(hosting: &Hosting, dry: bool) -> Value {
    job(hosting, "collect", &json!({ "dry_run": dry })).await
}

/// Waits until a dry run would take so many blobs out of repositories, and nothing holds it up; gives what it says.
async fn ripe(hosting: &Hosting, unlinked: u64) -> Value {
    let wait = async {
        loop {
            let told = collect(hosting, true).await;
            if told["unlinked"] == unlinked && told["held_seconds"].is_null() {
                return told;
            }
        }
    };
    soon(&format!("{unlinked} blobs that nothing needs"), wait).await
}

/// Kills the process (SIGKILL).
fn kill(id: u32) {
    let pid = i32::try_from(id)
        .ok()
        .and_then(Pid::from_raw)
        .expect("a process id");
    kill_process(pid, Signal::KILL).expect("a running daemon");
}

/// Waits until /metrics has this line.
pub async fn metric(daemon: &Daemon, line: &str) {
    let wait = async { while !daemon.metrics().await.lines().any(|had| had == line) {} };
    soon(&format!("the metric {line}"), wait).await;
}

/// A daemon that collects what is older than so long.
async fn after(grace: &str) -> Hosting {
    Hosting::of(hosting().setting("hosted.grace", &format!("\"{grace}\""))).await
}

async fn mount(hosting: &Hosting, into: &str, from: &str, digest: &str) {
    let url = hosting.at(into, &format!("blobs/uploads/?mount={digest}&from={from}"));
    let answer = send(Method::POST, url, &[], "").await;
    assert_eq!(answer.status, 201, "{}", answer.text());
}

/// Puts the manifest of an image whose blobs are there.
async fn put(hosting: &Hosting, repository: &str, tag: &str, content: &impl Content) {
    let answer = hosting.put(repository, tag, &content.root()).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
}

/// The files of blobs that are kept.
fn files(daemon: &Daemon) -> usize {
    fn count(folder: &std::path::Path) -> usize {
        let entries = folder.read_dir().expect("a folder");
        entries
            .map(|entry| entry.expect("an entry").path())
            .map(|path| if path.is_dir() { count(&path) } else { 1 })
            .sum()
    }
    count(&daemon.data_dir().join("blobs"))
}

#[tokio::test]
async fn a_push_that_was_told_that_its_layers_are_here_keeps_them_through_a_collection() {
    let hosting = after("4s").await;
    let (told, mounted, loose) = (random(1, 3000), random(2, 4000), random(3, 5000));
    let image = Image::new().layer(told.clone()).layer(mounted.clone());
    let told = hosting.push_blob(APP, told).await;
    let mounted = hosting.push_blob(OTHER, mounted).await;
    let loose = hosting.push_blob(APP, loose).await;
    // All of them are old, and nothing refers to any.
    ripe(&hosting, 3).await;
    // A client looks what is there, and pushes only the rest.
    assert_eq!(hosting.status(APP, &format!("blobs/{told}")).await, 200);
    mount(&hosting, APP, OTHER, &mounted).await;
    let config = image.config();
    hosting.push_blob(APP, config.bytes).await;
    let collected = collect(&hosting, false).await;
    assert_eq!(
        (&collected["unlinked"], &collected["removed"], &collected["bytes"]),
        (&2.into(), &1.into(), &8192.into()),
        "{collected}"
    );
    put(&hosting, APP, "v1", &image).await;
    hosting.assert_holds(APP, "v1", &image).await;
    assert_eq!(hosting.status(APP, &format!("blobs/{loose}")).await, 404);
    // And when nobody remembers that anything was promised.
    hosting.push_blob(APP, random(4, 6000)).await;
    ripe(&hosting, 1).await;
    let collected = collect(&hosting, false).await;
    assert_eq!(collected["unlinked"], 1, "{collected}");
    hosting.assert_holds(APP, "v1", &image).await;
}

#[tokio::test]
async fn a_dry_run_says_what_a_run_does_and_does_nothing() {
    let hosting = after("1s").await;
    let kept = Image::simple(1, 5000);
    hosting.push(APP, "kept", &kept).await;
    let shared = hosting.push_blob(APP, random(2, 7000)).await;
    mount(&hosting, OTHER, APP, &shared).await;
    let gone = Image::simple(3, 9000);
    let digest = hosting.push(APP, "gone", &gone).await;
    let deleted = hosting.delete(APP, &format!("manifests/{digest}")).await;
    assert_eq!(deleted.status, 202);
    let before = files(&hosting.daemon);
    // Layer and config of the image; the shared one, twice.
    let dry = ripe(&hosting, 4).await;
    assert_eq!(
        (&dry["removed"], &dry["bytes"], &dry["repositories"]),
        (&3.into(), &(8192 + 12288 + 4096).into(), &2.into()),
        "{dry}"
    );
    assert_eq!(files(&hosting.daemon), before);
    let named = job(
        &hosting,
        "collect",
        &json!({ "dry_run": true, "repositories": [OTHER] }),
    )
    .await;
    assert_eq!(
        (&named["unlinked"], &named["removed"], &named["repositories"]),
        (&1.into(), &0.into(), &1.into()),
        "{named}"
    );
    let mut done = collect(&hosting, false).await;
    assert_eq!(done["dry_run"], false);
    done["dry_run"] = true.into();
    assert_eq!(done, dry);
    assert_eq!(files(&hosting.daemon), before - 3);
    hosting.assert_holds(APP, "kept", &kept).await;
    assert_eq!(collect(&hosting, false).await["unlinked"], 0);
    for line in [
        "wharfinger_collected_blobs_total 3",
        "wharfinger_collected_bytes_total 24576",
        r#"wharfinger_collections_total{result="completed"} 2"#,
    ] {
        metric(&hosting.daemon, line).await;
    }
}

#[tokio::test]
async fn the_command_says_what_it_freed_and_why_it_waits() {
    let mut hosting = Hosting::start().await;
    hosting.push_blob(APP, random(1, 5000)).await;
    hosting.daemon.restart().await;
    hosting
        .daemon
        .wait_for_log("hosted repositories are not collected yet")
        .await;
    let held = run(&hosting.daemon, &["collect"]).await;
    assert!(
        held.text().contains("freed 0 B") && held.text().contains("no blob is collected for another 23h"),
        "{}",
        held.text()
    );
    let told = asked(&hosting.daemon, &["repository", "show", APP]).await;
    assert_eq!(told["holds"]["blobs"], 1, "{told}");
    let unknown = run(&hosting.daemon, &["collect", "acme/none"]).await;
    assert_eq!(unknown.code(), Some(1));
    assert!(
        unknown
            .printed()
            .contains("there is no hosted repository acme/none"),
        "{}",
        unknown.printed()
    );
    let line = r#"wharfinger_collections_total{result="held"} 1"#;
    metric(&hosting.daemon, line).await;
}

#[tokio::test]
async fn it_collects_and_gives_up_uploads_by_itself() {
    let hosting = Hosting::of(
        hosting()
            .setting("hosted.grace", "\"1s\"")
            .setting("hosted.collect_interval", "\"1s\"")
            .setting("hosted.upload_timeout", "\"1s\""),
    )
    .await;
    let kept = Image::simple(1, 2000);
    hosting.push(APP, "v1", &kept).await;
    let loose = hosting.push_blob(APP, random(2, 3000)).await;
    let session = hosting.begin(APP).await;
    let answer = send(Method::PATCH, &session, &[], random(3, 1000)).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    for line in [
        "wharfinger_collected_blobs_total 1",
        "wharfinger_reaped_uploads_total 1",
        "wharfinger_reaped_upload_bytes_total 1000",
    ] {
        metric(&hosting.daemon, line).await;
    }
    assert_eq!(hosting.status(APP, &format!("blobs/{loose}")).await, 404);
    assert_eq!(get(&session).await.status, 404);
    assert_eq!(hosting.upload_files(), 0);
    hosting.assert_holds(APP, "v1", &kept).await;
    hosting
        .daemon
        .wait_for_log("uploads that nobody went on with were given up")
        .await;
}

/// The daemon of a debug build ends itself before the step that this names.
const DIE: &str = "WHARFINGER_DIE_BEFORE";
const REMOVING: [&str; 2] = ["remove: commit", "remove: unlink"];

#[tokio::test]
async fn a_kill_in_a_collection_loses_nothing_and_the_next_one_ends_it() {
    for step in REMOVING {
        let mut hosting = after("1s").await;
        let kept = Image::simple(1, 4000);
        hosting.push(APP, "v1", &kept).await;
        for seed in 2..5 {
            hosting.push_blob(APP, random(seed, 3000)).await;
        }
        hosting.daemon.set_env(DIE, Some(step));
        hosting.daemon.restart().await;
        ripe(&hosting, 3).await;
        let killed = run(&hosting.daemon, &["collect"]).await;
        assert_ne!(killed.code(), Some(0), "{step}");
        hosting.daemon.exited().await;
        hosting.daemon.set_env(DIE, None);
        hosting.daemon.run_again().await;
        // One left the repository before the end.
        ripe(&hosting, 2).await;
        collect(&hosting, false).await;
        hosting.assert_holds(APP, "v1", &kept).await;
        hosting.daemon.stop().await;
        audit(&hosting.daemon).await;
    }
}

#[tokio::test]
async fn a_kill_in_the_deletion_of_a_repository_leaves_nothing_to_who_makes_it_anew() {
    for (step, anew) in REMOVING
        .into_iter()
        .flat_map(|step| [(step, false), (step, true)])
    {
        let mut hosting = after("1h").await;
        let kept = Image::simple(1, 4000);
        hosting.push(OTHER, "v1", &kept).await;
        for seed in 2..5 {
            let image = Image::simple(seed, 3000);
            hosting.push(APP, &format!("v{seed}"), &image).await;
        }
        hosting.begin(APP).await;
        hosting.daemon.set_env(DIE, Some(step));
        hosting.daemon.restart().await;
        let killed = run(&hosting.daemon, &["repository", "delete", "--force", APP]).await;
        assert_ne!(killed.code(), Some(0), "{step}");
        hosting.daemon.exited().await;
        hosting.daemon.set_env(DIE, None);
        hosting.daemon.run_again().await;
        assert_eq!(get(hosting.at(APP, "tags/list")).await.status, 404);
        if anew {
            let made = asked(&hosting.daemon, &["repository", "create", APP]).await;
            assert_eq!(
                (&made["bytes"], &made["holds"]["manifests"]),
                (&0.into(), &0.into())
            );
            assert_eq!(collect(&hosting, false).await["cleared"], 0);
        } else {
            // What is left of it waits for no grace period: nobody can rely on it.
            let told = collect(&hosting, true).await;
            assert_eq!(told["cleared"], 1, "{told}");
            let done = collect(&hosting, false).await;
            for figure in ["cleared", "unlinked", "removed", "bytes"] {
                assert_eq!(done[figure], told[figure], "{figure}: {done}");
            }
        }
        assert_eq!(collect(&hosting, true).await["cleared"], 0);
        hosting.assert_holds(OTHER, "v1", &kept).await;
        hosting.daemon.stop().await;
        audit(&hosting.daemon).await;
    }
}

/// Pushes images until nobody answers any more; `done` has those that were taken in.
async fn client(hosting: Arc<Hosting>, number: u64, done: Arc<Mutex<Vec<(String, Image)>>>) {
    for round in 0.. {
        let image = Image::simple(1000 * number + round, 2000);
        let tag = format!("v{number}-{round}");
        hosting.push(APP, &tag, &image).await;
        done.lock().expect("a lock").push((tag, image));
    }
}

#[tokio::test]
async fn what_was_pushed_beside_collections_is_there_after_a_kill() {
    let mut hosting = Arc::new(after("4s").await);
    for seed in 0..20 {
        hosting.push_blob(APP, random(seed, 500)).await;
    }
    let done = Arc::new(Mutex::new(Vec::new()));
    let clients: Vec<_> = (1..4)
        .map(|number| tokio::spawn(client(hosting.clone(), number, done.clone())))
        .collect();
    let enough = async {
        let mut removed = 0;
        while removed < 20 || done.lock().expect("a lock").len() < 20 {
            let told = collect(&hosting, false).await;
            removed += told["removed"].as_u64().expect("a number");
        }
    };
    soon("pushes beside collections", enough).await;
    kill(hosting.daemon.pid());
    for client in clients {
        // It ends as soon as it gets no answer.
        let ended = soon("a client's end", client).await;
        assert!(ended.is_err());
    }
    let hosting = Arc::get_mut(&mut hosting).expect("no client");
    hosting.daemon.exited().await;
    hosting.daemon.run_again().await;
    let done = std::mem::take(&mut *done.lock().expect("a lock"));
    for (tag, image) in &done {
        hosting.assert_holds(APP, tag, image).await;
    }
    hosting.daemon.stop().await;
    audit(&hosting.daemon).await;
}
