//! `wharfinger pull`: images come in as a client's pull would bring them, and nothing that is here is fetched again.

use std::collections::BTreeSet;

use serde_json::Value;
use wharfinger::oci::WantedPlatform;

use crate::admin::{Ran, run};
use crate::expect::{assert_hit, assert_manifest};
use crate::scene::{NAME, REPO, Scene};
use crate::support::prelude::*;

const MIB: usize = 1 << 20;

/// Runs it with `--json`, and gives all events.
pub async fn events(daemon: &Daemon, arguments: &[&str]) -> (Ran, Vec<Value>) {
    let mut arguments = arguments.to_vec();
    arguments.push("--json");
    let ran = run(daemon, &arguments).await;
    let read = |line: &str| serde_json::from_str(line).expect("JSON");
    let events = ran.printed().lines().map(read).collect();
    (ran, events)
}

/// An image of this machine's platform.
fn of_this_machine(seed: u64, size: usize) -> Image {
    let host = WantedPlatform::host().to_string();
    let mut parts = host.split('/');
    let (os, architecture) = (
        parts.next().expect("an os"),
        parts.next().expect("an architecture"),
    );
    Image::simple(seed, size).platform(os, architecture)
}

/// A client's pull of an image by its digest: all from here.
async fn all_here(daemon: &Daemon, image: &Image) {
    let manifest = get(daemon.manifest_url(NAME, &image.digest())).await;
    assert_hit(&manifest);
    assert_manifest(&manifest, image, false);
    for part in image.layers().into_iter().chain([image.config()]) {
        let answer = get(daemon.blob_url(NAME, &part.digest)).await;
        assert_hit(&answer);
        assert!(answer.ok() == part.bytes);
    }
}

#[tokio::test]
async fn an_index_comes_with_the_image_of_this_machine_and_costs_nothing_again() {
    let scene = Scene::start().await;
    let (own, other) = (
        of_this_machine(1, MIB),
        Image::simple(2, MIB).platform("plan9", "mips"),
    );
    let index = Index::of_platforms(0).image(other.clone()).image(own.clone());
    scene.upstream.put(REPO, "1", &index);
    let ran = run(&scene.daemon, &["pull", "app:1"]).await;
    let text = ran.text();
    for wanted in [
        "docker-hub/library/app:1: fetched",
        &index.digest(),
        "1 image: 1 fetched",
        "2 manifests, 2 blobs",
        "1.0 MiB  fetched",
    ] {
        assert!(text.contains(wanted), "{wanted} is not in {text}");
    }
    // HEAD for the tag, then what it means by digest: one counted pull for each manifest.
    let upstream = &scene.upstream;
    assert_eq!((upstream.manifest_heads(), upstream.manifest_gets()), (1, 2));
    assert_eq!(upstream.count_of(&blobs().get()), 2);
    assert_eq!(upstream.blob_gets(&other.layer_digest(0)), 0);
    upstream.forget_requests();
    let ran = run(&scene.daemon, &["pull", "docker.io/library/app:1"]).await;
    assert!(ran.text().contains("1 image: 1 here already"), "{}", ran.text());
    assert_hit(&get(scene.daemon.manifest_url(NAME, "1")).await);
    all_here(&scene.daemon, &own).await;
    assert_eq!(upstream.requests().len(), 0, "{:#?}", upstream.summary());
}

/// An index whose entries have variants, as those of the world's base images do.
fn with_variants(upstream: &Upstream, images: &[(&Image, Value)]) -> RawManifest {
    let mut manifests = Vec::new();
    for (image, platform) in images {
        upstream.put_untagged(REPO, *image);
        let root = image.root();
        manifests.push(serde_json::json!({
            "mediaType": root.media_type, "digest": root.digest, "size": root.bytes.len(), "platform": platform,
        }));
    }
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests });
    RawManifest::new(media_type, index.to_string())
}

