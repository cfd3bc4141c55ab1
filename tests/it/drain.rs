//! SIGTERM: what runs is finished, nothing new is taken, and nothing can hold the end up for ever.

use crate::scene::Scene;
use crate::support::prelude::*;

/// Waits until the main door takes no more connections.
async fn closed(daemon: &Daemon) {
    let url = daemon.url();
    let address = url.strip_prefix("http://").expect("an address");
    let wait = async { while tokio::net::TcpStream::connect(address).await.is_ok() {} };
    soon("the door to close", wait).await;
}

#[tokio::test]
async fn responses_and_downloads_finish_before_the_end() {
    let mut scene = Scene::start().await;
    let blob = scene.put(random(1, 1 << 20));
    let gate = scene.upstream.stall(blob.get(), 500_000);
    let mut client = open(&blob.url).await;
    assert!(client.read(500_000).await == &blob.bytes[..500_000]);
    let url = blob.url.clone();
    let framed = tokio::spawn(async move { h2_get(&url).await });
    scene.daemon.terminate();
    closed(&scene.daemon).await;
    gate.release();
    assert!(client.finish().await.ok() == blob.bytes);
    assert_eq!(scene.daemon.exited().await.code(), Some(0));
    // It came before the door closed, or found it closed.
    if let Ok(framed) = framed.await {
        assert!(framed.end != H2End::Clean || framed.body == blob.bytes);
    }
    assert_eq!(scene.gets(&blob), 1);
    scene.upstream.refuse().await;
    scene.daemon.restart().await;
    let blob = scene.known(blob.digest, blob.bytes);
    let answer = get(&blob.url).await;
    assert_eq!(answer.header("cache-status"), "wharfinger; hit");
    assert!(answer.ok() == blob.bytes);
}

#[tokio::test]
async fn a_download_without_clients_finishes_before_the_end() {
    let mut scene = Scene::start().await;
    let blob = scene.put(random(2, 1 << 20));
    let gate = scene.upstream.stall(blob.get(), 500_000);
    let mut client = open_with(&blob.url, &[("user-agent", "the-only-one")]).await;
    client.read(500_000).await;
    drop(client);
    scene.logged(&["the-only-one", "body=cut"]).await;
    scene.daemon.terminate();
    closed(&scene.daemon).await;
    gate.release();
    assert_eq!(scene.daemon.exited().await.code(), Some(0));
    scene.upstream.refuse().await;
    scene.daemon.restart().await;
    let blob = scene.known(blob.digest, blob.bytes);
    assert!(get(&blob.url).await.ok() == blob.bytes);
    assert_eq!(scene.gets(&blob), 1);
}

#[tokio::test]
async fn the_end_of_patience_ends_it_all() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream)
        .setting("server.drain_timeout", "\"200ms\"")
        .start()
        .await;
    let mut scene = Scene { upstream, daemon };
    let blob = scene.put(random(3, 1 << 20));
    let gate = scene.upstream.stall(blob.get(), 500_000);
    let mut client = Raw::get(&blob.url).await;
    client.head().await.expect("a head");
    assert!(client.read(500_000).await == blob.bytes[..500_000]);
    scene.daemon.terminate();
    let (rest, ending) = client.finish().await;
    assert!(rest.is_empty());
    assert!(
        matches!(ending, Ending::Short(_) | Ending::Reset(_)),
        "{ending:?}"
    );
    assert_eq!(scene.daemon.exited().await.code(), Some(0));
    assert!(
        scene
            .daemon
            .logs()
            .iter()
            .any(|line| line.contains("grace period is over"))
    );
    gate.cut();
    scene.daemon.restart().await;
    let blob = scene.known(blob.digest, blob.bytes);
    assert!(get(&blob.url).await.ok() == blob.bytes);
    assert_eq!(scene.gets(&blob), 2);
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut scene = Scene::start().await;
    let blob = scene.put(random(4, 1 << 20));
    let _gate = scene.upstream.stall(blob.get(), 500_000);
    let mut client = Raw::get(&blob.url).await;
    client.head().await.expect("a head");
    scene.daemon.terminate();
    closed(&scene.daemon).await;
    scene.daemon.terminate();
    let (_, ending) = client.finish().await;
    assert_ne!(ending, Ending::Complete);
    assert_eq!(scene.daemon.exited().await.code(), Some(0));
}

#[tokio::test]
async fn an_idle_daemon_ends_at_once_however_early_the_signal_comes() {
    for _ in 0..4 {
        let mut scene = Scene::start().await;
        assert_eq!(scene.daemon.stop().await.code(), Some(0));
        assert!(scene.daemon.logs().iter().any(|line| line.contains("stopped")));
    }
}
