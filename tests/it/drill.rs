//! Drills: what was pulled lately, and would still be served if its upstream were lost. What they say is tried out: with the
//! upstream away, exactly that is served.

use serde_json::{Value, json};

use crate::admin::{asked, run};
use crate::expect::{assert_error, assert_hit};
use crate::freshness::restart_with;
use crate::scene::{NAME, REPO, Scene, files_of};
use crate::support::prelude::*;

/// Runs a drill, and gives what it found.
pub async fn drill(daemon: &Daemon, arguments: &[&str]) -> Value {
    let arguments = [&["drill", "--json"], arguments].concat();
    let ran = run(daemon, &arguments).await;
    let last = ran.printed().lines().last().expect("an event").to_owned();
    let event: Value = serde_json::from_str(&last).expect("JSON");
    assert_eq!(event["event"], "done", "{last}");
    let holes = event["result"]["upstreams"].as_array().expect("upstreams");
    let whole = holes.iter().all(|upstream| upstream["holes"] == json!([]));
    assert_eq!(ran.code(), Some(i32::from(!whole)), "{last}");
    event["result"].clone()
}

/// The upstream of that prefix in what a drill found.
fn of<'a>(told: &'a Value, prefix: &str) -> &'a Value {
    let upstreams = told["upstreams"].as_array().expect("upstreams");
    let found = upstreams.iter().find(|upstream| upstream["prefix"] == prefix);
    found.unwrap_or_else(|| panic!("no {prefix} in {told}"))
}

/// Images, and how many of them survive.
fn counts(upstream: &Value) -> (u64, u64) {
    let number = |key: &str| upstream[key].as_u64().expect("a number");
    (number("images"), number("survive"))
}

/// What lacks of an image: what, why, and bytes.
fn lacks(upstream: &Value, image: &str) -> Vec<(String, String, u64)> {
    let holes = upstream["holes"].as_array().expect("holes");
    let Some(hole) = holes.iter().find(|hole| hole["image"] == image) else {
        return Vec::new();
    };
    let word = |lack: &Value, key: &str| lack[key].as_str().expect("a word").to_owned();
    let lacks = hole["lacks"].as_array().expect("lacks").iter();
    lacks
        .map(|lack| {
            let bytes = lack["bytes"].as_u64().expect("bytes");
            (word(lack, "what"), word(lack, "reason"), bytes)
        })
        .collect()
}

/// Pulls all of an image as a client does: its index or manifest by tag, then what it names.
pub async fn pull(daemon: &Daemon, name: &str, tag: &str, image: &Image) {
    assert_eq!(get(daemon.manifest_url(name, tag)).await.status, 200);
    pull_digest(daemon, name, image).await;
}

/// The same for one manifest by its digest.
pub async fn pull_digest(daemon: &Daemon, name: &str, image: &Image) {
    assert!(get(daemon.manifest_url(name, &image.digest())).await.ok() == image.root().bytes);
    for part in image.blobs() {
        assert!(get(daemon.blob_url(name, &part.digest)).await.ok() == part.bytes);
    }
    settled(daemon).await;
}

/// Waits until no fill runs: a client has its last byte a little before the blob is in its place.
async fn settled(daemon: &Daemon) {
    let is_idle = |metrics: &str| metrics.lines().any(|line| line == "wharfinger_fills_running 0");
    let wait = async { while !is_idle(&daemon.metrics().await) {} };
    soon("the end of all fills", wait).await;
}

fn lack(what: &str, reason: &str, bytes: usize) -> (String, String, u64) {
    (what.to_owned(), reason.to_owned(), bytes as u64)
}

