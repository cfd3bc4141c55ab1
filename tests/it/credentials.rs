//! Where logins come from, and what becomes of a bad one: helpers, Docker's config.json, files that change, several at
//! one upstream, a certificate of ours.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::admin::run;
use crate::expect::{assert_error, assert_manifest};
use crate::support::daemon::Builder;
use crate::support::prelude::*;
use crate::support::service::{PKI, Service, tls_before};
use crate::upstream_auth::{PASSWORD, authorizations, pull, with_image};

const NAME: &str = "docker-hub/acme/app";
/// Base64 of `ci:` and [`PASSWORD`].
const CI: &str = "Y2k6Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ==";

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// A daemon with these credentials, inline tables, that gives what they open to everybody.
pub fn with_credentials(upstream: &Upstream, credentials: &[&str]) -> Builder {
    let list = credentials.join(", ");
    Daemon::over(upstream)
        .setting("upstream.docker-hub.credential", &format!("[{list}]"))
        .setting("upstream.docker-hub.share_private", "true")
}

/// A shell script that can be run, and its path as TOML.
pub fn script(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a writable folder");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("permissions");
    quoted(&path)
}

fn quoted(path: &Path) -> String {
    format!("{:?}", path.to_str().expect("a plain path"))
}

fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).expect("a writable folder");
    quoted(&path)
}

#[tokio::test]
async fn a_helper_is_asked_once_and_again_after_a_refusal() {
    let (upstream, image) = with_image("acme/app").await;
    upstream.require_basic(Basic::new("ci", PASSWORD));
    let folder = folder();
    let at = folder.path();
    file(at, "password", PASSWORD);
    let here = at.display();
    let helper = script(
        at,
        "docker-credential-test",
        &format!(
            "cd {here}\ncat > server\necho \"$1\" >> calls\necho 'looking for it' >&2\n\
             printf '{{\"ServerURL\":\"x\",\"Username\":\"ci\",\"Secret\":\"%s\"}}' \"$(cat password)\""
        ),
    );
    let mut daemon = with_credentials(&upstream, &[&format!("{{ helper = {helper} }}")])
        .setting("log.level", "\"trace\"")
        .start()
        .await;
    pull(&daemon, NAME, &image).await;
    let calls = || fs::read_to_string(at.join("calls")).expect("it was called");
    assert_eq!(calls(), "get\n");
    let server = fs::read_to_string(at.join("server")).expect("it was told");
    assert_eq!(server, "https://index.docker.io/v1/");

    upstream.require_basic(Basic::new("ci", "another"));
    file(at, "password", "another");
    let second = Image::simple(2, 100);
    upstream.put("acme/app", "2", &second);
    assert_manifest(&get(daemon.manifest_url(NAME, "2")).await, &second, false);
    assert_eq!(calls(), "get\nget\n");
    daemon.wait_for_log("looking for it").await;
    assert!(daemon.stop().await.success());
    let log = daemon.logs().join("\n");
    assert!(
        !log.contains(PASSWORD) && !log.contains(CI),
        "a secret is in the log"
    );
}

