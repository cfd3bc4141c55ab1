//! One large blob over several connections, where one of them is what limits, and never more than configured.

use std::time::Duration;

use crate::scene::{Blob, Scene};
use crate::support::prelude::*;

const MIB: u64 = 1 << 20;

/// What a cut may cost beside the bytes that are kept: what was on its way when we hung up.
const PER_CUT: u64 = 256 * 1024 + 6 * MIB;

/// What a slow connection brings in a second.
const SLOW: u64 = 3 * MIB;

/// Large enough to be worth four slow connections.
const LARGE: usize = 80 << 20;

async fn with(settings: &[(&str, &str)]) -> Scene {
    let upstream = Upstream::start().await;
    let mut builder = Daemon::over(&upstream);
    for (key, value) in settings {
        builder = builder.setting(&format!("upstream.docker-hub.{key}"), value);
    }
    Scene {
        daemon: builder.start().await,
        upstream,
    }
}

/// Waits until the upstream has seen so many GETs of the blob.
async fn connections(scene: &Scene, blob: &Blob, count: usize) {
    let get = blob.get();
    scene
        .upstream
        .wait_for(|upstream| upstream.count_of(&get) >= count)
        .await;
}

/// Waits until so many more bytes were sent.
async fn more(scene: &Scene, bytes: u64) {
    let before = scene.upstream.bytes_sent();
    scene
        .upstream
        .wait_for(|upstream| upstream.bytes_sent() >= before + bytes)
        .await;
}

/// What the daemon has read of its upstream: what waits in the system's buffers when it hangs up, which grow with a slow
/// machine, is not its waste.
async fn bytes_read(scene: &Scene) -> u64 {
    const NAME: &str = "wharfinger_upstream_bytes_total{upstream=\"docker-hub\"} ";
    let text = scene.daemon.metrics().await;
    let line = text.lines().find_map(|line| line.strip_prefix(NAME));
    line.and_then(|number| number.parse().ok()).expect("the metric")
}

/// The whole blob comes, and no more bytes of it than cuts explain.
async fn whole_and_no_waste(scene: &Scene, blob: &Blob) {
    scene.hit(blob).await;
    let (all, requests) = (bytes_read(scene).await, scene.gets(blob) as u64);
    assert!(
        all <= blob.size() + (requests - 1) * PER_CUT,
        "{all} bytes by {:?}",
        scene.upstream.summary()
    );
}

#[tokio::test]
async fn slow_connections_are_added_up_to_the_limit() {
    let scene = Scene::start().await;
    let blob = scene.put(random(1, LARGE));
    let pace = Pace::of_each(SLOW);
    scene.upstream.always(blob.get(), serve().at_pace(&pace));
    let client = tokio::spawn(get(blob.url.clone()));
    connections(&scene, &blob, 4).await;
    more(&scene, 8 * MIB).await;
    assert_eq!(scene.gets(&blob), 4, "{:#?}", scene.upstream.summary());
    let ranges = scene.ranges(&blob);
    assert!(
        ranges[0].is_empty()
            && ranges[1..]
                .iter()
                .all(|range| range.ends_with(|c: char| c.is_ascii_digit())),
        "{ranges:?}"
    );
    pace.release();
    assert!(soon("the client", client).await.expect("no panic").ok() == blob.bytes);
    whole_and_no_waste(&scene, &blob).await;
}

#[tokio::test]
async fn never_more_than_configured() {
    let [off, two, more] = [
        with(&[("parallel", "1")]).await,
        with(&[("parallel", "2")]).await,
        with(&[("parallel", "3")]).await,
    ];
    let pace = Pace::of_each(SLOW);
    let scenes = [&off, &two, &more];
    let blobs = scenes.map(|scene| {
        let blob = scene.put(random(2, LARGE));
        scene.upstream.always(blob.get(), serve().at_pace(&pace));
        blob
    });
    let clients: Vec<_> = blobs
        .iter()
        .map(|blob| tokio::spawn(get(blob.url.clone())))
        .collect();
    connections(&more, &blobs[2], 3).await;
    connections(&two, &blobs[1], 2).await;
    let counts = [0, 1].map(|at| scenes[at].gets(&blobs[at]));
    assert_eq!(counts, [1, 2]);
    pace.release();
    for client in clients {
        soon("a client", client).await.expect("no panic").ok();
    }
    assert_eq!(off.gets(&blobs[0]), 1);
}

