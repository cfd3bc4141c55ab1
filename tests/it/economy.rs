//! Pulls where there is more than one way to them: several logins of a Docker Hub, a mirror, a free question, and work that
//! nobody waits for beside a client.

use serde_json::json;

use crate::admin::run;
use crate::expect::{assert_manifest, get_all};
use crate::governor::{Hub, assert_refused, let_pass, pull, status, url};
use crate::support::prelude::*;

/// A Hub that two users may log in to, and a daemon that has both logins.
async fn two_logins(hub: &Hub, settings: &[(&str, &str)]) -> Daemon {
    hub.upstream
        .require_bearer(Bearer::new().user("one", "secret").user("two", "secret"));
    let credential = |name: &str| format!("{{ username = \"{name}\", password = \"secret\" }}");
    let credentials = format!("[{}, {}]", credential("one"), credential("two"));
    let mut all = vec![("credential", credentials.as_str()), ("share_private", "true")];
    all.retain(|(key, _)| !settings.iter().any(|(other, _)| key == other));
    all.extend(settings);
    hub.daemon_with(&all).await
}

#[tokio::test]
async fn a_free_question_that_is_refused_is_asked_with_the_next_login() {
    let hub = Hub::start(90).await;
    hub.pulls(|pulls| {
        pulls.heads_too = true;
        pulls.empty.insert("one");
    });
    let daemon = two_logins(&hub, &[]).await;
    for number in 0..3 {
        let repo = format!("library/app{number}");
        let image = hub.put(&repo, "1", number);
        pull(&daemon, &repo, &image).await;
        // A copy that is due learns that it moved.
        let moved = hub.put(&repo, "1", 10 + number);
        pull(&daemon, &repo, &moved).await;
    }
    assert_eq!(hub.counted(), 6);
    // Once for what counts, and once for what does not.
    assert_eq!(hub.refused(), 2, "{:#?}", hub.upstream.summary());
}

#[tokio::test]
async fn what_any_login_has_again_is_found_out() {
    let hub = Hub::start(90).await;
    hub.pulls(|pulls| pulls.empty.extend(["one", "two"]));
    let image = hub.put("library/app", "1", 1);
    let mut daemon = two_logins(&hub, &[]).await;
    assert_refused(&get(url(&daemon, "library/app", "1")).await);
    assert_eq!(hub.refused(), 2);
    let_pass(&mut daemon, 300).await;
    hub.pulls(|pulls| pulls.empty.remove("two"));
    pull(&daemon, "library/app", &image).await;
    assert_eq!((hub.counted(), hub.refused()), (1, 2));
}

#[tokio::test]
async fn that_one_login_has_no_limit_says_nothing_about_the_other() {
    let hub = Hub::start(90).await;
    hub.pulls(|pulls| {
        pulls.unlimited.insert("one");
        pulls.empty.insert("two");
    });
    let daemon = two_logins(&hub, &[("credential_order", "\"even\"")]).await;
    for number in 0..8 {
        let image = hub.put("library/app", "1", number);
        pull(&daemon, "library/app", &image).await;
    }
    assert_eq!(hub.refused(), 1, "{:#?}", hub.upstream.summary());
}

#[tokio::test]
async fn where_free_questions_are_refused_they_are_asked_now_and_then() {
    let hub = Hub::start(20).await;
    let mut images = Vec::new();
    let mut daemon = hub.daemon_with(&[]).await;
    for number in 0..10 {
        let repo = format!("library/app{number}");
        images.push(hub.put(&repo, "1", number));
        pull(&daemon, &repo, &images[number as usize]).await;
    }
    hub.pulls(|pulls| (pulls.left, pulls.heads_too) = (0, true));
    for _ in 0..2 {
        for (number, image) in images.iter().enumerate() {
            let copy = get(url(&daemon, &format!("library/app{number}"), "1")).await;
            assert_eq!((copy.status, &copy.body), (200, &image.root().bytes));
        }
        hub.put("library/other", "1", 99);
        assert_refused(&get(url(&daemon, "library/other", "1")).await);
    }
    assert_eq!(hub.refused(), 1, "{:#?}", hub.upstream.summary());
    // Minutes later one asks, and it is as before.
    let_pass(&mut daemon, 300).await;
    let urls = (0..10).map(|number| url(&daemon, &format!("library/app{number}"), "1"));
    assert!(get_all(urls).await.iter().all(|copy| copy.status == 200));
    assert_eq!(hub.refused(), 2, "{:#?}", hub.upstream.summary());
    // And when it is back, all goes on.
    let_pass(&mut daemon, 300).await;
    hub.pulls(|pulls| pulls.left = 90);
    let moved = hub.put("library/app3", "1", 50);
    pull(&daemon, "library/app3", &moved).await;
    assert_eq!(status(&daemon).await["remaining"], json!(89));
}

