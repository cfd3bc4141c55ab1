//! Users, robots and their bounds, secrets, access keys: as operators make, change and remove them.

use serde_json::Value;

use super::{Login as _, basic, bearer, hosting, send, token_of};

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
async fn the_master_key_may_be_kept_elsewhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let (key, away) = (folder.path().join("master.key"), folder.path().join("away"));
    let mut daemon = hosting()
        .setting("auth.writers", r#"["*"]"#)
        .setting("auth.master_key_file", &format!("{key:?}"))
        .start()
        .await;
    daemon.user("alice", "correct horse").await;
    let (_, told) = daemon.cli(&["access-key", "create", "alice", "--json"], "").await;
    let made: Value = serde_json::from_str(&told).expect("JSON");
    let part = |name: &str| made["made"][name].as_str().expect("text").to_owned();
    let shown = basic(&part("id"), &part("secret"));
    assert_eq!(daemon.push("team/app", &shown).await, 202);
    assert!(key.exists() && !daemon.data_dir().join("master.key").exists());
    daemon.restart().await;
    assert_eq!(daemon.push("team/app", &shown).await, 202);
    // The data folder without it gives nothing away, nor with another one, and nothing else suffers.
    daemon.stop().await;
    std::fs::rename(&key, &away).expect("a key");
    for other in [None, Some("0".repeat(64))] {
        if let Some(other) = other {
            std::fs::write(&key, other).expect("a file");
        }
        daemon.restart().await;
        assert_eq!(daemon.push("team/app", &shown).await, 401);
        assert_eq!(
            daemon.push("team/app", &basic("alice", "correct horse")).await,
            202
        );
    }
    std::fs::rename(&away, &key).expect("a key");
    daemon.restart().await;
    assert_eq!(daemon.push("team/app", &shown).await, 202);
}

#[tokio::test]
async fn policies_of_identities_give_and_take() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, effect: &str, pattern: &str| {
        let path = folder.path().join(name);
        let text = serde_json::json!({ "Version": "2012-10-17", "Statement": [{
            "Effect": effect, "Action": "ecr:*", "Resource": format!("arn:aws:ecr:*:*:repository/{pattern}"),
        }] });
        std::fs::write(&path, text.to_string()).expect("a file");
        path.display().to_string()
    };
    let allow = write("allow.json", "Allow", "team/*");
    let deny = write("deny.json", "Deny", "other/*");
    let daemon = hosting().setting("auth.writers", r#"["bob"]"#).start().await;
    for name in ["alice", "bob"] {
        daemon.user(name, "correct horse").await;
    }
    let (alice, bob) = (basic("alice", "correct horse"), basic("bob", "correct horse"));
    let check = async |shown: &str, team: u16, other: u16| {
        assert_eq!(daemon.push("team/app", shown).await, team);
        assert_eq!(daemon.push("other/app", shown).await, other);
    };
    let set = async |arguments: &[&str]| {
        let (well, told) = daemon.cli(arguments, "").await;
        assert!(well, "{told}");
    };
    check(&alice, 403, 403).await;
    check(&bob, 202, 202).await;
    set(&["user", "set", "alice", "--policy", &allow]).await;
    set(&["user", "set", "bob", "--policy", &deny]).await;
    check(&alice, 202, 403).await;
    check(&bob, 202, 403).await;
    let denied = daemon.ask("POST", "/v2/other/app/blobs/uploads/", &bob).await;
    assert!(denied.error().starts_with("DENIED: "), "{}", denied.error());
    // Tokens too, those that were made before as well.
    let query = "service=wharfinger&scope=repository:team/app:pull,push";
    let token = bearer(&token_of(&daemon.token(query, &alice).await));
    check(&token, 202, 403).await;
    set(&["user", "set", "alice", "--no-policy"]).await;
    check(&alice, 403, 403).await;
    assert_ne!(daemon.push("team/app", &token).await, 202);
    set(&["user", "set", "bob", "--no-policy"]).await;
    check(&bob, 202, 202).await;
    // One that comes with the user.
    set(&["user", "add", "dora", "--policy", &allow]).await;
    let (_, told) = daemon.cli(&["token", "create", "dora", "--json"], "").await;
    let made: Value = serde_json::from_str(&told).expect("JSON");
    let dora = basic("dora", made["made"]["secret"].as_str().expect("a secret"));
    check(&dora, 202, 403).await;
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

#[tokio::test]
async fn who_made_what_is_told_by_kind_and_name() {
    let mut daemon = hosting().setting("auth.admins", r#"["dora"]"#).start().await;
    for name in ["dora", "alice"] {
        daemon.user(name, "correct horse").await;
    }
    let dora = basic("dora", "correct horse");
    let ops = basic("ops", &daemon.robot("ops", &["admin:*"]).await);
    let url = format!("{}/api/identities", daemon.url());
    for (shown, command) in [
        (&dora, r#"{"do":"create","name":"eve","new":{"kind":"user"}}"#),
        (&dora, r#"{"do":"add-secret","name":"alice"}"#),
        (&ops, r#"{"do":"add-access-key","name":"alice"}"#),
    ] {
        let headers = [("authorization", &**shown), ("content-type", "application/json")];
        let told = send("POST", &url, &headers, command).await;
        assert_eq!(told.status, 200, "{command}: {}", told.body);
    }
    // And so it is kept.
    daemon.restart().await;
    let all = daemon.ask("GET", "/api/identities", &dora).await.json();
    let one = |name: &str| {
        let all = all.as_array().expect("a list");
        all.iter().find(|one| one["name"] == name).expect("it").clone()
    };
    let (alice, eve) = (one("alice"), one("eve"));
    assert_eq!(alice["created_by"], "operator:root");
    assert_eq!(alice["secrets"][0]["created_by"], "user:dora");
    assert_eq!(alice["access_keys"][0]["created_by"], "robot:ops");
    assert_eq!(eve["created_by"], "user:dora");
    assert_eq!(eve["secrets"][0]["created_by"], "user:dora");
    for (arguments, by) in [
        (&["user", "list"][..], "user:dora"),
        (&["token", "list", "alice"], "user:dora"),
        (&["access-key", "list", "alice"], "robot:ops"),
    ] {
        let (well, told) = daemon.cli(arguments, "").await;
        assert!(well && told.contains(by), "{arguments:?}: {told}");
    }
}