#[tokio::test]
async fn what_was_pulled_whole_survives_and_what_was_not_is_named() {
    let scene = Scene::start().await;
    let nothing = drill(&scene.daemon, &[]).await;
    assert_eq!(counts(of(&nothing, "docker-hub")), (0, 0));
    let (whole, part) = (
        Image::simple(1, 40_000),
        Image::simple(2, 50_000).layer(random(3, 7000)),
    );
    scene.upstream.put(REPO, "whole", &whole);
    scene.upstream.put(REPO, "part", &part);
    scene.upstream.put(REPO, "unasked", &Image::simple(9, 100));
    pull(&scene.daemon, NAME, "whole", &whole).await;
    // The manifest and one layer alone.
    get(scene.daemon.manifest_url(NAME, "part")).await.ok();
    get(scene.daemon.blob_url(NAME, &part.layer_digest(0))).await.ok();
    scene.metric("wharfinger_fills_running 0").await;
    let before = scene.upstream.connections();
    let told = drill(&scene.daemon, &[]).await;
    let hub = of(&told, "docker-hub");
    assert_eq!(counts(hub), (2, 1), "{hub}");
    let config = part.config().bytes.len();
    let part_image = format!("{NAME}:part");
    assert_eq!(
        lacks(hub, &part_image),
        [lack("blob", "absent", config), lack("blob", "absent", 7000)]
    );
    assert_eq!(hub["bytes"], json!(config + 7000));
    assert_eq!(scene.upstream.connections(), before, "a drill asks nobody");
    let words = run(&scene.daemon, &["drill"]).await;
    assert_eq!(words.code(), Some(1));
    assert!(
        words
            .printed()
            .contains("docker-hub: 1 of 2 images would survive"),
        "{}",
        words.printed()
    );
    // As it says.
    scene.upstream.refuse().await;
    pull(&scene.daemon, NAME, "whole", &whole).await;
    assert_error(
        &get(scene.daemon.blob_url(NAME, &part.layer_digest(1))).await,
        503,
        "UNAVAILABLE",
    );
}

#[tokio::test]
async fn a_fill_fetches_what_lacks_and_nothing_else() {
    let scene = Scene::start().await;
    let image = Image::simple(2, 50_000).layer(random(3, 7000));
    scene.upstream.put(REPO, "1", &image);
    get(scene.daemon.manifest_url(NAME, "1")).await.ok();
    get(scene.daemon.blob_url(NAME, &image.layer_digest(0)))
        .await
        .ok();
    scene.metric("wharfinger_fills_running 0").await;
    scene.upstream.forget_requests();
    let told = drill(&scene.daemon, &["--fill"]).await;
    assert_eq!(counts(of(&told, "docker-hub")), (1, 1), "{told}");
    let config = image.config();
    assert_eq!(
        told["filled"],
        json!({ "manifests": 0, "blobs": 2, "bytes": 7000 + config.bytes.len(), "failed": 0 })
    );
    assert_eq!(scene.upstream.manifest_gets(), 0);
    assert_eq!(scene.upstream.blob_gets(&image.layer_digest(0)), 0);
    scene.upstream.refuse().await;
    pull(&scene.daemon, NAME, "1", &image).await;
    // Nothing could be had, and it says so.
    let other = Image::simple(7, 100);
    scene.upstream.resume();
    scene.upstream.put(REPO, "2", &other);
    get(scene.daemon.manifest_url(NAME, "2")).await.ok();
    scene.upstream.refuse().await;
    let ran = run(&scene.daemon, &["drill", "--fill"]).await;
    assert_eq!(ran.code(), Some(1));
    assert!(ran.printed().contains("2 could not be had"), "{}", ran.printed());
    run(&scene.daemon, &["offline", "on"]).await.text();
    let ran = run(&scene.daemon, &["drill", "--fill"]).await;
    assert!(ran.printed().contains("offline"), "{}", ran.printed());
}

