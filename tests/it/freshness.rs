//! How long a tag is believed, what a question about it costs, and what is served while the upstream fails. A `tag_ttl`
//! of zero stands for "it is due", so that nothing here waits for time to pass.

use crate::expect::{assert_error, assert_hit, assert_manifest, assert_stale, cached, get_all};
use crate::support::prelude::*;

const APP: &str = "docker-hub/library/app";

/// A daemon for which every tag is due at once.
async fn always_due() -> (Upstream, Daemon) {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream)
        .setting("cache.tag_ttl", "\"0s\"")
        .start()
        .await;
    (upstream, daemon)
}

/// Puts an image under a tag, and pulls it through once.
async fn pulled(upstream: &Upstream, daemon: &Daemon, repo: &str, tag: &str, seed: u64) -> Image {
    let image = Image::simple(seed, 100);
    upstream.put(repo, tag, &image);
    let answer = get(daemon.manifest_url(&format!("docker-hub/{repo}"), tag)).await;
    assert_manifest(&answer, &image, false);
    upstream.forget_requests();
    image
}

/// Ends the daemon, writes other settings into its configuration, and starts it on the same data.
async fn restart_with(daemon: &mut Daemon, from: &str, to: &str) {
    let text = std::fs::read_to_string(daemon.config_path()).expect("a configuration");
    assert!(text.contains(from), "{from} is not in {text}");
    assert!(daemon.stop().await.success());
    std::fs::write(daemon.config_path(), text.replace(from, to)).expect("a writable folder");
    daemon.restart().await;
}

#[tokio::test]
async fn a_fresh_tag_costs_nothing_also_after_a_restart() {
    let upstream = Upstream::start().await;
    let mut daemon = Daemon::over(&upstream).start().await;
    let image = pulled(&upstream, &daemon, "library/app", "1", 1).await;
    upstream.put("library/app", "1", &Image::simple(2, 100));
    for _ in 0..3 {
        let answer = get(daemon.manifest_url(APP, "1")).await;
        assert_hit(&answer);
        assert_manifest(&answer, &image, false);
    }
    daemon.restart().await;
    let answer = get(daemon.manifest_url(APP, "1")).await;
    assert_hit(&answer);
    assert_manifest(&answer, &image, false);
    assert_eq!(upstream.requests().len(), 0, "{:#?}", upstream.summary());
}

#[tokio::test]
async fn a_due_tag_that_did_not_move_costs_one_head() {
    let (upstream, daemon) = always_due().await;
    let image = pulled(&upstream, &daemon, "library/app", "1", 1).await;
    for asked in 1..=3 {
        let answer = get(daemon.manifest_url(APP, "1")).await;
        assert_manifest(&answer, &image, false);
        assert_eq!(cached(&answer), "wharfinger; hit; fwd=stale");
        assert_eq!(
            (upstream.manifest_heads(), upstream.requests().len()),
            (asked, asked)
        );
    }
    // A digest is never due.
    assert_hit(&get(daemon.manifest_url(APP, &image.digest())).await);
    assert_eq!(upstream.requests().len(), 3);
}

#[tokio::test]
async fn a_thousand_requests_for_a_due_tag_are_one_head() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream)
        .setting("cache.tag_ttl", "\"0s\"")
        .setting("cache.revalidate_timeout", "\"200ms\"")
        .start()
        .await;
    let image = pulled(&upstream, &daemon, "library/app", "1", 1).await;
    let url = daemon.manifest_url(APP, "1");
    // All of them come while the one HEAD waits for its answer; those who waited long enough get the old copy.
    let gate = upstream.hold(manifests().head());
    for _ in 0..4 {
        for answer in get_all(vec![url.clone(); 250]).await {
            assert_stale(&answer, None);
            assert_manifest(&answer, &image, false);
        }
    }
    assert_eq!(gate.arrivals(), 1);
    assert_eq!(upstream.requests().len(), 1, "{:#?}", upstream.summary());
    gate.release();
}

#[tokio::test]
async fn those_who_wait_for_one_head_all_get_its_answer() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream)
        .setting("cache.tag_ttl", "\"0s\"")
        .setting("cache.revalidate_timeout", "\"30s\"")
        .start()
        .await;
    pulled(&upstream, &daemon, "library/app", "1", 1).await;
    let moved = Image::simple(2, 100);
    upstream.put("library/app", "1", &moved);
    let gate = upstream.hold(manifests().head());
    let herd = tokio::spawn(get_all(vec![daemon.manifest_url(APP, "1"); 50]));
    gate.reached().await;
    gate.release();
    let mut collapsed = 0;
    for answer in herd.await.expect("no panic") {
        assert_manifest(&answer, &moved, false);
        collapsed += usize::from(cached(&answer).contains("collapsed"));
    }
    // Whoever came too late for the first asked for himself.
    assert_eq!(
        upstream.manifest_heads() + collapsed,
        50,
        "{:#?}",
        upstream.summary()
    );
    assert_eq!(upstream.manifest_gets(), 1);
}

