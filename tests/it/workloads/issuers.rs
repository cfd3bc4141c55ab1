//! Issuers as they are in the world: GitHub and GitLab sign by RS256; a Kubernetes cluster gives its keys to its own service
//! accounts alone, over TLS of its own authority.

use std::path::Path;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::{AUDIENCE, Issuer, now, sign_as};
use crate::login::{Login as _, basic, hosting};
use crate::support::daemon::Builder;
use crate::support::service::{Call, PKI, Service, tls_before};

/// A pair, its private key for signing, and its public one as others write it down: as an X.509 key and as RFC 8017's.
fn rsa() -> (EncodingKey, [Vec<u8>; 2]) {
    /// What is before the `RSAPrivateKey` in PKCS #8: a version, the algorithm, and heads of fixed length for 2048 bits.
    const WRAPPING: usize = 26;
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let private: Pkcs8V1Der<'_> = pair.as_der().expect("PKCS #8");
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("a public key");
    let written = [public.as_ref().to_vec(), pair.public_key().as_ref().to_vec()];
    (EncodingKey::from_rsa_der(&private.as_ref()[WRAPPING..]), written)
}

fn pem(der: &[u8]) -> Vec<u8> {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len())
        .step_by(64)
        .map(|at| &text[at..text.len().min(at + 64)])
        .collect();
    let lines = lines.join("\n");
    format!("-----BEGIN PUBLIC KEY-----\n{lines}\n-----END PUBLIC KEY-----\n").into_bytes()
}

#[tokio::test]
async fn github_and_gitlab_sign_by_rs256() {
    let (key, public) = rsa();
    let issuer = Issuer::with(key, Algorithm::RS256).await;
    let url = issuer.service.url();
    let rules = format!(
        r#"[{{ issuer = "{url}", audience = "{AUDIENCE}", claims = {{ repository = "acme/app", ref = "refs/heads/*" }}, scopes = ["pull,push:team/*"] }},
            {{ issuer = "{url}", audience = "{AUDIENCE}", claims = {{ project_path = "acme/app", ref_protected = "true" }}, scopes = ["pull,push:other/*"] }}]"#,
    );
    let daemon = hosting()
        .setting("auth.oidc", &rules.replace('\n', " "))
        .start()
        .await;
    let github = json!({});
    let gitlab = json!({
        "sub": "project_path:acme/app:ref_type:branch:ref:main", "repository": null, "ref": "main",
        "project_path": "acme/app", "ref_type": "branch", "ref_protected": "true",
    });
    for (claims, team, other) in [(&github, 202, 403), (&gitlab, 403, 202)] {
        let shown = basic("oidc", &issuer.token(claims));
        assert_eq!(daemon.push("team/app", &shown).await, team, "{claims}");
        assert_eq!(daemon.push("other/app", &shown).await, other, "{claims}");
    }
    // The key of another, the same key for something else, and its public half as a password, however it is written.
    let claims = issuer.claims(&github);
    let (foreign, _) = rsa();
    let mut wrong = vec![
        sign_as(Algorithm::RS256, &foreign, "one", &claims),
        sign_as(Algorithm::RS512, &issuer.key, "one", &claims),
        sign_as(Algorithm::PS256, &issuer.key, "one", &claims),
    ];
    let jwk = Jwk::from_encoding_key(&issuer.key, Algorithm::RS256).expect("a public key");
    let jwk = serde_json::to_value(jwk).expect("JSON");
    let mut secrets = vec![pem(&public[0]), pem(&public[0]).trim_ascii_end().to_vec()];
    secrets.push(jwk["n"].as_str().expect("a modulus").as_bytes().to_vec());
    secrets.extend(public);
    for secret in secrets {
        let secret = EncodingKey::from_secret(&secret);
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            wrong.push(sign_as(algorithm, &secret, "one", &claims));
        }
    }
    for (number, token) in wrong.iter().enumerate() {
        assert_eq!(
            daemon.push("team/app", &basic("oidc", token)).await,
            401,
            "{number}"
        );
    }
}

/// What a cluster calls itself in its tokens: nothing is to be had there.
const CLUSTER: &str = "https://kubernetes.default.svc.cluster.local";

/// A service account's token.
fn account(algorithm: Algorithm, key: &EncodingKey, issuer: &str, namespace: &str) -> String {
    let claims = json!({
        "iss": issuer, "aud": [AUDIENCE], "sub": format!("system:serviceaccount:{namespace}:builder"),
        "iat": now(), "nbf": now(), "exp": now() + 600,
        "kubernetes.io": { "namespace": namespace, "serviceaccount": { "name": "builder", "uid": "1" } },
    });
    sign_as(algorithm, key, "one", &claims)
}

/// The key of a cluster, and the set that it publishes.
fn cluster() -> (EncodingKey, Value) {
    let (key, _) = rsa();
    let mut jwk = Jwk::from_encoding_key(&key, Algorithm::RS256).expect("a public key");
    jwk.common.key_id = Some("one".to_owned());
    (key, json!({ "keys": [jwk] }))
}

/// An API server's way to its keys: for this token alone, and for who takes their type (else 406, as there).
fn keys_for(token: &str, set: &Value) -> impl Fn(&Call) -> (u16, String) + Send + Sync + 'static {
    let (expected, set) = (format!("Bearer {token}"), set.to_string());
    move |call| match call.path.as_str() {
        "/openid/v1/jwks" if call.header("authorization") != expected => (401, String::new()),
        "/openid/v1/jwks" if !call.header("accept").contains("application/jwk-set+json") => {
            (406, String::new())
        }
        "/openid/v1/jwks" => (200, set.clone()),
        _ => (404, String::new()),
    }
}

