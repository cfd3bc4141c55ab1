//! What callers may: what presets, policies and networks say, and how it is refused.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Login as _, PULLED, basic, bearer, hosting, send, token_of};
use crate::support::prelude::*;

#[tokio::test]
async fn without_logins_everyone_pulls_and_nobody_pushes() {
    let upstream = Upstream::start().await;
    let image = Image::simple(1, 10_000);
    upstream.put("library/app", "latest", &image);
    let daemon = Daemon::over(&upstream)
        .setting("hosted.template", r#"[{ pattern = "team/*" }]"#)
        .start()
        .await;
    assert_eq!(daemon.ask("GET", "/v2/", "").await.status, 200);
    assert_eq!(get(daemon.manifest_url(PULLED, "latest")).await.status, 200);
    let refused = daemon.ask("POST", "/v2/team/app/blobs/uploads/", "").await;
    assert_eq!(refused.status, 401);
    assert!(
        refused.error().contains("wharfinger user add"),
        "{}",
        refused.error()
    );
    let host = daemon.address();
    assert_eq!(
        refused.challenge,
        format!(
            "Bearer realm=\"http://{host}/token\",service=\"wharfinger\",scope=\"repository:team/app:pull,push\""
        )
    );
    // Who shows something is not taken for nobody.
    let wrong = daemon.ask("GET", "/v2/", &basic("alice", "guess")).await;
    assert_eq!(wrong.status, 401, "{}", wrong.body);
    // Nor are names that do not exist told apart from those that do.
    for repository in ["team/other", "team/app"] {
        assert_eq!(daemon.push(repository, "").await, 401);
    }
}

#[tokio::test]
async fn who_pushes_without_a_token_hears_that_it_lacks_one() {
    let daemon = hosting().start().await;
    daemon.user("alice", "correct horse").await;
    // It begins to send before it knows, and goes on sending while it is answered.
    let size = 4 * 1024 * 1024;
    for _ in 0..20 {
        let mut raw = Raw::connect(&daemon.url()).await;
        raw.write(&format!(
            "PUT /v2/team/app/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
        ))
        .await;
        for _ in 0..4 {
            raw.write(&"x".repeat(size / 4)).await;
        }
        assert_eq!(raw.head().await.map(|head| head.status), Some(401));
        // And the connection goes on.
        raw.finish().await;
        raw.ask("GET", &format!("{}/v2/", daemon.url()), &[]).await;
        assert_eq!(raw.head().await.map(|head| head.status), Some(401));
    }
}

#[tokio::test]
async fn blobs_are_mounted_only_from_where_they_may_be_read() {
    let daemon = hosting().setting("auth.anonymous", "[]").start().await;
    let own = basic("own", &daemon.robot("own", &["pull,push:team/*"]).await);
    let both = basic("both", &daemon.robot("both", &["pull,push:*"]).await);
    let blob = b"what the others made".to_vec();
    let digest = sha256(&blob);
    let url = format!("{}/v2/other/app/blobs/uploads/?digest={digest}", daemon.url());
    assert_eq!(
        send("POST", &url, &[("authorization", &both)], blob).await.status,
        201
    );
    for query in [
        format!("mount={digest}&from=other/app"),
        format!("mount={digest}"),
    ] {
        let path = format!("/v2/team/app/blobs/uploads/?{query}");
        // An upload begins instead, as the spec wants it: nobody learns that it is there.
        let refused = daemon.ask("POST", &path, &own).await;
        assert_eq!(refused.status, 202, "{query}");
        assert_eq!(
            daemon
                .ask("HEAD", &format!("/v2/team/app/blobs/{digest}"), &own)
                .await
                .status,
            404
        );
    }
    assert_eq!(
        daemon
            .ask("GET", &format!("/v2/other/app/blobs/{digest}"), &own)
            .await
            .status,
        403
    );
    // Whoever shows nothing is told which rights a token needs, of a source that could be one.
    for (from, more) in [
        ("other/app", " repository:other/app:pull"),
        ("x%22,scope=%22y", ""),
    ] {
        let path = format!("/v2/team/app/blobs/uploads/?mount={digest}&from={from}");
        let refused = daemon.ask("POST", &path, "").await;
        assert_eq!(refused.status, 401);
        let scope = format!("scope=\"repository:team/app:pull,push{more}\"");
        assert!(refused.challenge.contains(&scope), "{}", refused.challenge);
    }
    // With a token that says nothing of the source, it is not read either.
    let query = "service=wharfinger&scope=repository:team/app:pull,push";
    let narrow = bearer(&token_of(&daemon.token(query, &both).await));
    let path = format!("/v2/team/app/blobs/uploads/?mount={digest}&from=other/app");
    assert_eq!(daemon.ask("POST", &path, &narrow).await.status, 202);
    let query = format!("{query}&scope=repository:other/app:pull");
    let wide = bearer(&token_of(&daemon.token(&query, &both).await));
    let mounted = daemon.ask("POST", &path, &wide).await;
    assert_eq!(mounted.status, 201);
    assert_eq!(
        daemon
            .ask("HEAD", &format!("/v2/team/app/blobs/{digest}"), &own)
            .await
            .status,
        200
    );

    // A session is its owner's.
    let seeing = basic("seeing", &daemon.robot("seeing", &["list:team/*"]).await);
    let begun = daemon.ask("POST", "/v2/team/app/blobs/uploads/", &own).await;
    assert_eq!(begun.status, 202);
    let theirs = b"not what its owner meant";
    let closing = format!("{}?digest={}", begun.location, sha256(theirs));
    for (method, location) in [
        ("GET", &begun.location),
        ("PATCH", &begun.location),
        ("PUT", &closing),
        ("DELETE", &begun.location),
    ] {
        let url = format!("{}{location}", daemon.url());
        for shown in [&both, &seeing] {
            let refused = send(method, &url, &[("authorization", shown)], *theirs).await;
            let status = if shown == &both { 404 } else { 403 };
            assert_eq!(refused.status, status, "{method}");
        }
    }
    let path = format!("/v2/team/app/blobs/{}", sha256(theirs));
    assert_eq!(daemon.ask("HEAD", &path, &both).await.status, 404);
    assert_eq!(daemon.ask("GET", &begun.location, &own).await.status, 204);
    // The catalog shows what its reader may see.
    assert_eq!(
        daemon.ask("GET", "/v2/_catalog", &seeing).await.json(),
        serde_json::json!({"repositories": ["team/app"]})
    );
    assert_eq!(daemon.ask("GET", "/v2/_catalog", "").await.status, 401);
}

#[tokio::test]
async fn policies_and_networks_decide_beside_the_words() {
    let upstream = Upstream::start().await;
    upstream.put("library/app", "latest", &Image::simple(1, 10_000));
    upstream.put("library/secret", "latest", &Image::simple(2, 10_000));
    let folder = tempfile::tempdir().expect("a folder");
    let policy = folder.path().join("policy.json");
    let text = serde_json::json!({"Version": "2012-10-17", "Statement": [
        {"Sid": "secrets", "Effect": "Deny", "Principal": "*", "Action": "ecr:*",
         "Resource": "arn:aws:ecr:*:*:repository/docker-hub/library/secret"},
        {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::000000000000:user/dora"}, "Action": "ecr:BatchDeleteImage",
         "Resource": "*", "Condition": {"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}}
    ]});
    std::fs::write(&policy, text.to_string()).expect("a file");
    let daemon = Daemon::over(&upstream)
        .setting("auth.policy_file", &format!("{policy:?}"))
        .setting("auth.anonymous", "[]")
        .setting("auth.open_networks", r#"["127.0.0.0/8"]"#)
        .setting("auth.admins", r#"["dora"]"#)
        .mirror_door()
        .start()
        .await;
    daemon.user("dora", "correct horse").await;
    daemon.user("bob", "correct horse").await;
    // From an open network nobody is asked, and everyone pulls.
    assert_eq!(daemon.ask("GET", "/v2/", "").await.status, 200);
    assert_eq!(get(daemon.manifest_url(PULLED, "latest")).await.status, 200);
    // An explicit deny wins over that, and over an admin.
    let secret = "/v2/docker-hub/library/secret/manifests/latest";
    assert_eq!(daemon.ask("GET", secret, "").await.status, 401);
    let dora = basic("dora", "correct horse");
    let denied = daemon.ask("GET", secret, &dora).await;
    assert_eq!(denied.status, 403);
    assert_eq!(
        denied.error(),
        "DENIED: User: arn:aws:iam::000000000000:user/dora is not authorized to perform: ecr:BatchGetImage on resource: \
         arn:aws:ecr:us-east-1:000000000000:repository/docker-hub/library/secret"
    );
    assert_eq!(upstream.requests_of(&path_has("library/secret")).len(), 0);
    // The mirror door asks nobody, whatever it refuses.
    let mirrored = send(
        "GET",
        &format!("{}/v2/library/secret/manifests/latest", daemon.mirror_url()),
        &[],
        "",
    )
    .await;
    assert_eq!((mirrored.status, mirrored.challenge.as_str()), (403, ""));
    let open = format!("{}/v2/library/app/manifests/latest", daemon.mirror_url());
    let foreign = [("authorization", "Basic Zm9yOmh1Yg==")];
    assert_eq!(send("GET", &open, &foreign, "").await.status, 200);
    assert_eq!(
        send("GET", &format!("{}/v2/", daemon.mirror_url()), &foreign, "")
            .await
            .status,
        200
    );

    // The admin API: by login, as soon as there is one.
    for (shown, status) in [("", 401), (&*basic("bob", "correct horse"), 403), (&dora, 200)] {
        assert_eq!(
            daemon.ask("GET", "/api/status", shown).await.status,
            status,
            "{shown}"
        );
    }
    for path in ["/livez", "/metrics"] {
        assert_eq!(daemon.ask("GET", path, &basic("bob", "wrong")).await.status, 200);
    }
    let url = format!("{}/api/identities", daemon.url());
    let headers = [("authorization", &*dora), ("content-type", "application/json")];
    let made = send(
        "POST",
        &url,
        &headers,
        r#"{"do":"create","name":"eve","new":{"kind":"user"}}"#,
    )
    .await;
    assert_eq!(made.status, 200, "{}", made.body);
    let listed = daemon.ask("GET", "/api/identities", &dora).await;
    assert!(
        !listed.body.contains("argon2") && !listed.body.contains("sha256:"),
        "{}",
        listed.body
    );
    let crossing = [headers[0], headers[1], ("origin", "https://elsewhere.example")];
    assert_eq!(send("POST", &url, &crossing, "{}").await.status, 403);
}

#[tokio::test]
async fn a_refusal_tells_neither_what_is_there_nor_which_policy_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let deny = serde_json::json!({"Version": "2012-10-17", "Statement": [
        {"Sid": "closed", "Effect": "Deny", "Principal": "*", "Action": "ecr:*"},
    ]});
    std::fs::write(at("deny.json"), deny.to_string()).expect("a file");
    let upstream = Upstream::start().await;
    let mut daemon = Daemon::over(&upstream)
        .setting("hosted.template", r#"[{ pattern = "team/*" }]"#)
        .setting("auth.anonymous", "[]")
        .setting("log.audit_file", &format!("{:?}", at("audit.log")))
        .start()
        .await;
    daemon.user("bob", "correct horse").await;
    let bob = basic("bob", "correct horse");
    for name in ["team/plain", "team/closed", "library/plain"] {
        let (well, told) = daemon.cli(&["repository", "create", name], "").await;
        assert!(well, "{told}");
    }
    let file = at("deny.json").display().to_string();
    let (well, told) = daemon
        .cli(&["repository", "policy", "set", "team/closed", &file], "")
        .await;
    assert!(well, "{told}");

    let digest = sha256(b"whatever");
    let asked = [
        ("GET", "manifests/v1".to_owned(), "ecr:BatchGetImage"),
        ("HEAD", format!("blobs/{digest}"), ""),
        ("GET", format!("blobs/{digest}"), "ecr:GetDownloadUrlForLayer"),
        ("GET", "tags/list".to_owned(), "ecr:ListImages"),
        ("POST", "blobs/uploads/".to_owned(), "ecr:InitiateLayerUpload"),
        (
            "POST",
            format!("blobs/uploads/?digest={digest}"),
            "ecr:InitiateLayerUpload",
        ),
        ("DELETE", format!("manifests/{digest}"), "ecr:BatchDeleteImage"),
    ];
    let names = [
        "team/plain",
        "team/closed",
        "team/none",
        "library/plain",
        "library/none",
    ];
    for (method, what, action) in &asked {
        for name in names {
            // What only an upstream could have takes no pushes, whoever asks.
            if name == "library/none" && ["POST", "DELETE"].contains(method) {
                continue;
            }
            let path = format!("/v2/{name}/{what}");
            let told = daemon.ask(method, &path, &bob).await;
            assert_eq!(told.status, 403, "{method} {path}");
            if *method != "HEAD" {
                assert_eq!(
                    told.error(),
                    format!(
                        "DENIED: User: arn:aws:iam::000000000000:user/bob is not authorized to perform: {action} on \
                         resource: arn:aws:ecr:us-east-1:000000000000:repository/{name}"
                    ),
                    "{method} {path}"
                );
            }
            let nobody = daemon.ask(method, &path, "").await;
            assert_eq!(nobody.status, 401, "{method} {path}");
            if *method != "HEAD" {
                assert_eq!(nobody.error(), "UNAUTHORIZED: authentication required");
            }
        }
    }
    assert_eq!(upstream.requests().len(), 0);

    // The operator is told all of it.
    assert!(daemon.stop().await.success());
    let audit = std::fs::read_to_string(at("audit.log")).expect("the log");
    let told = |who: &str, repository: &str| {
        let lines = audit
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"));
        let reasons = lines.filter(|line: &Value| line["who"] == who && line["repository"] == repository);
        let reasons: BTreeSet<_> = reasons
            .map(|line| line["reason"].as_str().expect("a reason").to_owned())
            .collect();
        reasons.into_iter().collect::<Vec<_>>().join("\n")
    };
    for who in ["bob", ""] {
        let reasons = told(who, "team/closed");
        assert!(
            reasons.contains("ecr:ListImages: statement closed of the repository's policy denies it"),
            "{reasons}"
        );
        for name in ["team/plain", "team/none", "docker-hub/library/none"] {
            let reasons = told(who, name);
            assert!(
                reasons.contains("ecr:ListImages: no policy of the identity allows it"),
                "{name}: {reasons}"
            );
        }
    }
}
