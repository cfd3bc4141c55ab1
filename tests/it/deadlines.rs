//! With a copy at hand no client waits longer than `revalidate_timeout` for the upstream, in whichever phase it is silent,
//! and the question goes on behind the answer. Every gate here is shut until the client has its answer: had it waited
//! for the upstream, it would never have come.

use crate::expect::{assert_hit, assert_manifest, assert_stale, cached, get_all};
use crate::freshness::{APP, pulled, restart_with};
use crate::support::daemon::Builder;
use crate::support::prelude::*;
use crate::upstream_auth::{PASSWORD, login};

/// A daemon for which every tag is due at once, and that waits long for everything but a revalidation.
fn hasty(upstream: &Upstream) -> Builder {
    Daemon::over(upstream)
        .setting("cache.tag_ttl", "\"0s\"")
        .setting("cache.negative_ttl", "\"0s\"")
        .setting("cache.revalidate_timeout", "\"50ms\"")
        .setting("upstream.docker-hub.header_timeout", "\"1h\"")
        .setting("upstream.docker-hub.connect_timeout", "\"1h\"")
        .setting("upstream.docker-hub.idle_timeout", "\"1h\"")
        .setting("server.answer_timeout", "\"1h\"")
}

/// Asks while the gate is shut: the old copy comes. With the gate open the news arrives without anybody asking.
async fn old_copy_now_and_news_later(
    upstream: &Upstream,
    daemon: &Daemon,
    gate: &Gate,
    old: &Image,
    moved: &Image,
) {
    for _ in 0..3 {
        let answer = get(daemon.manifest_url(APP, "1")).await;
        assert_stale(&answer, None);
        assert_manifest(&answer, old, false);
    }
    gate.reached().await;
    assert_eq!(gate.arrivals(), 1, "{:#?}", upstream.summary());
    gate.release();
    let digest = moved.digest();
    upstream
        .wait_for(|upstream| {
            let fetched = upstream.requests_of(&manifests().get());
            fetched.iter().any(|asked| {
                (asked.path().ends_with(&digest) || asked.path().ends_with("/1"))
                    && asked.outcome == Outcome::Complete
            })
        })
        .await;
    // Who comes now, gets it: a moment later perhaps, when it is stored.
    let wait = async { while get(daemon.manifest_url(APP, "1")).await.body != moved.root().bytes {} };
    soon("the news", wait).await;
}

/// An image under a tag that was pulled, and another one that it was moved to since.
async fn moved(upstream: &Upstream, daemon: &Daemon) -> (Image, Image) {
    let old = pulled(upstream, daemon, "library/app", "1", 1).await;
    let moved = Image::simple(2, 100);
    upstream.put("library/app", "1", &moved);
    (old, moved)
}

#[tokio::test]
async fn while_the_registry_is_silent() {
    let phases = [
        ("HEAD", manifests().head(), None),
        ("GET of what it moved to", manifests().get(), None),
        ("GET where HEAD is refused", manifests().get(), Some(reply(405))),
        (
            "GET where HEAD names no digest",
            manifests().get(),
            Some(serve().without("docker-content-digest")),
        ),
        ("HEAD after failures", manifests().head(), None),
    ];
    for (what, silent, heads) in phases {
        let upstream = Upstream::start().await;
        let daemon = hasty(&upstream).start().await;
        let (old, moved) = moved(&upstream, &daemon).await;
        if let Some(plan) = heads {
            upstream.always(manifests().head(), plan);
        }
        if what == "HEAD after failures" {
            upstream.times(2, manifests().head(), reply(503));
        }
        let gate = upstream.hold(silent);
        old_copy_now_and_news_later(&upstream, &daemon, &gate, &old, &moved).await;
    }
}

#[tokio::test]
async fn while_a_manifest_stops_in_its_middle() {
    let upstream = Upstream::start().await;
    let daemon = hasty(&upstream).start().await;
    let (old, moved) = moved(&upstream, &daemon).await;
    let gate = upstream.stall(manifests().get(), 10);
    old_copy_now_and_news_later(&upstream, &daemon, &gate, &old, &moved).await;
}

