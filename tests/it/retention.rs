//! Lifecycle policies of hosted repositories: what a preview tells is what a run deletes, and nothing else.

use serde_json::{Value, json};

use crate::admin::{asked, run};
use crate::collect::{job, metric};
use crate::hosting::{APP, Hosting, hosting};
use crate::support::prelude::*;

/// Keeps so many of the images that the rest of the selection is about.
fn keep(count: u64, selection: &Value) -> Value {
    let mut selection = selection.clone();
    selection["countType"] = "imageCountMoreThan".into();
    selection["countNumber"] = count.into();
    json!({ "rulePriority": 1, "selection": selection, "action": { "type": "expire" } })
}

fn policy(rules: &[Value]) -> String {
    json!({ "rules": rules }).to_string()
}

/// A file in the daemon's own folder.
fn file(hosting: &Hosting, name: &str, text: &str) -> String {
    let path = hosting.daemon.config_path().with_file_name(name);
    std::fs::write(&path, text).expect("a file");
    path.display().to_string()
}

fn digests(expiring: &Value) -> Vec<String> {
    let list = expiring.as_array().expect("a list");
    list.iter()
        .map(|one| one["digest"].as_str().expect("a digest").to_owned())
        .collect()
}

#[tokio::test]
async fn a_preview_tells_what_a_run_deletes() {
    let hosting = Hosting::start().await;
    // Oldest first: three tagged images, an index over two, an untagged one with a signature.
    let images: Vec<_> = (1..4).map(|seed| Image::simple(seed, 2000)).collect();
    for (number, image) in images.iter().enumerate() {
        hosting.push(APP, &format!("v{number}"), image).await;
    }
    let index = Index::default()
        .image(Image::simple(10, 2000))
        .image(Image::simple(11, 2000));
    hosting.push(APP, "multi", &index).await;
    let bare = Image::simple(20, 2000);
    hosting.push(APP, "moving", &bare).await;
    let signature = Image::simple(21, 100).referring_to(&bare, "a/signature");
    for blob in signature.blobs() {
        hosting.push_blob_as(APP, &blob.digest, blob.bytes).await;
    }
    let answer = hosting.put(APP, &signature.digest(), &signature.root()).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let latest = Image::simple(30, 2000);
    hosting.push(APP, "moving", &latest).await;

    let untagged = policy(&[
        keep(1, &json!({ "tagStatus": "tagged", "tagPrefixList": ["v"] })),
        {
            let mut rule = keep(1, &json!({ "tagStatus": "untagged" }));
            rule["rulePriority"] = 2.into();
            rule
        },
    ]);
    // Tried out before it is the policy.
    let path = file(&hosting, "lifecycle.json", &untagged);
    let tried = asked(
        &hosting.daemon,
        &["repository", "lifecycle", "preview", APP, &path],
    )
    .await;
    let none = run(&hosting.daemon, &["repository", "lifecycle", "preview", APP]).await;
    assert_eq!(none.code(), Some(1));
    assert!(
        none.said().contains("acme/app has no lifecycle policy"),
        "{}",
        none.said()
    );
    run(&hosting.daemon, &["repository", "lifecycle", "set", APP, &path])
        .await
        .text();
    let got = run(&hosting.daemon, &["repository", "lifecycle", "get", APP]).await;
    assert_eq!(got.text().trim_end(), untagged);
    let preview = asked(&hosting.daemon, &["repository", "lifecycle", "preview", APP]).await;
    assert_eq!(preview, tried);
    // Untagged are: the children of the index, which it needs, and the image with its signature. The signature needs no
    // rule, and one untagged image is to be kept: of the four the newest, which is the signature.
    let expected = [
        images[0].digest(),
        images[1].digest(),
        bare.digest(),
        signature.digest(),
    ];
    assert_eq!(digests(&preview["expiring"]), expected, "{preview}");
    assert_eq!(preview["expiring"][3]["subject"], bare.digest(), "{preview}");
    assert_eq!(
        (&preview["expiring"][0]["rule"], &preview["expiring"][2]["rule"]),
        (&1.into(), &2.into())
    );
    let words = run(&hosting.daemon, &["repository", "lifecycle", "preview", APP]).await;
    assert!(
        words.text().contains("4 of 9 manifests would be deleted"),
        "{}",
        words.text()
    );
    // All of it is there as before.
    let dry = job(&hosting, "expire", &json!({ "dry_run": true })).await;
    assert_eq!(
        (&dry["images"], &dry["repositories"]),
        (&4.into(), &1.into()),
        "{dry}"
    );
    for image in images.iter().chain([&bare, &signature, &latest]) {
        hosting.assert_holds(APP, &image.digest(), image).await;
    }

    let ran = run(&hosting.daemon, &["expire"]).await;
    assert!(
        ran.text().contains("deleted 4 images of 1 repository"),
        "{}",
        ran.text()
    );
    for digest in &expected {
        assert_eq!(
            hosting.status(APP, &format!("manifests/{digest}")).await,
            404,
            "{digest}"
        );
        hosting
            .daemon
            .wait_for_log(&format!(
                "an image has expired, and was deleted repository=acme/app digest=\"{digest}\""
            ))
            .await;
    }
    assert_eq!(hosting.tags(APP).await, json!(["moving", "multi", "v2"]));
    hosting.assert_holds(APP, "multi", &index).await;
    hosting.assert_holds(APP, "v2", &images[2]).await;
    hosting.assert_holds(APP, "moving", &latest).await;
    let again = asked(&hosting.daemon, &["repository", "lifecycle", "preview", APP]).await;
    assert_eq!(again["expiring"], json!([]), "{again}");
    metric(&hosting.daemon, "wharfinger_expired_images_total 4").await;
}