#[tokio::test]
async fn where_all_connections_share_what_there_is_one_is_left() {
    let scene = Scene::start().await;
    let blob = scene.put(random(3, LARGE));
    let pace = Pace::of_all(2 * SLOW);
    scene.upstream.always(blob.get(), serve().at_pace(&pace));
    let client = tokio::spawn(get(blob.url.clone()));
    connections(&scene, &blob, 2).await;
    let ranged = blob.get().ranged();
    scene
        .upstream
        .wait_for(|upstream| {
            let side = upstream.requests_of(&ranged);
            side.iter().all(|side| side.outcome == Outcome::ClientGone)
        })
        .await;
    more(&scene, 10 * MIB).await;
    assert_eq!(scene.gets(&blob), 2, "{:#?}", scene.upstream.summary());
    pace.release();
    assert!(soon("the client", client).await.expect("no panic").ok() == blob.bytes);
    // What the useless one left is fetched when the front comes to it.
    assert!(scene.gets(&blob) <= 3, "{:#?}", scene.upstream.summary());
    whole_and_no_waste(&scene, &blob).await;
}

#[tokio::test]
async fn an_upstream_that_ignores_ranges_keeps_its_one_connection() {
    let scene = Scene::start().await;
    let blob = scene.put(random(4, LARGE));
    let pace = Pace::of_each(SLOW);
    scene
        .upstream
        .always(blob.get(), serve().at_pace(&pace).ignore_range());
    let client = tokio::spawn(get(blob.url.clone()));
    connections(&scene, &blob, 2).await;
    more(&scene, 8 * MIB).await;
    assert_eq!(scene.gets(&blob), 2, "{:#?}", scene.upstream.summary());
    pace.release();
    assert!(soon("the client", client).await.expect("no panic").ok() == blob.bytes);
    whole_and_no_waste(&scene, &blob).await;
    assert_eq!(scene.gets(&blob), 2);
}

#[tokio::test]
async fn an_upstream_that_refuses_another_connection_is_not_asked_again() {
    let scene = Scene::start().await;
    let blob = scene.put(random(5, LARGE));
    let pace = Pace::of_each(SLOW);
    scene.upstream.once(blob.get(), serve().at_pace(&pace));
    scene.upstream.always(blob.get().ranged(), reply(429));
    let client = tokio::spawn(get(blob.url.clone()));
    connections(&scene, &blob, 2).await;
    more(&scene, 8 * MIB).await;
    assert_eq!(scene.gets(&blob), 2, "{:#?}", scene.upstream.summary());
    pace.release();
    assert!(soon("the client", client).await.expect("no panic").ok() == blob.bytes);
    assert_eq!(scene.gets(&blob), 2);
}

#[tokio::test]
async fn a_cut_beside_the_front_is_made_good() {
    let scene = Scene::start().await;
    let blob = scene.put(random(6, LARGE));
    let pace = Pace::of_each(SLOW);
    scene.upstream.once(blob.get(), serve().at_pace(&pace));
    scene
        .upstream
        .once(blob.get().ranged(), serve().at_pace(&pace).cut_after(MIB));
    scene.upstream.always(blob.get().ranged(), serve().at_pace(&pace));
    let client = tokio::spawn(get(blob.url.clone()));
    connections(&scene, &blob, 2).await;
    let get = blob.get();
    scene
        .upstream
        .wait_for(|upstream| {
            let seen = upstream.requests_of(&get);
            seen.iter().any(|request| request.outcome == Outcome::Cut)
        })
        .await;
    pace.release();
    assert!(soon("the client", client).await.expect("no panic").ok() == blob.bytes);
    whole_and_no_waste(&scene, &blob).await;
}