#[tokio::test]
async fn platforms_are_matched_as_nodes_match_them() {
    let scene = Scene::start().await;
    let [amd, arm6, arm7, arm64, note] = [1, 2, 3, 4, 5].map(|seed| Image::simple(seed, 1000));
    let platform = |architecture: &str, variant: Option<&str>| {
        let mut platform = serde_json::json!({ "os": "linux", "architecture": architecture });
        if let Some(variant) = variant {
            platform["variant"] = variant.into();
        }
        platform
    };
    let unknown = serde_json::json!({ "os": "unknown", "architecture": "unknown" });
    let index = with_variants(
        &scene.upstream,
        &[
            (&amd, platform("amd64", None)),
            (&arm6, platform("arm", Some("v6"))),
            (&arm7, platform("arm", Some("v7"))),
            (&arm64, platform("arm64", Some("v8"))),
            (&note, unknown),
        ],
    );
    scene.upstream.put(REPO, "1", &index);
    let fetched = || {
        let all = [&amd, &arm6, &arm7, &arm64, &note];
        let here = |image: &&Image| scene.upstream.blob_gets(&image.layer_digest(0)) > 0;
        all.iter().map(|image| u8::from(here(image))).collect::<Vec<_>>()
    };
    let (ran, told) = events(&scene.daemon, &["pull", "app:1", "--platform", "linux/arm64"]).await;
    assert_eq!(ran.code(), Some(0));
    let image = &told.last().expect("an end")["result"]["images"][0];
    assert_eq!(
        image["platforms"],
        serde_json::json!(["linux/arm64/v8"]),
        "{image}"
    );
    assert_eq!(fetched(), [0, 0, 0, 1, 0]);
    // Two at once; of arm the best that runs there.
    let arguments = [
        "pull",
        "app:1",
        "--platform",
        "linux/arm",
        "--platform",
        "linux/amd64",
    ];
    run(&scene.daemon, &arguments).await.text();
    assert_eq!(fetched(), [1, 0, 1, 1, 0]);
    let missing = run(&scene.daemon, &["pull", "app:1", "--platform", "linux/s390x"]).await;
    assert_eq!(missing.code(), Some(1));
    let text = missing.printed();
    assert!(
        text.contains("it is not there for linux/s390x, but for linux/amd64, linux/arm/v6"),
        "{text}"
    );
    run(&scene.daemon, &["pull", "app:1", "--all-platforms"])
        .await
        .text();
    assert_eq!(fetched(), [1, 1, 1, 1, 1]);
    for wrong in [
        &["pull", "app:1", "--platform", "arm64"][..],
        &["pull", "app:1", "--platform", "linux/amd64", "--all-platforms"],
        &["pull"],
        &["pull", "a b"],
        &["pull", "docker-hub/library/*:1"],
    ] {
        assert_eq!(run(&scene.daemon, wrong).await.code(), Some(64), "{wrong:?}");
    }
}

#[tokio::test]
async fn each_layer_tells_how_far_it_is() {
    let scene = Scene::start().await;
    let image = Image::new().layer(random(1, MIB)).layer(random(2, 2 * MIB));
    scene.upstream.put(REPO, "1", &image);
    let layer = image.layer_digest(1);
    let gate = scene.upstream.stall(blob(&layer), MIB as u64);
    let config = scene.daemon.config_path();
    let command = tokio::process::Command::new(env!("CARGO_BIN_EXE_wharfinger"))
        .args(["pull", "app:1", "--json", "--config"])
        .arg(config)
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut command = command.expect("the program to start");
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(
        command.stdout.take().expect("its output"),
    ));
    let (mut states, mut halfway) = (BTreeSet::new(), false);
    let read = async {
        while let Some(line) = lines.next_line().await.expect("a line") {
            let event: Value = serde_json::from_str(&line).expect("JSON");
            if event["event"] != "part" {
                continue;
            }
            assert_eq!(event["of"], "docker-hub/library/app:1", "{event}");
            let name = event["name"].as_str().expect("a name").to_owned();
            if name == layer && event["done"] == MIB && event["state"] == "running" {
                assert_eq!(event["total"], 2 * MIB, "{event}");
                halfway = true;
                gate.release();
            }
            if event["state"] != "running" {
                states.insert((name, event["state"].as_str().expect("a state").to_owned()));
            }
        }
    };
    soon("the end of the pull", read).await;
    assert!(halfway, "the stalled layer was told as half here");
    let done = |digest: String| (digest, "done".to_owned());
    let expected = [image.layer_digest(0), layer.clone(), image.config().digest].map(done);
    assert_eq!(states, expected.into_iter().collect());
    let (_, told) = events(&scene.daemon, &["pull", "app:1"]).await;
    let here = told.iter().filter(|event| event["state"] == "here").count();
    assert_eq!(here, 3, "{told:#?}");
}