#[tokio::test]
async fn of_an_index_the_platforms_count_that_were_pulled() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream).setting("cache.follow_blobs", "false");
    let daemon = daemon.start().await;
    let scene = Scene { upstream, daemon };
    let index = Index::of_platforms(3);
    scene.upstream.put(REPO, "1", &index);
    get(scene.daemon.manifest_url(NAME, "1")).await.ok();
    pull_digest(&scene.daemon, NAME, &index.images()[1]).await;
    let told = drill(&scene.daemon, &[]).await;
    assert_eq!(
        counts(of(&told, "docker-hub")),
        (1, 1),
        "one image, of one platform: {told}"
    );
    // The tag moves; a client has only looked at where it points now. The same platform is wanted of that.
    let moved = Index::default()
        .image(Image::simple(11, 3000).platform("linux", "amd64"))
        .image(Image::simple(12, 4000).platform("linux", "arm64"));
    scene.upstream.put(REPO, "1", &moved);
    run(&scene.daemon, &["refresh", "docker-hub/library/app:1"])
        .await
        .text();
    get(scene.daemon.manifest_url(NAME, "1")).await.ok();
    let told = drill(&scene.daemon, &[]).await;
    let hub = of(&told, "docker-hub");
    // Its manifest came along with the move, its blobs did not.
    let config = moved.images()[1].config().bytes.len();
    assert_eq!(
        lacks(hub, &format!("{NAME}:1")),
        [lack("blob", "absent", config), lack("blob", "absent", 4000)]
    );
    // The digest that was pulled under it before is an image of its own now.
    assert_eq!(counts(hub), (2, 1), "{hub}");
    let told = drill(&scene.daemon, &["--fill"]).await;
    assert_eq!(counts(of(&told, "docker-hub")), (2, 2), "{told}");
    // Nobody ever pulled this one by its digest: its platform is what makes it wanted.
    let child = moved.images()[1].root();
    let purged = run(&scene.daemon, &["purge", &format!("{NAME}@{}", child.digest)]).await;
    purged.text();
    let told = drill(&scene.daemon, &[]).await;
    assert_eq!(
        lacks(of(&told, "docker-hub"), &format!("{NAME}:1")),
        [lack("manifest", "absent", child.bytes.len())]
    );
    let told = drill(&scene.daemon, &["--fill"]).await;
    assert_eq!(counts(of(&told, "docker-hub")), (2, 2), "{told}");
    scene.upstream.refuse().await;
    pull_digest(&scene.daemon, NAME, &moved.images()[1]).await;
    assert!(
        get(scene.daemon.manifest_url(NAME, &moved.images()[0].digest()))
            .await
            .status
            >= 500
    );
}

#[tokio::test]
async fn what_refers_to_an_image_belongs_to_it() {
    let scene = Scene::start().await;
    let image = Image::simple(1, 4000);
    let signature = Image::simple(2, 300).referring_to(&image, "application/vnd.example.signature");
    scene.upstream.put(REPO, "1", &image);
    scene.upstream.put_untagged(REPO, &signature);
    pull(&scene.daemon, NAME, "1", &image).await;
    let told = drill(&scene.daemon, &[]).await;
    assert_eq!(
        counts(of(&told, "docker-hub")),
        (1, 1),
        "nobody asked for signatures: {told}"
    );
    let list = format!("{}/v2/{NAME}/referrers/{}", scene.daemon.url(), image.digest());
    get(&list).await.ok();
    let told = drill(&scene.daemon, &[]).await;
    let size = signature.root().bytes.len();
    let lacking = lacks(of(&told, "docker-hub"), &format!("{NAME}:1"));
    assert_eq!(lacking, [lack("referrer", "absent", size)]);
    let told = drill(&scene.daemon, &["--fill"]).await;
    assert_eq!(counts(of(&told, "docker-hub")), (1, 1), "{told}");
    scene.upstream.refuse().await;
    assert_eq!(
        get(&list).await.json()["manifests"][0]["digest"],
        json!(signature.digest())
    );
    pull_digest(&scene.daemon, NAME, &signature).await;
}

