//! Where the cache has credentials, whether a repository is public is found out even where anonymous questions are
//! limited, and what is private stays so whatever fails.

use crate::expect::{assert_error, assert_manifest, assert_stale};
use crate::freshness::{pulled, restart_with};
use crate::support::daemon::Builder;
use crate::support::prelude::*;
use crate::upstream_auth::{PASSWORD, login};

const PUBLIC: &str = "acme/public";
const SECRET: &str = "acme/secret";

/// An upstream with one image each, and a daemon with credentials that shares nothing.
async fn start() -> (Upstream, Builder, Image) {
    let upstream = Upstream::start().await;
    let image = Image::simple(1, 1000);
    upstream.put(PUBLIC, "1", &image);
    upstream.put(SECRET, "1", &image);
    upstream.require_bearer(Bearer::new().user("ci", PASSWORD).private(SECRET));
    let builder = login(Daemon::over(&upstream), "docker-hub", PASSWORD)
        .setting("upstream.docker-hub.share_private", "false");
    (upstream, builder, image)
}

/// A limit on pulls that is reached.
fn limit() -> Plan {
    reply(429)
        .header("retry-after", "60")
        .header("ratelimit-remaining", "0;w=21600")
        .before_auth()
}

/// What is asked for without a login.
fn by_nobody(upstream: &Upstream, matcher: Match) -> Match {
    let door = upstream.clone();
    matcher.and(move |asked| door.account_of(asked).is_none())
}

/// What only the credential can read was given to us.
fn leaked(upstream: &Upstream) -> bool {
    let content = any()
        .in_repo(SECRET)
        .and(|asked| asked.path.contains("/manifests/") || asked.path.contains("/blobs/"));
    let given = upstream.requests_of(&content);
    given.iter().any(|asked| asked.status == 200)
}

#[tokio::test]
async fn a_limit_on_anonymous_questions_does_not_fail_a_pull() {
    let (upstream, builder, image) = start().await;
    let daemon = builder.start().await;
    // A manifest is asked for anonymously by HEAD, and fetched by GET.
    upstream.always(by_nobody(&upstream, manifests().head()), limit());
    let name = format!("docker-hub/{PUBLIC}");
    assert_manifest(&get(daemon.manifest_url(&name, "1")).await, &image, false);
    let lists = upstream.requests_of(&tags());
    assert_eq!(
        lists.iter().filter(|asked| asked.status == 200).count(),
        1,
        "{:#?}",
        upstream.summary()
    );
    let layer = get(daemon.blob_url(&name, &image.layer_digest(0))).await;
    assert_eq!(layer.ok(), image.layers()[0].bytes);

    let secret = format!("docker-hub/{SECRET}");
    for url in [
        daemon.manifest_url(&secret, "1"),
        daemon.manifest_url(&secret, &image.digest()),
        daemon.blob_url(&secret, &image.layer_digest(0)),
    ] {
        let answer = get(&url).await;
        assert_error(&answer, 404, "NAME_UNKNOWN");
    }
    assert!(!leaked(&upstream), "{:#?}", upstream.summary());
}

#[tokio::test]
async fn a_limit_on_anonymous_probes_does_not_fail_a_blob() {
    let (upstream, builder, image) = start().await;
    let daemon = builder.start().await;
    // Without its manifest, a blob is asked for anonymously by its first byte.
    upstream.always(by_nobody(&upstream, blobs().ranged()), limit());
    let digest = image.layer_digest(0);
    let layer = get(daemon.blob_url(&format!("docker-hub/{PUBLIC}"), &digest)).await;
    assert_eq!(layer.ok(), image.layers()[0].bytes);
    let secret = get(daemon.blob_url(&format!("docker-hub/{SECRET}"), &digest)).await;
    assert_error(&secret, 404, "NAME_UNKNOWN");
    assert!(!leaked(&upstream), "{:#?}", upstream.summary());
}

