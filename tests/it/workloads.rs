//! Programs that prove who they are by ID tokens and certificates, what the audit log tells of them all, and how fast each
//! may ask. The kinds of issuers that there are in the world are in `issuers`.

mod issuers;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use serde_json::{Value, json};
use wharfinger::clock::Timestamp;

use crate::login::{Login as _, basic, bearer, hosting, send, token_of};
use crate::support::prelude::*;
use crate::support::service::Service;

const AUDIENCE: &str = "https://cache.test";

/// Seconds since 1970.
fn now() -> u64 {
    Timestamp::now().0 / 1000
}

/// An issuer with one key that it publishes, and another that it does not.
struct Issuer {
    service: Service,
    key: EncodingKey,
    algorithm: Algorithm,
}

impl Issuer {
    async fn start() -> Self {
        let pair = KeyPair::generate().expect("a key");
        Self::with(EncodingKey::from_ec_der(&pair.serialize_der()), Algorithm::ES256).await
    }

    /// One that signs with this key.
    async fn with(key: EncodingKey, algorithm: Algorithm) -> Self {
        let mut jwk = Jwk::from_encoding_key(&key, algorithm).expect("a public key");
        jwk.common.key_id = Some("one".to_owned());
        let set = json!({ "keys": [{ "kty": "of another time", "kid": "zero" }, jwk] });
        let service = Service::start(move |call| {
            let own = format!("http://{}", call.header("host"));
            match call.path.as_str() {
                "/.well-known/openid-configuration" => (
                    200,
                    json!({ "issuer": own, "jwks_uri": format!("{own}/keys") }).to_string(),
                ),
                "/keys" => (200, set.to_string()),
                _ => (404, String::new()),
            }
        })
        .await;
        Self {
            service,
            key,
            algorithm,
        }
    }

    /// A token of these claims beside the usual ones.
    fn token(&self, more: &Value) -> String {
        sign_as(self.algorithm, &self.key, "one", &self.claims(more))
    }

    fn claims(&self, more: &Value) -> Value {
        let mut claims = json!({
            "iss": self.service.url(), "aud": AUDIENCE, "sub": "repo:acme/app:ref:refs/heads/main",
            "iat": now(), "nbf": now(), "exp": now() + 300, "repository": "acme/app", "ref": "refs/heads/main",
        });
        for (name, value) in more.as_object().expect("claims") {
            claims[name] = value.clone();
        }
        claims
    }
}

fn sign(key: &EncodingKey, id: &str, claims: &Value) -> String {
    sign_as(Algorithm::ES256, key, id, claims)
}

fn sign_as(algorithm: Algorithm, key: &EncodingKey, id: &str, claims: &Value) -> String {
    let header = Header {
        kid: Some(id.to_owned()),
        ..Header::new(algorithm)
    };
    jsonwebtoken::encode(&header, claims, key).expect("a token")
}

