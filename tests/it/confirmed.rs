//! Between the head of a push and the end of its body lies time: whoever may no longer push when all of it is here has not
//! pushed.

use bytes::Bytes;
use serde_json::Value;

use crate::login::{Login as _, basic, bearer, hosting};
use crate::support::prelude::*;

const PASSWORD: &str = "a long password";

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const BLOB: &str = "application/octet-stream";
const JSON: &str = "application/json";

/// What happens while a body is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    Removed,
    Disabled,
    Ended,
    AnotherPassword,
    Denied,
    Deleted,
}

use Meanwhile::*;

const ALL: [Meanwhile; 7] = [
    Nothing,
    Removed,
    Disabled,
    Ended,
    AnotherPassword,
    Denied,
    Deleted,
];

impl Meanwhile {
    /// How the push ends.
    fn status(self) -> u16 {
        match self {
            Nothing => 201,
            Removed | Disabled | Ended | AnotherPassword => 401,
            Denied => 403,
            Deleted => 404,
        }
    }

    async fn happen(self, daemon: &Daemon, name: &str, repository: &str) {
        let policy = daemon.config_path().with_file_name("policy.json");
        let file = policy.display().to_string();
        let deny = r#"{ "Version": "2012-10-17", "Statement": [{ "Effect": "Deny", "Principal": "*", "Action": "ecr:PutImage" },
            { "Effect": "Deny", "Principal": "*", "Action": "ecr:CompleteLayerUpload" },
            { "Effect": "Deny", "Principal": "*", "Action": "ecr:InitiateLayerUpload" },
            { "Effect": "Deny", "Principal": "*", "Action": "ecr:UploadLayerPart" }] }"#;
        let (arguments, input): (&[&str], &str) = match self {
            Nothing => return,
            Removed => (&["user", "remove", name], ""),
            Disabled => (&["user", "set", name, "--disable"], ""),
            Ended => (&["user", "set", name, "--expires", "1ms"], ""),
            AnotherPassword => (&["user", "password", name], "another long password"),
            Denied => {
                std::fs::write(&policy, deny).expect("a file");
                (&["repository", "policy", "set", repository, &file], "")
            }
            Deleted => (&["repository", "delete", repository, "--force"], ""),
        };
        let (well, told) = daemon.cli(arguments, input).await;
        assert!(well, "{self:?}: {told}");
    }
}