#[tokio::test]
async fn offline_a_helper_that_runs_is_ended_and_it_is_no_worse_for_that() {
    let (upstream, image) = with_image("acme/app").await;
    upstream.require_basic(Basic::new("ci", PASSWORD));
    let folder = folder();
    let at = folder.path();
    let here = at.display();
    let login = format!("{{\"Username\":\"ci\",\"Secret\":\"{PASSWORD}\"}}");
    let helper = script(
        at,
        "docker-credential-test",
        &format!(
            "cd {here}\n[ -e answer ] && exec echo '{login}'\necho $$ > pid.new\nmv pid.new pid\nexec sleep 1000"
        ),
    );
    let daemon = with_credentials(&upstream, &[&format!("{{ helper = {helper} }}")])
        .start()
        .await;
    let client = tokio::spawn(get(daemon.manifest_url(NAME, "1")));
    let looking = |path: PathBuf, wanted: bool| async move {
        let look = async {
            while path.exists() != wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        soon("the helper", look).await;
    };
    looking(at.join("pid"), true).await;
    let pid = fs::read_to_string(at.join("pid")).expect("its number");
    let told = run(&daemon, &["offline", "on"]).await;
    assert_eq!(told.code(), Some(0));
    let answer = soon("the answer", client).await.expect("no panic");
    assert_error(&answer, 503, "UNAVAILABLE");
    assert!(answer.text().contains("offline"), "{}", answer.text());
    looking(Path::new("/proc").join(pid.trim()), false).await;
    file(at, "answer", "");
    run(&daemon, &["offline", "off"]).await.text();
    pull(&daemon, NAME, &image).await;
    assert!(!daemon.logs().join("\n").contains("set aside"));
}

#[tokio::test]
async fn a_helper_that_fails_is_set_aside_and_what_is_public_is_pulled_all_the_same() {
    let (upstream, image) = with_image("acme/app").await;
    upstream.require_bearer(Bearer::new().private("acme/secret").user("ci", PASSWORD));
    upstream.put("acme/secret", "1", &image);
    let folder = folder();
    let helper = script(
        folder.path(),
        "fails",
        "echo 'the vault is sealed' >&2\necho hunter2\nexit 3",
    );
    let mut daemon = with_credentials(
        &upstream,
        &[&format!("{{ name = \"vault\", helper = {helper} }}")],
    )
    .start()
    .await;
    pull(&daemon, NAME, &image).await;
    let refused = get(daemon.manifest_url("docker-hub/acme/secret", "1")).await;
    assert_error(&refused, 502, "UNAVAILABLE");
    let line = daemon.wait_for_log("a credential is set aside").await;
    assert!(
        line.contains("vault") && line.contains("the vault is sealed"),
        "{line}"
    );
    daemon.wait_for_log("none of its credentials is accepted").await;
    assert!(daemon.stop().await.success());
    assert!(!daemon.logs().join("\n").contains("hunter2"));
}

#[tokio::test]
async fn a_login_of_docker_by_file_by_helper_and_by_identity_token() {
    let (upstream, image) = with_image("acme/app").await;
    let folder = folder();
    let at = folder.path();
    upstream.require_bearer(Bearer::new().no_anonymous().user("ci", PASSWORD));
    let json = format!("{{\"auths\":{{\"https://index.docker.io/v1/\":{{\"auth\":\"{CI}\"}}}}}}");
    let config = file(at, "config.json", &json);
    let credential = format!("{{ docker_config = {config} }}");
    let daemon = with_credentials(&upstream, &[&credential]).start().await;
    pull(&daemon, NAME, &image).await;

    // The helper that the file names comes from PATH.
    script(
        at,
        "docker-credential-shelf",
        &format!("echo '{{\"Username\":\"ci\",\"Secret\":\"{PASSWORD}\"}}'"),
    );
    let config = file(
        at,
        "config.json",
        r#"{"credsStore":"shelf","auths":{"docker.io":{}}}"#,
    );
    assert!(credential.contains(&config));
    let path = format!("{}:{}", at.display(), std::env::var("PATH").unwrap_or_default());
    upstream.forget_requests();
    let daemon = with_credentials(&upstream, &[&credential])
        .env("PATH", &path)
        .start()
        .await;
    pull(&daemon, NAME, &image).await;
    assert!(authorizations(&upstream).contains(&format!("Basic {CI}")));

    // A refresh token is posted to the token service, and goes nowhere else.
    let issuer = Service::start(|call| match (call.method.as_str(), call.body.as_str()) {
        ("POST", body) if body.contains("refresh_token=very-secret") => (
            200,
            r#"{"access_token":"from-refresh","expires_in":300}"#.to_owned(),
        ),
        _ => (401, String::new()),
    })
    .await;
    file(
        at,
        "config.json",
        r#"{"auths":{"docker.io":{"auth":"Y2k6","identitytoken":"very-secret"}}}"#,
    );
    let challenge = format!(
        "Bearer realm=\"{}/token\",service=\"hub\",scope=\"{{scope}}\"",
        issuer.url()
    );
    upstream.require_bearer(Bearer::new().challenges(&[&challenge]));
    let daemon = with_credentials(&upstream, &[&credential]).start().await;
    upstream.forget_requests();
    let answer = get(daemon.manifest_url(NAME, "1")).await;
    // The scripted registry does not know that token: what counts is how it was asked for, and that it was sent.
    assert_ne!(answer.status, 200);
    let call = &issuer.calls()[0];
    assert_eq!((call.method.as_str(), call.header("authorization")), ("POST", ""));
    let form: Vec<_> = url::form_urlencoded::parse(call.body.as_bytes()).collect();
    let field = |name: &str| {
        form.iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_ref())
    };
    assert_eq!(field("grant_type"), Some("refresh_token"));
    assert_eq!(field("service"), Some("hub"));
    assert_eq!(field("scope"), Some("repository:acme/app:pull"));
    assert!(field("client_id").is_some());
    assert!(authorizations(&upstream).contains(&"Bearer from-refresh".to_owned()));
}

