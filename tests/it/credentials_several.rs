//! Several logins at one upstream of which each opens something else: a login that may not read a repository leaves it to
//! the next one, and is none the worse for it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::credentials::with_credentials;
use crate::expect::{assert_error, assert_manifest, get_all};
use crate::support::prelude::*;
use crate::upstream_auth::{PASSWORD, pull};

/// A registry that takes passwords itself, for two teams: what is not theirs it refuses with this status.
async fn of_two_teams(status: u16) -> Upstream {
    let upstream = Upstream::start().await;
    upstream.habit_at_the_door(any(), move |asked| {
        let is = |user: &str| {
            let pair = STANDARD.encode(format!("{user}:{PASSWORD}"));
            asked.header("authorization") == format!("Basic {pair}")
        };
        let refuse = |status| {
            let challenge = "Basic realm=\"corp\"";
            Some(reply(status).header("www-authenticate", challenge))
        };
        let theirs = |team: &str| asked.path == "/v2/" || asked.path.starts_with(&format!("/v2/{team}/"));
        match (is("red"), is("blue")) {
            (false, false) => refuse(401),
            (true, _) if theirs("red") => None,
            (_, true) if theirs("blue") => None,
            _ if status == 401 => refuse(401),
            _ => Some(reply(status)),
        }
    });
    upstream
}

fn login(user: &str) -> String {
    format!("{{ username = {user:?}, password = {PASSWORD:?} }}")
}

fn aside(metrics: &str, credential: &str) -> bool {
    let series = format!("wharfinger_upstream_credential_set_aside{{credential=\"{credential}\"");
    let line = metrics.lines().find(|line| line.starts_with(&series));
    line.expect("a metric for each credential").ends_with(" 1")
}

#[tokio::test]
async fn what_one_login_may_not_read_is_read_with_the_next() {
    for status in [401, 403, 404] {
        let upstream = of_two_teams(status).await;
        let (red, blue) = (Image::simple(1, 3000), Image::simple(2, 3000));
        upstream.put("red/app", "1", &red);
        upstream.put("blue/app", "1", &blue);
        let daemon = with_credentials(&upstream, &[&login("red"), &login("blue")])
            .start()
            .await;
        pull(&daemon, "docker-hub/blue/app", &blue).await;
        pull(&daemon, "docker-hub/red/app", &red).await;
        let metrics = daemon.metrics().await;
        for name in ["red", "blue"] {
            assert!(!aside(&metrics, name), "{status}: {name} is as good as before");
        }
        // What it was read with is remembered: the other one is not asked for more of it.
        let newer = Image::simple(3, 3000);
        upstream.put("blue/app", "2", &newer);
        let before = upstream.requests().len();
        assert_manifest(
            &get(daemon.manifest_url("docker-hub/blue/app", "2")).await,
            &newer,
            false,
        );
        let asked = upstream.requests().split_off(before);
        assert!(
            asked.iter().all(|asked| asked.status == 200),
            "{status}: {:#?}",
            upstream.summary()
        );
        // And what neither may read is not there.
        let other = get(daemon.manifest_url("docker-hub/green/app", "1")).await;
        assert_eq!(other.status, 404, "{status}");
        let absent = get(daemon.manifest_url("docker-hub/blue/app", "9")).await;
        assert_error(&absent, 404, "MANIFEST_UNKNOWN");
    }
}

#[tokio::test]
async fn a_crowd_that_one_login_does_not_serve_is_served_by_the_next() {
    let upstream = Upstream::start().await;
    upstream.require_bearer(Bearer::new().user("red", PASSWORD).user("blue", PASSWORD));
    let accounts = upstream.clone();
    upstream.habit(manifests(), move |asked| {
        let is_red = accounts.account_of(asked).as_deref() == Some("red");
        is_red.then(|| reply(403))
    });
    // More than there are turns at a host: nobody waits for one with one in his hand.
    let images: Vec<_> = (0..150_u64)
        .map(|seed| {
            let (repo, image) = (format!("blue/app{seed}"), Image::simple(seed, 100));
            upstream.put(&repo, "1", &image);
            (repo, image)
        })
        .collect();
    let daemon = with_credentials(&upstream, &[&login("red"), &login("blue")])
        .start()
        .await;
    let urls = images
        .iter()
        .map(|(repo, _)| daemon.manifest_url(&format!("docker-hub/{repo}"), "1"));
    let answers = get_all(urls).await;
    for (answer, (_, image)) in answers.iter().zip(&images) {
        assert_manifest(answer, image, false);
    }
}

#[tokio::test]
async fn a_password_that_opens_nothing_is_set_aside() {
    let upstream = of_two_teams(401).await;
    let image = Image::simple(1, 3000);
    upstream.put("red/app", "1", &image);
    let wrong = "{ username = \"blue\", password = \"hunter2\" }";
    let daemon = with_credentials(&upstream, &[wrong, &login("red")]).start().await;
    pull(&daemon, "docker-hub/red/app", &image).await;
    let metrics = daemon.metrics().await;
    assert!(aside(&metrics, "blue") && !aside(&metrics, "red"));
}
