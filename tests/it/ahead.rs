//! Tags that are asked for often are revalidated before they fall due, by nobody's request; others cost nothing.

use crate::admin::asked;
use crate::expect::{assert_hit, assert_manifest};
use crate::scene::{NAME, REPO, Scene};
use crate::support::prelude::*;

/// Long enough that three requests are made within it on a busy machine.
const TTL: &str = "\"8s\"";

async fn short_lived(settings: &[(&str, &str)]) -> Scene {
    let upstream = Upstream::start().await;
    let builder = Daemon::over(&upstream).setting("cache.tag_ttl", TTL);
    let builder = settings
        .iter()
        .fold(builder, |builder, (key, value)| builder.setting(key, value));
    let daemon = builder.start().await;
    Scene { upstream, daemon }
}

/// The first pull, and so many requests that find it fresh.
async fn ask(scene: &Scene, name: &str, tag: &str, asks: usize) {
    get(scene.daemon.manifest_url(name, tag)).await.ok();
    for _ in 0..asks {
        assert_hit(&get(scene.daemon.manifest_url(name, tag)).await);
    }
}

fn heads(upstream: &Upstream, tag: &str) -> usize {
    upstream.count_of(&manifest(tag).head())
}

async fn refreshed(scene: &Scene, result: &str) {
    let line = format!(r#"wharfinger_refreshed_ahead_total{{result="{result}",upstream="docker-hub"}} 1"#);
    scene.metric(&line).await;
}

#[tokio::test]
async fn a_hot_tag_is_asked_about_before_it_is_due_and_a_cold_one_is_not() {
    let other = Upstream::start().await;
    let scene = short_lived(&[
        ("upstream.corp.url", &format!("{:?}", other.url())),
        ("upstream.corp.refresh_ahead", "false"),
    ])
    .await;
    let image = Image::simple(1, 100);
    scene.upstream.put(REPO, "cold", &image);
    scene.upstream.put(REPO, "hot", &image);
    other.put("acme/app", "hot", &image);
    ask(&scene, NAME, "cold", 2).await;
    // Hot as well, where nothing is refreshed ahead.
    ask(&scene, "corp/acme/app", "hot", 9).await;
    ask(&scene, NAME, "hot", 9).await;
    assert_eq!(heads(&scene.upstream, "hot"), 0);
    scene
        .upstream
        .wait_for(|upstream| heads(upstream, "hot") == 1)
        .await;
    refreshed(&scene, "unchanged").await;
    // Whoever asks now finds it fresh, and it has begun anew.
    let answer = get(scene.daemon.manifest_url(NAME, "hot")).await;
    assert_hit(&answer);
    assert_manifest(&answer, &image, false);
    assert_eq!(
        (
            heads(&scene.upstream, "hot"),
            heads(&scene.upstream, "cold"),
            other.manifest_heads()
        ),
        (1, 0, 0)
    );
    // Too few requests to be hot: it falls due, and the next client's asks. Explaining it counts as none.
    let due = async { while asked(&scene.daemon, &["explain", "app:cold"]).await["expected"] == "hit" {} };
    soon("the cold tag to fall due", due).await;
    assert_eq!(heads(&scene.upstream, "cold"), 0);
    let answer = get(scene.daemon.manifest_url(NAME, "cold")).await;
    assert_eq!(answer.header("cache-status"), "wharfinger; hit; fwd=stale");
}

#[tokio::test]
async fn a_hot_tag_that_moved_is_here_before_anybody_asks() {
    let scene = short_lived(&[]).await;
    let (old, new) = (Image::simple(1, 100), Image::simple(2, 100));
    scene.upstream.put(REPO, "hot", &old);
    ask(&scene, NAME, "hot", 3).await;
    scene.upstream.put(REPO, "hot", &new);
    refreshed(&scene, "moved").await;
    let answer = get(scene.daemon.manifest_url(NAME, "hot")).await;
    assert_hit(&answer);
    assert_manifest(&answer, &new, false);
}

#[tokio::test]
async fn an_upstream_in_trouble_is_left_alone() {
    let scene = short_lived(&[]).await;
    scene.upstream.put(REPO, "hot", &Image::simple(1, 100));
    ask(&scene, NAME, "hot", 3).await;
    scene.upstream.always(any(), reply(503));
    assert_eq!(get(scene.daemon.manifest_url(NAME, "other")).await.status, 502);
    refreshed(&scene, "skipped").await;
    assert_eq!(heads(&scene.upstream, "hot"), 0);
}
