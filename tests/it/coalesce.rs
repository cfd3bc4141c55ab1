//! One download for everybody, and it is nobody's: clients that join, leave, crawl, or come from another repository.

use futures_util::future::join_all;

use crate::scene::{NAME, REPO, Scene};
use crate::support::client::Open;
use crate::support::prelude::*;

const HERD: usize = 32;

#[tokio::test]
async fn a_herd_at_a_cold_blob_costs_one_download() {
    let scene = Scene::start().await;
    let blob = scene.put(random(1, 3 << 20));
    let gate = scene.upstream.stall(blob.get(), 1000);
    let clients = scene.join(&blob, HERD).await;
    gate.reached().await;
    assert_eq!(scene.gets(&blob), 1);
    gate.release();
    let answers = join_all(clients.into_iter().map(Open::finish)).await;
    let mut collapsed = 0;
    for answer in answers {
        match answer.header("cache-status") {
            "wharfinger; fwd=miss; stored" => {}
            "wharfinger; fwd=miss; stored; collapsed" => collapsed += 1,
            other => panic!("{other}"),
        }
        assert_eq!(answer.header("content-length"), blob.size().to_string());
        assert_eq!(answer.header("docker-content-digest"), blob.digest);
        assert!(answer.ok() == blob.bytes);
    }
    assert_eq!(collapsed, HERD - 1);
    scene.hit(&blob).await;
    assert_eq!(scene.gets(&blob), 1, "{:?}", scene.upstream.summary());
    assert_eq!(scene.upstream.bytes_sent(), blob.size());
    let received = format!(
        r#"wharfinger_upstream_bytes_total{{upstream="docker-hub"}} {}"#,
        blob.size()
    );
    assert!(scene.daemon.metrics().await.contains(&received));
}

#[tokio::test]
async fn a_herd_waits_together_for_a_slow_head_over_both_protocols() {
    let scene = Scene::start().await;
    let blob = scene.put(random(2, 300_000));
    let gate = scene.upstream.hold(blob.get());
    let plain = tokio::spawn(join_all((0..HERD / 2).map(|_| get(blob.url.clone()))));
    let url = blob.url.clone();
    let framed = tokio::spawn(async move { join_all((0..HERD / 2).map(|_| h2_get(&url))).await });
    gate.reached().await;
    gate.release();
    for answer in soon("plain clients", plain).await.expect("no panic") {
        assert!(answer.ok() == blob.bytes);
    }
    for answer in soon("HTTP/2 clients", framed).await.expect("no panic") {
        assert_eq!((answer.status, &answer.end), (200, &H2End::Clean));
        assert!(answer.body == blob.bytes);
    }
    assert_eq!(scene.gets(&blob), 1, "{:?}", scene.upstream.summary());
}

#[tokio::test]
async fn the_first_client_hangs_up_and_the_others_get_it_all() {
    let scene = Scene::start().await;
    let blob = scene.put(random(3, 1 << 20));
    let half = blob.bytes.len() / 2;
    let gate = scene.upstream.stall(blob.get(), half as u64);
    let mut first = Raw::connect(&blob.url).await;
    first.ask("GET", &blob.url, &[("User-Agent", "the-first")]).await;
    first.head().await.expect("a head");
    assert!(first.read(half).await == blob.bytes[..half]);
    let others = scene.join(&blob, HERD - 1).await;
    first.abort();
    scene.logged(&["the-first", "body=cut"]).await;
    gate.release();
    for answer in join_all(others.into_iter().map(Open::finish)).await {
        assert!(answer.ok() == blob.bytes);
    }
    assert_eq!(scene.gets(&blob), 1);
}

