//! Private content of an upstream that is asked itself who may read it (`caller_check`): who brings a login that may, by
//! token, by Basic or at the mirror door, is given it; nobody else is, whatever is here already.

use crate::expect::{assert_error, assert_manifest};
use crate::login::{Login, basic, bearer, hosting, token_of};
use crate::support::daemon::Builder;
use crate::support::prelude::*;
use crate::support::upstream::Asked;
use crate::upstream_auth::{PASSWORD, login};

const PUBLIC: &str = "acme/public";
const SECRET: &str = "acme/secret";
const OTHER: &str = "acme/other";

/// Alice may read the secret, bob another one, and our own login all.
fn door() -> Bearer {
    Bearer::new()
        .user("ci", PASSWORD)
        .user_of("alice", "wonderland", &[SECRET])
        .user_of("bob", "builder", &[OTHER])
        .private(SECRET)
        .private(OTHER)
}

fn checking(builder: Builder) -> Builder {
    login(builder, "docker-hub", PASSWORD)
        .setting("upstream.docker-hub.share_private", "false")
        .setting("upstream.docker-hub.caller_check", "true")
}

async fn start() -> (Upstream, Builder, Image) {
    let upstream = Upstream::start().await;
    let image = Image::simple(1, 1000);
    for repo in [PUBLIC, SECRET, OTHER] {
        upstream.put(repo, "1", &image);
    }
    upstream.require_bearer(door());
    let builder = checking(Daemon::over(&upstream));
    (upstream, builder, image)
}

/// Requests in the name of somebody.
fn of(upstream: &Upstream, who: &str) -> Match {
    let (door, who) = (upstream.clone(), who.to_owned());
    any().and(move |asked| door.account_of(asked).as_deref() == Some(&who))
}

/// All ways to what is in a repository.
fn ways(daemon: &Daemon, repo: &str, image: &Image) -> Vec<String> {
    let name = format!("docker-hub/{repo}");
    vec![
        daemon.manifest_url(&name, "1"),
        daemon.manifest_url(&name, &image.digest()),
        daemon.blob_url(&name, &image.layer_digest(0)),
        format!("{}/v2/{name}/tags/list", daemon.url()),
        format!("{}/v2/{name}/referrers/{}", daemon.url(), image.digest()),
    ]
}

/// A login is needed, or another one: the challenge.
fn challenge(answer: &Answer) -> String {
    assert_eq!(answer.status, 401, "{}", answer.text());
    assert_eq!(answer.json()["errors"][0]["code"], "UNAUTHORIZED");
    answer.header("www-authenticate").to_owned()
}

/// A token of ours for a login there.
async fn token(daemon: &Daemon, who: &str, password: &str, repo: &str) -> String {
    let query = format!("service=wharfinger&scope=repository:docker-hub/{repo}:pull");
    let answer = daemon
        .token(&query, &basic(&format!("docker-hub/{who}"), password))
        .await;
    bearer(&token_of(&answer))
}

#[tokio::test]
async fn private_content_is_for_those_whom_its_upstream_lets_read_it() {
    let (upstream, builder, image) = start().await;
    let quay = Upstream::start().await;
    quay.put("acme/app", "1", &image);
    let daemon = builder.upstream("quay", &quay).start().await;
    // Clients learn at the door that there is something to log in for.
    let ping = get(format!("{}/v2/", daemon.url())).await;
    assert_eq!(ping.status, 401);
    // What is public needs no login.
    assert_manifest(&get(&ways(&daemon, PUBLIC, &image)[0]).await, &image, false);
    let closed = async |what: &str| {
        for url in ways(&daemon, SECRET, &image) {
            let challenge = challenge(&get(&url).await);
            assert!(
                challenge.contains("scope=\"repository:docker-hub/acme/secret:pull\""),
                "{what}: {url}: {challenge}"
            );
            assert_eq!(head(&url).await.status, 401, "{what}: {url}");
        }
    };
    closed("cold").await;

    let alice = token(&daemon, "alice", "wonderland", SECRET).await;
    upstream.forget_requests();
    for round in ["cold", "warm"] {
        for url in ways(&daemon, SECRET, &image) {
            let answer = get_with(&url, &[("authorization", &alice)]).await;
            assert_eq!(answer.status, 200, "{round}: {url}: {}", answer.text());
        }
    }
    // She was asked about once for each right; all that was fetched was fetched by our own login.
    let hers = upstream.requests_of(&of(&upstream, "alice"));
    assert_eq!(hers.len(), 2, "{hers:#?}");
    assert_eq!(hers[0].method(), Method::HEAD);
    assert!(hers[1].path().contains("/tags/list"), "{hers:#?}");
    // Each time with a token of its own: one that she got before would say what she might then.
    let shown: Vec<_> = hers.iter().map(|asked| asked.header("authorization")).collect();
    assert_ne!(shown[0], shown[1]);
    // It is here now, and as closed as before.
    closed("warm").await;

    // Bob has a good login, which may not read this: as if it were not there.
    let bob = token(&daemon, "bob", "builder", SECRET).await;
    for url in ways(&daemon, SECRET, &image) {
        let answer = get_with(&url, &[("authorization", &bob)]).await;
        assert_error(&answer, 404, "NAME_UNKNOWN");
    }
    // What everyone may he may, too: clients have one login for all that is here.
    let query = "service=wharfinger&scope=repository:quay/acme/app:pull";
    let elsewhere = daemon.token(query, &basic("docker-hub/bob", "builder")).await;
    let elsewhere = bearer(&token_of(&elsewhere));
    let url = daemon.manifest_url("quay/acme/app", "1");
    assert_manifest(
        &get_with(url, &[("authorization", &elsewhere)]).await,
        &image,
        false,
    );
    // And a token for one repository is none for another.
    let other = get_with(&ways(&daemon, OTHER, &image)[0], &[("authorization", &bob)]).await;
    assert_eq!(other.status, 401);
    let bob = token(&daemon, "bob", "builder", OTHER).await;
    let other = get_with(&ways(&daemon, OTHER, &image)[0], &[("authorization", &bob)]).await;
    assert_manifest(&other, &image, false);
}