#[tokio::test]
async fn while_the_token_service_is_silent() {
    let upstream = Upstream::start().await;
    upstream.require_bearer(Bearer::new());
    let daemon = hasty(&upstream).start().await;
    let (old, moved) = moved(&upstream, &daemon).await;
    upstream.revoke_tokens();
    let gate = upstream.hold(tokens());
    old_copy_now_and_news_later(&upstream, &daemon, &gate, &old, &moved).await;
}

#[tokio::test]
async fn while_the_ping_for_a_challenge_is_silent() {
    let upstream = Upstream::start().await;
    let daemon = hasty(&upstream).start().await;
    let (old, moved) = moved(&upstream, &daemon).await;
    upstream.once(manifests(), reply(401));
    let gate = Gate::new();
    upstream.once(ping(), reply(503).hold_head(&gate));
    for _ in 0..3 {
        let answer = get(daemon.manifest_url(APP, "1")).await;
        assert_stale(&answer, None);
        assert_manifest(&answer, &old, false);
    }
    gate.release();
    drop(moved);
}

#[tokio::test]
async fn while_the_anonymous_question_is_not_answered() {
    let upstream = Upstream::start().await;
    upstream.require_bearer(Bearer::new().user("ci", PASSWORD));
    let mut daemon = login(hasty(&upstream), "docker-hub", PASSWORD)
        .setting("upstream.docker-hub.share_private", "false")
        .start()
        .await;
    let (old, moved) = moved(&upstream, &daemon).await;
    // Whether the repository is public is asked for anew, by an anonymous token.
    daemon.restart().await;
    let gate = upstream.hold(tokens().and(|asked| asked.header("authorization").is_empty()));
    old_copy_now_and_news_later(&upstream, &daemon, &gate, &old, &moved).await;
}

#[tokio::test]
async fn while_the_target_of_a_redirect_is_silent() {
    for (what, heads) in [("HEAD", true), ("GET", false)] {
        let (upstream, storage) = (Upstream::start().await, Upstream::start().await);
        let daemon = hasty(&upstream).start().await;
        let (old, moved) = moved(&upstream, &daemon).await;
        storage.put("library/app", "1", &moved);
        let path = if heads { "1".to_owned() } else { moved.digest() };
        let to = format!("{}/v2/library/app/manifests/{path}", storage.url());
        let redirected = if heads {
            manifests().head()
        } else {
            manifests().get()
        };
        upstream.always(redirected, redirect(307, &to));
        let gate = storage.hold(any());
        for _ in 0..3 {
            let answer = get(daemon.manifest_url(APP, "1")).await;
            assert_stale(&answer, None);
            assert_manifest(&answer, &old, false);
        }
        gate.reached().await;
        assert_eq!(gate.arrivals(), 1, "{what}");
        gate.release();
        let wait = async { while get(daemon.manifest_url(APP, "1")).await.body != moved.root().bytes {} };
        soon(what, wait).await;
    }
}

#[tokio::test]
async fn while_a_connection_is_not_made() {
    let upstream = Upstream::start().await;
    let mut daemon = hasty(&upstream).start().await;
    let old = pulled(&upstream, &daemon, "library/app", "1", 1).await;
    // It takes connections, and never says a word: neither for TLS nor without.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let place = silent.local_addr().expect("a bound socket");
    let mut before = upstream.url();
    for url in [format!("https://{place}"), format!("http://{place}")] {
        restart_with(&mut daemon, &before, &url).await;
        for _ in 0..3 {
            let answer = get(daemon.manifest_url(APP, "1")).await;
            assert_stale(&answer, None);
            assert_manifest(&answer, &old, false);
        }
        before = url;
    }
}

