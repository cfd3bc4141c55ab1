//! How long a tag is believed, and what a question about it costs. A `tag_ttl` of zero stands for "it is due", so that
//! nothing here waits for time to pass.

use crate::expect::{assert_error, assert_hit, assert_manifest, assert_stale, cached, get_all};
use crate::support::prelude::*;

pub const APP: &str = "docker-hub/library/app";

/// A daemon for which every tag is due at once.
pub async fn always_due() -> (Upstream, Daemon) {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream)
        .setting("cache.tag_ttl", "\"0s\"")
        .start()
        .await;
    (upstream, daemon)
}

/// Puts an image under a tag, and pulls it through once.
pub async fn pulled(upstream: &Upstream, daemon: &Daemon, repo: &str, tag: &str, seed: u64) -> Image {
    let image = Image::simple(seed, 100);
    upstream.put(repo, tag, &image);
    let answer = get(daemon.manifest_url(&format!("docker-hub/{repo}"), tag)).await;
    assert_manifest(&answer, &image, false);
    upstream.forget_requests();
    image
}

/// Ends the daemon, writes other settings into its configuration, and starts it on the same data.
pub async fn restart_with(daemon: &mut Daemon, from: &str, to: &str) {
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
