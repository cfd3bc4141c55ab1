//! So many requests at a host at once, and what clients wait for first.

use futures_util::future::join_all;

use crate::scene::Scene;
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
