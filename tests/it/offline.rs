//! Offline: nothing is asked of anybody, what is here is served at once, and the rest is an error that says why. The
//! upstream counts connections, so that not even a token or a look for a challenge goes out.

use serde_json::{Value, json};

use crate::admin::{asked, run};
use crate::expect::{assert_error, assert_hit, assert_manifest, assert_stale, cached};
use crate::freshness::{APP, always_due, pulled, restart_with};
use crate::scene::{NAME, REPO, Scene};
use crate::support::prelude::*;

const OFFLINE: &str = "wharfinger; fwd=stale; detail=offline";

/// An answer that was served without a question, though it was due.
fn assert_offline(answer: &Answer) {
    assert_eq!(
        (answer.status, cached(answer)),
        (200, OFFLINE),
        "{}",
        answer.text()
    );
}

/// An error that says that we are offline.
fn assert_refused(answer: &Answer) {
    assert_error(answer, 503, "UNAVAILABLE");
    assert!(answer.text().contains("offline"), "{}", answer.text());
    assert_eq!(cached(answer), "wharfinger; fwd=miss; detail=offline");
}

#[tokio::test]
async fn nobody_is_asked_whatever_is_asked_of_us() {
    let upstream = Upstream::start().await;
    upstream.require_bearer(Bearer::new().user("u", "p"));
    let mirror = Upstream::start().await;
    let mut daemon = Daemon::over(&upstream)
        .setting("cache.tag_ttl", "\"0s\"")
        .setting("cache.negative_ttl", "\"0s\"")
        .setting("upstream.docker-hub.username", "\"u\"")
        .setting("upstream.docker-hub.password", "\"p\"")
        .setting("upstream.docker-hub.mirrors", &format!("[{:?}]", mirror.url()))
        .mirror_door()
        .start()
        .await;
    let image = Image::simple(1, 50_000);
    upstream.put(REPO, "1", &image);
    let unseen = Image::simple(2, 1000);
    upstream.put(REPO, "2", &unseen);
    assert_manifest(&get(daemon.manifest_url(APP, "1")).await, &image, false);
    for part in image.blobs() {
        assert!(get(daemon.blob_url(NAME, &part.digest)).await.ok() == part.bytes);
    }
    assert!(get(format!("{}/v2/{NAME}/tags/list", daemon.url())).await.status == 200);
    let told = asked(&daemon, &["offline", "on"]).await;
    assert_eq!((&told["offline"], &told["kept"]), (&json!(true), &json!(true)));
    let again = asked(&daemon, &["offline", "on"]).await;
    assert_eq!(again["since"], told["since"], "it is since the first time");
    for restarted in [false, true] {
        if restarted {
            daemon.restart().await;
        }
        let before = (upstream.connections(), mirror.connections());
        // What is here.
        assert_offline(&get(daemon.manifest_url(APP, "1")).await);
        assert_offline(&head(daemon.manifest_url(APP, "1")).await);
        assert_hit(&get(daemon.manifest_url(APP, &image.digest())).await);
        for part in image.blobs() {
            assert_hit(&get(daemon.blob_url(NAME, &part.digest)).await);
        }
        let referrers = get(format!("{}/v2/{NAME}/referrers/{}", daemon.url(), image.digest())).await;
        assert_offline(&referrers);
        assert_eq!(referrers.json()["manifests"], json!([]));
        let tags = get(format!("{}/v2/{NAME}/tags/list", daemon.url())).await;
        assert_offline(&tags);
        // What is not.
        let layer = unseen.layer_digest(0);
        for url in [
            daemon.manifest_url(APP, "2"),
            daemon.manifest_url(APP, &unseen.digest()),
            daemon.manifest_url("docker-hub/library/other", "1"),
            daemon.blob_url(NAME, &layer),
            daemon.blob_url("docker-hub/library/other", &image.layer_digest(0)),
            format!("{}/v2/docker-hub/library/other/tags/list", daemon.url()),
        ] {
            assert_refused(&get(&url).await);
        }
        let mirrored = get(format!("{}/v2/library/app/manifests/2", daemon.mirror_url())).await;
        assert_error(&mirrored, 503, "UNAVAILABLE");
        // An operator's questions.
        let refreshed = run(&daemon, &["refresh", "docker-hub/library/app:1"]).await;
        assert!(refreshed.printed().contains("offline"), "{}", refreshed.printed());
        let told = asked(&daemon, &["explain", "docker-hub/library/app:1"]).await;
        assert_eq!(
            (&told["expected"], &told["asks_upstream"], &told["offline"]),
            (&json!("stale"), &json!(false), &json!(true))
        );
        let told = asked(&daemon, &["explain", "docker-hub/library/app:2"]).await;
        assert_eq!(
            (&told["expected"], &told["asks_upstream"]),
            (&json!("miss"), &json!(false))
        );
        assert!(
            told["reason"].as_str().is_some_and(|why| why.contains("offline")),
            "{told}"
        );
        let status = asked(&daemon, &["status"]).await;
        assert_eq!(status["offline"], true);
        assert!(
            run(&daemon, &["status"])
                .await
                .text()
                .contains("offline: nothing is asked")
        );
        assert!(daemon.metrics().await.contains("wharfinger_offline 1\n"));
        daemon.wait_for_log("outcome=stale detail=offline").await;
        assert_eq!(
            (upstream.connections(), mirror.connections()),
            before,
            "{:#?}",
            upstream.summary()
        );
    }
    // And off again: asked at once, as if nothing had been.
    let told = asked(&daemon, &["offline", "off"]).await;
    assert_eq!((&told["offline"], &told["kept"]), (&json!(false), &json!(false)));
    assert_eq!(run(&daemon, &["offline"]).await.text(), "online\n");
    let answer = get(daemon.manifest_url(APP, "1")).await;
    assert_eq!(cached(&answer), "wharfinger; hit; fwd=stale");
    assert_manifest(&get(daemon.manifest_url(APP, "2")).await, &unseen, false);
    assert!(daemon.metrics().await.contains("wharfinger_offline 0\n"));
    daemon.restart().await;
    assert_eq!(asked(&daemon, &["offline"]).await["offline"], false);
}