#[tokio::test]
async fn it_expires_by_itself_as_a_template_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("lifecycle.json");
    let rules = [keep(1, &json!({ "tagStatus": "any" }))];
    std::fs::write(&path, policy(&rules)).expect("a file");
    let template = format!(
        "[{{ pattern = \"acme/*\", lifecycle_file = {:?} }}]",
        path.display().to_string()
    );
    let hosting = Hosting::of(
        hosting()
            .setting("hosted.template", &template)
            .setting("hosted.retention_interval", "\"1s\""),
    )
    .await;
    let (old, new) = (Image::simple(1, 2000), Image::simple(2, 2000));
    hosting.push(APP, "old", &old).await;
    hosting.push(APP, "new", &new).await;
    metric(&hosting.daemon, "wharfinger_expired_images_total 1").await;
    assert_eq!(hosting.tags(APP).await, json!(["new"]));
    hosting.assert_holds(APP, "new", &new).await;
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_with_its_reason() {
    let hosting = Hosting::start().await;
    run(&hosting.daemon, &["repository", "create", APP]).await.text();
    let archive = json!({
        "rulePriority": 1,
        "selection": { "tagStatus": "any", "countType": "sinceImagePulled", "countUnit": "days", "countNumber": 9 },
        "action": { "type": "transition", "targetStorageClass": "archive" },
    });
    for (text, reason) in [
        ("{", "Could not map policyString into LifecyclePolicy."),
        ("{}", "missing required properties ([\"rules\"])"),
        (&policy(&[archive]), "there is no archive here"),
    ] {
        let path = file(&hosting, "faulty.json", text);
        for command in ["set", "preview"] {
            let refused = run(&hosting.daemon, &["repository", "lifecycle", command, APP, &path]).await;
            assert_eq!(refused.code(), Some(64), "{}", refused.said());
            assert!(refused.said().contains(reason), "{}", refused.said());
        }
    }
    let none = run(&hosting.daemon, &["repository", "lifecycle", "get", APP]).await;
    assert_eq!(none.code(), Some(1));
    assert!(
        none.printed().contains("has no lifecycle policy"),
        "{}",
        none.printed()
    );

    // In a template it is a fault of the configuration.
    let path = file(&hosting, "faulty.json", "{}");
    let template = format!("[{{ pattern = \"acme/*\", lifecycle_file = {path:?} }}]");
    let (status, log) = Daemon::builder()
        .setting("hosted.template", &template)
        .fail()
        .await;
    assert!(!status.success());
    let log = log.join("\n");
    assert!(
        log.contains(&path) && log.contains("missing required properties"),
        "{log}"
    );
}
