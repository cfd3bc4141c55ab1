//! The audit log tells of each refusal, whoever refused: rights, the lists of an upstream, the upstream itself.

use serde_json::Value;

use crate::login::{Login, basic, hosting};
use crate::support::prelude::*;
use crate::upstream_auth::{PASSWORD, login};

/// What is told of each request: who, as what, did what to which repository, and whether they might.
fn told(line: &Value) -> [String; 4] {
    let text = |key: &str| line[key].as_str().unwrap_or("-").to_owned();
    let who = format!("{} {}", text("kind"), text("who"));
    let allowed = format!("{} {}", line["allowed"], line["status"]);
    [who, text("action"), text("repository"), allowed]
}

#[tokio::test]
async fn what_is_refused_is_told_as_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("audit.log");
    let upstream = Upstream::start().await;
    let image = Image::simple(1, 1000);
    upstream.put("acme/secret", "1", &image);
    upstream.require_bearer(
        Bearer::new()
            .user("ci", PASSWORD)
            .user_of("alice", "wonderland", &["acme/secret"])
            .private("acme/secret"),
    );
    let builder = login(
        hosting().upstream("docker-hub", &upstream),
        "docker-hub",
        PASSWORD,
    );
    let mut daemon = builder
        .setting("upstream.docker-hub.share_private", "false")
        .setting("upstream.docker-hub.caller_check", "true")
        .setting("upstream.docker-hub.deny", r#"["acme/banned"]"#)
        .setting("log.audit_file", &format!("{file:?}"))
        .start()
        .await;
    let (alice, guess) = (
        basic("docker-hub/alice", "wonderland"),
        basic("docker-hub/alice", "a guess"),
    );
    let manifest = |repo: &str| format!("/v2/docker-hub/{repo}/manifests/1");
    let asked = [
        ("GET", manifest("acme/banned"), "", 403),
        ("GET", manifest("acme/secret"), "", 401),
        ("GET", manifest("acme/secret"), guess.as_str(), 401),
        ("GET", "/token?service=wharfinger".to_owned(), &guess, 401),
        ("GET", manifest("acme/secret"), &alice, 200),
        (
            "POST",
            "/v2/docker-hub/acme/secret/blobs/uploads/".to_owned(),
            &alice,
            405,
        ),
    ];
    for (method, path, shown, status) in asked {
        assert_eq!(
            daemon.ask(method, &path, shown).await.status,
            status,
            "{method} {path}"
        );
    }
    assert!(daemon.stop().await.success());
    let text = std::fs::read_to_string(&file).expect("the log");
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let lines: Vec<[String; 4]> = lines.map(|line: Value| told(&line)).collect();
    let expected = [
        (
            "anonymous ",
            "ecr:BatchGetImage",
            "docker-hub/acme/banned",
            "false 403",
        ),
        (
            "anonymous ",
            "ecr:BatchGetImage",
            "docker-hub/acme/secret",
            "false 401",
        ),
        (
            "unproved docker-hub/alice",
            "ecr:GetAuthorizationToken",
            "-",
            "false 401",
        ),
        (
            "unproved docker-hub/alice",
            "ecr:GetAuthorizationToken",
            "-",
            "false 401",
        ),
        (
            "upstream docker-hub/alice",
            "ecr:BatchGetImage",
            "docker-hub/acme/secret",
            "true 200",
        ),
        (
            "upstream docker-hub/alice",
            "ecr:InitiateLayerUpload",
            "docker-hub/acme/secret",
            "false 405",
        ),
    ];
    let expected = expected
        .map(|(who, action, repository, allowed)| [who, action, repository, allowed].map(str::to_owned));
    assert_eq!(lines, expected);
}
