//! Who is it, and may they, as clients see it: challenges, tokens, robots and their bounds, what is refused and how, and
//! what operators do to identities.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::support::client;
use crate::support::daemon::Builder;
use crate::support::prelude::*;

const PULLED: &str = "docker-hub/library/app";

/// A request with a body.
pub async fn send(method: &str, url: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Reply {
    let method: Method = method.parse().expect("a method");
    let answer = client::send(method, url, headers, body.into()).await;
    Reply {
        status: answer.status,
        challenge: answer.header("www-authenticate").to_owned(),
        location: answer.header("location").to_owned(),
        body: answer.text(),
    }
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    challenge: String,
    location: String,
    body: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The first error's code and message.
    fn error(&self) -> String {
        let error = &self.json()["errors"][0];
        format!(
            "{}: {}",
            error["code"].as_str().unwrap_or("?"),
            error["message"].as_str().unwrap_or("?")
        )
    }
}

/// Name and password.
pub fn basic(name: &str, password: &str) -> String {
    use base64::Engine as _;
    let shown = format!("{name}:{password}");
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(shown)
    )
}

pub fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// A daemon that hosts `team/*` and `other/*`.
pub fn hosting() -> Builder {
    Daemon::builder().setting(
        "hosted.template",
        r#"[{ pattern = "team/*" }, { pattern = "other/*" }]"#,
    )
}

pub trait Login {
    async fn cli(&self, arguments: &[&str], input: &str) -> (bool, String);
    async fn ask(&self, method: &str, path: &str, authorization: &str) -> Reply;
    async fn token(&self, query: &str, authorization: &str) -> Reply;
    async fn user(&self, name: &str, password: &str);
    async fn robot(&self, name: &str, scopes: &[&str]) -> String;
    async fn push(&self, repository: &str, authorization: &str) -> u16;
}

impl Login for Daemon {
    /// Runs a subcommand: whether it went well, and what it printed.
    async fn cli(&self, arguments: &[&str], input: &str) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharfinger"));
        command
            .args(arguments)
            .arg("--config")
            .arg(self.config_path())
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program to start");
        let mut stdin = child.stdin.take().expect("its input");
        // It may have ended without reading.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = soon("the program's end", child.wait_with_output())
            .await
            .expect("its output");
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        (output.status.success(), text)
    }

    async fn ask(&self, method: &str, path: &str, authorization: &str) -> Reply {
        let headers = [("authorization", authorization)];
        let headers = if authorization.is_empty() {
            &[][..]
        } else {
            &headers[..]
        };
        send(method, &format!("{}{path}", self.url()), headers, "").await
    }

    async fn token(&self, query: &str, authorization: &str) -> Reply {
        self.ask("GET", &format!("/token?{query}"), authorization).await
    }

    async fn user(&self, name: &str, password: &str) {
        let (well, told) = self
            .cli(&["user", "add", name, "--password-stdin"], password)
            .await;
        assert!(well, "{told}");
    }

    /// Makes a robot: its secret.
    async fn robot(&self, name: &str, scopes: &[&str]) -> String {
        let mut arguments = vec!["robot", "add", name, "--json"];
        for scope in scopes {
            arguments.extend(["--scope", scope]);
        }
        let (well, told) = self.cli(&arguments, "").await;
        assert!(well, "{told}");
        let made: Value = serde_json::from_str(&told).expect("JSON");
        made["made"]["secret"].as_str().expect("a secret").to_owned()
    }

    /// Begins an upload: the status.
    async fn push(&self, repository: &str, authorization: &str) -> u16 {
        let path = format!("/v2/{repository}/blobs/uploads/");
        self.ask("POST", &path, authorization).await.status
    }
}