#[tokio::test]
async fn a_tag_that_moved_costs_one_get_by_digest() {
    let (upstream, daemon) = always_due().await;
    pulled(&upstream, &daemon, "library/app", "1", 1).await;
    let moved = Image::simple(2, 100);
    upstream.put("library/app", "1", &moved);
    for _ in 0..3 {
        assert_manifest(&get(daemon.manifest_url(APP, "1")).await, &moved, false);
    }
    assert_eq!(upstream.count_of(&manifest(&moved.digest()).get()), 1);
    assert_eq!((upstream.manifest_gets(), upstream.manifest_heads()), (1, 3));
}

#[tokio::test]
async fn a_tag_that_moved_to_known_content_costs_no_get() {
    let (upstream, daemon) = always_due().await;
    pulled(&upstream, &daemon, "library/app", "1", 1).await;
    let second = pulled(&upstream, &daemon, "library/app", "2", 2).await;
    upstream.tag("library/app", "1", &second.digest());
    let answer = head(daemon.manifest_url(APP, "1")).await;
    assert_manifest(&answer, &second, true);
    assert_eq!((upstream.manifest_gets(), upstream.manifest_heads()), (0, 1));
}

#[tokio::test]
async fn an_upstream_whose_heads_say_nothing_is_asked_by_get() {
    let (upstream, daemon) = always_due().await;
    let plans = [
        ("no digest", serve().without("docker-content-digest")),
        ("no head", reply(405)),
        ("not implemented", reply(501)),
    ];
    for (number, (what, plan)) in plans.into_iter().enumerate() {
        let seed = number as u64 * 2;
        let repo = format!("library/app{number}");
        pulled(&upstream, &daemon, &repo, "1", seed).await;
        let moved = Image::simple(seed + 1, 100);
        upstream.put(&repo, "1", &moved);
        upstream.always(manifests().in_repo(&repo).head(), plan);
        let answer = get(daemon.manifest_url(&format!("docker-hub/{repo}"), "1")).await;
        assert_manifest(&answer, &moved, false);
        assert_eq!(upstream.manifest_gets(), 1, "{what}");
        // And when GET says that it is gone, it is.
        if what != "no digest" {
            upstream.untag(&repo, "1");
            let gone = get(daemon.manifest_url(&format!("docker-hub/{repo}"), "1")).await;
            assert_stale(&gone, Some(404));
            assert_manifest(&gone, &moved, false);
        }
        upstream.forget_requests();
    }
}