#[tokio::test]
async fn when_nothing_is_left_a_mirror_gives_what_a_free_question_names() {
    let hub = Hub::start(1).await;
    let mirror = Upstream::start().await;
    let mirrors = format!("[{:?}]", mirror.url());
    let daemon = hub.daemon_with(&[("mirrors", &mirrors)]).await;
    let first = hub.put("library/app", "1", 1);
    pull(&daemon, "library/app", &first).await;
    let other = hub.put("library/other", "1", 2);
    mirror.put("library/other", "1", &other);
    pull(&daemon, "library/other", &other).await;
    assert_eq!((hub.counted(), hub.refused(), mirror.manifest_gets()), (1, 0, 1));
    // What it does not have is not asked for by each client anew.
    hub.put("library/third", "1", 3);
    hub.upstream.forget_requests();
    for _ in 0..3 {
        assert_refused(&get(url(&daemon, "library/third", "1")).await);
    }
    assert_eq!((hub.upstream.manifest_heads(), hub.refused()), (1, 0));
}

#[tokio::test]
async fn a_client_who_joins_what_is_held_back_from_the_background_gets_it() {
    let hub = Hub::start(31).await;
    let old = hub.put("library/app", "1", 1);
    let daemon = hub.daemon_with(&[("stale_if_error", "\"0s\"")]).await;
    pull(&daemon, "library/app", &old).await;
    // 30 of 100 are too few for what nobody waits for.
    let moved = hub.put("library/app", "1", 2);
    let gate = Gate::new();
    let head = serve()
        .header("ratelimit-limit", "100;w=21600")
        .header("ratelimit-remaining", "30;w=21600")
        .hold_head(&gate);
    hub.upstream.once(manifests().head(), head);
    let background = run(&daemon, &["pull", "docker-hub/library/app:1"]);
    let client = async {
        gate.reached().await;
        let client = tokio::spawn(get(url(&daemon, "library/app", "1")));
        // By then it waits too; and if not, it asks for itself.
        for _ in 0..3 {
            status(&daemon).await;
        }
        gate.release();
        assert_manifest(
            &soon("the client", client).await.expect("no panic"),
            &moved,
            false,
        );
    };
    tokio::join!(background, client);
    assert_eq!((hub.counted(), hub.refused()), (2, 0));
}

#[tokio::test]
async fn a_cold_tag_whose_head_met_a_bare_429_is_not_asked_for_by_get() {
    let hub = Hub::start(100).await;
    let app = hub.put("library/app", "1", 1);
    let daemon = hub.daemon_with(&[]).await;
    pull(&daemon, "library/app", &app).await;
    hub.put("library/other", "1", 2);
    hub.upstream.forget_requests();
    let bare = reply(429).header("retry-after", "60").body("Too Many Requests\n");
    hub.upstream.always(any(), bare);
    for _ in 0..3 {
        assert_refused(&get(url(&daemon, "library/other", "1")).await);
    }
    let seen = (hub.upstream.manifest_heads(), hub.upstream.manifest_gets());
    assert_eq!(seen, (1, 0), "{:#?}", hub.upstream.summary());
}

#[tokio::test]
async fn who_may_see_what_is_learnt_while_anonymous_questions_are_refused() {
    let hub = Hub::start(90).await;
    hub.pulls(|pulls| {
        pulls.heads_too = true;
        pulls.empty.insert("");
    });
    let daemon = two_logins(&hub, &[("share_private", "false")]).await;
    for number in 0..4 {
        let repo = format!("library/app{number}");
        let image = hub.put(&repo, "1", number);
        pull(&daemon, &repo, &image).await;
    }
    assert_eq!(
        (hub.counted(), hub.refused()),
        (4, 1),
        "{:#?}",
        hub.upstream.summary()
    );
}

#[tokio::test]
async fn the_reserve_is_kept_across_logins_and_restarts() {
    let hub = Hub::start(9).await;
    let settings = [("reserve", "[\"library/alpine\"]"), ("reserve_share", "\"10%\"")];
    let mut daemon = two_logins(&hub, &settings).await;
    // Both logins learn that less than a tenth is left.
    let first = hub.put("library/app0", "1", 1);
    pull(&daemon, "library/app0", &first).await;
    let second = hub.put("library/app1", "1", 2);
    pull(&daemon, "library/app1", &second).await;
    hub.put("library/app2", "1", 3);
    for _ in 0..2 {
        assert_refused(&get(url(&daemon, "library/app2", "1")).await);
        daemon.restart().await;
    }
    let kept = hub.put("library/alpine", "1", 4);
    pull(&daemon, "library/alpine", &kept).await;
    assert_eq!((hub.counted(), hub.refused()), (3, 0));
    // Its copy is as good as any other's.
    hub.put("library/alpine", "1", 5);
    let copy = get(url(&daemon, "library/alpine", "1")).await;
    assert_manifest(&copy, &kept, false);
}

#[tokio::test]
async fn what_is_left_is_known_after_a_kill() {
    let hub = Hub::start(1).await;
    let image = hub.put("library/app", "1", 1);
    let mut daemon = hub.daemon_with(&[]).await;
    pull(&daemon, "library/app", &image).await;
    let path = daemon.data_dir().join("notes/budgets.json");
    // It is written every few seconds.
    let written = async {
        while !path.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    soon("the note", written).await;
    daemon.kill().await;
    daemon.run_again().await;
    hub.upstream.forget_requests();
    assert_eq!(status(&daemon).await["remaining"], json!(0));
    hub.put("library/other", "1", 2);
    assert_refused(&get(url(&daemon, "library/other", "1")).await);
    assert_eq!((hub.upstream.manifest_gets(), hub.refused()), (0, 0));
}
