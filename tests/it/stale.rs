//! What is served while the upstream fails: the copy that is here, for every way of failing, and none when it is too old.

use crate::admin::run;
use crate::expect::{assert_error, assert_hit, assert_manifest, assert_stale};
use crate::freshness::{APP, always_due, pulled, restart_with};
use crate::support::prelude::*;

#[tokio::test]
async fn a_failing_upstream_leaves_the_old_copy() {
    let (upstream, daemon) = always_due().await;
    // Retry-After, so that the daemon does not try again by itself.
    let wait = |status| reply(status).header("retry-after", "60");
    let plans = [
        ("limit without a time", reply(429), Some(429)),
        ("internal error", wait(500), Some(500)),
        ("bad gateway", wait(502), Some(502)),
        ("unavailable", wait(503), Some(503)),
        ("time-out", wait(504), Some(504)),
        ("a strange status", reply(418), Some(418)),
        ("a web page", html(), None),
        (
            "a way to nowhere",
            redirect(307, "http://127.0.0.1:1/nowhere"),
            None,
        ),
    ];
    for (number, (what, plan, status)) in plans.into_iter().enumerate() {
        let repo = format!("library/app{number}");
        let image = pulled(&upstream, &daemon, &repo, "1", number as u64).await;
        upstream.always(manifests().in_repo(&repo), plan);
        let url = daemon.manifest_url(&format!("docker-hub/{repo}"), "1");
        let answer = get(&url).await;
        assert_manifest(&answer, &image, false);
        assert_stale(&answer, status);
        // The next ones do not wait for the same failure.
        let before = upstream.requests().len();
        assert_stale(&head(&url).await, status);
        assert_stale(&get(&url).await, status);
        assert_eq!(upstream.requests().len(), before, "{what}");
    }
    let image = pulled(&upstream, &daemon, "library/down", "1", 99).await;
    upstream.refuse().await;
    let answer = get(daemon.manifest_url("docker-hub/library/down", "1")).await;
    assert_manifest(&answer, &image, false);
    assert_stale(&answer, None);
    // What it names is here as well, or honestly not.
    assert_hit(&get(daemon.manifest_url("docker-hub/library/down", &image.digest())).await);
}

#[tokio::test]
async fn what_was_asked_in_vain_is_forgotten_when_the_upstream_answers_about_the_tag() {
    let (upstream, daemon) = always_due().await;
    let first = pulled(&upstream, &daemon, "library/app", "1", 1).await;
    let url = daemon.manifest_url(APP, "1");
    upstream.always(manifests(), reply(500).header("retry-after", "60"));
    assert_stale(&get(&url).await, Some(500));
    // Its manifest goes, the tag with it; and comes again.
    run(&daemon, &["purge", &format!("{APP}@{}", first.digest())])
        .await
        .text();
    upstream.behave();
    assert_manifest(&get(&url).await, &first, false);
    let moved = Image::simple(2, 100);
    upstream.put("library/app", "1", &moved);
    assert_manifest(&get(&url).await, &moved, false);
}

#[tokio::test]
async fn a_token_service_that_refuses_says_nothing_about_the_tag() {
    let (upstream, daemon) = always_due().await;
    upstream.require_bearer(Bearer::new());
    for (number, status) in [401, 403, 503, 429].into_iter().enumerate() {
        let repo = format!("library/app{number}");
        let image = pulled(&upstream, &daemon, &repo, "1", number as u64).await;
        upstream.revoke_tokens();
        upstream.always(tokens(), reply(status).header("retry-after", "60"));
        let answer = get(daemon.manifest_url(&format!("docker-hub/{repo}"), "1")).await;
        assert_stale(&answer, Some(status));
        assert_manifest(&answer, &image, false);
        upstream.behave();
    }
}

#[tokio::test]
async fn a_tag_that_moved_to_what_the_upstream_does_not_have_stays_where_it_was() {
    let (upstream, daemon) = always_due().await;
    let image = pulled(&upstream, &daemon, "library/app", "1", 1).await;
    // HEAD knows the new digest, GET does not: caches in front of registries do this.
    let moved = Image::simple(2, 100);
    upstream.put("library/app", "1", &moved);
    upstream.always(manifest(&moved.digest()), reply(404));
    let answer = get(daemon.manifest_url(APP, "1")).await;
    assert_stale(&answer, Some(404));
    assert_manifest(&answer, &image, false);
}

#[tokio::test]
async fn a_tag_that_is_too_old_is_not_served_when_the_upstream_fails() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream)
        .setting("cache.tag_ttl", "\"0s\"")
        .setting("upstream.docker-hub.stale_if_error", "\"0s\"")
        .start()
        .await;
    let image = pulled(&upstream, &daemon, "library/app", "1", 1).await;
    upstream.always(manifests(), reply(503).header("retry-after", "60"));
    let answer = get(daemon.manifest_url(APP, "1")).await;
    assert_error(&answer, 502, "UNAVAILABLE");
    assert_hit(&get(daemon.manifest_url(APP, &image.digest())).await);
    upstream.behave();
    assert_manifest(&get(daemon.manifest_url(APP, "1")).await, &image, false);
}

