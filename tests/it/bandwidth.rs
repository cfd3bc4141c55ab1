//! What we take from an upstream stays under its cap, at the times when it holds, and what clients wait for comes first.

use crate::scene::{NAME, REPO, Scene};
use crate::support::daemon::Builder;
use crate::support::prelude::*;

const MIB: u64 = 1 << 20;

const EVERY_DAY: &str = "from = \"00:00\", to = \"24:00\"";

async fn start(upstream: Upstream, settings: impl FnOnce(Builder) -> Builder) -> Scene {
    Scene {
        daemon: settings(Daemon::over(&upstream)).start().await,
        upstream,
    }
}

/// Waits until we have held something back for the cap.
async fn held_back(scene: &Scene) {
    let line = r#"wharfinger_upstream_waited_seconds_total{for="bandwidth",upstream="docker-hub"}"#;
    let wait = async { while !scene.daemon.metrics().await.contains(line) {} };
    soon("the cap to hold", wait).await;
}

#[tokio::test]
async fn a_capped_upstream_is_read_slowly_and_others_are_not() {
    let free = Upstream::start().await;
    let scene = start(Upstream::start().await, |daemon| {
        daemon
            .setting("upstream.docker-hub.bandwidth", "\"64KiB\"")
            .upstream("quay", &free)
    })
    .await;
    let capped = scene.put(random(1, 32 << 20));
    let mut client = open(&capped.url).await;
    client.read(1000).await;
    let bytes = random(2, 4 << 20);
    let digest = free.put_blob("app", bytes.clone());
    assert!(get(scene.daemon.blob_url("quay/app", &digest)).await.ok() == bytes);
    held_back(&scene).await;
    // The rest is not read, and waits over there.
    assert!(
        scene.upstream.bytes_sent() < 16 * MIB,
        "{:?}",
        scene.upstream.summary()
    );
    scene
        .metric(r#"wharfinger_upstream_bandwidth_limit_bytes{upstream="docker-hub"} 65536"#)
        .await;
    let status = get(format!("{}/api/status", scene.daemon.url())).await.text();
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    let upstreams = status["upstreams"].as_array().expect("upstreams");
    let told: Vec<_> = upstreams
        .iter()
        .map(|upstream| upstream["bandwidth"].as_u64())
        .collect();
    assert_eq!(told, [Some(65536), None]);
}

#[tokio::test]
async fn a_window_holds_in_its_time() {
    let windows =
        format!("[{{ {EVERY_DAY}, bandwidth = \"unlimited\" }}, {{ {EVERY_DAY}, bandwidth = \"16KiB\" }}]");
    let scene = start(Upstream::start().await, |daemon| {
        daemon
            .setting("upstream.docker-hub.bandwidth", "\"16KiB\"")
            .setting("upstream.docker-hub.bandwidth_window", &windows)
    })
    .await;
    scene
        .metric(r#"wharfinger_upstream_bandwidth_limit_bytes{upstream="docker-hub"} 0"#)
        .await;
    let blob = scene.put(random(3, 8 << 20));
    scene.hit(&blob).await;
    let days = r#"["mon", "tue", "wed", "thu", "fri", "sat", "sun"]"#;
    let windows = format!("[{{ days = {days}, {EVERY_DAY}, bandwidth = \"32KiB\" }}]");
    let scene = start(Upstream::start().await, |daemon| {
        daemon.setting("upstream.docker-hub.bandwidth_window", &windows)
    })
    .await;
    let blob = scene.put(random(4, 32 << 20));
    let _client = open(&blob.url).await;
    held_back(&scene).await;
    scene
        .metric(r#"wharfinger_upstream_bandwidth_limit_bytes{upstream="docker-hub"} 32768"#)
        .await;
}

#[tokio::test]
async fn background_work_has_a_cap_that_a_client_lifts() {
    let mut scene = start(Upstream::start().await, |daemon| {
        daemon
            .setting("upstream.docker-hub.background_bandwidth", "\"16KiB\"")
            .setting("server.drain_timeout", "\"0s\"")
    })
    .await;
    let blob = scene.put(random(5, 32 << 20));
    let _gate = scene.upstream.stall(blob.get(), 2 * MIB);
    let mut client = open(&blob.url).await;
    client.read(MIB as usize).await;
    scene.daemon.stop().await;
    scene.upstream.behave();
    scene.upstream.forget_requests();
    // Nobody waits for what it goes on with.
    scene.daemon.restart().await;
    held_back(&scene).await;
    assert!(
        scene.upstream.bytes_sent() < 16 * MIB,
        "{:?}",
        scene.upstream.summary()
    );
    let url = scene.daemon.blob_url(NAME, &blob.digest);
    assert!(get(&url).await.ok() == blob.bytes);
    assert_eq!(scene.gets(&blob), 1, "{REPO}: {:?}", scene.upstream.summary());
}