#[tokio::test]
async fn when_nothing_tells_nothing_is_given() {
    let (upstream, builder, image) = start().await;
    let daemon = builder.start().await;
    upstream.always(by_nobody(&upstream, manifests().head()), limit());
    // A list that is limited too, that is not there, or that is empty, proves nothing.
    for plan in [limit(), reply(404), reply(200).body(r#"{"name":"x","tags":[]}"#)] {
        upstream.always(tags(), plan.before_auth());
        for repo in [PUBLIC, SECRET] {
            let answer = get(daemon.manifest_url(&format!("docker-hub/{repo}"), "1")).await;
            assert_error(&answer, 429, "TOOMANYREQUESTS");
        }
    }
    assert!(!leaked(&upstream), "{:#?}", upstream.summary());
    upstream.behave();
    let answer = get(daemon.manifest_url(&format!("docker-hub/{PUBLIC}"), "1")).await;
    assert_manifest(&answer, &image, false);
}

#[tokio::test]
async fn a_repository_that_turns_private_keeps_its_copy_for_gone_ttl_and_gives_nothing_new() {
    let (upstream, builder, _) = start().await;
    let mut daemon = builder
        .setting("cache.tag_ttl", "\"0s\"")
        .setting("cache.gone_ttl", "\"1d\"")
        .start()
        .await;
    let old = pulled(&upstream, &daemon, PUBLIC, "2", 2).await;
    upstream.put(PUBLIC, "2", &Image::simple(3, 1000));
    upstream.require_bearer(Bearer::new().user("ci", PASSWORD).private(PUBLIC));
    // Who can read it is asked for anew.
    daemon.restart().await;
    let url = |daemon: &Daemon| daemon.manifest_url(&format!("docker-hub/{PUBLIC}"), "2");
    for _ in 0..2 {
        let answer = get(url(&daemon)).await;
        assert_stale(&answer, None);
        assert_manifest(&answer, &old, false);
    }
    restart_with(&mut daemon, "\"1d\"", "\"0s\"").await;
    for _ in 0..2 {
        assert_eq!(get(url(&daemon)).await.status, 404);
    }
    assert_eq!(upstream.manifest_gets(), 0, "{:#?}", upstream.summary());
}

/// All ways to what is here of an image.
fn ways(daemon: &Daemon, repo: &str, image: &Image) -> [String; 3] {
    let name = format!("docker-hub/{repo}");
    [
        daemon.manifest_url(&name, "1"),
        daemon.manifest_url(&name, &image.digest()),
        daemon.blob_url(&name, &image.layer_digest(0)),
    ]
}

#[tokio::test]
async fn what_is_here_is_no_more_open_than_what_is_not() {
    let (upstream, builder, image) = start().await;
    let mut daemon = builder
        .setting("upstream.docker-hub.share_private", "true")
        .start()
        .await;
    for repo in [PUBLIC, SECRET] {
        for url in ways(&daemon, repo, &image) {
            assert_eq!(get(url).await.status, 200, "{repo}");
        }
    }
    // What was shared is taken back.
    restart_with(&mut daemon, "share_private = true", "share_private = false").await;
    upstream.forget_requests();
    for round in 0..2 {
        for url in ways(&daemon, SECRET, &image) {
            assert_error(&get(&url).await, 404, "NAME_UNKNOWN");
            assert_eq!(head(&url).await.status, 404, "{round}");
        }
        for url in ways(&daemon, PUBLIC, &image) {
            assert_eq!(get(&url).await.status, 200, "{url}");
        }
    }
    let asked = upstream.count_of(&any().in_repo(PUBLIC));
    assert_eq!(asked, 1, "once for all: {:#?}", upstream.summary());

    // That it is public outlives us, and the upstream's failures; that something is here says nothing.
    daemon.restart().await;
    upstream.always(any(), reply(500).before_auth());
    for url in ways(&daemon, PUBLIC, &image) {
        assert_eq!(get(&url).await.status, 200, "{url}");
    }
    for url in ways(&daemon, SECRET, &image) {
        assert_eq!(get(&url).await.status, 502, "{url}");
    }
}

#[tokio::test]
async fn what_turned_private_is_gone_after_gone_ttl_by_digest_too() {
    let (upstream, builder, image) = start().await;
    let mut daemon = builder
        .setting("cache.tag_ttl", "\"0s\"")
        .setting("cache.gone_ttl", "\"1d\"")
        .start()
        .await;
    for url in ways(&daemon, PUBLIC, &image) {
        assert_eq!(get(url).await.status, 200);
    }
    upstream.require_bearer(Bearer::new().user("ci", PASSWORD).private(PUBLIC));
    // Who can read it is asked for anew.
    daemon.restart().await;
    for _ in 0..2 {
        for url in ways(&daemon, PUBLIC, &image) {
            assert_eq!(get(&url).await.status, 200, "{url}");
        }
    }
    restart_with(&mut daemon, "\"1d\"", "\"0s\"").await;
    for url in ways(&daemon, PUBLIC, &image) {
        assert_eq!(get(&url).await.status, 404, "{url}");
    }
    // And public again.
    upstream.require_bearer(Bearer::new().user("ci", PASSWORD));
    for url in ways(&daemon, PUBLIC, &image) {
        assert_eq!(get(&url).await.status, 200, "{url}");
    }
}