#[tokio::test]
async fn three_layers_at_a_time_and_clients_join() {
    let scene = Scene::start().await;
    let mut image = Image::new();
    for seed in 1..=5 {
        image = image.layer(random(seed, 100_000));
    }
    scene.upstream.put(REPO, "1", &image);
    let gate = Gate::new();
    scene
        .upstream
        .always(blobs().get(), serve().stall_at(1000, &gate));
    let daemon = &scene.daemon;
    let pull = async { run(daemon, &["pull", "app:1"]).await };
    let client = async {
        gate.reached_by(3).await;
        let mut running = scene.upstream.requests_of(&blobs().get());
        running.retain(|request| request.outcome == Outcome::Running);
        assert_eq!(running.len(), 3, "{:#?}", scene.upstream.summary());
        let path = running[0].path();
        let digest = path.rsplit('/').next().expect("a digest");
        let reading = open(daemon.blob_url(NAME, digest)).await;
        gate.release();
        let answer = reading.finish().await;
        assert!(answer.is_complete() && answer.header("cache-status").contains("collapsed"));
    };
    let (ran, ()) = tokio::join!(pull, client);
    assert!(ran.text().contains("6 blobs"), "{}", ran.text());
    assert_eq!(scene.upstream.count_of(&blobs().get()), 6);
    all_here(daemon, &image).await;
}

#[tokio::test]
async fn a_pattern_stands_for_the_upstreams_tags() {
    let scene = Scene::start().await;
    let (new, old, other) = (
        of_this_machine(1, 1000),
        of_this_machine(2, 1000),
        of_this_machine(3, 1000),
    );
    for (tag, image) in [
        ("3", &new),
        ("3.2", &new),
        ("3.2.1", &new),
        ("3.1", &old),
        ("4.0", &other),
        ("latest", &other),
    ] {
        scene.upstream.put(REPO, tag, image);
    }
    scene.upstream.page_tags(2, false);
    let (ran, told) = events(&scene.daemon, &["pull", "docker-hub/library/app:3.*"]).await;
    assert_eq!(ran.code(), Some(0), "{}", ran.printed());
    let images = told.last().expect("an end")["result"]["images"].clone();
    let mut names: Vec<_> = images
        .as_array()
        .expect("images")
        .iter()
        .map(|image| image["reference"].as_str().expect("a name").to_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["3.1", "3.2", "3.2.1"].map(|tag| format!("{NAME}:{tag}")));
    // Tags of one digest cost one counted pull together.
    let upstream = &scene.upstream;
    assert_eq!((upstream.manifest_heads(), upstream.manifest_gets()), (3, 2));
    for tag in ["3.1", "3.2", "3.2.1"] {
        assert_hit(&get(scene.daemon.manifest_url(NAME, tag)).await);
    }
    let none = run(&scene.daemon, &["pull", "app:5.*"]).await;
    assert_eq!(none.code(), Some(1));
    assert!(
        none.printed()
            .contains("app:5.*: failed: no tag of the upstream matches"),
        "{}",
        none.printed()
    );
}

#[tokio::test]
async fn a_list_of_tags_that_cannot_be_had_is_not_one_without_such_tags() {
    let scene = Scene::start().await;
    let image = of_this_machine(1, 1000);
    for tag in ["3.1", "3.2"] {
        scene.upstream.put(REPO, tag, &image);
    }
    let (ran, _) = events(&scene.daemon, &["pull", "app:3.1"]).await;
    assert_eq!(ran.code(), Some(0), "{}", ran.printed());
    scene
        .upstream
        .always(tags(), reply(503).header("retry-after", "60"));
    let missing = "the upstream does not give its list of tags now";
    let none = run(&scene.daemon, &["pull", "app:5.*"]).await;
    assert_eq!(none.code(), Some(1));
    assert!(none.printed().contains(missing), "{}", none.printed());
    // What is here of them is told for what it is.
    let known = run(&scene.daemon, &["pull", "app:3.*"]).await;
    assert!(known.text().contains(missing), "{}", known.text());
    assert!(
        known.text().contains("1 image: 1 here already"),
        "{}",
        known.text()
    );
}