#[tokio::test]
async fn each_upstream_by_itself_and_tags_that_are_too_old() {
    let (hub, quay) = (Upstream::start().await, Upstream::start().await);
    let mut daemon = Daemon::over(&hub)
        .upstream("quay", &quay)
        .setting("cache.stale_if_error", "\"7d\"")
        .start()
        .await;
    let image = Image::simple(1, 4000);
    hub.put(REPO, "1", &image);
    quay.put("org/app", "1", &image);
    pull(&daemon, NAME, "1", &image).await;
    pull(&daemon, "quay/org/app", "1", &image).await;
    let told = drill(&daemon, &[]).await;
    assert_eq!(
        (counts(of(&told, "docker-hub")), counts(of(&told, "quay"))),
        ((1, 1), (1, 1))
    );
    let left = of(&told, "quay")["served_seconds"].as_u64().expect("a span");
    assert!((604_000..=605_100).contains(&left), "{left}");
    let only = drill(&daemon, &["--upstream", "quay"]).await;
    assert_eq!(only["upstreams"].as_array().map(Vec::len), Some(1));
    assert!(
        run(&daemon, &["drill", "--upstream", "nobody"])
            .await
            .printed()
            .contains("nobody")
    );
    assert!(
        run(&daemon, &["drill", "--days", "1000"])
            .await
            .printed()
            .contains("90")
    );
    // Only the upstream's word counts any more.
    restart_with(
        &mut daemon,
        "stale_if_error = \"7d\"",
        "stale_if_error = \"0s\"\ntag_ttl = \"0s\"",
    )
    .await;
    let told = drill(&daemon, &[]).await;
    let lacking = lacks(of(&told, "quay"), "quay/org/app:1");
    assert_eq!(lacking, [lack("tag", "too-old", 0)]);
    quay.refuse().await;
    assert_error(
        &get(daemon.manifest_url("quay/org/app", "1")).await,
        503,
        "UNAVAILABLE",
    );
    // Offline nobody's word is waited for.
    run(&daemon, &["offline", "on"]).await.text();
    let told = drill(&daemon, &["--upstream", "quay"]).await;
    assert_eq!(counts(of(&told, "quay")), (1, 1), "{told}");
}

#[tokio::test]
async fn what_was_evicted_or_lost_is_a_hole_and_what_was_purged_is_not() {
    let mut scene = Scene::start().await;
    let images: Vec<_> = (1..5).map(|seed| Image::simple(seed, 20_000)).collect();
    for (number, image) in images.iter().enumerate() {
        let tag = number.to_string();
        scene.upstream.put(REPO, &tag, image);
        pull(&scene.daemon, NAME, &tag, image).await;
    }
    scene.metric("wharfinger_fills_running 0").await;
    assert_eq!(counts(of(&drill(&scene.daemon, &[]).await, "docker-hub")), (4, 4));
    // Survives a restart, what was noted a moment ago too.
    scene.daemon.restart().await;
    assert_eq!(counts(of(&drill(&scene.daemon, &[]).await, "docker-hub")), (4, 4));
    let purged = format!("{NAME}:3");
    run(&scene.daemon, &["purge", "--with-content", &purged])
        .await
        .text();
    assert_eq!(counts(of(&drill(&scene.daemon, &[]).await, "docker-hub")), (3, 3));
    std::fs::remove_file(&files_of(&scene.daemon, &images[0].layer_digest(0))[0]).expect("a file");
    let told = drill(&scene.daemon, &[]).await;
    let hub = of(&told, "docker-hub");
    assert_eq!(lacks(hub, &format!("{NAME}:0")), [lack("blob", "lost", 20_000)]);
    run(&scene.daemon, &["evict", "1GiB"]).await.text();
    let told = drill(&scene.daemon, &[]).await;
    let hub = of(&told, "docker-hub");
    assert_eq!(counts(hub).1, 0, "{hub}");
    assert_eq!(lacks(hub, &format!("{NAME}:1")), [lack("tag", "absent", 0)]);
    let told = drill(&scene.daemon, &["--fill"]).await;
    let hub = of(&told, "docker-hub");
    let (all, survive) = counts(hub);
    assert_eq!(all, survive, "{hub}");
    scene.upstream.refuse().await;
    for (number, image) in images.iter().enumerate().take(3) {
        assert_hit(&get(scene.daemon.manifest_url(NAME, &number.to_string())).await);
        pull_digest(&scene.daemon, NAME, image).await;
    }
    assert_eq!(asked(&scene.daemon, &["status"]).await["fills"], json!([]));
}
