//! So many requests at a host at once, and what clients wait for first.

use futures_util::future::join_all;

use crate::admin::run;
use crate::scene::{NAME, REPO, Scene};
use crate::support::prelude::*;

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn a_client_does_not_wait_behind_what_nobody_waits_for() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream)
        .setting("upstream.docker-hub.max_connections", "2")
        .setting("server.drain_timeout", "\"0s\"")
        .start()
        .await;
    let mut scene = Scene { upstream, daemon };
    let left = scene.put(random(1, 4 << 20));
    let _first = scene.upstream.stall(left.get(), 2 * MIB);
    open(&left.url).await.read(MIB as usize).await;
    scene.daemon.stop().await;
    // What was left goes on after the start, and holds a turn for long.
    let held = scene.upstream.stall(left.get(), 3 * MIB);
    scene.daemon.restart().await;
    held.reached().await;
    let [one, two] = [2, 3].map(|seed| scene.put(random(seed, 1 << 20)));
    let gate = scene.upstream.stall(one.get(), 1000);
    let client = open(&one.url).await;
    gate.reached().await;
    // Both turns are taken.
    let waiting = tokio::spawn(get(two.url.clone()));
    assert_eq!(scene.gets(&two), 0);
    gate.release();
    assert!(client.finish().await.ok() == one.bytes);
    assert!(soon("the second client", waiting).await.expect("no panic").ok() == two.bytes);
    held.release();
}

#[tokio::test]
async fn what_a_client_joins_no_longer_waits_as_what_nobody_waits_for() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream)
        .setting("upstream.docker-hub.max_connections", "2")
        .start()
        .await;
    let image = (1..=3).fold(Image::new(), |image, seed: u64| {
        image.layer(random(seed, 100_000))
    });
    upstream.put(REPO, "1", &image);
    let gate = Gate::new();
    upstream.always(blobs().get(), serve().stall_at(1000, &gate));
    let pull = async { run(&daemon, &["pull", "app:1"]).await };
    let client = async {
        gate.reached().await;
        // It may have one turn of the two, and all else of it waits for that. The config is too short to be stalled.
        let layers = image.layers();
        let (begun, waiting): (Vec<_>, Vec<_>) = layers
            .iter()
            .partition(|layer| upstream.blob_gets(&layer.digest) > 0);
        assert_eq!(begun.len(), 1, "{:#?}", upstream.summary());
        let waiting = waiting.first();
        let waiting = waiting.expect("a layer that waits");
        let answer = tokio::spawn(get(daemon.blob_url(NAME, &waiting.digest)));
        gate.reached_by(2).await;
        assert_eq!(upstream.blob_gets(&waiting.digest), 1);
        gate.release();
        assert!(soon("the client", answer).await.expect("no panic").ok() == waiting.bytes);
    };
    let (ran, ()) = tokio::join!(pull, client);
    assert!(ran.text().contains("4 blobs"), "{}", ran.text());
    assert_eq!(upstream.count_of(&blobs().get()), 4);
}

#[tokio::test]
async fn tokens_do_not_wait_for_those_who_wait_for_them() {
    let upstream = Upstream::start().await;
    upstream.require_bearer(Bearer::new());
    let daemon = Daemon::over(&upstream).start().await;
    // More than there are turns, each with a token of its own.
    let images: Vec<_> = (0..150_u64)
        .map(|seed| {
            let (repo, image) = (format!("team/app{seed}"), Image::simple(seed, 100));
            upstream.put(&repo, "1", &image);
            (daemon.manifest_url(&format!("docker-hub/{repo}"), "1"), image)
        })
        .collect();
    let answers = join_all(images.iter().map(|(url, _)| get(url.clone()))).await;
    for (answer, (_, image)) in answers.into_iter().zip(&images) {
        assert!(answer.ok() == image.root().bytes);
    }
}

#[tokio::test]
async fn a_manifest_that_a_client_joins_is_asked_for_as_a_clients() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream)
        .setting("cache.tag_ttl", "\"0s\"")
        .setting("cache.stale_if_error", "\"0s\"")
        .setting("upstream.docker-hub.header_timeout", "\"60s\"")
        .start()
        .await;
    let image = Image::simple(1, 100);
    upstream.put("team/app", "1", &image);
    let name = "docker-hub/team/app";
    assert_eq!(get(daemon.manifest_url(name, "1")).await.status, 200);
    // All turns for small requests are taken: one will be free sooner than the others.
    let (first, others) = (Gate::new(), Gate::new());
    let of = |repo: &'static str| manifests().and(move |asked| asked.path.contains(repo));
    upstream.always(of("/busy0/"), serve().hold_head(&first));
    upstream.always(of("/busy/"), serve().hold_head(&others));
    upstream.put("team/busy0", "0", &image);
    let tags: Vec<_> = (1..64).map(|number| number.to_string()).collect();
    for tag in &tags {
        upstream.put("team/busy", tag, &image);
    }
    let mut busy = vec![tokio::spawn(get(
        daemon.manifest_url("docker-hub/team/busy0", "0")
    ))];
    first.reached().await;
    busy.extend(
        tags.iter()
            .map(|tag| tokio::spawn(get(daemon.manifest_url("docker-hub/team/busy", tag)))),
    );
    others.reached_by(63).await;
    // Nobody waits for this, until somebody does; and another client comes after it.
    let work = run(&daemon, &["pull", "docker-hub/team/app:1"]);
    let client = async {
        // By then it stands in line.
        daemon.wait_for_log("started by an operator").await;
        daemon.metrics().await;
        let joins = tokio::spawn(get(daemon.manifest_url(name, "1")));
        daemon.metrics().await;
        upstream.put("team/later", "1", &image);
        let later = Gate::new();
        upstream.always(of("/later/"), serve().hold_head(&later));
        let last = tokio::spawn(get(daemon.manifest_url("docker-hub/team/later", "1")));
        daemon.metrics().await;
        first.release();
        let joined = soon("the client who joined", joins).await.expect("no panic");
        assert_eq!(joined.status, 200);
        later.release();
        others.release();
        assert_eq!(soon("the last client", last).await.expect("no panic").status, 200);
    };
    let (pulled, ()) = tokio::join!(work, client);
    assert_eq!(pulled.code(), Some(0), "{}", pulled.printed());
    for one in busy {
        assert_eq!(soon("the busy ones", one).await.expect("no panic").status, 200);
    }
}
