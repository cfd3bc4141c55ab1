//! How the daemon proves itself to an upstream, and what never leaves it: the whole challenge flow, and the wall
//! between our credentials and everybody else. `redirects` has the rest of the wall.

use crate::expect::{assert_error, assert_manifest, code, get_all};
use crate::support::daemon::Builder;
use crate::support::prelude::*;

pub const APP: &str = "docker-hub/library/app";
pub const PASSWORD: &str = "correct-horse-battery-staple";

/// Logs in at this upstream as `ci`, and shares with everybody what that opens.
pub fn login(builder: Builder, prefix: &str, password: &str) -> Builder {
    builder
        .setting(&format!("upstream.{prefix}.username"), "\"ci\"")
        .setting(&format!("upstream.{prefix}.password"), &format!("{password:?}"))
        .setting(&format!("upstream.{prefix}.share_private"), "true")
}

pub async fn with_image(repo: &str) -> (Upstream, Image) {
    let upstream = Upstream::start().await;
    let image = Image::simple(1, 3000);
    upstream.put(repo, "1", &image);
    (upstream, image)
}

/// Pulls manifest and layer.
pub async fn pull(daemon: &Daemon, name: &str, image: &Image) {
    assert_manifest(&get(daemon.manifest_url(name, "1")).await, image, false);
    let layer = &image.layers()[0];
    assert_eq!(get(daemon.blob_url(name, &layer.digest)).await.ok(), layer.bytes);
}

/// All `Authorization` headers that an upstream saw, each once.
pub fn authorizations(upstream: &Upstream) -> Vec<String> {
    let mut seen: Vec<_> = upstream
        .requests()
        .iter()
        .map(|asked| asked.header("authorization").to_owned())
        .filter(|header| !header.is_empty())
        .collect();
    seen.sort();
    seen.dedup();
    seen
}

#[tokio::test]
async fn anonymous_tokens_are_fetched_once_per_repository() {
    let (upstream, image) = with_image("library/app").await;
    upstream.put("library/other", "1", &image);
    upstream.require_bearer(Bearer::new());
    let daemon = Daemon::over(&upstream).start().await;
    pull(&daemon, APP, &image).await;
    assert_eq!(upstream.token_requests(), 1, "{:#?}", upstream.summary());
    let asked = &upstream.requests_of(&tokens())[0];
    assert_eq!(asked.asked.parameter("service").as_deref(), Some("registry.test"));
    assert_eq!(asked.asked.parameters("scope"), ["repository:library/app:pull"]);
    assert_eq!(
        (asked.method(), asked.header("authorization")),
        (&Method::GET, "")
    );
    let refused = |upstream: &Upstream| {
        let requests = upstream.requests();
        requests.iter().filter(|asked| asked.status == 401).count()
    };
    assert_eq!(refused(&upstream), 1, "the token is brought along from then on");

    pull(&daemon, "docker-hub/library/other", &image).await;
    assert_eq!(upstream.token_requests(), 2);
    assert_eq!(
        refused(&upstream),
        1,
        "how to ask was learnt: {:#?}",
        upstream.summary()
    );
}

