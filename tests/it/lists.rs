//! What may be pulled of an upstream, whoever asks, and what of ours lies over it.

use crate::expect::assert_error;
use crate::hosting::Hosting;
use crate::support::prelude::*;

#[tokio::test]
async fn what_is_not_allowed_is_refused_with_its_reason_and_never_asked_for() {
    let upstream = Upstream::start().await;
    let image = Image::simple(1, 10_000);
    for (repository, tag) in [
        ("library/app", "1.0"),
        ("library/app", "latest"),
        ("evil/app", "1.0"),
        ("acme/app", "1.0"),
    ] {
        upstream.put(repository, tag, &image);
    }
    let daemon = Daemon::over(&upstream)
        .setting("upstream.docker-hub.allow", r#"["library/*", "evil/*"]"#)
        .setting("upstream.docker-hub.deny", r#"["evil/*", "library/app:latest"]"#)
        .setting("upstream.docker-hub.deny_reason", r#""use team/app""#)
        .mirror_door()
        .start()
        .await;
    let layer = &image.blobs()[0].digest;
    let refused = [
        daemon.manifest_url("docker-hub/evil/app", "1.0"),
        daemon.manifest_url("docker-hub/acme/app", "1.0"),
        daemon.manifest_url("docker-hub/library/app", "latest"),
        daemon.manifest_url("library/app", "latest"),
        format!("{}/v2/library/app/manifests/latest", daemon.mirror_url()),
        daemon.blob_url("docker-hub/evil/app", layer),
        format!("{}/v2/docker-hub/evil/app/tags/list", daemon.url()),
        format!("{}/v2/docker-hub/evil/app/referrers/{layer}", daemon.url()),
    ];
    for url in &refused {
        let answer = get(url).await;
        assert_error(&answer, 403, "DENIED");
        assert!(answer.text().contains("use team/app"), "{}", answer.text());
        assert_eq!(head(url).await.status, 403);
    }
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(
        get(daemon.manifest_url("docker-hub/library/app", "1.0"))
            .await
            .status,
        200
    );
    // What is known by its digest is known by another tag.
    assert_eq!(
        get(daemon.manifest_url("library/app", &image.root().digest))
            .await
            .status,
        200
    );
    assert_eq!(
        get(daemon.blob_url("docker-hub/library/app", layer)).await.status,
        200
    );
}

#[tokio::test]
async fn what_is_pushed_over_an_upstream_comes_before_it_but_at_the_mirror_door() {
    let upstream = Upstream::start().await;
    let (theirs, ours) = (Image::simple(1, 10_000), Image::simple(2, 10_000));
    upstream.put("library/app", "1.0", &theirs);
    upstream.put("library/other", "1.0", &theirs);
    let builder = Daemon::over(&upstream).mirror_door();
    let hosting = Hosting::of(
        crate::hosting::over(builder)
            .setting("upstream.docker-hub.overlay", "true")
            .setting("hosted.template", r#"[{ pattern = "docker-hub/library/app" }]"#),
    )
    .await;
    let name = "docker-hub/library/app";
    assert_eq!(
        get(hosting.daemon.manifest_url(name, "1.0")).await.ok(),
        theirs.root().bytes
    );
    hosting.push(name, "1.0", &ours).await;
    for name in [name, "docker.io/library/app", "library/app", "app"] {
        assert_eq!(
            get(hosting.daemon.manifest_url(name, "1.0")).await.ok(),
            ours.root().bytes,
            "{name}"
        );
    }
    let url = hosting.daemon.manifest_url("docker-hub/library/other", "1.0");
    assert_eq!(get(&url).await.ok(), theirs.root().bytes);
    let mirrored = format!("{}/v2/library/app/manifests/1.0", hosting.daemon.mirror_url());
    assert_eq!(get(&mirrored).await.ok(), theirs.root().bytes);
    // What no template is about is the upstream's, and takes no pushes.
    let push = hosting.at("docker-hub/library/other", "blobs/uploads/");
    assert_error(&send(Method::POST, push, &[], "").await, 405, "UNSUPPORTED");
}

#[tokio::test]
async fn what_the_cache_lets_go_of_is_not_taken_from_those_who_pushed_it() {
    let upstream = Upstream::start().await;
    let image = Image::simple(1, 10_000);
    upstream.put("library/app", "1.0", &image);
    let hosting = Hosting::of(crate::hosting::over(Daemon::over(&upstream))).await;
    hosting.push("acme/app", "v1", &image).await;
    let name = "docker-hub/library/app";
    assert_eq!(get(hosting.daemon.manifest_url(name, "1.0")).await.status, 200);
    let reference = format!("{name}@{}", image.root().digest);
    let url = format!("{}/api/purge", hosting.daemon.url());
    for content in [false, true] {
        let body = serde_json::json!({ "ref": reference, "content": content }).to_string();
        let json = [("content-type", "application/json")];
        let purged = send(Method::POST, &url, &json, body).await;
        assert!([200, 404].contains(&purged.status), "{}", purged.text());
        hosting.assert_holds("acme/app", "v1", &image).await;
    }
}

#[tokio::test]
async fn a_mount_goes_by_the_door_that_a_pull_goes_by() {
    let upstream = Upstream::start().await;
    let image = Image::simple(1, 10_000);
    upstream.put("library/app", "1.0", &image);
    let mut hosting = Hosting::of(crate::hosting::over(Daemon::over(&upstream))).await;
    let name = "docker-hub/library/app";
    let layer = image.blobs()[0].digest.clone();
    assert_eq!(get(hosting.daemon.blob_url(name, &layer)).await.status, 200);
    let mount = format!("blobs/uploads/?mount={layer}&from={name}");
    let ask = async |hosting: &Hosting, repository: &str| {
        send(Method::POST, hosting.at(repository, &mount), &[], "")
            .await
            .status
    };
    assert_eq!(ask(&hosting, "acme/one").await, 201);
    let deny = "WHARFINGER__UPSTREAM__DOCKER_HUB__DENY";
    hosting.daemon.set_env(deny, Some("library/app"));
    hosting.daemon.restart().await;
    assert_eq!(ask(&hosting, "acme/two").await, 202);
    assert_eq!(hosting.status("acme/two", &format!("blobs/{layer}")).await, 404);
}
