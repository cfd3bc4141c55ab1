//! Rules for single tags: each span that a rule gives holds for the tags that it is about, and for no others.

use crate::expect::{assert_error, assert_hit, assert_manifest, assert_stale, cached};
use crate::support::prelude::*;

/// An upstream with the same image under these tags of `library/app` and `team/app`, pulled once by a daemon with these
/// settings.
async fn pulled(tags: &[&str], settings: &[(&str, &str)]) -> (Upstream, Daemon, Image) {
    let upstream = Upstream::start().await;
    let image = Image::simple(1, 100);
    let builder = settings
        .iter()
        .fold(Daemon::over(&upstream), |builder, (key, value)| {
            builder.setting(key, value)
        });
    let daemon = builder.start().await;
    for repo in ["library/app", "team/app"] {
        for tag in tags {
            upstream.put(repo, tag, &image);
            let answer = get(url(&daemon, repo, tag)).await;
            assert_manifest(&answer, &image, false);
        }
    }
    upstream.forget_requests();
    (upstream, daemon, image)
}

fn url(daemon: &Daemon, repo: &str, tag: &str) -> String {
    daemon.manifest_url(&format!("docker-hub/{repo}"), tag)
}

/// Asks for the tag once more: whether the upstream was asked as well.
async fn is_due(upstream: &Upstream, daemon: &Daemon, repo: &str, tag: &str) -> bool {
    let before = upstream.manifest_heads();
    let answer = get(url(daemon, repo, tag)).await;
    let asked = upstream.manifest_heads() > before;
    let expected = if asked {
        "wharfinger; hit; fwd=stale"
    } else {
        "wharfinger; hit"
    };
    assert_eq!(cached(&answer), expected, "{repo}:{tag}");
    asked
}

#[tokio::test]
async fn the_first_rule_that_is_about_a_tag_holds() {
    let rules = r#"[
        { pattern = "v1.*", tag_ttl = "1h" },
        { pattern = "v*", repository = "docker-hub/team/*", tag_ttl = "1h" },
        { pattern = "v*", tag_ttl = "0s" },
        { pattern = "latest", tag_ttl = "0s" },
    ]"#;
    let own = r#"[{ pattern = "latest", repository = "team/*", tag_ttl = "1h" }]"#;
    let settings = [("cache.tag_rule", rules), ("upstream.docker-hub.tag_rule", own)];
    let (upstream, daemon, _) = pulled(&["v1.0", "v2", "latest", "edge"], &settings).await;
    let table = [
        ("library/app", "v1.0", false),
        ("library/app", "v2", true),
        ("library/app", "latest", true),
        ("library/app", "edge", false),
        ("team/app", "v1.0", false),
        ("team/app", "v2", false),
        // The upstream's own rule comes first.
        ("team/app", "latest", false),
        ("team/app", "edge", false),
    ];
    for (repo, tag, due) in table {
        assert_eq!(is_due(&upstream, &daemon, repo, tag).await, due, "{repo}:{tag}");
    }
}

#[tokio::test]
async fn a_rule_says_how_long_a_tag_outlives_its_upstreams_failure() {
    let settings = [
        ("cache.tag_ttl", "\"0s\""),
        (
            "cache.tag_rule",
            r#"[{ pattern = "latest", stale_if_error = "0s" }]"#,
        ),
    ];
    let (upstream, daemon, image) = pulled(&["latest", "v1"], &settings).await;
    upstream.always(manifests(), reply(503).header("retry-after", "60"));
    assert_error(
        &get(url(&daemon, "library/app", "latest")).await,
        502,
        "UNAVAILABLE",
    );
    assert_stale(&get(url(&daemon, "library/app", "v1")).await, Some(503));
    assert_hit(&get(url(&daemon, "library/app", &image.digest())).await);
}

#[tokio::test]
async fn a_rule_says_how_long_a_tag_outlives_its_deletion() {
    let settings = [
        ("cache.tag_ttl", "\"0s\""),
        ("cache.tag_rule", r#"[{ pattern = "pr-*", gone_ttl = "0s" }]"#),
    ];
    let (upstream, daemon, image) = pulled(&["pr-7", "v1"], &settings).await;
    upstream.untag("library/app", "pr-7");
    upstream.untag("library/app", "v1");
    assert_error(
        &get(url(&daemon, "library/app", "pr-7")).await,
        404,
        "MANIFEST_UNKNOWN",
    );
    assert_stale(&get(url(&daemon, "library/app", "v1")).await, Some(404));
    assert_hit(&get(url(&daemon, "library/app", &image.digest())).await);
}

#[tokio::test]
async fn a_rule_says_how_long_not_found_is_believed() {
    let settings = [
        ("cache.negative_ttl", "\"0s\""),
        (
            "cache.tag_rule",
            r#"[{ pattern = "sha256-*.sig", negative_ttl = "1h" }]"#,
        ),
    ];
    let (upstream, daemon, _) = pulled(&["v1"], &settings).await;
    for tag in ["sha256-abc.sig", "v2"] {
        for _ in 0..3 {
            assert_eq!(get(url(&daemon, "library/app", tag)).await.status, 404);
        }
    }
    assert_eq!(upstream.count_of(&manifest("sha256-abc.sig")), 1);
    assert_eq!(upstream.count_of(&manifest("v2")), 3);
}

#[tokio::test]
async fn a_rule_says_how_long_a_client_waits_for_the_check() {
    let settings = [
        ("cache.tag_ttl", "\"0s\""),
        ("cache.revalidate_timeout", "\"30s\""),
        (
            "cache.tag_rule",
            r#"[{ pattern = "latest", revalidate_timeout = "50ms" }]"#,
        ),
    ];
    let (upstream, daemon, image) = pulled(&["latest", "v1"], &settings).await;
    let gate = Gate::new();
    upstream.always(manifests(), serve().hold_head(&gate));
    let answer = get(url(&daemon, "library/app", "latest")).await;
    assert_stale(&answer, None);
    assert_manifest(&answer, &image, false);
    let patient = tokio::spawn(get(url(&daemon, "library/app", "v1")));
    gate.reached_by(2).await;
    gate.release();
    let answer = patient.await.expect("no panic");
    assert_eq!(cached(&answer), "wharfinger; hit; fwd=stale");
}

#[tokio::test]
async fn explain_names_the_rule() {
    let rules =
        r#"[{ pattern = "v*", tag_ttl = "1h" }, { pattern = "pr-*", tag_ttl = "0s", gone_ttl = "0s" }]"#;
    let (upstream, daemon, _) = pulled(&["v1", "pr-7", "edge"], &[("cache.tag_rule", rules)]).await;
    let explain = async |tag: &str| {
        let url = format!("{}/api/explain?ref=docker-hub/library/app:{tag}", daemon.url());
        get(url).await.json()
    };
    for (tag, rule, ttl, expected) in [
        ("v1", serde_json::json!("v*"), 3600, "hit"),
        ("pr-7", serde_json::json!("pr-*"), 0, "stale"),
        ("edge", serde_json::Value::Null, 300, "hit"),
    ] {
        let told = explain(tag).await;
        assert_eq!(
            (&told["tag"]["rule"], &told["tag"]["ttl_seconds"]),
            (&rule, &ttl.into()),
            "{told}"
        );
        assert_eq!(told["expected"], expected, "{told}");
    }
    // Forgotten, it is a tag like any that is not there.
    upstream.untag("library/app", "pr-7");
    assert_eq!(get(url(&daemon, "library/app", "pr-7")).await.status, 404);
    assert_eq!(explain("pr-7").await["expected"], "negative");
}