#[tokio::test]
async fn a_login_there_is_tried_where_tokens_are_made() {
    let (upstream, builder, image) = start().await;
    let daemon = builder.start().await;
    let query = "account=x&client_id=docker&offline_token=true&service=wharfinger";
    // As `docker login` does.
    let answer = daemon
        .token(query, &basic("docker-hub/alice", "wonderland"))
        .await;
    let token = bearer(&token_of(&answer));
    assert_eq!(daemon.ask("GET", "/v2/", &token).await.status, 200);
    assert!(answer.json()["refresh_token"].is_null());
    assert!(answer.json()["expires_in"].as_u64().expect("a number") <= 300);
    for wrong in ["docker-hub/alice", "docker-hub/nobody", "quay/alice", "alice"] {
        let refused = daemon.token(query, &basic(wrong, "guess")).await;
        assert_eq!(refused.status, 401, "{wrong}");
    }
    // Without a token: Basic alone.
    let (right, wrong) = (
        basic("docker-hub/alice", "wonderland"),
        basic("docker-hub/alice", "guess"),
    );
    assert_eq!(daemon.ask("GET", "/v2/", &right).await.status, 200);
    assert_eq!(daemon.ask("GET", "/v2/", &wrong).await.status, 401);
    let url = &ways(&daemon, SECRET, &image)[0];
    assert_manifest(&get_with(url, &[("authorization", &right)]).await, &image, false);
    challenge(&get_with(url, &[("authorization", &wrong)]).await);
    // Who shows something is not taken for nobody, here as with logins of ours.
    let public = &ways(&daemon, PUBLIC, &image)[0];
    challenge(&get_with(public, &[("authorization", &wrong)]).await);
    assert_manifest(
        &get_with(public, &[("authorization", &right)]).await,
        &image,
        false,
    );

    // Who guesses waits, and the upstream hears of it no more. Our own login is not set aside for that.
    for guess in 0..10 {
        daemon
            .token(query, &basic("docker-hub/alice", &format!("guess {guess}")))
            .await;
    }
    upstream.forget_requests();
    let slowed = daemon.token(query, &basic("docker-hub/alice", "another")).await;
    assert_eq!(slowed.status, 429);
    assert_eq!(upstream.count_of(&any()), 0, "{:#?}", upstream.summary());
    assert_eq!(daemon.ask("GET", "/v2/", &token).await.status, 200);
    let fresh = daemon.manifest_url("docker-hub/acme/public", &image.digest());
    assert_manifest(&get(fresh).await, &image, false);
}