/// TLS before a service: its URL.
async fn secured(service: &Service) -> String {
    let url = service.url();
    let port = url.rsplit(':').next().expect("a port").parse().expect("a port");
    format!("https://127.0.0.1:{}", tls_before(port, false).await)
}

/// A daemon that lets service accounts of the namespace `ci` push; `more` is the rest of the table.
fn trusting(issuer: &str, more: &str) -> Builder {
    let table = format!(
        r#"[{{ issuer = "{issuer}", audience = "{AUDIENCE}", claims = {{ "kubernetes.io.namespace" = "ci", "kubernetes.io.serviceaccount.name" = "builder" }}, scopes = ["pull,push:team/*"]{more} }}]"#
    );
    hosting().setting("auth.oidc", &table)
}

/// The cluster's table of `config/full.toml`, for an API server and files that there are.
fn example(server: &str, ca: &str, token: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/full.toml");
    let text = std::fs::read_to_string(path).expect("the file");
    let tables = text.split("#[[auth.oidc]]").skip(1);
    let table = tables
        .last()
        .expect("a table")
        .split("\n\n")
        .next()
        .expect("its lines");
    let lines: Vec<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| !line.starts_with(' '))
        .collect();
    let account = "/var/run/secrets/kubernetes.io/serviceaccount";
    let table = format!("[{{ {} }}]", lines.join(", "))
        .replace("https://cache.example.com", AUDIENCE)
        .replace("https://kubernetes.default.svc/", &format!("{server}/"))
        .replace(&format!("\"{account}/ca.crt\""), ca)
        .replace(&format!("\"{account}/token\""), token);
    assert!(
        table.contains(ca) && table.contains(token) && table.contains(server),
        "{table}"
    );
    table
}

fn shown(calls: &[Call]) -> Vec<(&str, &str)> {
    calls
        .iter()
        .map(|call| (call.path.as_str(), call.header("authorization")))
        .collect()
}

fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("a file");
    format!("{:?}", path.display().to_string())
}

#[tokio::test]
async fn a_cluster_that_gives_its_keys_to_service_accounts_alone() {
    let (key, set) = cluster();
    let service = Service::start(keys_for("second", &set)).await;
    let server = secured(&service).await;
    let place = format!("{server}/openid/v1/jwks");
    let folder = tempfile::tempdir().expect("a folder");
    let ca = file(folder.path(), "ca.crt", &PKI.ca);
    let token = file(folder.path(), "token", "first\n");
    // As the example has it.
    let ours = basic("oidc", &account(Algorithm::RS256, &key, CLUSTER, "ci"));

    let daemon = hosting()
        .setting(
            "hosted.template",
            r#"[{ pattern = "ci/*" }, { pattern = "team/*" }]"#,
        )
        .setting("auth.oidc", &example(&server, &ca, &token))
        .start()
        .await;
    // Such tokens are replaced while we run: the one of now is shown.
    file(folder.path(), "token", "second\n");
    assert_eq!(daemon.push("ci/app", &ours).await, 202);
    assert_eq!(daemon.push("team/app", &ours).await, 403);
    let others = account(Algorithm::RS256, &key, CLUSTER, "default");
    assert_eq!(daemon.push("ci/app", &basic("oidc", &others)).await, 401);
    assert_eq!(shown(&service.calls()), [("/openid/v1/jwks", "Bearer second")]);
    assert!(!daemon.logs().iter().any(|line| line.contains("second")));

    // Without the token its keys are not given, and without its authority nobody is asked for them.
    let daemon = trusting(CLUSTER, &format!(r#", jwks_url = "{place}", ca_file = {ca}"#))
        .start()
        .await;
    assert_eq!(daemon.push("team/app", &ours).await, 401);
    assert_eq!(shown(&service.calls())[1..], [("/openid/v1/jwks", "")]);
    let daemon = trusting(
        CLUSTER,
        &format!(r#", jwks_url = "{place}", token_file = {token}"#),
    )
    .start()
    .await;
    assert_eq!(daemon.push("team/app", &ours).await, 401);
    assert_eq!(service.calls().len(), 2);
}

#[tokio::test]
async fn the_token_for_keys_goes_no_further_than_the_issuer() {
    let (key, set) = cluster();
    let elsewhere = Service::start(move |_| (200, set.to_string())).await;
    let keys = format!("{}/keys", secured(&elsewhere).await);
    let metadata = Service::start(move |call| {
        let issuer = format!("https://{}", call.header("host"));
        match (call.path.as_str(), call.header("authorization")) {
            ("/.well-known/openid-configuration", "Bearer mine") => {
                (200, json!({ "issuer": issuer, "jwks_uri": keys }).to_string())
            }
            _ => (401, String::new()),
        }
    })
    .await;
    let issuer = secured(&metadata).await;
    let folder = tempfile::tempdir().expect("a folder");
    let ca = file(folder.path(), "ca.crt", &PKI.ca);
    let token = file(folder.path(), "token", "mine");
    let daemon = trusting(&issuer, &format!(", ca_file = {ca}, token_file = {token}"))
        .start()
        .await;
    let ours = account(Algorithm::RS256, &key, &issuer, "ci");
    assert_eq!(daemon.push("team/app", &basic("oidc", &ours)).await, 202);
    assert_eq!(shown(&elsewhere.calls()), [("/keys", "")]);
}