#[tokio::test]
async fn a_token_file_and_a_password_file_are_read_again_after_a_refusal() {
    let upstream = Upstream::start().await;
    let image = Image::simple(1, 100);
    upstream.put("acme/app", "1", &image);
    let folder = folder();
    let path = file(folder.path(), "secret", "first\n");
    upstream.require_basic(Basic::new("ci", "first"));
    let daemon = with_credentials(
        &upstream,
        &[&format!("{{ username = \"ci\", password_file = {path} }}")],
    )
    .start()
    .await;
    pull(&daemon, NAME, &image).await;
    upstream.require_basic(Basic::new("ci", "second"));
    file(folder.path(), "secret", "second");
    let another = Image::simple(2, 100);
    upstream.put("acme/app", "2", &another);
    assert_manifest(&get(daemon.manifest_url(NAME, "2")).await, &another, false);

    // A token goes to the registry as it is, whatever the challenge, and to no token service.
    let bearer = Bearer::new().no_anonymous();
    upstream.require_bearer(bearer.clone());
    let first = bearer.grant_account("repository:acme/app:pull");
    file(folder.path(), "secret", &format!("{first}\n"));
    upstream.forget_requests();
    let daemon = with_credentials(&upstream, &[&format!("{{ token_file = {path} }}")])
        .start()
        .await;
    pull(&daemon, NAME, &image).await;
    upstream.revoke_tokens();
    let second = bearer.grant_account("repository:acme/app:pull");
    file(folder.path(), "secret", &second);
    assert_manifest(&get(daemon.manifest_url(NAME, "2")).await, &another, false);
    assert_eq!(upstream.token_requests(), 0);
    assert_eq!(
        authorizations(&upstream),
        [format!("Bearer {first}"), format!("Bearer {second}")]
    );
}