/// The token in an answer.
pub fn token_of(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()["token"].as_str().expect("a token").to_owned()
}

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
async fn docker_logs_in_pulls_and_pushes_by_token() {
    let upstream = Upstream::start().await;
    upstream.put("library/app", "latest", &Image::simple(1, 10_000));
    let daemon = Daemon::over(&upstream)
        .setting("hosted.template", r#"[{ pattern = "team/*" }]"#)
        .setting("auth.writers", r#"["alice"]"#)
        .start()
        .await;
    daemon.user("alice", "correct horse").await;
    daemon.user("bob", "battery staple").await;
    let ping = daemon.ask("GET", "/v2/", "").await;
    assert_eq!(ping.status, 401);
    assert!(
        ping.challenge.starts_with("Bearer realm=\"http://"),
        "{}",
        ping.challenge
    );

    // As `docker login` does.
    let query = "account=alice&client_id=docker&offline_token=true&service=wharfinger";
    let login = daemon.token(query, &basic("alice", "correct horse")).await;
    let token = token_of(&login);
    assert_eq!(daemon.ask("GET", "/v2/", &bearer(&token)).await.status, 200);
    let refresh = login.json()["refresh_token"]
        .as_str()
        .expect("a refresh token")
        .to_owned();
    for wrong in [basic("alice", "wrong horse"), basic("nobody", "correct horse")] {
        let refused = daemon.token(query, &wrong).await;
        assert_eq!((refused.status, refused.challenge.as_str()), (401, ""));
        assert!(
            refused.error().contains("the name or the password is wrong"),
            "{}",
            refused.error()
        );
    }

    // A token without scope opens nothing, and says what lacks.
    let lacking = daemon
        .ask("POST", "/v2/team/app/blobs/uploads/", &bearer(&token))
        .await;
    assert_eq!(lacking.status, 401);
    assert!(
        lacking
            .challenge
            .ends_with("scope=\"repository:team/app:pull,push\",error=\"insufficient_scope\""),
        "{}",
        lacking.challenge
    );
    // As pushes do with the refresh token.
    let form = format!(
        "grant_type=refresh_token&refresh_token={refresh}&service=wharfinger&client_id=docker&scope=repository%3Ateam%2Fapp%3Apull%2Cpush"
    );
    let form_type = [("content-type", "application/x-www-form-urlencoded")];
    let url = format!("{}/token", daemon.url());
    let answer = send("POST", &url, &form_type, form.clone()).await;
    assert_eq!(answer.json()["scope"], "repository:team/app:pull,push");
    let pushing = answer.json()["access_token"]
        .as_str()
        .expect("a token")
        .to_owned();
    assert_eq!(daemon.push("team/app", &bearer(&pushing)).await, 202);
    // Good for that repository alone.
    assert_eq!(daemon.push("team/other", &bearer(&pushing)).await, 401);

    // Bob gets what he may have, which is less, and no error; then he hears that he may not.
    let query = "service=wharfinger&scope=repository:team/app:pull,push";
    let bobs = daemon.token(query, &basic("bob", "battery staple")).await;
    let bobs = bearer(&token_of(&bobs));
    let denied = daemon.ask("POST", "/v2/team/app/blobs/uploads/", &bobs).await;
    assert_eq!(denied.status, 403);
    assert!(
        denied
            .error()
            .starts_with("DENIED: User: arn:aws:iam::000000000000:user/bob"),
        "{}",
        denied.error()
    );
    assert_eq!(
        daemon.ask("GET", "/v2/team/app/tags/list", &bobs).await.status,
        200
    );

    // Nobody in particular gets a token for what everyone may.
    let nobody = daemon
        .token(
            "service=wharfinger&scope=repository:docker-hub/library/app:pull",
            "",
        )
        .await;
    let nobodys = bearer(&token_of(&nobody));
    assert!(nobody.json()["refresh_token"].is_null());
    let path = format!("/v2/{PULLED}/manifests/latest");
    assert_eq!(daemon.ask("GET", &path, &nobodys).await.status, 200);
    assert_eq!(daemon.ask("GET", &path, "").await.status, 200);
    assert_eq!(daemon.push("team/app", &nobodys).await, 401);

    // Another password, and all that was made of the old one is void.
    let (well, told) = daemon
        .cli(&["user", "password", "alice"], "another horse\n")
        .await;
    assert!(well, "{told}");
    let void = daemon.ask("GET", "/v2/", &bearer(&token)).await;
    assert_eq!(void.status, 401);
    assert!(
        void.challenge.contains("error=\"invalid_token\""),
        "{}",
        void.challenge
    );
    assert_eq!(send("POST", &url, &form_type, form).await.status, 401);
    assert_eq!(
        daemon.token(query, &basic("alice", "correct horse")).await.status,
        401
    );
    assert_eq!(
        daemon.token(query, &basic("alice", "another horse")).await.status,
        200
    );
}

#[tokio::test]
async fn robots_may_what_their_scopes_say_until_they_end() {
    let mut daemon = hosting().start().await;
    let secret = daemon.robot("ci", &["pull,push:team/*"]).await;
    let shown = basic("ci", &secret);
    assert_eq!(daemon.push("team/app", &shown).await, 202);
    assert_eq!(daemon.push("other/app", &shown).await, 403);
    let delete = format!("/v2/team/app/manifests/sha256:{}", "0".repeat(64));
    assert_eq!(daemon.ask("DELETE", &delete, &shown).await.status, 403);
    assert_eq!(daemon.push("team/app", &basic("other", &secret)).await, 401);

    // A further secret, good for less.
    let (_, told) = daemon
        .cli(&["token", "create", "ci", "--scope", "pull:*", "--json"], "")
        .await;
    let made: Value = serde_json::from_str(&told).expect("JSON");
    let (id, reading) = (
        made["made"]["id"].as_str().expect("an id"),
        made["made"]["secret"].as_str(),
    );
    let reading = basic("ci", reading.expect("a secret"));
    assert_eq!(daemon.push("team/app", &reading).await, 403);
    assert_eq!(
        daemon.ask("GET", "/v2/team/app/tags/list", &reading).await.status,
        200
    );
    // Not more than its owner, either.
    assert_eq!(
        daemon
            .ask("GET", "/v2/other/app/tags/list", &reading)
            .await
            .status,
        403
    );
    // Tokens that are made with it carry its bounds.
    let query = "service=wharfinger&scope=repository:team/app:pull,push";
    let bounded = bearer(&token_of(&daemon.token(query, &reading).await));
    assert_eq!(daemon.push("team/app", &bounded).await, 403);

    // All of it is there after a kill, tokens too.
    let token = bearer(&token_of(&daemon.token(query, &shown).await));
    daemon.kill().await;
    daemon.restart().await;
    assert_eq!(daemon.push("team/app", &token).await, 202);
    assert_eq!(daemon.push("team/app", &shown).await, 202);

    let (well, told) = daemon.cli(&["token", "revoke", "ci", id], "").await;
    assert!(well, "{told}");
    assert_eq!(daemon.push("team/app", &reading).await, 401);
    assert_eq!(daemon.push("team/app", &token).await, 401);
    assert_eq!(daemon.push("team/app", &shown).await, 202);

    let token = bearer(&token_of(&daemon.token(query, &shown).await));
    for (arguments, status) in [
        (&["robot", "set", "ci", "--disable"][..], 401),
        (&["robot", "set", "ci", "--enable"], 202),
        (&["robot", "set", "ci", "--expires", "1ms"], 401),
        (&["robot", "set", "ci", "--expires", "never"], 202),
        (&["robot", "remove", "ci"], 401),
    ] {
        let (well, told) = daemon.cli(arguments, "").await;
        assert!(well, "{told}");
        assert_eq!(daemon.push("team/app", &shown).await, status, "{arguments:?}");
        assert_eq!(daemon.push("team/app", &token).await, 401, "{arguments:?}");
    }
}

#[tokio::test]
async fn tokens_that_are_not_ours_or_were_altered_prove_nothing() {
    let daemon = hosting().setting("auth.writers", r#"["*"]"#).start().await;
    daemon.user("alice", "correct horse").await;
    let query = "service=wharfinger&scope=repository:team/app:pull,push";
    let token = token_of(&daemon.token(query, &basic("alice", "correct horse")).await);
    let parts: Vec<&str> = token.split('.').collect();
    let encode = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
    };
    let decode = |text: &str| {
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(text)
            .expect("base64");
        String::from_utf8(bytes).expect("text")
    };
    let (header, claims) = (decode(parts[0]), decode(parts[1]));
    let other = claims.replace("alice", "admin");
    assert_ne!(claims, other);
    let flipped = if parts[2].starts_with('A') { "B" } else { "A" };
    let forged = [
        format!("{}.{}.{}", parts[0], encode(&other), parts[2]),
        format!("{}.{}.{flipped}{}", parts[0], parts[1], &parts[2][1..]),
        format!("{}.{}.", encode(&header.replace("EdDSA", "none")), parts[1]),
        format!(
            "{}.{}.{}",
            encode(&header.replace("EdDSA", "none")),
            parts[1],
            parts[2]
        ),
        format!(
            "{}.{}.{}",
            encode(&header.replace("EdDSA", "HS256")),
            parts[1],
            parts[2]
        ),
        format!(
            "{}.{}.{}",
            encode(r#"{"alg":"EdDSA","typ":"JWT"}"#),
            parts[1],
            parts[2]
        ),
        format!(
            "{}.{}.{}",
            encode(r#"{"alg":"EdDSA","kid":"../../key","jwk":{}}"#),
            parts[1],
            parts[2]
        ),
        format!("{}.{}", parts[0], parts[1]),
        "x.y.z".to_owned(),
        "x".repeat(20_000),
    ];
    for token in forged {
        let refused = daemon.ask("GET", "/v2/", &bearer(&token)).await;
        assert_eq!(refused.status, 401, "{token:.60}");
        assert_eq!(daemon.push("team/app", &bearer(&token)).await, 401, "{token:.60}");
    }
    assert_eq!(daemon.push("team/app", &bearer(&token)).await, 202);
    // A token for another service is not made.
    let other = daemon
        .token("service=registry.example.com", &basic("alice", "correct horse"))
        .await;
    assert_eq!(other.status, 400);
    // One that others are made of asks for nothing itself, and the other way round.
    let login = daemon
        .token(
            "service=wharfinger&offline_token=1",
            &basic("alice", "correct horse"),
        )
        .await;
    let refresh = login.json()["refresh_token"]
        .as_str()
        .expect("a token")
        .to_owned();
    assert_eq!(daemon.push("team/app", &bearer(&refresh)).await, 401);
    let form = format!("grant_type=refresh_token&refresh_token={token}");
    let url = format!("{}/token", daemon.url());
    assert_eq!(send("POST", &url, &[], form).await.status, 401);
    for form in [
        "",
        "grant_type=password",
        "grant_type=refresh_token",
        "grant_type=client_credentials",
    ] {
        assert_eq!(send("POST", &url, &[], form).await.status, 400, "{form}");
    }
    assert_eq!(send("POST", &url, &[], "x".repeat(100_000)).await.status, 413);
    assert_eq!(send("PUT", &url, &[], "").await.status, 405);
    // What is no login at all is no login.
    for shown in ["Basic !", "Digest x", "Bearer", "Negotiate abc"] {
        assert_eq!(daemon.ask("GET", "/v2/", shown).await.status, 401, "{shown}");
    }
    // Nor does a token lead to another one, whatever it was made for.
    for query in [
        "service=wharfinger&offline_token=true",
        "scope=repository:team/app:push",
    ] {
        assert_eq!(daemon.token(query, &bearer(&token)).await.status, 401, "{query}");
    }
    // A secret that ends takes along what is made of it.
    let (_, told) = daemon
        .cli(&["token", "create", "alice", "--expires", "100s", "--json"], "")
        .await;
    let made: Value = serde_json::from_str(&told).expect("JSON");
    let short = basic("alice", made["made"]["secret"].as_str().expect("a secret"));
    let login = daemon.token("offline_token=true", &short).await.json();
    assert!(login["expires_in"].as_u64().expect("seconds") <= 100, "{login}");
    let claims = decode(
        login["refresh_token"]
            .as_str()
            .and_then(|token| token.split('.').nth(1))
            .expect("claims"),
    );
    let claims: Value = serde_json::from_str(&claims).expect("JSON");
    let seconds = |name: &str| claims[name].as_u64().expect("seconds");
    assert!(seconds("exp") - seconds("iat") <= 100, "{claims}");
    // And asking for one thing a hundred times is asking for it once.
    let many = "scope=registry:catalog:*&".repeat(100);
    let token_once = token_of(&daemon.token("scope=registry:catalog:*", "").await);
    let token_many = token_of(&daemon.token(&many, "").await);
    assert_eq!(token_once.len(), token_many.len());
    // Another daemon signs with another key.
    let another = hosting().start().await;
    another.user("alice", "correct horse").await;
    assert_eq!(another.ask("GET", "/v2/", &bearer(&token)).await.status, 401);
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
    let begun = daemon.ask("POST", "/v2/team/app/blobs/uploads/", &own).await;
    assert_eq!(begun.status, 202);
    for method in ["GET", "PATCH", "DELETE"] {
        assert_eq!(
            daemon.ask(method, &begun.location, &both).await.status,
            404,
            "{method}"
        );
    }
    assert_eq!(daemon.ask("GET", &begun.location, &own).await.status, 204);
    // The catalog shows what its reader may see.
    let seeing = basic("seeing", &daemon.robot("seeing", &["list:team/*"]).await);
    assert_eq!(
        daemon.ask("GET", "/v2/_catalog", &seeing).await.json(),
        serde_json::json!({"repositories": ["team/app"]})
    );
    assert_eq!(daemon.ask("GET", "/v2/_catalog", "").await.status, 401);
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
    assert!(
        denied
            .error()
            .contains("with an explicit deny in a resource-based policy"),
        "{}",
        denied.error()
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
async fn access_keys_open_as_names_and_passwords_do_and_are_kept_encrypted() {
    let mut daemon = hosting().setting("auth.writers", r#"["*"]"#).start().await;
    daemon.user("alice", "correct horse").await;
    let (_, told) = daemon.cli(&["access-key", "create", "alice", "--json"], "").await;
    let made: Value = serde_json::from_str(&told).expect("JSON");
    let (id, secret) = (
        made["made"]["id"].as_str().expect("an id"),
        made["made"]["secret"].as_str().expect("a secret"),
    );
    assert_eq!(daemon.push("team/app", &basic(id, secret)).await, 202);
    assert_eq!(daemon.push("team/app", &basic(id, "wrong")).await, 401);
    daemon.restart().await;
    assert_eq!(daemon.push("team/app", &basic(id, secret)).await, 202);
    daemon.stop().await;
    let mut found = 0;
    let mut folders = vec![daemon.data_dir()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(bytes) = std::fs::read(&path) {
                let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
                found += usize::from(holds(id));
                assert!(!holds(secret) && !holds("correct horse"), "{}", path.display());
            }
        }
    }
    assert!(found > 0, "the id is in the index");
    daemon.restart().await;
    let (well, told) = daemon.cli(&["access-key", "remove", "alice", id], "").await;
    assert!(well, "{told}");
    assert_eq!(daemon.push("team/app", &basic(id, secret)).await, 401);
}

#[tokio::test]
async fn what_operators_get_wrong_is_told() {
    let daemon = hosting().start().await;
    daemon.user("alice", "correct horse").await;
    for (arguments, input, reason) in [
        (
            &["user", "add", "alice", "--password-stdin"][..],
            "correct horse",
            "there is a `alice` already",
        ),
        (&["user", "add", "a/b"], "", "is no name"),
        (&["user", "add", "AWS"], "", "is no name"),
        (
            &["user", "add", "bob", "--password-stdin"],
            "short",
            "at least 8 characters",
        ),
        (&["user", "password", "bob"], "correct horse", "there is no `bob`"),
        (&["user", "remove", "bob"], "", "there is no user `bob`"),
        (&["robot", "remove", "alice"], "", "there is no robot `alice`"),
        (&["robot", "add", "ci"], "", "needs a scope"),
        (&["robot", "add", "ci", "--scope", "take:all"], "", "is no scope"),
        (
            &["token", "revoke", "alice", "nothing"],
            "",
            "there is no `nothing`",
        ),
        (
            &["user", "add", "bob", "--expires", "soon"],
            "",
            "is not a span of time",
        ),
    ] {
        let (well, told) = daemon.cli(arguments, input).await;
        assert!(!well && told.contains(reason), "{arguments:?}: {told}");
    }
    let (well, told) = daemon.cli(&["user", "list"], "").await;
    assert!(
        well && told.contains("alice") && told.contains("password"),
        "{told}"
    );
    let (_, told) = daemon.cli(&["robot", "list"], "").await;
    assert!(told.contains("wharfinger robot add"), "{told}");
}

#[tokio::test]
async fn logins_that_all_could_read_are_not_begun_with() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("htpasswd");
    std::fs::write(
        &file,
        "alice:$2y$05$vSLPFcBlYPMx/mMXe4IxgOzSXYiPlT9dkNhYDT0LhTX/UZRCLDhRG\nbob:{SHA}x\n",
    )
    .expect("a file");
    let exposed = || {
        hosting()
            .setting("server.listen", "\"0.0.0.0:0\"")
            .setting("auth.htpasswd_file", &format!("{file:?}"))
    };
    let (status, logs) = exposed().fail().await;
    assert!(!status.success());
    let told = logs.join("\n");
    assert!(
        told.contains("speaks plain HTTP") && told.contains("server.allow_plain_http"),
        "{told}"
    );
    // Nor are they made, which would be found out at the next start.
    let daemon = hosting().setting("server.listen", "\"0.0.0.0:0\"").start().await;
    let (well, told) = daemon.cli(&["user", "add", "alice"], "").await;
    assert!(!well && told.contains("server.allow_plain_http"), "{told}");
    let daemon = exposed().setting("server.allow_plain_http", "true").start().await;
    assert!(
        daemon.logs().iter().any(|line| line.contains("does not count")),
        "{:?}",
        daemon.logs()
    );
}