#[tokio::test]
async fn an_upstream_that_cannot_tell_lets_nobody_in() {
    let (upstream, builder, image) = start().await;
    let daemon = builder.start().await;
    let alice = token(&daemon, "alice", "wonderland", SECRET).await;
    let bob = token(&daemon, "bob", "builder", SECRET).await;
    let ways = ways(&daemon, SECRET, &image);
    let ask = async |url: &String, who: &String| get_with(url, &[("authorization", who)]).await.status;
    upstream.always(any(), reply(500).before_auth());
    for url in &ways[..3] {
        assert_eq!(ask(url, &alice).await, 502, "{url}");
    }
    // What failed was not remembered, neither way.
    upstream.behave();
    upstream.require_bearer(door());
    assert_eq!(ask(&ways[0], &bob).await, 404);
    for url in &ways[..3] {
        assert_eq!(ask(url, &alice).await, 200, "{url}");
    }
    // For minutes a yes is a yes, and nobody else has one.
    upstream.always(any(), reply(500).before_auth());
    for url in &ways[..3] {
        assert_eq!(ask(url, &alice).await, 200, "{url}");
    }
    challenge(&get(&ways[1]).await);
}

#[tokio::test]
async fn the_mirror_door_takes_the_login_that_runtimes_have_for_the_upstream() {
    let (_upstream, builder, image) = start().await;
    let daemon = builder.start().await;
    let base = format!("{}/mirror/v2/", daemon.url());
    assert_eq!(get(&base).await.status, 200);
    let url = |repo: &str, reference: &str| format!("{base}{repo}/manifests/{reference}?ns=docker.io");
    assert_manifest(&get(url(PUBLIC, "1")).await, &image, false);
    // Asked for where it is needed, and nowhere else: the login itself, which no token service of ours could be given.
    let closed = challenge(&get(url(SECRET, "1")).await);
    assert_eq!(closed, "Basic realm=\"docker-hub\"");
    for (name, password, status) in [
        ("alice", "wonderland", 200),
        ("alice", "guess", 401),
        ("bob", "builder", 404),
    ] {
        let shown = basic(name, password);
        for reference in ["1", &image.digest()] {
            let answer = get_with(url(SECRET, reference), &[("authorization", &shown)]).await;
            assert_eq!(answer.status, status, "{name} {password} {reference}");
        }
        // What is public is everybody's, whatever runtimes send there.
        let public = get_with(url(PUBLIC, "1"), &[("authorization", &shown)]).await;
        assert_manifest(&public, &image, false);
    }
    let blob = format!("{base}{SECRET}/blobs/{}?ns=docker.io", image.layer_digest(0));
    assert_eq!(get(&blob).await.status, 401);
    let shown = basic("alice", "wonderland");
    let blob = get_with(&blob, &[("authorization", &shown)]).await;
    assert_eq!(blob.ok(), image.layers()[0].bytes);
}

