//! Authentication of the scripted upstream: challenges, tokens, what they open, and how they end.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::prelude::*;

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

async fn ask(url: &str, authorization: &str) -> Answer {
    get_with(url, &[("authorization", authorization)]).await
}

fn code(answer: &Answer) -> String {
    answer.json()["errors"][0]["code"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// Two repositories, `library/app` and `acme/secret`; the URLs of their tag "1".
async fn registry() -> (Upstream, String, String) {
    let upstream = Upstream::start().await;
    for repo in ["library/app", "acme/secret"] {
        upstream.put(repo, "1", &Image::simple(1, 10));
    }
    let [public, secret] =
        ["library/app", "acme/secret"].map(|repo| format!("{}/v2/{repo}/manifests/1", upstream.url()));
    (upstream, public, secret)
}

#[tokio::test]
async fn bearer_tokens_open_what_their_scope_says() {
    let (upstream, public, secret) = registry().await;
    upstream.require_bearer(Bearer::new().user("ci", "pw").private("acme/secret"));
    let realm = format!("{}/token", upstream.url());

    let bare = get(format!("{}/v2/", upstream.url())).await;
    assert_eq!(bare.status, 401);
    assert_eq!(
        bare.header("www-authenticate"),
        format!("Bearer realm=\"{realm}\",service=\"registry.test\"")
    );
    let refused = get(&public).await;
    assert_eq!((refused.status, code(&refused).as_str()), (401, "UNAUTHORIZED"));
    assert!(
        refused
            .header("www-authenticate")
            .ends_with(",scope=\"repository:library/app:pull\"")
    );

    let url = format!("{realm}?service=registry.test&scope=repository:library/app:pull,push");
    let answer = get(&url).await.json();
    assert_eq!(answer["expires_in"], 300);
    let anonymous = format!("Bearer {}", answer["token"].as_str().unwrap_or_default());
    assert_eq!(ask(&public, &anonymous).await.status, 200);
    assert_eq!(
        ask(&format!("{}/v2/", upstream.url()), &anonymous).await.status,
        200
    );
    let wrong_scope = ask(&secret, &anonymous).await;
    assert!(
        wrong_scope
            .header("www-authenticate")
            .ends_with("error=\"insufficient_scope\"")
    );

    let both = format!("{realm}?scope=repository:acme/secret:pull&scope=repository:library/app:pull");
    let anonymous = format!(
        "Bearer {}",
        get(&both).await.json()["token"].as_str().unwrap_or_default()
    );
    assert_eq!(ask(&secret, &anonymous).await.status, 401);
    let answer = ask(&both, &basic("ci", "pw")).await.json();
    let user = format!("Bearer {}", answer["token"].as_str().unwrap_or_default());
    assert_eq!(
        (ask(&secret, &user).await.status, ask(&public, &user).await.status),
        (200, 200)
    );
    assert_eq!(ask(&both, &basic("ci", "wrong")).await.status, 401);
    assert_eq!(get(format!("{realm}?service=other")).await.status, 404);
    assert_eq!(upstream.token_requests(), 5);

    upstream.revoke_tokens();
    let revoked = ask(&public, &user).await;
    assert!(
        revoked
            .header("www-authenticate")
            .ends_with("error=\"invalid_token\"")
    );
}

#[tokio::test]
async fn unknown_repositories_look_private_unless_shown() {
    let (upstream, _, _) = registry().await;
    let unknown = format!("{}/v2/no/such/manifests/1", upstream.url());
    for (bearer, status) in [(Bearer::new(), 401), (Bearer::new().show_unknown(), 404)] {
        upstream.require_bearer(bearer);
        let token = get(format!("{}/token?scope=repository:no/such:pull", upstream.url()))
            .await
            .json();
        let token = format!("Bearer {}", token["token"].as_str().unwrap_or_default());
        assert_eq!(ask(&unknown, &token).await.status, status);
    }
}

#[tokio::test]
async fn the_token_service_elsewhere_under_script_and_in_dialects() {
    let (upstream, public, _) = registry().await;
    let issuer = Upstream::start().await;
    let bearer = Bearer::new()
        .no_anonymous()
        .user("ci", "pw")
        .constant_scope("aws")
        .expires_in(None)
        .token_keys(&["access_token", "token"])
        .challenges(&[
            "Basic realm=\"a, b\", Bearer realm=\"{realm}\",service=\"{service}\",scope=\"{scope}\"",
            "Negotiate",
        ]);
    upstream.require_bearer_of(bearer, &issuer);

    let refused = get(&public).await;
    let lines: Vec<&http::HeaderValue> = refused.headers.get_all("www-authenticate").iter().collect();
    let first = format!(
        "Basic realm=\"a, b\", Bearer realm=\"{}/token\",service=\"registry.test\",scope=\"aws\"",
        issuer.url()
    );
    assert_eq!(lines, [first.as_str(), "Negotiate"]);
    let url = format!("{}/token?scope=aws", issuer.url());
    assert_eq!(get(&url).await.status, 401);
    issuer.once(tokens(), reply(500));
    let gate = issuer.hold(tokens());
    assert_eq!(ask(&url, &basic("ci", "pw")).await.status, 500);
    let held = tokio::spawn(async move { ask(&url, &basic("ci", "pw")).await });
    gate.reached().await;
    gate.release();
    let answer = held.await.expect("an answer").json();
    assert_eq!(
        (&answer["token"], answer.get("expires_in")),
        (&answer["access_token"], None)
    );
    let token = format!("Bearer {}", answer["token"].as_str().unwrap_or_default());
    assert_eq!(ask(&public, &token).await.status, 200);
    assert_eq!((issuer.token_requests(), upstream.token_requests()), (3, 0));
}

#[tokio::test]
async fn basic_passwords_expire_with_403() {
    let (upstream, public, _) = registry().await;
    upstream.require_basic(Basic::new("AWS", "old"));
    assert_eq!(
        get(&public).await.header("www-authenticate"),
        "Basic realm=\"registry.test\""
    );
    assert_eq!(ask(&public, &basic("AWS", "old")).await.status, 200);
    upstream.expire_basic("new");
    let expired = ask(&public, &basic("AWS", "old")).await;
    assert_eq!((expired.status, code(&expired).as_str()), (403, "DENIED"));
    assert!(expired.text().contains("expired"));
    assert_eq!(ask(&public, &basic("AWS", "new")).await.status, 200);
    assert_eq!(ask(&public, &basic("AWS", "never")).await.status, 401);
}

#[tokio::test]
async fn rules_wait_until_the_challenge_is_met_unless_told_otherwise() {
    let (upstream, public, _) = registry().await;
    upstream.require_basic(Basic::new("ci", "pw"));
    upstream.once(manifests(), reply(502));
    assert_eq!(get(&public).await.status, 401);
    assert_eq!(ask(&public, &basic("ci", "pw")).await.status, 502);
    upstream.once(ping(), reply(503).before_auth());
    assert_eq!(get(format!("{}/v2/", upstream.url())).await.status, 503);
    assert_eq!(get(format!("{}/v2/", upstream.url())).await.status, 401);
}