#[tokio::test]
async fn while_the_upstream_refuses_every_token() {
    let upstream = Upstream::start().await;
    upstream.require_bearer(Bearer::new());
    let daemon = hasty(&upstream)
        .setting("cache.revalidate_timeout", "\"30s\"")
        .start()
        .await;
    let old = pulled(&upstream, &daemon, "library/app", "1", 1).await;
    let challenge = format!(
        "Bearer realm=\"{}/token\",service=\"registry.test\",scope=\"repository:library/app:pull\"",
        upstream.url()
    );
    upstream.always(
        manifests(),
        reply(401).before_auth().header("www-authenticate", &challenge),
    );
    for _ in 0..3 {
        let answer = get(daemon.manifest_url(APP, "1")).await;
        assert_stale(&answer, Some(401));
        assert_manifest(&answer, &old, false);
    }
    assert!(upstream.requests().len() <= 5, "{:#?}", upstream.summary());
}

#[tokio::test]
async fn a_longer_patience_than_the_clients_own_is_cut_to_it() {
    let upstream = Upstream::start().await;
    let daemon = hasty(&upstream)
        .setting("cache.revalidate_timeout", "\"1h\"")
        .setting("server.answer_timeout", "\"1s\"")
        .start()
        .await;
    let (old, moved) = moved(&upstream, &daemon).await;
    let gate = upstream.hold(manifests().head());
    old_copy_now_and_news_later(&upstream, &daemon, &gate, &old, &moved).await;
}

#[tokio::test]
async fn lists_that_were_heard_do_not_wait_either() {
    let upstream = Upstream::start().await;
    let mut daemon = hasty(&upstream).start().await;
    let image = pulled(&upstream, &daemon, "library/app", "1", 1).await;
    upstream.put_untagged("library/app", &Image::simple(2, 10).referring_to(&image, "a/b"));
    let urls = |daemon: &Daemon| {
        let base = format!("{}/v2/{APP}", daemon.url());
        [
            format!("{base}/tags/list"),
            format!("{base}/referrers/{}", image.digest()),
        ]
    };
    let mut first = Vec::new();
    for url in urls(&daemon) {
        first.push(get(url).await.ok());
    }
    for ((url, first), silent) in urls(&daemon).into_iter().zip(&first).zip([tags(), referrers()]) {
        let gate = upstream.hold(silent);
        for _ in 0..3 {
            let answer = get(&url).await;
            assert_stale(&answer, None);
            assert_eq!(answer.body, *first);
        }
        // Those behind the first did not ask again.
        assert_eq!(gate.arrivals(), 1);
        gate.release();
        let wait = async { while cached(&get(&url).await) != "wharfinger; fwd=miss" {} };
        soon("a list from the upstream", wait).await;
    }
    // After a restart, referrers are known from the disk.
    daemon.restart().await;
    let [_, url] = urls(&daemon);
    let gate = upstream.hold(referrers());
    for _ in 0..2 {
        let answer = get(&url).await;
        assert_stale(&answer, None);
        assert_eq!(answer.body, first[1]);
    }
    gate.release();
}

#[tokio::test]
async fn a_lesser_list_is_told_before_none() {
    let upstream = Upstream::start().await;
    let daemon = hasty(&upstream)
        .setting("server.answer_timeout", "\"2s\"")
        .start()
        .await;
    let image = pulled(&upstream, &daemon, "library/app", "1", 1).await;
    upstream.put("library/app", "2", &Image::simple(2, 10));
    let gate = Gate::new();
    upstream.always(any(), serve().hold_head(&gate));
    let base = format!("{}/v2/{APP}", daemon.url());
    for _ in 0..2 {
        // The tags that were pulled; and of an image that is here, that nothing is known to refer to it.
        let urls = [
            format!("{base}/tags/list"),
            format!("{base}/referrers/{}", image.digest()),
        ];
        let answers = get_all(urls).await;
        for answer in &answers {
            assert_stale(answer, None);
        }
        assert_eq!(answers[0].json()["tags"], serde_json::json!(["1"]));
        assert_eq!(answers[1].json()["manifests"], serde_json::json!([]));
    }
    assert_eq!(gate.arrivals(), 2);
    gate.release();
    // Neither was taken for the truth.
    let wait = async {
        loop {
            let listed = get(format!("{base}/tags/list")).await;
            if listed.json()["tags"] == serde_json::json!(["1", "2"]) {
                return;
            }
        }
    };
    soon("the whole list", wait).await;
    assert_hit(&get(daemon.manifest_url(APP, &image.digest())).await);
}