#[tokio::test]
async fn workloads_log_in_by_id_token_and_may_what_the_rules_say() {
    let issuer = Issuer::start().await;
    let rules = format!(
        r#"[{{ issuer = "{0}", audience = "{AUDIENCE}", claims = {{ repository = "acme/*", ref = "refs/heads/main" }}, scopes = ["pull,push:team/*"] }},
            {{ issuer = "{0}", audience = "{AUDIENCE}", claims = {{ "kubernetes.io.namespace" = "ci" }}, scopes = ["pull:other/*"] }}]"#,
        issuer.service.url()
    );
    let daemon = hosting()
        .setting("auth.oidc", &rules.replace('\n', " "))
        .start()
        .await;
    let right = issuer.token(&json!({}));
    let shown = basic("oidc", &right);
    assert_eq!(daemon.push("team/app", &shown).await, 202);
    assert_eq!(daemon.push("other/app", &shown).await, 403);
    // As `docker login` would, and by exchange.
    let query = "service=wharfinger&offline_token=true&scope=repository:team/app:pull,push";
    let answer = daemon.token(query, &shown).await;
    assert!(
        answer.json()["refresh_token"].is_null(),
        "an ID token is short-lived, and so is what is made of it"
    );
    assert_eq!(daemon.push("team/app", &bearer(&token_of(&answer))).await, 202);
    let form = format!(
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token={right}&scope=repository%3Ateam%2Fapp%3Apush"
    );
    let exchanged = send("POST", &format!("{}/token", daemon.url()), &[], form).await;
    let token = exchanged.json()["access_token"]
        .as_str()
        .expect("a token")
        .to_owned();
    assert_eq!(daemon.push("team/app", &bearer(&token)).await, 202);
    assert_eq!(daemon.push("team/other", &bearer(&token)).await, 401);
    // A claim within a claim.
    let nested =
        issuer.token(&json!({ "repository": "elsewhere/app", "kubernetes.io": { "namespace": "ci" } }));
    let path = "/v2/other/app/tags/list";
    assert_eq!(daemon.ask("GET", path, &basic("oidc", &nested)).await.status, 404);
    assert_eq!(daemon.push("team/app", &basic("oidc", &nested)).await, 403);

    let other = EncodingKey::from_ec_der(&KeyPair::generate().expect("a key").serialize_der());
    let hs = Header {
        kid: Some("one".to_owned()),
        ..Header::new(Algorithm::HS256)
    };
    let wrong = [
        issuer.token(&json!({ "repository": "evil/app" })),
        issuer.token(&json!({ "ref": "refs/heads/mainly" })),
        issuer.token(&json!({ "aud": "https://other.test" })),
        issuer.token(&json!({ "exp": now() - 120 })),
        issuer.token(&json!({ "nbf": now() + 120 })),
        issuer.token(&json!({ "iss": "https://issuer.example" })),
        issuer.token(&json!({ "sub": "" })),
        sign(&other, "one", &issuer.claims(&json!({}))),
        sign(&issuer.key, "two", &issuer.claims(&json!({}))),
        jsonwebtoken::encode(&hs, &issuer.claims(&json!({})), &EncodingKey::from_secret(b"one"))
            .expect("a token"),
        right.rsplit_once('.').expect("a signature").0.to_owned() + ".",
    ];
    for (number, token) in wrong.iter().enumerate() {
        assert_eq!(
            daemon.push("team/app", &basic("oidc", token)).await,
            401,
            "{number}"
        );
    }
    // Keys were asked for once, and once more at the most for the one that is not known.
    let asked = issuer
        .service
        .calls()
        .iter()
        .filter(|call| call.path == "/keys")
        .count();
    assert!(asked <= 2, "{asked}");
}