#[tokio::test]
async fn configured_so_it_is_so_from_the_start() {
    let (upstream, mut daemon) = always_due().await;
    let image = pulled(&upstream, &daemon, "library/app", "1", 1).await;
    restart_with(
        &mut daemon,
        "[cache]\n",
        "[cache]\noffline = true\nstale_if_error = \"0s\"\n",
    )
    .await;
    let before = upstream.connections();
    let answer = get(daemon.manifest_url(APP, "1")).await;
    // However old it is: nobody will tell anything newer.
    assert_offline(&answer);
    assert_manifest(&answer, &image, false);
    let told: Value = asked(&daemon, &["offline"]).await;
    assert_eq!((&told["offline"], &told["kept"]), (&json!(true), &json!(false)));
    assert_eq!(upstream.connections(), before);
    let words = run(&daemon, &["offline", "off"]).await;
    assert!(
        words.text().contains("turns it on again at the next start"),
        "{}",
        words.text()
    );
    assert_eq!(
        cached(&get(daemon.manifest_url(APP, "1")).await),
        "wharfinger; hit; fwd=stale"
    );
    daemon.restart().await;
    assert_offline(&get(daemon.manifest_url(APP, "1")).await);
}

#[tokio::test]
async fn a_tag_that_counts_as_deleted_does_not_come_back_offline() {
    let upstream = Upstream::start().await;
    let mut daemon = Daemon::over(&upstream)
        .setting("cache.tag_ttl", "\"0s\"")
        .setting("cache.gone_ttl", "\"1d\"")
        .start()
        .await;
    let image = pulled(&upstream, &daemon, "library/app", "1", 1).await;
    upstream.untag("library/app", "1");
    assert_stale(&get(daemon.manifest_url(APP, "1")).await, Some(404));
    run(&daemon, &["offline", "on"]).await.text();
    assert_offline(&get(daemon.manifest_url(APP, "1")).await);
    restart_with(&mut daemon, "\"1d\"", "\"0s\"").await;
    assert_refused(&get(daemon.manifest_url(APP, "1")).await);
    assert_hit(&get(daemon.manifest_url(APP, &image.digest())).await);
}

#[tokio::test]
async fn a_download_stops_at_once_and_goes_on_when_we_are_online_again() {
    let scene = Scene::start().await;
    let blob = scene.put(random(1, 8 << 20));
    let gate = scene.upstream.stall(blob.get(), 4 << 20);
    let mut client = open(&blob.url).await;
    assert!(client.read(3 << 20).await.len() >= 3 << 20);
    gate.reached().await;
    run(&scene.daemon, &["offline", "on"]).await.text();
    let answer = soon("the end of the download", client.finish()).await;
    assert!(!answer.is_complete(), "a client was told that it has all");
    scene.metric("wharfinger_fills_running 0").await;
    scene
        .logged(&["a fill stopped, what is there is kept", "offline"])
        .await;
    let before = scene.upstream.connections();
    assert_refused(&get(&blob.url).await);
    assert_eq!(scene.upstream.connections(), before);
    gate.release();
    // By itself, from where it stopped.
    run(&scene.daemon, &["offline", "off"]).await.text();
    scene.completed(1).await;
    let ranges = scene.ranges(&blob);
    assert_eq!(ranges.len(), 2, "{ranges:?}");
    assert!(
        ranges[1].starts_with("bytes=") && ranges[1] != "bytes=0-",
        "{ranges:?}"
    );
    scene.hit(&blob).await;
}

#[tokio::test]
async fn a_question_on_its_way_ends_at_once() {
    let (upstream, daemon) = always_due().await;
    let image = pulled(&upstream, &daemon, "library/app", "1", 1).await;
    upstream.put("library/app", "2", &Image::simple(2, 100));
    let gate = Gate::new();
    upstream.always(manifests(), serve().hold_head(&gate));
    let url = |tag| daemon.manifest_url(APP, tag);
    let (due, cold) = (tokio::spawn(get(url("1"))), tokio::spawn(get(url("2"))));
    soon("both questions", gate.reached_by(2)).await;
    run(&daemon, &["offline", "on"]).await.text();
    let due = soon("the copy", due).await.expect("an answer");
    assert_manifest(&due, &image, false);
    // It may have been late already.
    assert!(
        cached(&due).starts_with("wharfinger; fwd=stale"),
        "{}",
        cached(&due)
    );
    assert_refused(&soon("the error", cold).await.expect("an answer"));
    gate.release();
    // Neither the breakers nor anybody's memory hold it against the upstream.
    run(&daemon, &["offline", "off"]).await.text();
    upstream.behave();
    assert_eq!(get(url("2")).await.status, 200);
    let told = asked(&daemon, &["status"]).await;
    assert_eq!(told["upstreams"][0]["state"], "well", "{told}");
}