#[tokio::test]
async fn every_client_hangs_up_and_the_download_ends_well() {
    let scene = Scene::start().await;
    let blob = scene.put(random(4, 1 << 20));
    let half = blob.bytes.len() / 2;
    let gate = scene.upstream.stall(blob.get(), half as u64);
    let mut clients = Vec::new();
    for number in 0..4 {
        let mut client = open_with(&blob.url, &[("user-agent", &format!("client-{number}"))]).await;
        assert!(client.read(half).await == &blob.bytes[..half]);
        clients.push(client);
    }
    drop(clients);
    for number in 0..4 {
        scene.logged(&[&format!("client-{number}"), "body=cut"]).await;
    }
    gate.release();
    scene.completed(1).await;
    scene.upstream.refuse().await;
    scene.hit(&blob).await;
    assert_eq!(scene.gets(&blob), 1);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_head_ends_nothing() {
    let scene = Scene::start().await;
    let blob = scene.put(random(5, 100_000));
    let gate = scene.upstream.hold(blob.get());
    let mut client = Raw::get(&blob.url).await;
    gate.reached().await;
    client.write("").await;
    client.abort();
    scene.logged(&[&blob.digest, "status=499"]).await;
    gate.release();
    scene.completed(1).await;
    scene.hit(&blob).await;
    assert_eq!(scene.gets(&blob), 1);
}

#[tokio::test]
async fn a_client_that_does_not_read_slows_nobody() {
    let scene = Scene::start().await;
    // More than all socket buffers between the daemon and a client hold.
    let blob = scene.put(random(6, 24 << 20));
    let mut slow = Raw::connect_slow(&blob.url).await;
    slow.ask("GET", &blob.url, &[("User-Agent", "the-slow")]).await;
    assert_eq!(slow.head().await.expect("a head").status, 200);
    for answer in join_all((0..4).map(|_| get(&blob.url))).await {
        assert!(answer.ok() == blob.bytes);
    }
    // The download is over as well, and the slow client still has nearly all before it.
    scene.completed(1).await;
    assert!(!scene.daemon.logs().iter().any(|line| line.contains("the-slow")));
    let (body, ending) = slow.finish().await;
    assert_eq!(ending, Ending::Complete);
    assert!(body == blob.bytes);
    assert_eq!(scene.gets(&blob), 1);
}

#[tokio::test]
async fn a_repository_serves_anothers_blob_only_after_its_own_upstream_confirmed_it() {
    let scene = Scene::start().await;
    let blob = scene.put(random(7, 200_000));
    scene.upstream.put_blob("library/has", blob.bytes.clone());
    scene.upstream.put_blob("library/lacks", random(8, 10));
    scene.hit(&blob).await;

    let lacks = scene.daemon.blob_url("docker-hub/library/lacks", &blob.digest);
    for _ in 0..2 {
        let refused = get(&lacks).await;
        assert_eq!(refused.status, 404);
        assert_eq!(refused.json()["errors"][0]["code"], "BLOB_UNKNOWN");
        assert_eq!(head(&lacks).await.status, 404);
    }
    let asked = scene.upstream.requests_of(&blob.get().in_repo("library/lacks"));
    assert_eq!(asked.len(), 1, "{:?}", scene.upstream.summary());
    assert_eq!(asked[0].header("range"), "bytes=0-0");

    let has = scene.daemon.blob_url("docker-hub/library/has", &blob.digest);
    for _ in 0..2 {
        let answer = get(&has).await;
        assert_eq!(answer.header("cache-status"), "wharfinger; hit");
        assert!(answer.ok() == blob.bytes);
    }
    let asked = scene.upstream.requests_of(&blob.get().in_repo("library/has"));
    assert_eq!(asked.len(), 1, "{:?}", scene.upstream.summary());
    assert_eq!((asked[0].header("range"), asked[0].sent), ("bytes=0-0", 1));
}

#[tokio::test]
async fn a_fill_for_one_repository_is_joined_by_others_only_with_proof() {
    let (hub, other) = (Upstream::start().await, Upstream::start().await);
    let bytes = random(9, 500_000);
    let digest = hub.put_blob(REPO, bytes.clone());
    other.put_blob("has", bytes.clone());
    other.put_blob("lacks", random(10, 10));
    let daemon = Daemon::over(&hub).upstream("acme", &other).start().await;
    let gate = hub.stall(blob(&digest).get(), 1000);
    let first = open(daemon.blob_url(NAME, &digest)).await;
    gate.reached().await;

    assert_eq!(get(daemon.blob_url("acme/lacks", &digest)).await.status, 404);
    let second = open(daemon.blob_url("acme/has", &digest)).await;
    gate.release();
    let second = second.finish().await;
    assert_eq!(
        second.header("cache-status"),
        "wharfinger; fwd=miss; stored; collapsed"
    );
    assert!(second.ok() == bytes);
    assert!(first.finish().await.ok() == bytes);
    assert_eq!(hub.blob_gets(&digest), 1);
    let asked = other.requests_of(&blob(&digest).in_repo("has"));
    assert_eq!(asked.len(), 1, "{:?}", other.summary());
    assert_eq!((asked[0].header("range"), asked[0].sent), ("bytes=0-0", 1));
}

#[tokio::test]
async fn two_repositories_that_start_together_do_not_lend_each_other_their_rights() {
    let scene = Scene::start().await;
    scene.upstream.put_blob("library/lacks", random(11, 10));
    for seed in 0..8 {
        let blob = scene.put(random(100 + seed, 70_000));
        let lacks = scene.daemon.blob_url("docker-hub/library/lacks", &blob.digest);
        let both = (0..16).map(|number| get(if number % 2 == 0 { &blob.url } else { &lacks }));
        for (number, answer) in join_all(both).await.into_iter().enumerate() {
            if number % 2 == 0 {
                assert!(answer.ok() == blob.bytes);
            } else {
                assert_eq!(answer.status, 404, "{:?}", scene.upstream.summary());
            }
        }
    }
}