#[tokio::test]
async fn what_fails_is_told_and_the_rest_comes() {
    let scene = Scene::start().await;
    let (good, broken) = (Image::simple(1, 1000), Image::simple(2, 1000));
    scene.upstream.put(REPO, "good", &good);
    scene.upstream.put(REPO, "broken", &broken);
    scene.upstream.remove_blob(REPO, &broken.layer_digest(0));
    let arguments = [
        "pull",
        "app:none",
        "app:broken",
        "unknown.example/a/b:1",
        "app:good",
    ];
    let (ran, told) = events(&scene.daemon, &arguments).await;
    assert_eq!(ran.code(), Some(1));
    let images = told.last().expect("an end")["result"]["images"].clone();
    let of = |name: &str| {
        let images = images.as_array().expect("images");
        let image = images.iter().find(|image| image["reference"] == name);
        image.unwrap_or_else(|| panic!("{name} in {images:#?}")).clone()
    };
    assert_eq!(of(&format!("{NAME}:good"))["result"], "fetched");
    for (name, reason) in [
        (format!("{NAME}:none"), "not found"),
        (format!("{NAME}:broken"), broken.layer_digest(0).as_str()),
        ("unknown.example/a/b:1".to_owned(), "no upstream is configured"),
    ] {
        let image = of(&name);
        assert_eq!(image["result"], "failed", "{image}");
        assert!(
            image["reason"].as_str().is_some_and(|text| text.contains(reason)),
            "{image}"
        );
    }
    all_here(&scene.daemon, &good).await;
    let told = run(&scene.daemon, &arguments).await;
    assert!(
        told.printed().contains("4 images: 1 here already, 3 failed"),
        "{}",
        told.printed()
    );
}

#[tokio::test]
async fn a_due_tag_is_asked_about_and_is_what_it_was_when_that_fails() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream)
        .setting("cache.tag_ttl", "\"0s\"")
        .start()
        .await;
    let (first, second) = (Image::simple(1, 1000), Image::simple(2, 1000));
    upstream.put(REPO, "1", &first);
    run(&daemon, &["pull", "app:1"]).await.text();
    upstream.forget_requests();
    let ran = run(&daemon, &["pull", "app:1"]).await;
    assert!(ran.text().contains("1 here already"), "{}", ran.text());
    assert_eq!((upstream.manifest_heads(), upstream.requests().len()), (1, 1));
    upstream.put(REPO, "1", &second);
    let ran = run(&daemon, &["pull", "app:1"]).await;
    assert!(ran.text().contains(&second.digest()), "{}", ran.text());
    upstream.refuse().await;
    let ran = run(&daemon, &["pull", "app:1"]).await;
    assert!(ran.text().contains("perhaps not the newest"), "{}", ran.text());
    // What is not here cannot come.
    let ran = run(&daemon, &["pull", "app:2"]).await;
    assert_eq!(ran.code(), Some(1));
    assert!(ran.printed().contains("cannot be reached"), "{}", ran.printed());
}

#[tokio::test]
async fn what_has_no_room_is_told() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream)
        .setting("storage.max_size", "\"16MiB\"")
        .start()
        .await;
    upstream.put(REPO, "1", &Image::simple(1, 20 * MIB));
    let ran = run(&daemon, &["pull", "app:1"]).await;
    assert_eq!(ran.code(), Some(1));
    assert!(ran.printed().contains("no room to keep it"), "{}", ran.printed());
}

#[tokio::test]
async fn offline_nothing_comes_and_what_is_here_is_here() {
    let scene = Scene::start().await;
    let image = Image::simple(1, 1000);
    scene.upstream.put(REPO, "1", &image);
    scene.upstream.put(REPO, "2", &image);
    run(&scene.daemon, &["pull", "app:1"]).await.text();
    run(&scene.daemon, &["offline", "on"]).await.text();
    scene.upstream.forget_requests();
    assert!(
        run(&scene.daemon, &["pull", "app:1"])
            .await
            .text()
            .contains("1 here already")
    );
    let ran = run(&scene.daemon, &["pull", "app:2"]).await;
    assert_eq!(ran.code(), Some(1));
    assert!(ran.printed().contains("offline"), "{}", ran.printed());
    assert_eq!(scene.upstream.requests().len(), 0);
}