#[tokio::test]
async fn a_failing_upstream_leaves_the_old_copy() {
    let (upstream, daemon) = always_due().await;
    // Retry-After, so that the daemon does not try again by itself.
    let wait = |status| reply(status).header("retry-after", "60");
    let plans = [
        ("limit", wait(429), Some(429)),
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
async fn a_token_service_that_refuses_says_nothing_about_the_tag() {
    let (upstream, daemon) = always_due().await;
    upstream.require_bearer(Bearer::new());
    for (number, status) in [401, 403, 429, 503].into_iter().enumerate() {
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
async fn a_slow_upstream_is_waited_for_only_so_long_and_its_answer_is_not_lost() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream)
        .setting("cache.tag_ttl", "\"0s\"")
        .setting("cache.revalidate_timeout", "\"50ms\"")
        .start()
        .await;
    let old = pulled(&upstream, &daemon, "library/app", "1", 1).await;
    let moved = Image::simple(2, 100);
    upstream.put("library/app", "1", &moved);
    let gate = upstream.hold(manifests().head());
    let answer = get(daemon.manifest_url(APP, "1")).await;
    assert_stale(&answer, None);
    assert_manifest(&answer, &old, false);
    // Nobody asks any more, and still the news is fetched.
    gate.release();
    let digest = moved.digest();
    upstream
        .wait_for(|upstream| {
            let fetched = upstream.requests_of(&manifest(&digest).get());
            fetched.iter().any(|asked| asked.outcome == Outcome::Complete)
        })
        .await;
    assert_eq!((upstream.manifest_heads(), upstream.manifest_gets()), (1, 1));
}

#[tokio::test]
async fn a_tag_that_is_gone_is_served_for_a_while_and_its_digest_for_ever() {
    let upstream = Upstream::start().await;
    let mut daemon = Daemon::over(&upstream)
        .setting("cache.tag_ttl", "\"0s\"")
        .setting("cache.gone_ttl", "\"1d\"")
        .start()
        .await;
    let image = pulled(&upstream, &daemon, "library/app", "1", 1).await;
    upstream.untag("library/app", "1");
    let answer = get(daemon.manifest_url(APP, "1")).await;
    assert_stale(&answer, Some(404));
    assert_manifest(&answer, &image, false);
    daemon.restart().await;
    assert_stale(&get(daemon.manifest_url(APP, "1")).await, Some(404));

    // The day is over.
    restart_with(&mut daemon, "\"1d\"", "\"0s\"").await;
    for _ in 0..2 {
        let answer = get(daemon.manifest_url(APP, "1")).await;
        assert_error(&answer, 404, "MANIFEST_UNKNOWN");
    }
    assert_hit(&get(daemon.manifest_url(APP, &image.digest())).await);
    assert_eq!(
        get(daemon.blob_url(APP, &image.layer_digest(0))).await.ok(),
        image.layers()[0].bytes
    );
}

#[tokio::test]
async fn a_tag_that_comes_back_is_as_good_as_new() {
    let upstream = Upstream::start().await;
    let mut daemon = Daemon::over(&upstream)
        .setting("cache.tag_ttl", "\"0s\"")
        .start()
        .await;
    pulled(&upstream, &daemon, "library/app", "1", 1).await;
    upstream.untag("library/app", "1");
    assert_stale(&get(daemon.manifest_url(APP, "1")).await, Some(404));
    let back = Image::simple(2, 100);
    upstream.put("library/app", "1", &back);
    // Only so that the failure of a moment ago is forgotten.
    restart_with(&mut daemon, "tag_ttl = \"0s\"", "tag_ttl = \"1h\"").await;
    assert_manifest(&get(daemon.manifest_url(APP, "1")).await, &back, false);
    upstream.untag("library/app", "1");
    assert_hit(&get(daemon.manifest_url(APP, "1")).await);
}

#[tokio::test]
async fn not_found_is_remembered_for_a_moment() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream)
        .setting("cache.negative_ttl", "\"1h\"")
        .start()
        .await;
    upstream.put("library/app", "1", &Image::simple(1, 10));
    let missing = sha256(b"missing");
    for reference in ["2", &missing] {
        for asked in 0..4 {
            let url = daemon.manifest_url(APP, reference);
            let answer = if asked % 2 == 0 {
                get(url).await
            } else {
                head(url).await
            };
            assert_eq!(answer.status, 404);
            assert_eq!(cached(&answer).contains("detail=negative"), asked > 0);
        }
        assert_eq!(
            upstream.count_of(&manifest(reference)),
            1,
            "{:#?}",
            upstream.summary()
        );
    }
    for _ in 0..3 {
        assert_error(&get(daemon.blob_url(APP, &missing)).await, 404, "BLOB_UNKNOWN");
    }
    assert_eq!(upstream.count_of(&blob(&missing)), 1);
}

#[tokio::test]
async fn not_found_is_not_remembered_when_it_must_not_be() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream)
        .setting("cache.negative_ttl", "\"0s\"")
        .start()
        .await;
    let url = daemon.manifest_url(APP, "1");
    assert_eq!(get(&url).await.status, 404);
    let image = Image::simple(1, 10);
    upstream.put("library/app", "1", &image);
    assert_manifest(&get(&url).await, &image, false);
}

#[tokio::test]
async fn what_may_pass_is_never_remembered() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream)
        .setting("cache.negative_ttl", "\"1h\"")
        .start()
        .await;
    let wait = |status| reply(status).header("retry-after", "60");
    let plans = [
        (wait(429), 429),
        (wait(500), 502),
        (wait(503), 502),
        (reply(401), 404),
        (reply(403), 404),
    ];
    for (number, (plan, status)) in plans.into_iter().enumerate() {
        let repo = format!("library/app{number}");
        let image = Image::simple(number as u64, 100);
        upstream.put(&repo, "1", &image);
        let (layer, name) = (image.layer_digest(0), format!("docker-hub/{repo}"));
        upstream.always(Match::when(|_| true), plan);
        assert_eq!(get(daemon.manifest_url(&name, "1")).await.status, status);
        assert_eq!(get(daemon.blob_url(&name, &layer)).await.status, status);
        upstream.behave();
        assert_manifest(&get(daemon.manifest_url(&name, "1")).await, &image, false);
        assert_eq!(get(daemon.blob_url(&name, &layer)).await.status, 200);
    }
    // Nor is the refusal of a token service.
    upstream.require_bearer(Bearer::new());
    upstream.put("library/late", "1", &Image::simple(50, 10));
    upstream.always(tokens(), reply(401));
    let url = daemon.manifest_url("docker-hub/library/late", "1");
    assert_eq!(get(&url).await.status, 404);
    upstream.behave();
    assert_eq!(get(&url).await.status, 200);
}