#[tokio::test]
async fn the_audit_log_tells_who_did_what_and_who_was_kept_from_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("audit.log");
    let mut daemon = hosting()
        .setting("log.audit_file", &format!("{file:?}"))
        .setting("auth.writers", r#"["alice"]"#)
        .start()
        .await;
    daemon.user("alice", "correct horse").await;
    daemon.user("bob", "correct horse").await;
    let (alice, bob) = (basic("alice", "correct horse"), basic("bob", "correct horse"));
    let blob = b"a layer".to_vec();
    let digest = sha256(&blob);
    let url = format!("{}/v2/team/app/blobs/uploads/?digest={digest}", daemon.url());
    assert_eq!(
        send("POST", &url, &[("authorization", &alice)], blob.clone())
            .await
            .status,
        201
    );
    assert_eq!(
        send("POST", &url, &[("authorization", &bob)], blob).await.status,
        403
    );
    assert_eq!(
        daemon
            .ask("GET", "/v2/team/app/manifests/v1", &basic("bob", "wrong\nhorse"))
            .await
            .status,
        401
    );
    assert_eq!(
        daemon.ask("GET", "/v2/team/app/manifests/v1", &bob).await.status,
        404
    );
    assert!(daemon.stop().await.success());
    let text = std::fs::read_to_string(&file).expect("the log");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let told = |line: &Value| {
        let text = |key: &str| line[key].as_str().unwrap_or("-").to_owned();
        (
            text("who"),
            text("action"),
            text("repository"),
            line["allowed"] == true,
            line["status"].as_u64(),
        )
    };
    let own = |text: &str| text.to_owned();
    let admin = (
        own("root"),
        own("wharfinger:AdminIdentities"),
        own("-"),
        true,
        Some(200),
    );
    assert_eq!(
        lines.iter().map(told).collect::<Vec<_>>(),
        [
            admin.clone(),
            admin,
            (
                own("alice"),
                own("ecr:InitiateLayerUpload"),
                own("team/app"),
                true,
                Some(201)
            ),
            (
                own("bob"),
                own("ecr:InitiateLayerUpload"),
                own("team/app"),
                false,
                Some(403)
            ),
            (
                own("bob"),
                own("ecr:GetAuthorizationToken"),
                own("-"),
                false,
                Some(401)
            ),
            (
                own("bob"),
                own("ecr:BatchGetImage"),
                own("team/app"),
                true,
                Some(404)
            ),
        ]
    );
    assert_eq!(lines[0]["about"], "create alice");
    assert_eq!(lines[2]["digest"], digest);
    assert_eq!(lines[2]["from"], "127.0.0.1");
    assert_eq!(lines[2]["arn"], "arn:aws:iam::000000000000:user/alice");
    assert_eq!(lines[4]["kind"], "unproved");
    assert_eq!(lines[5]["tag"], "v1");
    assert!(!text.contains("horse"));
}

#[tokio::test]
async fn who_asks_too_fast_waits_and_nobody_else_does() {
    let daemon = hosting()
        .setting("auth.max_requests_per_second", "1")
        .setting("auth.writers", r#"["*"]"#)
        .start()
        .await;
    daemon.user("alice", "correct horse").await;
    let alice = basic("alice", "correct horse");
    let mut statuses = Vec::new();
    for _ in 0..40 {
        statuses.push(daemon.ask("GET", "/v2/", &alice).await.status);
    }
    assert!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");
    assert_eq!(daemon.ask("GET", "/v2/team/app/tags/list", "").await.status, 404);
    assert_eq!(daemon.ask("GET", "/livez", "").await.status, 200);
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a client with a certificate of its own")]
async fn certificates_prove_who_asks() {
    use crate::support::service::PKI;
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        format!("{path:?}")
    };
    let daemon = hosting()
        .setting("server.tls.cert_file", &write("cert.pem", &PKI.server))
        .setting("server.tls.key_file", &write("key.pem", &PKI.server_key))
        .setting("server.tls.client_ca_file", &write("ca.pem", &PKI.ca))
        .setting("auth.writers", r#"["certificate/node-1"]"#)
        .start()
        .await;
    let url = format!("https://{}/v2/team/app/blobs/uploads/", daemon.address());
    for (name, status) in [(Some("node-1"), 202), (Some("node-2"), 403), (None, 401)] {
        let authority = reqwest::Certificate::from_pem(PKI.ca.as_bytes()).expect("a certificate");
        let mut builder = reqwest::Client::builder().tls_certs_only([authority]);
        if let Some(name) = name {
            let (certificate, key) = PKI.issue(name);
            let identity = reqwest::Identity::from_pem(format!("{certificate}{key}").as_bytes());
            builder = builder.identity(identity.expect("an identity"));
        }
        let client = builder.build().expect("a client");
        let answer = soon("an answer", client.post(&url).send())
            .await
            .expect("an answer");
        assert_eq!(answer.status().as_u16(), status, "{name:?}");
        assert_eq!(
            answer.headers().contains_key("www-authenticate"),
            status == 401,
            "{name:?}"
        );
    }
}