#[tokio::test]
async fn wrong_bytes_beside_the_front_never_arrive_whole() {
    let scene = Scene::start().await;
    let blob = scene.put(random(7, LARGE));
    let pace = Pace::of_each(SLOW);
    scene.upstream.once(blob.get(), serve().at_pace(&pace));
    let lie = blob.size() - 10_000;
    scene
        .upstream
        .always(blob.get().ranged(), serve().at_pace(&pace).flip_at(lie));
    let mut client = Raw::get(&blob.url).await;
    client.head().await.expect("a head");
    connections(&scene, &blob, 2).await;
    pace.release();
    let (body, ending) = client.finish().await;
    assert!((body.len() as u64) < blob.size(), "{ending:?}");
    scene.failed(&blob).await;
}

#[tokio::test]
async fn after_a_kill_what_both_connections_brought_is_there() {
    let mut scene = Scene::start().await;
    let blob = scene.put(random(8, LARGE));
    let pace = Pace::of_each(SLOW);
    scene.upstream.always(blob.get(), serve().at_pace(&pace));
    let mut client = open(&blob.url).await;
    client.read(100).await;
    connections(&scene, &blob, 2).await;
    let ranged = blob.get().ranged();
    scene
        .upstream
        .wait_for(|upstream| upstream.requests_of(&ranged)[0].sent >= 4 * MIB)
        .await;
    let before = scene.upstream.bytes_sent();
    scene.daemon.kill().await;
    scene.upstream.forget_requests();
    scene.daemon.restart().await;
    let blob = scene.known(blob.digest, blob.bytes);
    // Nobody waits for it: one connection, though it is slow.
    connections(&scene, &blob, 1).await;
    more(&scene, 8 * MIB).await;
    assert_eq!(scene.gets(&blob), 1, "{:#?}", scene.upstream.summary());
    // Somebody does.
    let client = tokio::spawn(get(blob.url.clone()));
    connections(&scene, &blob, 2).await;
    pace.release();
    assert!(soon("the client", client).await.expect("no panic").ok() == blob.bytes);
    scene.hit(&blob).await;
    let (again, requests) = (scene.upstream.bytes_sent(), scene.gets(&blob) as u64);
    assert!(
        before + again <= blob.size() + (requests + 2) * PER_CUT,
        "{before} and {again} bytes by {:?}",
        scene.upstream.summary()
    );
}

#[tokio::test]
async fn who_waits_for_a_turn_gets_that_of_a_further_connection() {
    let scene = with(&[("max_connections", "3")]).await;
    let blob = scene.put(random(10, LARGE));
    let pace = Pace::of_each(SLOW);
    scene.upstream.always(blob.get(), serve().at_pace(&pace));
    let client = tokio::spawn(get(blob.url.clone()));
    connections(&scene, &blob, 2).await;
    // One turn is left, and then none.
    let others = [11, 12].map(|seed| scene.put(random(seed, 1 << 20)));
    let gate = Gate::new();
    for other in &others {
        scene.upstream.always(other.get(), serve().stall_at(1000, &gate));
    }
    let waiting = others
        .each_ref()
        .map(|other| tokio::spawn(get(other.url.clone())));
    gate.reached_by(2).await;
    gate.release();
    pace.release();
    for (other, waiting) in others.iter().zip(waiting) {
        assert!(soon("a client", waiting).await.expect("no panic").ok() == other.bytes);
    }
    assert!(soon("the client", client).await.expect("no panic").ok() == blob.bytes);
}

#[tokio::test]
async fn under_our_own_cap_one_connection_is_enough() {
    let scene = with(&[("bandwidth", "\"3MiB\"")]).await;
    let blob = scene.put(random(9, LARGE));
    let client = open(&blob.url).await;
    // As long as others take to open a second one, and longer.
    tokio::time::timeout(Duration::from_secs(30), more(&scene, 16 * MIB))
        .await
        .expect("bytes under the cap");
    assert_eq!(scene.gets(&blob), 1, "{:#?}", scene.upstream.summary());
    drop(client);
}