#[tokio::test]
async fn a_login_there_opens_nothing_of_ours() {
    let upstream = Upstream::start().await;
    let image = Image::simple(1, 1000);
    upstream.put(SECRET, "1", &image);
    upstream.require_bearer(door());
    let builder = hosting().upstream("docker-hub", &upstream);
    let daemon = checking(builder)
        .setting("auth.anonymous", "[]")
        .setting("auth.readers", r#"["*"]"#)
        .setting("auth.writers", r#"["*"]"#)
        .start()
        .await;
    let shown = basic("docker-hub/alice", "wonderland");
    // Everyone with a login of ours; that of an upstream has to be named.
    let url = format!("/v2/docker-hub/{SECRET}/manifests/1");
    assert_eq!(daemon.ask("GET", &url, &shown).await.status, 403);
    assert_eq!(daemon.push("team/app", &shown).await, 401);
    assert_eq!(
        daemon.ask("GET", "/v2/team/app/tags/list", &shown).await.status,
        401
    );

    let builder = Daemon::over(&upstream).setting("hosted.template", r#"[{ pattern = "*" }]"#);
    let daemon = checking(builder)
        .setting("auth.anonymous", "[]")
        .setting("auth.readers", r#"["upstream/docker-hub/*"]"#)
        .setting("auth.writers", r#"["upstream/docker-hub/*"]"#)
        .setting("auth.admins", r#"["admin"]"#)
        .setting("upstream.docker-hub.overlay", "true")
        .start()
        .await;
    assert_eq!(daemon.ask("GET", &url, &shown).await.status, 200);
    assert_eq!(daemon.ask("GET", &url, "").await.status, 401);
    // It reads there, and that is all: not what is ours, though it be called like what is theirs.
    assert_eq!(daemon.push("team/app", &shown).await, 401);
    daemon.user("admin", "correct horse").await;
    let admin = basic("admin", "correct horse");
    assert_eq!(daemon.push("docker-hub/acme/ours", &admin).await, 202);
    let ours = "/v2/docker-hub/acme/ours/tags/list";
    assert_eq!(daemon.ask("GET", ours, &admin).await.status, 200);
    assert_eq!(daemon.ask("GET", ours, &shown).await.status, 401);
    assert_eq!(daemon.ask("GET", "/v2/_catalog", &shown).await.status, 401);
    assert_eq!(daemon.ask("GET", "/api/status", &shown).await.status, 401);
    let query = "service=wharfinger&scope=repository:docker-hub/acme/ours:pull";
    let token = bearer(&token_of(&daemon.token(query, &shown).await));
    assert_eq!(daemon.ask("GET", ours, &token).await.status, 401);
    // A name alone is nobody.
    let made_up = basic("docker-hub/octocat", "anything");
    assert_eq!(daemon.ask("GET", &url, &made_up).await.status, 401);
}

#[tokio::test]
async fn nobody_is_asked_for_a_login_that_others_could_read() {
    let (_upstream, builder, image) = start().await;
    let daemon = builder
        .setting("server.trusted_proxies", r#"["127.0.0.1"]"#)
        .start()
        .await;
    let forwarded = |scheme: &'static str| {
        [
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", scheme),
            ("x-forwarded-host", "cache.example"),
        ]
    };
    let (clear, safe) = (forwarded("http"), forwarded("https"));
    let ping = format!("{}/v2/", daemon.url());
    assert_eq!(get_with(&ping, &clear).await.status, 200);
    let asked = challenge(&get_with(&ping, &safe).await);
    assert!(
        asked.starts_with("Bearer realm=\"https://cache.example/token\""),
        "{asked}"
    );
    let secret = &ways(&daemon, SECRET, &image)[0];
    let told = get_with(secret, &clear).await;
    assert_error(&told, 403, "DENIED");
    assert!(told.text().contains("plain HTTP"), "{}", told.text());
    challenge(&get_with(secret, &safe).await);
    // Nor is one taken.
    let shown = basic("docker-hub/alice", "wonderland");
    let with = |headers: [(&'static str, &'static str); 3]| {
        let [a, b, c] = headers;
        [a, b, c, ("authorization", shown.as_str())]
    };
    assert_error(&get_with(secret, &with(clear)).await, 403, "DENIED");
    assert_eq!(get_with(secret, &with(safe)).await.status, 200);
    // At the mirror door whoever may not has another place to ask.
    let mirror = format!("{}/mirror/v2/{SECRET}/manifests/1?ns=docker.io", daemon.url());
    let told = get_with(&mirror, &clear).await;
    assert_error(&told, 401, "UNAUTHORIZED");

    let (_upstream, builder, _) = start().await;
    let (status, log) = builder.setting("server.listen", "\"0.0.0.0:0\"").fail().await;
    assert!(!status.success());
    let told = log.join("\n");
    assert!(
        told.contains("caller_check") && told.contains("plain HTTP"),
        "{told}"
    );
}

#[tokio::test]
async fn while_the_upstream_is_away_what_was_public_is_given_from_here_and_nothing_is_fetched() {
    let (upstream, builder, image) = start().await;
    let mut daemon = builder.start().await;
    let alice = token(&daemon, "alice", "wonderland", PUBLIC).await;
    let all = ways(&daemon, PUBLIC, &image);
    for url in &all[..3] {
        assert_eq!(get(url).await.status, 200);
    }
    // Whoever asks, with a login or without.
    for restarted in [false, true] {
        if restarted {
            daemon.restart().await;
        }
        upstream.always(any(), reply(500).before_auth());
        for url in &ways(&daemon, PUBLIC, &image)[..3] {
            assert_eq!(get(url).await.status, 200, "{url}");
            if !restarted {
                let hers = get_with(url, &[("authorization", &alice)]).await;
                assert_eq!(hers.status, 200, "{url}");
            }
            let basic = basic("docker-hub/alice", "wonderland");
            let hers = get_with(url, &[("authorization", &basic)]).await;
            assert_eq!(hers.status, 200, "{url}");
        }
        assert_eq!(get(&ways(&daemon, SECRET, &image)[0]).await.status, 502);
        upstream.behave();
        upstream.require_bearer(door());
    }

    // It turned private, and nobody can be told so: what is not here stays where it is.
    let other = Image::simple(2, 1000);
    upstream.put(PUBLIC, "2", &other);
    upstream.require_bearer(door().private(PUBLIC));
    daemon.restart().await;
    let nobodys = upstream.clone();
    let by_nobody =
        any().and(move |asked| asked.path.starts_with("/v2/") && nobodys.account_of(asked).is_none());
    upstream.always(by_nobody, reply(429).before_auth());
    upstream.forget_requests();
    let bob = basic("docker-hub/bob", "builder");
    for who in [None, Some(&bob)] {
        let shown: Vec<_> = who
            .iter()
            .map(|shown| ("authorization", shown.as_str()))
            .collect();
        let name = format!("docker-hub/{PUBLIC}");
        for url in [
            daemon.manifest_url(&name, "2"),
            daemon.manifest_url(&name, &other.digest()),
            daemon.blob_url(&name, &other.layer_digest(0)),
        ] {
            let answer = get_with(&url, &shown).await;
            assert!(answer.status >= 400, "{who:?} {url}: {}", answer.status);
        }
    }
    let fetched = upstream.count_of(&of(&upstream, "ci"));
    assert_eq!(fetched, 0, "{:#?}", upstream.summary());
}

#[tokio::test]
async fn who_may_list_need_not_be_who_may_pull() {
    let (upstream, builder, image) = start().await;
    let daemon = builder.start().await;
    let alice = token(&daemon, "alice", "wonderland", SECRET).await;
    for url in &ways(&daemon, SECRET, &image)[..3] {
        let hers = get_with(url, &[("authorization", &alice)]).await;
        assert_eq!(hers.status, 200);
    }
    let list = format!(r#"{{"name":"{SECRET}","tags":["1"]}}"#);
    upstream.always(tags().in_repo(SECRET), reply(200).body(list).before_auth());
    let all = ways(&daemon, SECRET, &image);
    for _ in 0..2 {
        assert_eq!(get(&all[3]).await.status, 200, "the list");
        for url in &all[..3] {
            challenge(&get(url).await);
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_there_for_anybody() {
    let (_upstream, builder, image) = start().await;
    let daemon = builder.start().await;
    let name = format!("docker-hub/{PUBLIC}");
    let digest = format!("sha256:{}", "0".repeat(64));
    // As cosign asks, and whoever wants to know whether a tag exists.
    let missing = get(daemon.manifest_url(&name, "sha256-0.sig")).await;
    assert_error(&missing, 404, "MANIFEST_UNKNOWN");
    let blob = get(daemon.blob_url(&name, &digest)).await;
    assert_eq!(blob.status, 404, "{}", blob.text());
    let referrers = get(format!("{}/v2/{name}/referrers/{digest}", daemon.url())).await;
    assert_eq!(referrers.status, 200, "{}", referrers.text());
    // And says nothing of what is.
    assert_manifest(&get(daemon.manifest_url(&name, "1")).await, &image, false);
}

#[tokio::test]
async fn callers_cost_the_upstream_little_and_cannot_turn_it_against_others() {
    let (upstream, builder, image) = start().await;
    let daemon = builder.start().await;
    let secret = &ways(&daemon, SECRET, &image)[0];
    for _ in 0..3 {
        let asked = (0..20).map(|_| get(secret));
        for answer in futures_util::future::join_all(asked).await {
            challenge(&answer);
        }
    }
    let asked = upstream.count_of(&manifests());
    assert!(asked <= 2, "{asked}: {:#?}", upstream.summary());

    // Logins of ours are nobody else's business.
    daemon.user("carol", "correct horse").await;
    let robot = daemon.robot("ci", &["pull:*"]).await;
    upstream.forget_requests();
    let mirror = format!("{}/mirror/v2/{SECRET}/manifests/1?ns=docker.io", daemon.url());
    for shown in [
        basic("carol", "correct horse"),
        basic("carol", "a typo"),
        basic("ci", &robot),
        basic("anybody", &robot),
    ] {
        challenge(&get_with(&mirror, &[("authorization", &shown)]).await);
    }
    let sent = upstream.count_of(&any().and(|asked| asked.header("authorization").starts_with("Basic ")));
    assert_eq!(sent, 0, "{:#?}", upstream.summary());

    // A guess that the token service holds against the guesser stops nobody else.
    let guessed =
        |asked: &Asked| asked.header("authorization").starts_with("Basic ") && asked.path == "/token";
    upstream.always(
        any().and(guessed),
        reply(429).header("retry-after", "60").before_auth(),
    );
    let query = "service=wharfinger";
    let limited = daemon.token(query, &basic("docker-hub/alice", "guess")).await;
    assert_eq!(limited.status, 429);
    // Nor is a login wrong because the service did not look at it.
    let right = basic("docker-hub/alice", "wonderland");
    assert_eq!(daemon.token(query, &right).await.status, 429);
    let public = &ways(&daemon, PUBLIC, &image)[1];
    upstream.behave();
    upstream.require_bearer(door());
    assert_eq!(daemon.token(query, &right).await.status, 200);
    assert_manifest(&get(public).await, &image, false);
}
