//! `[[warm]]`: lists of images that are here before anybody asks, by their schedule, with their failures told.

use serde_json::Value;

use crate::admin::{asked, run};
use crate::expect::assert_hit;
use crate::freshness::restart_with;
use crate::pull::events;
use crate::scene::{NAME, REPO, Scene};
use crate::support::prelude::*;

/// A daemon with these lists.
async fn with_lists(upstream: &Upstream, lists: &str) -> Scene {
    let daemon = Daemon::over(upstream).setting("warm", lists).start().await;
    Scene {
        upstream: upstream.clone(),
        daemon,
    }
}

/// Waits until a list has had so many runs of this result.
async fn runs(scene: &Scene, result: &str, count: usize) {
    let line = format!(r#"wharfinger_warm_runs_total{{list="1",result="{result}"}} {count}"#);
    scene.metric(&line).await;
}

/// Everything of an image is served, though the upstream is away.
async fn is_here(scene: &Scene, tag: &str, image: &Image) {
    assert_hit(&get(scene.daemon.manifest_url(NAME, tag)).await);
    for part in image.layers().into_iter().chain([image.config()]) {
        let answer = get(scene.daemon.blob_url(NAME, &part.digest)).await;
        assert_hit(&answer);
        assert!(answer.ok() == part.bytes);
    }
}

#[tokio::test]
async fn a_list_is_here_before_anybody_asks_and_does_not_run_again_at_each_start() {
    let upstream = Upstream::start().await;
    let (image, other) = (Image::simple(1, 50_000), Image::simple(2, 1000));
    upstream.put(REPO, "3.1", &image);
    upstream.put(REPO, "3.2", &image);
    upstream.put(REPO, "4", &other);
    let list = r#"[{ images = ["docker-hub/library/app:3.*"], every = "1h" }]"#;
    let mut scene = with_lists(&upstream, list).await;
    runs(&scene, "completed", 1).await;
    scene
        .logged(&["warmed", r#"list="1""#, "images=2", "failed=0"])
        .await;
    // Two tags of one image: one counted pull.
    assert_eq!((upstream.manifest_heads(), upstream.manifest_gets()), (2, 1));
    let requests = upstream.requests().len();
    for tag in ["3.1", "3.2"] {
        is_here(&scene, tag, &image).await;
    }
    let metrics = scene.daemon.metrics().await;
    for line in [
        r#"wharfinger_warm_images_total{list="1",result="fetched"} 1"#,
        r#"wharfinger_warm_images_total{list="1",result="here"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    scene.daemon.restart().await;
    // It remembers when that was.
    let succeeded = async {
        let is_told = |metrics: &str| {
            let family = "wharfinger_warm_last_success_timestamp_seconds{list=\"1\"} ";
            let value = metrics.lines().find_map(|line| line.strip_prefix(family));
            value.is_some_and(|value| value != "0")
        };
        while !is_told(&scene.daemon.metrics().await) {}
    };
    soon("the last success to be told", succeeded).await;
    is_here(&scene, "3.2", &image).await;
    runs(&scene, "completed", 0).await;
    assert_eq!(upstream.requests().len(), requests, "{:#?}", upstream.summary());
}

#[tokio::test]
async fn a_run_that_was_missed_is_made_up_for_at_the_start() {
    let upstream = Upstream::start().await;
    upstream.put(REPO, "1", &Image::simple(1, 1000));
    // Not before the first of January.
    let list = r#"[{ images = ["app:1"], schedule = "0 3 1 1 *" }]"#;
    let mut scene = with_lists(&upstream, list).await;
    scene.daemon.stop().await;
    assert_eq!(upstream.requests().len(), 0);
    let note = scene.daemon.data_dir().join("notes/warm.json");
    let text = std::fs::read(&note).expect("what is remembered");
    let mut remembered: Value = serde_json::from_slice(&text).expect("JSON");
    for run in remembered.as_object_mut().expect("lists").values_mut() {
        run["began"] = 1.into();
    }
    std::fs::write(&note, remembered.to_string()).expect("a note");
    scene.daemon.restart().await;
    runs(&scene, "completed", 1).await;
    assert_eq!(upstream.manifest_gets(), 1);
}

#[tokio::test]
async fn it_runs_again_and_again_and_finds_what_is_new() {
    let upstream = Upstream::start().await;
    upstream.put(REPO, "v1", &Image::simple(1, 1000));
    let list = r#"[{ images = ["docker-hub/library/app:v*"], schedule = "* * * * * *" }]"#;
    let daemon = Daemon::over(&upstream)
        .setting("warm", list)
        .setting("cache.negative_ttl", "\"1s\"")
        .start()
        .await;
    let first = |upstream: &Upstream| upstream.count_of(&blobs().get()) == 2;
    upstream.wait_for(first).await;
    let new = Image::simple(2, 1000);
    upstream.put(REPO, "v2", &new);
    // The list of tags is believed for a second.
    upstream
        .wait_for(|upstream| upstream.blob_gets(&new.config().digest) == 1)
        .await;
    assert_eq!(upstream.manifest_gets(), 2, "{:#?}", upstream.summary());
    drop(daemon);
}

#[tokio::test]
async fn what_fails_is_told_once_a_run_and_the_rest_comes() {
    let upstream = Upstream::start().await;
    let image = Image::simple(1, 1000);
    upstream.put(REPO, "good", &image);
    let list = r#"[{ images = ["app:none", "app:good"], every = "1h" }]"#;
    let scene = with_lists(&upstream, list).await;
    runs(&scene, "failed", 1).await;
    let told = "an image of a list could not be brought in";
    let line = scene.logged(&[told, "docker-hub/library/app:none"]).await;
    assert!(line.contains("not found"), "{line}");
    let logs = scene.daemon.logs();
    assert_eq!(logs.iter().filter(|line| line.contains(told)).count(), 1);
    is_here(&scene, "good", &image).await;
    let metrics = scene.daemon.metrics().await;
    let never = r#"wharfinger_warm_last_success_timestamp_seconds{list="1"} 0"#;
    assert!(metrics.contains(never), "{metrics}");
}

#[tokio::test]
async fn a_limit_ends_the_run_for_its_upstream_alone() {
    let (hub, other) = (Upstream::start().await, Upstream::start().await);
    let image = Image::simple(1, 1000);
    for tag in ["1", "2", "3"] {
        hub.put(REPO, tag, &image);
    }
    other.put("acme/app", "1", &image);
    hub.always(manifests(), reply(429).header("retry-after", "3600"));
    let list = r#"[{ images = ["app:1", "app:2", "app:3", "corp/acme/app:1"], every = "1h" }]"#;
    let daemon = Daemon::over(&hub)
        .upstream("corp", &other)
        .setting("warm", list)
        .start()
        .await;
    let scene = Scene {
        upstream: hub.clone(),
        daemon,
    };
    runs(&scene, "failed", 1).await;
    for tag in ["2", "3"] {
        assert_eq!(hub.count_of(&manifest(tag)), 0, "{:#?}", hub.summary());
        let name = format!("docker-hub/library/app:{tag}");
        scene.logged(&["left for another run", &name]).await;
    }
    assert_hit(&get(scene.daemon.manifest_url("corp/acme/app", "1")).await);
}

#[tokio::test]
async fn the_lists_run_now_when_asked_to() {
    let upstream = Upstream::start().await;
    let image = Image::simple(1, 1000);
    upstream.put(REPO, "1", &image);
    let lists = r#"[
        { images = ["app:1"], schedule = "0 3 1 1 *" },
        { images = ["app:2"], schedule = "0 4 1 1 *", platforms = ["linux/arm64"] },
    ]"#;
    let scene = with_lists(&upstream, lists).await;
    let (ran, told) = events(&scene.daemon, &["warm"]).await;
    assert_eq!(ran.code(), Some(1));
    let lists = &told.last().expect("an end")["result"]["lists"];
    assert_eq!(lists[0]["images"][0]["result"], "fetched", "{lists}");
    assert_eq!(lists[1]["images"][0]["result"], "failed", "{lists}");
    is_here(&scene, "1", &image).await;
    upstream.put(REPO, "2", &image);
    // "Not found" is believed for some seconds.
    let ran = run(&scene.daemon, &["warm"]).await;
    assert!(
        ran.printed().contains("list 1, 1 image: 1 here already"),
        "{}",
        ran.printed()
    );
    let plain = Scene::start().await;
    let ran = run(&plain.daemon, &["warm"]).await;
    assert_eq!(ran.text().trim(), "no [[warm]] list is configured");
}

#[tokio::test]
async fn a_list_can_pin_and_lets_go_when_it_names_it_no_more() {
    let upstream = Upstream::start().await;
    let image = Image::simple(1, 1 << 20);
    for tag in ["v1", "v2", "own"] {
        upstream.put(REPO, tag, &image);
    }
    let list = r#"[{ images = ["docker-hub/library/app:v*"], every = "1h", pin = true }]"#;
    let mut scene = with_lists(&upstream, list).await;
    runs(&scene, "completed", 1).await;
    let names = |told: Value| -> Vec<String> {
        let pins = told["pinned"].as_array().cloned().unwrap_or_default();
        let names = pins
            .iter()
            .flat_map(|pin| pin["names"].as_array().cloned().unwrap_or_default());
        names
            .map(|name| name.as_str().unwrap_or_default().to_owned())
            .collect()
    };
    let told = asked(&scene.daemon, &["pins"]).await;
    assert_eq!(told["pinned"][0]["listed"], true, "{told}");
    assert_eq!(names(told), [format!("{NAME}:v1"), format!("{NAME}:v2")]);
    run(&scene.daemon, &["evict", "1GiB"]).await.text();
    is_here(&scene, "v1", &image).await;
    // What an operator pins stays whatever the list says.
    run(&scene.daemon, &["pin", "app:own", "app:v2"]).await.text();
    restart_with(&mut scene.daemon, "library/app:v*", "library/app:w*").await;
    scene
        .logged(&["no list of [[warm]] pins it any more", &format!("{NAME}:v1")])
        .await;
    let left = names(asked(&scene.daemon, &["pins"]).await);
    assert_eq!(left, [format!("{NAME}:own"), format!("{NAME}:v2")]);
}
