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
