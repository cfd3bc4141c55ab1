//! What is not there is asked for once in a while, and what may pass is never taken for "not there".

use crate::expect::{assert_error, assert_manifest, cached};
use crate::freshness::APP;
use crate::support::prelude::*;
use crate::upstream_auth::{PASSWORD, login};

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

/// Asks for everything that a repository can be asked for; gives the statuses.
async fn ask_all(daemon: &Daemon, name: &str, digest: &str) -> Vec<u16> {
    let base = format!("{}/v2/{name}", daemon.url());
    let mut statuses = Vec::new();
    for rest in [
        "manifests/1".to_owned(),
        "manifests/sha256-abc.sig".to_owned(),
        format!("manifests/{digest}"),
        format!("blobs/{digest}"),
        "tags/list".to_owned(),
        "tags/list?n=3".to_owned(),
        format!("referrers/{digest}"),
    ] {
        let url = format!("{base}/{rest}");
        statuses.push(get(&url).await.status);
        statuses.push(head(&url).await.status);
    }
    statuses
}

#[tokio::test]
async fn a_repository_that_does_not_exist_is_asked_for_once() {
    let upstream = Upstream::start().await;
    upstream.put("library/app", "1", &Image::simple(1, 10));
    let missing = sha256(b"missing");
    // By 404; and by 401 to a token that was made for it, as Docker Hub says it.
    for (name, hides) in [
        ("docker-hub/library/none", false),
        ("docker-hub/library/hidden", true),
    ] {
        if hides {
            upstream.require_bearer(Bearer::new());
        }
        let daemon = Daemon::over(&upstream)
            .setting("cache.negative_ttl", "\"1h\"")
            .start()
            .await;
        upstream.forget_requests();
        let first = ask_all(&daemon, name, &missing).await;
        let asked = upstream.requests().len();
        let again = ask_all(&daemon, name, &missing).await;
        assert_eq!(first, again);
        assert!(first[..12].iter().all(|status| *status == 404), "{first:?}");
        // Nobody needs to hear an error for "nothing refers to it".
        assert_eq!(first[12..], [200, 200]);
        assert_eq!(upstream.requests().len(), asked, "{:#?}", upstream.summary());
        for matcher in [
            manifest("1"),
            manifest("sha256-abc.sig"),
            manifest(&missing),
            tags(),
        ] {
            // With tokens: the first question of all is answered by a challenge.
            let most = 1 + usize::from(hides);
            assert!(upstream.count_of(&matcher) <= most, "{:#?}", upstream.summary());
        }
    }
}

#[tokio::test]
async fn refusals_limits_and_failures_are_asked_for_again_each_time() {
    let upstream = Upstream::start().await;
    let missing = sha256(b"missing");
    let daemon = Daemon::over(&upstream)
        .setting("cache.negative_ttl", "\"1h\"")
        .start()
        .await;
    let plain = |status| (any(), reply(status).header("retry-after", "60"));
    let token = |status| (tokens(), reply(status).header("retry-after", "60"));
    let plans = [
        plain(401),
        plain(403),
        plain(451),
        plain(500),
        plain(503),
        token(401),
        token(403),
        token(500),
    ];
    for (number, (matcher, plan)) in plans.into_iter().enumerate() {
        if number == 5 {
            upstream.require_bearer(Bearer::new());
        }
        let repo = format!("library/app{number}");
        let image = Image::simple(number as u64, 100);
        let name = format!("docker-hub/{repo}");
        upstream.always(matcher, plan);
        ask_all(&daemon, &name, &missing).await;
        upstream.behave();
        upstream.put(&repo, "1", &image);
        upstream.put(&repo, "sha256-abc.sig", &image);
        let referrer = Image::simple(100 + number as u64, 10).referring_to(&image, "a/b");
        upstream.put_untagged(&repo, &referrer);
        for reference in ["1", "sha256-abc.sig", &image.digest()] {
            assert_manifest(&get(daemon.manifest_url(&name, reference)).await, &image, false);
        }
        let listed = get(format!("{}/v2/{name}/tags/list", daemon.url())).await;
        assert_eq!(
            listed.json()["tags"],
            serde_json::json!(["1", "sha256-abc.sig"]),
            "{number}"
        );
    }
}

#[tokio::test]
async fn a_refusal_is_no_empty_list_of_referrers() {
    let upstream = Upstream::start().await;
    let image = Image::simple(1, 100);
    upstream.put("library/app", "1", &image);
    upstream.put_untagged("library/app", &Image::simple(2, 10).referring_to(&image, "a/b"));
    let daemon = Daemon::over(&upstream)
        .setting("cache.negative_ttl", "\"1h\"")
        .start()
        .await;
    assert_eq!(get(daemon.manifest_url(APP, "1")).await.status, 200);
    let url = format!("{}/v2/{APP}/referrers/{}", daemon.url(), image.digest());
    for status in [401, 403] {
        upstream.always(any(), reply(status));
        // Clients fail on errors here, so they hear of none; but it is not believed.
        assert_eq!(get(&url).await.json()["manifests"], serde_json::json!([]));
        upstream.behave();
    }
    assert_eq!(
        get(&url).await.json()["manifests"].as_array().map(Vec::len),
        Some(1)
    );
    upstream.forget_requests();
    assert_eq!(get(&url).await.status, 200);
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test]
async fn what_appears_is_seen_as_soon_as_the_moment_is_over() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream)
        .setting("cache.negative_ttl", "\"0s\"")
        .start()
        .await;
    let missing = sha256(b"missing");
    let name = "docker-hub/library/new";
    assert_eq!(ask_all(&daemon, name, &missing).await[..12], [404; 12]);
    let image = Image::simple(1, 10);
    upstream.put("library/new", "1", &image);
    assert_manifest(&get(daemon.manifest_url(name, "1")).await, &image, false);
    let listed = get(format!("{}/v2/{name}/tags/list", daemon.url())).await;
    assert_eq!(listed.json()["tags"], serde_json::json!(["1"]));
}

#[tokio::test]
async fn a_private_repository_costs_one_question_too() {
    let upstream = Upstream::start().await;
    upstream.put("acme/secret", "1", &Image::simple(1, 10));
    upstream.require_bearer(Bearer::new().user("ci", PASSWORD).private("acme/secret"));
    let daemon = login(Daemon::over(&upstream), "docker-hub", PASSWORD)
        .setting("upstream.docker-hub.share_private", "false")
        .setting("cache.negative_ttl", "\"1h\"")
        .start()
        .await;
    let url = daemon.manifest_url("docker-hub/acme/secret", "1");
    assert_error(&get(&url).await, 404, "NAME_UNKNOWN");
    let asked = upstream.requests().len();
    for _ in 0..3 {
        assert_error(&get(&url).await, 404, "NAME_UNKNOWN");
    }
    assert_eq!(upstream.requests().len(), asked, "{:#?}", upstream.summary());
}
