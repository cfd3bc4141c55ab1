//! Several endpoints of one upstream: content by digest from any of them, and a download that breaks off at one goes on at
//! the next.

use crate::scene::{NAME, REPO};
use crate::support::image::Part;
use crate::support::prelude::*;

const MIB: usize = 1 << 20;

/// A registry, a mirror that holds the same, and a daemon that knows both.
struct Scene {
    registry: Upstream,
    mirror: Upstream,
    daemon: Daemon,
    image: Image,
}

impl Scene {
    async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With further settings of the upstream.
    async fn with(settings: &[(&str, &str)]) -> Self {
        let (registry, mirror) = (Upstream::start().await, Upstream::start().await);
        let image = Image::new().layer(random(1, 4 * MIB)).layer(random(2, MIB));
        registry.put(REPO, "1", &image);
        mirror.put(REPO, "1", &image);
        let mirrors = format!("[{:?}]", mirror.url());
        let mut daemon = Daemon::over(&registry).setting("upstream.docker-hub.mirrors", &mirrors);
        for (key, value) in settings {
            daemon = daemon.setting(&format!("upstream.docker-hub.{key}"), value);
        }
        let daemon = daemon.start().await;
        Self {
            registry,
            mirror,
            daemon,
            image,
        }
    }

    fn layer(&self, number: usize) -> Part {
        self.image.layers().remove(number)
    }

    async fn pull(&self, part: &Part) -> Answer {
        get(self.daemon.blob_url(NAME, &part.digest)).await
    }
}

/// The `Range` of each GET of a blob.
fn ranges(upstream: &Upstream, part: &Part) -> Vec<String> {
    let requests = upstream.requests_of(&blob(&part.digest).get());
    requests
        .iter()
        .map(|request| request.header("range").to_owned())
        .collect()
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_at_the_next_endpoint() {
    let scene = Scene::start().await;
    let layer = scene.layer(0);
    scene
        .registry
        .once(blob(&layer.digest).get(), serve().cut_at(MIB as u64));
    assert!(scene.pull(&layer).await.ok() == layer.bytes);
    assert_eq!(ranges(&scene.registry, &layer), [""]);
    let continued = ranges(&scene.mirror, &layer);
    assert_eq!(continued.len(), 1, "{continued:?}");
    let start: u64 = continued[0]
        .strip_prefix("bytes=")
        .and_then(|range| range.split('-').next()?.parse().ok())
        .expect("a range");
    assert!(start > 0 && start <= MIB as u64, "{continued:?}");
}

#[tokio::test]
async fn content_by_digest_comes_from_a_mirror_while_the_registry_is_down_and_tags_do_not() {
    let scene = Scene::start().await;
    // The login is not the mirror's, and neither is what a tag means.
    scene.registry.refuse().await;
    assert!(get(scene.daemon.manifest_url(NAME, "1")).await.status >= 500);
    assert_eq!(scene.mirror.requests_of(&manifest("1")).len(), 0);
    let root = scene.image.root();
    assert!(get(scene.daemon.manifest_url(NAME, &root.digest)).await.ok() == root.bytes);
    for layer in scene.image.layers() {
        assert!(scene.pull(&layer).await.ok() == layer.bytes);
    }
    assert_eq!(scene.mirror.manifest_gets(), 1);
}

#[tokio::test]
async fn what_the_registry_does_not_have_no_mirror_is_asked_for() {
    let scene = Scene::start().await;
    let layer = scene.layer(0);
    scene.registry.remove_blob(REPO, &layer.digest);
    assert_eq!(scene.pull(&layer).await.status, 404);
    assert_eq!(scene.mirror.blob_gets(&layer.digest), 0);
}

#[tokio::test]
async fn a_mirror_that_lies_is_not_believed_again() {
    let scene = Scene::start().await;
    let (large, small) = (scene.layer(0), scene.layer(1));
    scene
        .mirror
        .always(blob(&large.digest).get(), serve().flip_at(3 * MIB as u64));
    scene.registry.once(blob(&large.digest).get(), reply(500));
    scene.registry.once(blob(&large.digest).get(), reply(500));
    scene.registry.once(blob(&large.digest).get(), reply(500));
    let answer = scene.pull(&large).await;
    assert!(!answer.is_complete(), "{}", answer.status);
    scene.daemon.wait_for_log("wrong content").await;
    // The registry is well again, and asked first although it failed a moment ago.
    let gets = scene.mirror.blob_gets(&large.digest);
    assert!(scene.pull(&large).await.ok() == large.bytes);
    assert!(scene.pull(&small).await.ok() == small.bytes);
    assert_eq!(scene.mirror.blob_gets(&large.digest), gets);
}

#[tokio::test]
async fn a_mirror_that_announces_another_size_ends_nothing() {
    let scene = Scene::start().await;
    let layer = scene.layer(0);
    get(scene.daemon.manifest_url(NAME, "1")).await.ok();
    scene.mirror.put_blob_as(REPO, &layer.digest, random(9, MIB));
    scene
        .registry
        .once(blob(&layer.digest).get(), serve().cut_at(MIB as u64 / 2));
    assert!(scene.pull(&layer).await.ok() == layer.bytes);
    assert!(ranges(&scene.registry, &layer).len() > 1);
}

/// The value of a metric, by its whole name with labels.
async fn metric(daemon: &Daemon, name: &str) -> String {
    let text = get(format!("{}/metrics", daemon.url())).await.text();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim);
    line.unwrap_or("none").to_owned()
}

