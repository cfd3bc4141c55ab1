//! Hosted repositories as an operator has them: made, shown, changed and deleted by the subcommands; and whose their names
//! are.

use serde_json::{Value, json};

use crate::admin::{Ran, asked, run};
use crate::hosting::{APP, Hosting};
use crate::login::{Login as _, basic, hosting as logins};
use crate::support::daemon::Builder;
use crate::support::prelude::*;

/// A daemon that lets everybody push, where nothing else is set up.
async fn open(builder: Builder) -> Hosting {
    Hosting::of(builder.setting("auth.anonymous", r#"["pull", "push", "delete", "list"]"#)).await
}

async fn repository(hosting: &Hosting, arguments: &[&str]) -> Ran {
    let arguments = [&["repository"], arguments].concat();
    run(&hosting.daemon, &arguments).await
}

/// Runs what is refused: status, and what is said of it.
async fn refused(hosting: &Hosting, arguments: &[&str], code: i32, reason: &str) {
    let ran = repository(hosting, arguments).await;
    assert_eq!(ran.code(), Some(code), "{arguments:?}: {}", ran.said());
    assert!(ran.said().contains(reason), "{arguments:?}: {}", ran.said());
}

async fn shown(hosting: &Hosting, name: &str) -> Value {
    asked(&hosting.daemon, &["repository", "show", name]).await
}

#[tokio::test]
async fn repositories_are_made_shown_changed_and_deleted() {
    let mut hosting = open(Daemon::builder()).await;
    let none = repository(&hosting, &["list"]).await;
    assert_eq!(none.text(), "no repository is hosted here\n");
    // Nothing makes it but this.
    let refused_push = send(Method::POST, hosting.at(APP, "blobs/uploads/"), &[], "").await;
    assert_ne!(refused_push.status, 202);
    let made = repository(
        &hosting,
        &[
            "create",
            APP,
            "--description",
            "the app",
            "--tags",
            "immutable",
            "--except",
            "dev-*",
            "--except",
            "latest",
            "--quota",
            "1MiB",
        ],
    )
    .await;
    assert!(made.text().contains("acme/app is there"), "{}", made.text());
    repository(&hosting, &["create", "acme/other"]).await.text();
    let image = Image::simple(1, 5000);
    hosting.push(APP, "v1", &image).await;
    hosting.push(APP, "latest", &image).await;
    let moved = hosting.put(APP, "v1", &Image::new().root()).await;
    assert_ne!(moved.status, 201);
    hosting.daemon.restart().await;
    let told = shown(&hosting, APP).await;
    let size: usize = image.blobs().iter().map(|blob| blob.bytes.len()).sum();
    assert_eq!(told["bytes"], size + image.root().bytes.len(), "{told}");
    assert_eq!(
        told["holds"],
        json!({ "manifests": 1, "tags": 2, "blobs": 2, "uploads": 0 })
    );
    assert_eq!(
        (&told["description"], &told["quota"], &told["created_by"]),
        (&"the app".into(), &(1 << 20).into(), &"operator".into()),
        "{told}"
    );
    assert_eq!(
        told["tags"],
        json!({ "setting": "IMMUTABLE_WITH_EXCLUSION", "filters": ["dev-*", "latest"] })
    );
    let words = repository(&hosting, &["show", APP]).await;
    for word in [
        "immutable except dev-*, latest",
        "1 manifest, 2 tags, 2 blobs",
        "of 1.0 MiB",
        "ago by operator",
    ] {
        assert!(words.text().contains(word), "{word} in {}", words.text());
    }
    // Only what is said changes.
    repository(&hosting, &["set", APP, "--quota", "none", "--tags", "mutable"])
        .await
        .text();
    let told = shown(&hosting, APP).await;
    assert_eq!(
        (&told["description"], &told["quota"], &told["tags"]),
        (&"the app".into(), &Value::Null, &json!({ "setting": "MUTABLE" })),
        "{told}"
    );
    let list = asked(&hosting.daemon, &["repository", "list"]).await;
    let names: Vec<_> = list
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert_eq!(names, [APP, "acme/other"]);
    let page = get(format!("{}/api/repositories?n=1", hosting.daemon.url()))
        .await
        .json();
    assert_eq!(
        (&page["repositories"][0]["name"], &page["next"]),
        (&APP.into(), &APP.into())
    );
    assert_eq!(page["repositories"].as_array().map(Vec::len), Some(1));

    refused(&hosting, &["delete", APP], 1, "acme/app still holds images").await;
    hosting.assert_holds(APP, "v1", &image).await;
    repository(&hosting, &["delete", "--force", APP]).await.text();
    assert_eq!(get(hosting.at(APP, "manifests/v1")).await.status, 404);
    repository(&hosting, &["delete", "acme/other"]).await.text();
    assert_eq!(asked(&hosting.daemon, &["repository", "list"]).await, json!([]));
    // Made again it is empty.
    repository(&hosting, &["create", APP]).await.text();
    let told = shown(&hosting, APP).await;
    assert_eq!(
        (&told["bytes"], &told["description"]),
        (&0.into(), &Value::Null),
        "{told}"
    );
}

#[tokio::test]
async fn what_is_refused_says_why() {
    let upstream = Upstream::start().await;
    let hosting = open(Daemon::over(&upstream)).await;
    repository(&hosting, &["create", APP]).await.text();
    for (arguments, code, reason) in [
        (&["create", APP][..], 1, "the repository acme/app exists already"),
        (
            &["create", "docker-hub/app"],
            64,
            "names that begin with `docker-hub` lead to an upstream",
        ),
        (&["create", "quay.io/app"], 64, "lead to an upstream"),
        (&["create", "Acme/App"], 64, "malformed repository name"),
        (
            &["create", "acme/b", "--tags", "mutable", "--except", "a/b"],
            64,
            "regular expression",
        ),
        (&["create", "acme/b", "--except", "a"], 64, "--tags"),
        (
            &["create", "acme/b", "--quota", "much"],
            64,
            "write a size like 50GiB, or none",
        ),
        (
            &["create", "acme/b", "--lifecycle", "/no/such.json"],
            1,
            "/no/such.json",
        ),
        (
            &["set", "acme/none", "--quota", "1GiB"],
            1,
            "there is no hosted repository acme/none",
        ),
        (
            &["show", "acme/none"],
            1,
            "there is no hosted repository acme/none",
        ),
        (
            &["delete", "acme/none", "--force"],
            1,
            "there is no hosted repository acme/none",
        ),
        (
            &["policy", "get", "acme/none"],
            1,
            "there is no hosted repository acme/none",
        ),
        (
            &["lifecycle", "preview", "acme/none"],
            1,
            "there is no hosted repository acme/none",
        ),
    ] {
        refused(&hosting, arguments, code, reason).await;
    }
    let url = format!("{}/api/repository-create", hosting.daemon.url());
    let kind = [("content-type", "application/json")];
    for (body, reason) in [
        (r#"{"name": "acme/b", "quotum": 1}"#, "unknown field `quotum`"),
        (
            r#"{"name": "acme/b", "tags": {"setting": "WEEKLY"}}"#,
            "imageTagMutability",
        ),
    ] {
        let answer = send(Method::POST, &url, &kind, body).await;
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains(reason), "{}", answer.text());
    }
    let nameless = get(format!("{}/api/repository", hosting.daemon.url())).await;
    assert_eq!(nameless.status, 400);
}

#[tokio::test]
async fn a_policy_is_kept_as_it_was_given_and_a_faulty_one_is_not() {
    let mut hosting = open(Daemon::builder()).await;
    repository(&hosting, &["create", APP]).await.text();
    let path = hosting.daemon.config_path().with_file_name("policy.json");
    let file = path.display().to_string();
    let text = "{ \"Version\": \"2012-10-17\",\n  \"Statement\": [{ \"Effect\": \"Allow\", \"Principal\": \"*\",\n    \
                \"Action\": \"ecr:BatchGetImage\" }] }\n";
    std::fs::write(&path, text).expect("a file");
    let none = repository(&hosting, &["policy", "get", APP]).await;
    assert_eq!(
        (none.code(), none.printed()),
        (Some(1), "acme/app has no policy\n")
    );
    repository(&hosting, &["policy", "set", APP, &file]).await.text();
    hosting.daemon.restart().await;
    let got = repository(&hosting, &["policy", "get", APP]).await;
    assert_eq!(got.text(), text);
    assert_eq!(shown(&hosting, APP).await["policy"], text);
    std::fs::write(&path, text.replace("Allow", "Allwo")).expect("a file");
    refused(
        &hosting,
        &["policy", "set", APP, &file],
        64,
        "Statement[0].Effect",
    )
    .await;
    std::fs::write(&path, text.replace("\"Principal\": \"*\",", "")).expect("a file");
    refused(
        &hosting,
        &["policy", "set", APP, &file],
        64,
        "Principal is missing",
    )
    .await;
    assert_eq!(repository(&hosting, &["policy", "get", APP]).await.text(), text);
    repository(&hosting, &["policy", "delete", APP]).await.text();
    assert_eq!(
        repository(&hosting, &["policy", "get", APP]).await.code(),
        Some(1)
    );
}

/// Whether the mirrored upstream was asked about a repository.
fn asked_about(upstream: &Upstream, name: &str) -> bool {
    upstream.count_of(&path_has(name)) > 0
}

#[tokio::test]
async fn names_of_ours_are_never_asked_upstream() {
    let upstream = Upstream::start().await;
    let foreign = Image::simple(9, 2000);
    for name in [
        "acme/app",
        "acme/never",
        "team/app",
        "team/other",
        "rest/app",
        "library/nginx",
    ] {
        upstream.put(name, "1", &foreign);
    }
    let template = "[{ pattern = \"acme/*\" }, { pattern = \"*\" }]";
    let mut hosting = open(Daemon::over(&upstream).setting("hosted.template", template)).await;
    // Before the first push.
    for name in ["acme/app", "acme/never"] {
        assert_eq!(hosting.status(name, "manifests/1").await, 404);
        assert!(!asked_about(&upstream, name), "{name}");
    }
    // A pattern that would mean everything takes nothing from the mirrored upstream.
    assert_eq!(hosting.status("rest/app", "manifests/1").await, 200);
    // After the last repository of a namespace has gone, and after a restart.
    for name in ["team/app", "library/own"] {
        repository(&hosting, &["create", name]).await.text();
        repository(&hosting, &["delete", name]).await.text();
    }
    for _ in 0..2 {
        for name in ["team/app", "team/other"] {
            assert_eq!(hosting.status(name, "manifests/1").await, 404, "{name}");
            assert!(!asked_about(&upstream, name), "{name}");
        }
        hosting.daemon.restart().await;
    }
    // Also in an index that was made anew of the journal.
    hosting.daemon.stop().await;
    std::fs::remove_file(hosting.daemon.data_dir().join("index.redb")).expect("the index");
    run(&hosting.daemon, &["rebuild-index"]).await.text();
    hosting.daemon.run_again().await;
    assert_eq!(hosting.status("team/other", "manifests/1").await, 404);
    // All of Docker Hub's own images are not hidden by one of ours.
    assert_eq!(hosting.status("library/nginx", "manifests/1").await, 200);
    // And by the upstream's prefix all is to be had.
    assert_eq!(hosting.status("docker-hub/team/app", "manifests/1").await, 200);
}

#[tokio::test]
async fn a_namespace_that_is_listed_is_asked_of_no_upstream_by_no_way() {
    let upstream = Upstream::start().await;
    let other = Upstream::start().await;
    let foreign = Image::simple(9, 2000);
    for upstream in [&upstream, &other] {
        upstream.put("acme/app", "1", &foreign);
    }
    upstream.put("rest/app", "1", &foreign);
    let builder = Daemon::over(&upstream)
        .upstream("quay", &other)
        .setting("hosted.namespaces", "[\"acme\"]");
    let hosting = open(builder).await;
    let url = hosting.daemon.url();
    for way in [
        "v2/acme/app/manifests/1",
        "v2/acme/app/manifests/1?ns=docker.io",
        "v2/docker-hub/acme/app/manifests/1",
        "v2/docker.io/acme/app/manifests/1",
        "docker.io/v2/acme/app/manifests/1",
        "mirror/v2/acme/app/manifests/1",
        "mirror/v2/acme/app/manifests/1?ns=docker.io",
        "mirror/v2/acme/app/tags/list",
    ] {
        let answer = get(format!("{url}/{way}")).await;
        assert_eq!(answer.status, 404, "{way}: {}", answer.text());
    }
    assert!(!asked_about(&upstream, "acme/app"), "{:#?}", upstream.summary());
    // Others of it are, and other registries' namespaces are theirs.
    for way in ["mirror/v2/rest/app/manifests/1", "v2/quay/acme/app/manifests/1"] {
        assert_eq!(get(format!("{url}/{way}")).await.status, 200, "{way}");
    }
}

#[tokio::test]
async fn a_namespace_is_ours_by_a_push_too() {
    let upstream = Upstream::start().await;
    upstream.put("acme/other", "1", &Image::simple(9, 2000));
    let builder = Daemon::over(&upstream).setting("hosted.template", "[{ pattern = \"*\" }]");
    let hosting = open(builder).await;
    assert_eq!(hosting.status("acme/other", "manifests/1").await, 200);
    hosting.push(APP, "v1", &Image::simple(1, 2000)).await;
    assert_eq!(hosting.status("acme/other", "manifests/1").await, 404);
}

#[tokio::test]
async fn a_repositorys_policy_decides_at_once_and_only_admins_set_it() {
    let daemon = logins()
        .setting("auth.anonymous", "[]")
        .setting("auth.admins", r#"["dora"]"#)
        .start()
        .await;
    for name in ["dora", "bob"] {
        daemon.user(name, "correct horse").await;
    }
    let (dora, bob) = (basic("dora", "correct horse"), basic("bob", "correct horse"));
    let api = async |name: &str, shown: &str, body: Value| {
        let url = format!("{}/api/{name}", daemon.url());
        let headers = [("authorization", shown), ("content-type", "application/json")];
        send(Method::POST, url, &headers, body.to_string()).await
    };
    let create = json!({ "name": "team/app" });
    assert_eq!(api("repository-create", &bob, create.clone()).await.status, 403);
    let made = api("repository-create", &dora, create).await;
    assert_eq!(made.json()["created_by"], "user:dora", "{}", made.text());
    let tags = async |shown: &str| daemon.ask("GET", "/v2/team/app/tags/list", shown).await.status;
    assert_eq!((tags(&bob).await, tags(&dora).await), (403, 200));
    let statement = |effect: &str, user: &str| {
        json!({
            "Effect": effect,
            "Principal": { "AWS": format!("arn:aws:iam::000000000000:user/{user}") },
            "Action": "ecr:ListImages",
        })
    };
    let policy = json!({
        "Version": "2012-10-17",
        "Statement": [statement("Allow", "bob"), statement("Deny", "dora")],
    });
    let set = json!({ "name": "team/app", "policy": policy.to_string() });
    assert_eq!(api("repository-set", &bob, set.clone()).await.status, 403);
    assert_eq!(api("repository-set", &dora, set).await.status, 200);
    assert_eq!((tags(&bob).await, tags(&dora).await), (200, 403));
    // It says nothing of what is run over all of them.
    assert_eq!(api("collect", &bob, json!({ "dry_run": true })).await.status, 403);
    let (well, told) = daemon
        .cli(&["repository", "policy", "delete", "team/app"], "")
        .await;
    assert!(well, "{told}");
    assert_eq!((tags(&bob).await, tags(&dora).await), (403, 200));
}