#[tokio::test]
async fn fifty_cold_requests_wait_for_one_token() {
    let upstream = Upstream::start().await;
    let tags: Vec<_> = (0..50).map(|number| format!("t{number}")).collect();
    for (seed, tag) in tags.iter().enumerate() {
        upstream.put("library/app", tag, &Image::simple(seed as u64, 10));
    }
    upstream.require_bearer(Bearer::new());
    let daemon = Daemon::over(&upstream).start().await;
    let gate = upstream.hold(tokens());
    let urls: Vec<_> = tags.iter().map(|tag| daemon.manifest_url(APP, tag)).collect();
    let herd = tokio::spawn(get_all(urls));
    gate.reached().await;
    gate.release();
    for answer in herd.await.expect("no panic") {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(upstream.token_requests(), 1, "{:#?}", upstream.summary());
}

#[tokio::test]
async fn a_revoked_token_is_replaced() {
    let (upstream, image) = with_image("library/app").await;
    upstream.require_bearer(Bearer::new());
    let daemon = Daemon::over(&upstream).start().await;
    assert_eq!(get(daemon.manifest_url(APP, "1")).await.status, 200);
    upstream.revoke_tokens();
    let layer = &image.layers()[0];
    assert_eq!(get(daemon.blob_url(APP, &layer.digest)).await.ok(), layer.bytes);
    assert_eq!(upstream.token_requests(), 2, "{:#?}", upstream.summary());
    assert_eq!(
        upstream.blob_gets(&layer.digest),
        3,
        "with the old, without, with the new one"
    );
}

#[tokio::test]
async fn challenges_and_tokens_of_every_form_are_understood() {
    let scope = "scope=\"repository:library/app:pull,push\"";
    let canonical = "Bearer realm=\"{realm}\",service=\"{service}\"";
    let forms = [
        (vec![format!("{canonical},{scope}")], vec!["token"], Some(300)),
        (vec![canonical.to_owned()], vec!["access_token"], Some(300)),
        (
            vec![format!("{canonical},{scope},error=\"invalid_token\"")],
            vec!["token", "access_token"],
            None,
        ),
        // Several lines, several challenges in one line, commas and quotes within quotes, any case, odd spaces.
        (
            vec![
                "Negotiate".to_owned(),
                "Basic realm=\"a, \\\"b\\\", Bearer realm=x\"".to_owned(),
                format!("{canonical},{scope}"),
            ],
            vec!["token"],
            Some(60),
        ),
        (
            vec![format!(
                "Negotiate YII=, Basic realm=\"a, b\", {canonical}, {scope}"
            )],
            vec!["token"],
            Some(300),
        ),
        (
            vec![format!(
                "bEARER  {scope} , REALM = \"{{realm}}\",  Service={{service}}"
            )],
            vec!["token"],
            Some(1),
        ),
    ];
    for (lines, keys, expires_in) in forms {
        let (upstream, image) = with_image("library/app").await;
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        let bearer = Bearer::new()
            .challenges(&lines)
            .token_keys(&keys)
            .expires_in(expires_in);
        upstream.require_bearer(bearer);
        let daemon = Daemon::over(&upstream).start().await;
        pull(&daemon, APP, &image).await;
        let asked = upstream.requests_of(&tokens());
        assert!(
            !asked.is_empty() && asked.iter().all(|asked| asked.status == 200),
            "{lines:?}"
        );
        assert!(
            authorizations(&upstream)
                .iter()
                .all(|header| header.starts_with("Bearer token-")),
            "{lines:?}"
        );
    }
}

#[tokio::test]
async fn a_constant_scope_opens_every_repository_with_one_token() {
    let (upstream, image) = with_image("team/one").await;
    upstream.put("team/two", "1", &image);
    upstream.require_bearer(Bearer::new().constant_scope("aws").show_unknown());
    let daemon = Daemon::over(&upstream).start().await;
    pull(&daemon, "docker-hub/team/one", &image).await;
    pull(&daemon, "docker-hub/team/two", &image).await;
    assert_error(
        &get(daemon.manifest_url("docker-hub/team/three", "1")).await,
        404,
        "MANIFEST_UNKNOWN",
    );
    assert_eq!(upstream.token_requests(), 1, "{:#?}", upstream.summary());
}

#[tokio::test]
async fn a_401_without_a_challenge_is_looked_up_at_the_ping() {
    let (upstream, image) = with_image("library/app").await;
    upstream.require_bearer(Bearer::new());
    upstream.once(manifests(), reply(401).before_auth());
    let daemon = Daemon::over(&upstream).start().await;
    pull(&daemon, APP, &image).await;
    assert_eq!((upstream.count_of(&ping()), upstream.token_requests()), (1, 1));
}

#[tokio::test]
async fn credentials_buy_a_token_and_go_to_the_token_service_alone() {
    let (upstream, image) = with_image("acme/secret").await;
    let bearer = Bearer::new().no_anonymous().user("ci", PASSWORD);
    upstream.require_bearer(bearer);
    let daemon = login(Daemon::over(&upstream), "docker-hub", PASSWORD)
        .start()
        .await;
    pull(&daemon, "docker-hub/acme/secret", &image).await;
    assert_eq!(upstream.token_requests(), 1);
    for asked in upstream.requests() {
        let basic = asked.header("authorization").starts_with("Basic ");
        assert_eq!(basic, asked.path() == "/token", "{asked:?}");
    }
}

#[tokio::test]
async fn basic_is_sent_after_the_first_challenge() {
    let (upstream, image) = with_image("acme/app").await;
    upstream.require_basic(Basic::new("ci", PASSWORD));
    let daemon = login(Daemon::over(&upstream), "docker-hub", PASSWORD)
        .start()
        .await;
    pull(&daemon, "docker-hub/acme/app", &image).await;
    let refused = upstream
        .requests()
        .iter()
        .filter(|asked| asked.status == 401)
        .count();
    assert_eq!((refused, authorizations(&upstream).len()), (1, 1));
}

#[tokio::test]
async fn a_403_to_basic_is_tried_again_from_the_start_and_an_expired_login_is_named() {
    let (upstream, image) = with_image("acme/app").await;
    upstream.require_basic(Basic::new("ci", PASSWORD));
    let mut daemon = login(Daemon::over(&upstream), "docker-hub", PASSWORD)
        .start()
        .await;
    let name = "docker-hub/acme/app";
    assert_manifest(&get(daemon.manifest_url(name, "1")).await, &image, false);
    upstream.put("acme/app", "2", &Image::simple(2, 10));
    upstream.once(manifest("2"), reply(403));
    assert_eq!(get(daemon.manifest_url(name, "2")).await.status, 200);
    let statuses: Vec<_> = upstream
        .requests_of(&manifest("2"))
        .iter()
        .map(|asked| asked.status)
        .collect();
    assert_eq!(statuses, [403, 401, 200]);

    upstream.expire_basic("another");
    let layer = daemon.blob_url(name, &image.layer_digest(0));
    for _ in 0..3 {
        let answer = get(&layer).await;
        assert_error(&answer, 502, "UNAVAILABLE");
        assert!(!answer.text().contains(PASSWORD));
    }
    // A rejected login is not tried on and on: accounts get locked.
    let tried = upstream.requests_of(&blobs());
    let tried = tried.iter().filter(|asked| asked.status == 403).count();
    assert!(tried <= 2, "{:#?}", upstream.summary());
    daemon.wait_for_log("a credential is set aside").await;
    assert!(daemon.stop().await.success());
    assert!(daemon.logs().iter().all(|line| !line.contains(PASSWORD)));
}

#[tokio::test]
async fn rejected_credentials_are_502_with_the_reason_in_the_log_and_no_secret_anywhere() {
    let (upstream, _) = with_image("library/app").await;
    upstream.require_bearer(Bearer::new().no_anonymous().user("ci", "another"));
    let mut daemon = login(Daemon::over(&upstream), "docker-hub", PASSWORD)
        .setting("log.level", "\"trace\"")
        .mirror_door()
        .start()
        .await;
    for _ in 0..3 {
        let answer = get(daemon.manifest_url(APP, "1")).await;
        assert_error(&answer, 502, "UNAVAILABLE");
        assert!(!answer.text().contains(PASSWORD), "{}", answer.text());
    }
    let asked = upstream.requests_of(&tokens().and(|asked| !asked.header("authorization").is_empty()));
    let asked = asked.len();
    assert!(
        asked <= 2,
        "a wrong password is not tried again and again: {asked}"
    );
    let mirrored = get(format!("{}/v2/library/app/manifests/1", daemon.mirror_url())).await;
    assert_error(&mirrored, 503, "UNAVAILABLE");
    let line = daemon.wait_for_log("a credential is set aside").await;
    assert!(line.contains("docker-hub") && line.contains("ci"), "{line}");
    assert!(daemon.stop().await.success());
    let secrets = [
        PASSWORD.to_owned(),
        authorizations(&upstream)[0].replace("Basic ", ""),
    ];
    for line in daemon.logs() {
        assert!(
            secrets.iter().all(|secret| !line.contains(secret.as_str())),
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_token_service_elsewhere_gets_credentials_only_when_it_is_listed() {
    let (registry, image) = with_image("library/app").await;
    let issuer = Upstream::start().await;
    // Another name, and so another host than the registry's 127.0.0.1.
    let realm = format!("http://localhost:{}/token", issuer.port());
    let challenge = format!("Bearer realm=\"{realm}\",service=\"{{service}}\",scope=\"{{scope}}\"");
    let bearer = Bearer::new().user("ci", PASSWORD).challenges(&[&challenge]);
    registry.require_bearer_of(bearer, &issuer);

    let anonymous = Daemon::over(&registry).start().await;
    pull(&anonymous, APP, &image).await;
    assert_eq!(issuer.token_requests(), 1);
    issuer.forget_requests();

    let daemon = login(Daemon::over(&registry), "docker-hub", PASSWORD)
        .start()
        .await;
    let answer = get(daemon.manifest_url(APP, "1")).await;
    assert_error(&answer, 502, "UNAVAILABLE");
    assert_eq!(issuer.requests().len(), 0, "{:#?}", issuer.summary());
    let line = daemon.wait_for_log("upstream.docker-hub.realms").await;
    assert!(line.contains("localhost"), "{line}");

    let listed = login(Daemon::over(&registry), "docker-hub", PASSWORD)
        .setting("upstream.docker-hub.realms", "[\"localhost\"]")
        .start()
        .await;
    pull(&listed, APP, &image).await;
    assert_eq!(issuer.token_requests(), 1);
    assert!(authorizations(&issuer)[0].starts_with("Basic "));
}

#[tokio::test]
async fn an_upstreams_challenge_never_reaches_the_client() {
    let (upstream, image) = with_image("library/app").await;
    upstream.put("library/shut", "1", &image);
    upstream.require_bearer(Bearer::new().private("library/shut"));
    let daemon = Daemon::over(&upstream).mirror_door().start().await;
    let digest = image.layer_digest(0);
    for door in [daemon.url(), daemon.mirror_url()] {
        // `code` looks for challenges.
        for repo in ["library/shut", "library/none"] {
            for rest in [
                "manifests/1".to_owned(),
                format!("manifests/{}", image.digest()),
                format!("blobs/{digest}"),
                "tags/list".to_owned(),
            ] {
                let url = format!("{door}/v2/{repo}/{rest}");
                let answer = get(&url).await;
                assert_eq!(answer.status, 404, "{url}");
                let code = code(&answer);
                assert!(
                    matches!(
                        code.as_str(),
                        "NAME_UNKNOWN" | "MANIFEST_UNKNOWN" | "BLOB_UNKNOWN"
                    ),
                    "{url}: {code}"
                );
                let by_head = head(&url).await;
                assert_eq!((by_head.status, by_head.header("www-authenticate")), (404, ""));
            }
        }
        let base = get(format!("{door}/v2/")).await;
        assert_eq!((base.status, base.header("www-authenticate")), (200, ""));
    }
}

#[tokio::test]
async fn what_only_our_credentials_can_read_is_shared_only_when_told_so() {
    let (upstream, public) = with_image("acme/public").await;
    let secret = Image::simple(2, 2000);
    upstream.put("acme/secret", "1", &secret);
    upstream.require_bearer(Bearer::new().user("ci", PASSWORD).private("acme/secret"));
    let closed = login(Daemon::over(&upstream), "docker-hub", PASSWORD)
        .setting("upstream.docker-hub.share_private", "false")
        .start()
        .await;
    pull(&closed, "docker-hub/acme/public", &public).await;
    let layer = secret.layer_digest(0);
    let name = "docker-hub/acme/secret";
    for url in [
        closed.manifest_url(name, "1"),
        closed.manifest_url(name, &secret.digest()),
        closed.blob_url(name, &layer),
        format!("{}/v2/{name}/tags/list", closed.url()),
    ] {
        let answer = get(&url).await;
        assert_error(&answer, 404, "NAME_UNKNOWN");
        assert_eq!(head(&url).await.status, 404, "{url}");
    }
    let referrers_url = format!("{}/v2/{name}/referrers/{}", closed.url(), secret.digest());
    let answer = get(referrers_url).await;
    assert!(
        answer.status == 404 || answer.json()["manifests"] == serde_json::json!([]),
        "{}",
        answer.text()
    );
    closed.wait_for_log("share_private").await;
    let given: Vec<_> = upstream
        .requests_of(&Match::when(|_| true).in_repo("acme/secret"))
        .into_iter()
        .filter(|asked| asked.status == 200)
        .collect();
    assert!(given.is_empty(), "the upstream gave it to us: {given:#?}");

    let open = login(Daemon::over(&upstream), "docker-hub", PASSWORD)
        .start()
        .await;
    pull(&open, name, &secret).await;
}