#[tokio::test]
async fn every_status_that_says_nothing_about_the_tag_leaves_the_old_copy() {
    let (upstream, daemon) = always_due().await;
    let statuses = [
        400, 402, 408, 409, 418, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511, 520, 521, 522, 523,
        524, 525, 526, 527, 530, 598, 599, 429,
    ];
    for status in statuses {
        let repo = format!("library/app{status}");
        let image = pulled(&upstream, &daemon, &repo, "1", status.into()).await;
        // Retry-After, so that the daemon does not try again by itself.
        upstream.always(manifests(), reply(status).header("retry-after", "60"));
        let url = daemon.manifest_url(&format!("docker-hub/{repo}"), "1");
        for answer in [get(&url).await, get(&url).await] {
            assert_stale(&answer, Some(status));
            assert_manifest(&answer, &image, false);
        }
        upstream.behave();
    }
}

#[tokio::test]
async fn an_upstream_that_cannot_be_reached_leaves_the_old_copy() {
    let upstream = Upstream::start().await;
    let mut daemon = Daemon::over(&upstream)
        .setting("cache.tag_ttl", "\"0s\"")
        .setting("cache.revalidate_timeout", "\"20s\"")
        .setting("upstream.docker-hub.connect_timeout", "\"300ms\"")
        .start()
        .await;
    let image = pulled(&upstream, &daemon, "library/app", "1", 1).await;
    let port = upstream.port();
    let places = [
        ("no name of any host", format!("http://nowhere.invalid:{port}")),
        ("refused", "http://127.0.0.1:1".to_owned()),
        ("no TLS there", format!("https://127.0.0.1:{port}")),
    ];
    let mut before = upstream.url();
    for (what, place) in places {
        restart_with(&mut daemon, &before, &place).await;
        for _ in 0..2 {
            let answer = get(daemon.manifest_url(APP, "1")).await;
            assert_stale(&answer, None);
            assert_manifest(&answer, &image, false);
        }
        assert_eq!(upstream.requests().len(), 0, "{what}");
        before = place;
    }
}

#[tokio::test]
async fn an_upstream_that_is_silent_leaves_the_old_copy() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream)
        .setting("cache.tag_ttl", "\"0s\"")
        .setting("cache.revalidate_timeout", "\"20s\"")
        .setting("upstream.docker-hub.header_timeout", "\"30ms\"")
        .start()
        .await;
    let image = pulled(&upstream, &daemon, "library/app", "1", 1).await;
    let gate = Gate::new();
    upstream.always(manifests(), serve().hold_head(&gate));
    let answer = get(daemon.manifest_url(APP, "1")).await;
    assert_stale(&answer, None);
    assert_manifest(&answer, &image, false);
    // It was given up by the daemon's own time-out, after its retries.
    assert_eq!(gate.arrivals(), 3);
    assert_stale(&get(daemon.manifest_url(APP, "1")).await, None);
    assert_eq!(gate.arrivals(), 3);
    gate.release();
}

#[tokio::test]
async fn a_limit_is_respected_for_as_long_as_the_upstream_says_and_then_it_is_asked_again() {
    let (upstream, daemon) = always_due().await;
    let image = pulled(&upstream, &daemon, "library/app", "1", 1).await;
    upstream.once(manifests(), reply(429).header("retry-after", "60"));
    for _ in 0..3 {
        assert_stale(&get(daemon.manifest_url(APP, "1")).await, Some(429));
    }
    assert_eq!(upstream.requests().len(), 1, "{:#?}", upstream.summary());
    // Another tag is another question, and not asked either: it is not about pulls, so it is about everything.
    upstream.put("library/app", "2", &Image::simple(2, 100));
    assert_error(&get(daemon.manifest_url(APP, "2")).await, 429, "TOOMANYREQUESTS");
    assert_eq!(upstream.requests().len(), 1, "{:#?}", upstream.summary());
    assert_hit(&get(daemon.manifest_url(APP, &image.digest())).await);
}

#[tokio::test]
async fn a_tag_that_was_gone_for_too_long_needs_the_upstreams_word() {
    let upstream = Upstream::start().await;
    let mut daemon = Daemon::over(&upstream)
        .setting("cache.tag_ttl", "\"0s\"")
        .setting("cache.gone_ttl", "\"1d\"")
        .start()
        .await;
    let image = pulled(&upstream, &daemon, "library/app", "1", 1).await;
    upstream.untag("library/app", "1");
    assert_stale(&get(daemon.manifest_url(APP, "1")).await, Some(404));
    restart_with(&mut daemon, "\"1d\"", "\"0s\"").await;
    // A failure neither brings it back nor takes it away for good.
    upstream.always(manifests(), reply(503).header("retry-after", "60"));
    for _ in 0..2 {
        assert_error(&get(daemon.manifest_url(APP, "1")).await, 502, "UNAVAILABLE");
    }
    upstream.behave();
    upstream.tag("library/app", "1", &image.digest());
    let answer = get(daemon.manifest_url(APP, "1")).await;
    assert_manifest(&answer, &image, false);
    assert_eq!(upstream.manifest_gets(), 0, "its content was here all the time");
}