/// A daemon where everybody who logs in may push.
async fn start() -> Daemon {
    hosting().setting("auth.writers", r#"["*"]"#).start().await
}

/// Sends the head of a request and half of its body, once the daemon asks for it: by then it has let the request in.
async fn half(method: &str, url: &str, authorization: &str, kind: &str, body: &Bytes) -> Raw {
    let mut raw = Raw::connect(url).await;
    let length = body.len().to_string();
    let headers = [
        ("authorization", authorization),
        ("content-length", &length),
        ("content-type", kind),
        ("expect", "100-continue"),
    ];
    raw.ask(method, url, &headers).await;
    let head = raw.head().await.expect("a word to go on");
    assert_eq!(head.status, 100, "{}", head.text);
    assert!(raw.try_write(&body[..body.len() / 2]).await);
    raw
}

/// Sends the rest: how it ends.
async fn rest(mut raw: Raw, body: &Bytes) -> (u16, String) {
    assert!(raw.try_write(&body[body.len() / 2..]).await);
    let head = raw.head().await.expect("an answer");
    let (text, _) = raw.finish().await;
    (head.status, String::from_utf8_lossy(&text).into_owned())
}

fn code(text: &str) -> String {
    let told: Value = serde_json::from_str(text).unwrap_or_default();
    told["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
}

/// What the client shows: its password, or a token that it has had made.
async fn shown(daemon: &Daemon, name: &str, repository: &str, by_token: bool) -> String {
    daemon.user(name, PASSWORD).await;
    let password = basic(name, PASSWORD);
    if !by_token {
        return password;
    }
    let query = format!("scope=repository:{repository}:pull,push");
    let told = daemon.token(&query, &password).await;
    bearer(told.json()["token"].as_str().expect("a token"))
}

#[tokio::test]
async fn a_manifest_is_not_taken_from_who_may_no_longer_push() {
    let daemon = start().await;
    let index = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    let body = Bytes::from(index);
    for (number, meanwhile) in ALL.into_iter().enumerate() {
        for by_token in [false, true] {
            let name = format!("user-{number}-{by_token}");
            let repository = format!("team/{name}");
            let authorization = shown(&daemon, &name, &repository, by_token).await;
            let url = daemon.manifest_url(&repository, "v1");
            let raw = half("PUT", &url, &authorization, INDEX, &body).await;
            meanwhile.happen(&daemon, &name, &repository).await;
            let (status, text) = rest(raw, &body).await;
            assert_eq!(status, meanwhile.status(), "{meanwhile:?} {by_token}: {text}");
            let expected = match meanwhile {
                Nothing => "",
                Denied => "DENIED",
                Deleted => "NAME_UNKNOWN",
                _ => "UNAUTHORIZED",
            };
            assert_eq!(code(&text), expected, "{meanwhile:?}");
            for reference in ["v1", &sha256(&body)] {
                let there = head(daemon.manifest_url(&repository, reference)).await.status == 200;
                assert_eq!(there, meanwhile == Nothing, "{meanwhile:?} {reference}");
            }
        }
    }
}

#[tokio::test]
async fn a_blob_is_not_taken_either() {
    let daemon = start().await;
    for (number, meanwhile) in ALL.into_iter().enumerate() {
        for whole in [false, true] {
            let name = format!("user-{number}-{whole}");
            let repository = format!("team/{name}");
            // Either way of showing who it is with either way of sending it.
            let authorization = shown(&daemon, &name, &repository, whole).await;
            let body = random(number as u64 * 2 + u64::from(whole), 300_000);
            let digest = sha256(&body);
            let uploads = format!("{}/v2/{repository}/blobs/uploads/", daemon.url());
            let raw = if whole {
                let url = format!("{uploads}?digest={digest}");
                half("POST", &url, &authorization, BLOB, &body).await
            } else {
                let begun = send(Method::POST, &uploads, &[("authorization", &authorization)], "").await;
                assert_eq!(begun.status, 202, "{}", begun.text());
                let url = format!("{}{}?digest={digest}", daemon.url(), begun.header("location"));
                half("PUT", &url, &authorization, BLOB, &body).await
            };
            meanwhile.happen(&daemon, &name, &repository).await;
            let (status, text) = rest(raw, &body).await;
            assert_eq!(status, meanwhile.status(), "{meanwhile:?} {whole}: {text}");
            let there = head(daemon.blob_url(&repository, &digest)).await.status == 200;
            assert_eq!(there, meanwhile == Nothing, "{meanwhile:?}");
        }
    }
}

#[tokio::test]
async fn nor_is_the_word_of_an_operator() {
    let daemon = hosting()
        .setting("auth.admins", r#"["ann", "bob"]"#)
        .start()
        .await;
    daemon.user("ann", PASSWORD).await;
    daemon.user("bob", PASSWORD).await;
    let body = Bytes::from(r#"{"name": "team/app"}"#);
    let url = format!("{}/api/repository-create", daemon.url());
    for (name, expected) in [("bob", 401), ("ann", 200)] {
        let raw = half("POST", &url, &basic(name, PASSWORD), JSON, &body).await;
        if name == "bob" {
            Removed.happen(&daemon, name, "").await;
        }
        let (status, text) = rest(raw, &body).await;
        assert_eq!(status, expected, "{text}");
        let (made, _) = daemon.cli(&["repository", "show", "team/app"], "").await;
        assert_eq!(made, name == "ann");
    }
}