#[tokio::test]
async fn a_bad_login_is_set_aside_and_named_once_and_fails_no_pull() {
    let (upstream, image) = with_image("acme/app").await;
    upstream.put("acme/other", "1", &image);
    upstream.require_bearer(Bearer::new().no_anonymous().user("good", PASSWORD));
    let bad = "{ name = \"team-a\", username = \"bad\", password = \"hunter2\" }";
    let good = format!("{{ username = \"good\", password = {PASSWORD:?} }}");
    let mut daemon = with_credentials(&upstream, &[bad, &good]).start().await;
    pull(&daemon, NAME, &image).await;
    pull(&daemon, "docker-hub/acme/other", &image).await;
    let metrics = daemon.metrics().await;
    for line in [
        r#"wharfinger_upstream_credential_set_aside{credential="team-a",upstream="docker-hub"} 1"#,
        r#"wharfinger_upstream_credential_set_aside{credential="good",upstream="docker-hub"} 0"#,
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    let status = get(format!("{}/api/status", daemon.url())).await.json();
    let told = &status["upstreams"][0]["credentials"];
    assert_eq!(
        (told[0]["name"].as_str(), told[0]["kind"].as_str()),
        (Some("team-a"), Some("password"))
    );
    assert!(
        told[0]["set_aside_seconds"]
            .as_u64()
            .is_some_and(|left| left <= 60)
    );
    assert!(
        told[0]["reason"]
            .as_str()
            .is_some_and(|why| why.contains("rejected by"))
    );
    assert!(told[1]["reason"].is_null());
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_wharfinger"));
    command.args(["status", "--config"]).arg(daemon.config_path());
    let output = soon("the status", command.output()).await.expect("a program");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text
        .lines()
        .find(|line| line.starts_with("credential team-a of docker-hub is set aside (rejected by "));
    assert!(
        line.is_some_and(|line| line.contains("tried again in ")),
        "{text}"
    );
    assert!(daemon.stop().await.success());
    let named = daemon.logs();
    let named = named
        .iter()
        .filter(|line| line.contains("a credential is set aside"));
    assert_eq!(named.count(), 1);
}

#[tokio::test]
async fn with_no_good_login_the_public_is_pulled_and_the_private_is_not_said_to_be_gone() {
    let (upstream, image) = with_image("acme/app").await;
    upstream.put("acme/secret", "1", &image);
    upstream.require_bearer(Bearer::new().user("ci", PASSWORD).private("acme/secret"));
    let folder = folder();
    let path = file(folder.path(), "secret", PASSWORD);
    let credential = format!("{{ username = \"ci\", password_file = {path} }}");
    let daemon = with_credentials(&upstream, &[&credential])
        .setting("cache.tag_ttl", "\"0s\"")
        .setting("cache.gone_ttl", "\"0s\"")
        .start()
        .await;
    let secret = "docker-hub/acme/secret";
    pull(&daemon, secret, &image).await;
    // The password changes over there: what is here is still served, and what is public is still pulled.
    upstream.require_bearer(Bearer::new().user("ci", "another").private("acme/secret"));
    let stale = get(daemon.manifest_url(secret, "1")).await;
    assert_manifest(&stale, &image, false);
    assert!(
        stale.header("cache-status").contains("stale"),
        "{}",
        stale.header("cache-status")
    );
    pull(&daemon, NAME, &image).await;
    daemon.wait_for_log("none of its credentials is accepted").await;
}

#[tokio::test]
async fn certificates_go_unverified_and_proxies_unused_only_where_that_is_said() {
    let (upstream, image) = with_image("acme/app").await;
    let port = tls_before(upstream.port(), false).await;
    let url = format!("\"https://127.0.0.1:{port}\"");
    // Nobody is there any more.
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let proxy = format!("\"http://{}\"", closed.local_addr().expect("an address"));
    drop(closed);
    let table = [
        (vec![("url", url.as_str())], false),
        (vec![("url", &url), ("insecure", "true")], true),
        (vec![("proxy", proxy.as_str())], false),
        (vec![("proxy", &proxy), ("no_proxy", "[\"127.0.0.0/8\"]")], true),
        (
            vec![("proxy", &proxy), ("no_proxy", "[\"10.0.0.0/8\", \".corp\"]")],
            false,
        ),
    ];
    for (settings, works) in table {
        let mut builder = Daemon::over(&upstream);
        for (key, value) in &settings {
            builder = builder.setting(&format!("upstream.docker-hub.{key}"), value);
        }
        let daemon = builder.start().await;
        let answer = get(daemon.manifest_url(NAME, "1")).await;
        if works {
            assert_manifest(&answer, &image, false);
        } else {
            assert_error(&answer, 503, "UNAVAILABLE");
        }
    }
}

#[tokio::test]
async fn a_client_certificate_opens_what_demands_one() {
    let (upstream, image) = with_image("acme/app").await;
    let port = tls_before(upstream.port(), true).await;
    let folder = folder();
    let at = folder.path();
    let builder = |with: &[(&str, String)]| {
        let mut builder = Daemon::over(&upstream)
            .setting(
                "upstream.docker-hub.url",
                &format!("\"https://127.0.0.1:{port}\""),
            )
            .setting("upstream.docker-hub.ca_file", &file(at, "ca.pem", &PKI.ca));
        for (key, value) in with {
            builder = builder.setting(&format!("upstream.docker-hub.{key}"), value);
        }
        builder
    };
    let pair = [
        ("client_cert", file(at, "client.pem", &PKI.client)),
        ("client_key", file(at, "client.key", &PKI.client_key)),
    ];
    let shared = [pair.as_slice(), &[("share_private", "true".to_owned())]].concat();
    pull(&builder(&shared).start().await, NAME, &image).await;

    // What only the certificate opens is private, unless it is shared.
    let closed = builder(&pair).start().await;
    let answer = get(closed.manifest_url(NAME, "1")).await;
    assert_error(&answer, 404, "NAME_UNKNOWN");
    closed.wait_for_log("share_private").await;

    let without = builder(&[]).start().await;
    assert!(get(without.manifest_url(NAME, "1")).await.status >= 500);
}