#[tokio::test]
async fn a_registry_that_is_late_is_raced_on_the_mirror() {
    let scene = Scene::with(&[("header_timeout", "\"4s\"")]).await;
    let layer = scene.layer(0);
    let gate = scene.registry.hold(blob(&layer.digest).get());
    assert!(scene.pull(&layer).await.ok() == layer.bytes);
    assert_eq!(gate.arrivals(), 1);
    let won = "wharfinger_upstream_hedges_total{result=\"won\",upstream=\"docker-hub\"}";
    assert_eq!(metric(&scene.daemon, won).await, "1");
}

#[tokio::test]
async fn a_download_that_crawls_goes_on_at_the_next_endpoint() {
    let scene = Scene::with(&[("min_rate", "\"1MiB\"")]).await;
    let layer = scene.layer(0);
    // A stall shorter than `idle_timeout` is no cut.
    let gate = scene.registry.stall(blob(&layer.digest).get(), MIB as u64);
    assert!(scene.pull(&layer).await.ok() == layer.bytes);
    assert_eq!(gate.arrivals(), 1);
    let continued = ranges(&scene.mirror, &layer);
    assert!(
        continued.len() == 1 && continued[0].starts_with("bytes="),
        "{continued:?}"
    );
    let moved = "wharfinger_upstream_moved_on_total{upstream=\"docker-hub\"}";
    assert_eq!(metric(&scene.daemon, moved).await, "1");
}

#[tokio::test]
async fn an_upstream_that_fails_too_often_is_left_alone() {
    let scene = Scene::start().await;
    scene.registry.refuse().await;
    // Each asked for at the registry alone: what a tag means no mirror knows.
    for name in ["library/a", "library/b", "library/c"] {
        let answer = get(scene.daemon.manifest_url(name, "1")).await;
        assert!(answer.status >= 500, "{}", answer.status);
    }
    scene.daemon.wait_for_log("failed too often").await;
    let asked = metric(&scene.daemon, "wharfinger_upstream_endpoint_open{").await;
    assert!(asked.ends_with(" 1"), "{asked}");
    // Back again, it is not asked before its time.
    scene.registry.resume();
    assert!(get(scene.daemon.manifest_url("library/d", "1")).await.status >= 500);
    assert_eq!(scene.registry.requests_of(&manifest("1")).len(), 0);
}
