//! Tokens: how clients get them, what they open, until when, and what is none of ours.

use serde_json::Value;

use super::{Login as _, PULLED, basic, bearer, hosting, send, token_of};
use crate::support::prelude::*;

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
async fn whom_a_policy_denies_a_token_gets_none_however_it_asks() {
    let folder = tempfile::tempdir().expect("a folder");
    let policy = |name: &str, principal: Option<&str>| {
        let mut statement =
            serde_json::json!({"Effect": "Deny", "Action": "ecr:GetAuthorizationToken", "Resource": "*"});
        if let Some(principal) = principal {
            statement["Principal"] = principal.into();
        }
        let text = serde_json::json!({"Version": "2012-10-17", "Statement": [statement]});
        let path = folder.path().join(name);
        std::fs::write(&path, text.to_string()).expect("a file");
        path.display().to_string()
    };
    let audit = folder.path().join("audit.log");
    let mut daemon = hosting()
        .setting("auth.writers", r#"["*"]"#)
        .setting("log.audit_file", &format!("{audit:?}"))
        .start()
        .await;
    daemon.user("alice", "correct horse").await;
    daemon.user("bob", "correct horse").await;
    let (alice, bob) = (basic("alice", "correct horse"), basic("bob", "correct horse"));
    let query = "service=wharfinger&offline_token=true&scope=repository:team/app:pull,push";
    let before = daemon.token(query, &alice).await.json();
    let token = |name: &str| before[name].as_str().expect("a token").to_owned();
    let (access, refresh) = (bearer(&token("token")), token("refresh_token"));

    let file = policy("alice.json", None);
    let (well, told) = daemon.cli(&["user", "set", "alice", "--policy", &file], "").await;
    assert!(well, "{told}");
    let refused = "DENIED: User: arn:aws:iam::000000000000:user/alice is not authorized to perform: \
                   ecr:GetAuthorizationToken on resource: *";
    for told in [
        daemon.token(query, &alice).await,
        daemon.ask("GET", "/v2/", &alice).await,
    ] {
        assert_eq!(
            (told.status, &*told.challenge, &*told.error()),
            (403, "", refused)
        );
    }
    let url = format!("{}/token", daemon.url());
    for form in [
        "grant_type=password&username=alice&password=correct+horse".to_owned(),
        format!("grant_type=refresh_token&refresh_token={refresh}"),
    ] {
        let told = send("POST", &url, &[], form).await;
        assert_eq!((told.status, &*told.error()), (403, refused));
    }
    // A wrong password is a wrong password, and what she was given before lasts as long as it was to.
    let wrong = daemon.token(query, &basic("alice", "wrong horse")).await;
    assert_eq!(wrong.status, 401);
    assert_eq!(daemon.ask("GET", "/v2/", &access).await.status, 200);
    assert_eq!(daemon.push("team/app", &access).await, 202);
    // Nobody has to allow it, neither for others nor for nobody in particular.
    assert_eq!(daemon.token(query, &bob).await.status, 200);
    assert_eq!(daemon.ask("GET", "/v2/", &bob).await.status, 200);
    assert_eq!(daemon.token(query, "").await.status, 200);
    let (well, told) = daemon.cli(&["user", "set", "alice", "--no-policy"], "").await;
    assert!(well, "{told}");
    assert_eq!(daemon.token(query, &alice).await.status, 200);
    assert!(daemon.stop().await.success());
    let log = std::fs::read_to_string(&audit).expect("the log");
    let lines = log.lines().filter(|line| {
        line.contains(r#""action":"ecr:GetAuthorizationToken""#) && line.contains(r#""status":403"#)
    });
    assert_eq!(lines.clone().count(), 4, "{log}");
    for line in lines {
        let reason = "ecr:GetAuthorizationToken: a statement of the identity's policy denies it";
        assert!(
            line.contains(reason) && line.contains(r#""who":"alice""#),
            "{line}"
        );
    }

    // The registry's policy says it of all, with a login or without.
    let daemon = hosting()
        .setting(
            "auth.policy_file",
            &format!("{:?}", policy("registry.json", Some("*"))),
        )
        .start()
        .await;
    daemon.user("alice", "correct horse").await;
    for shown in [&*alice, ""] {
        assert_eq!(daemon.token(query, shown).await.status, 403, "{shown}");
    }
    assert_eq!(daemon.ask("GET", "/v2/", "").await.status, 401);
    assert_eq!(daemon.ask("GET", "/v2/", &alice).await.status, 403);
}

#[tokio::test]
async fn a_token_ends_with_the_secret_that_it_was_made_of() {
    let daemon = hosting().setting("auth.writers", r#"["*"]"#).start().await;
    daemon.user("alice", "correct horse").await;
    let (_, told) = daemon
        .cli(&["token", "create", "alice", "--expires", "2s", "--json"], "")
        .await;
    let made: Value = serde_json::from_str(&told).expect("JSON");
    let secret = basic("alice", made["made"]["secret"].as_str().expect("a secret"));
    let query = "service=wharfinger&offline_token=true&scope=repository:team/app:pull,push";
    let login = daemon.token(query, &secret).await;
    let refresh = login.json()["refresh_token"]
        .as_str()
        .expect("a token")
        .to_owned();
    let token = bearer(&token_of(&login));
    assert_eq!(daemon.push("team/app", &token).await, 202);
    soon("the secret's end", async {
        while daemon.ask("GET", "/v2/", &secret).await.status == 200 {}
    })
    .await;
    // And not later.
    let refused = daemon.ask("GET", "/v2/", &token).await;
    assert_eq!(refused.status, 401);
    assert!(
        refused.challenge.contains("error=\"invalid_token\""),
        "{}",
        refused.challenge
    );
    let form = format!("grant_type=refresh_token&refresh_token={refresh}");
    let url = format!("{}/token", daemon.url());
    assert_eq!(send("POST", &url, &[], form).await.status, 401);
    assert_eq!(daemon.token(query, &secret).await.status, 401);
    // Whose secret it was goes on.
    assert_eq!(
        daemon.push("team/app", &basic("alice", "correct horse")).await,
        202
    );
}
