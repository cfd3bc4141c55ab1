//! What clients delete is gone at once and for good, and nothing else is.

use crate::expect::assert_error;
use crate::hosting;
use crate::hosting::{APP, Hosting};
use crate::support::prelude::*;

#[tokio::test]
async fn a_tag_goes_and_its_image_stays() {
    let hosting = Hosting::start().await;
    let image = Image::simple(1, 1000);
    let digest = hosting.push(APP, "v1", &image).await;
    hosting.push(APP, "v2", &image).await;
    let answer = hosting.delete(APP, "manifests/v1").await;
    assert_eq!((answer.status, answer.body.len()), (202, 0));
    for method in [Method::GET, Method::HEAD] {
        assert_eq!(
            request(method, hosting.at(APP, "manifests/v1"), &[]).await.status,
            404
        );
    }
    assert_error(
        &hosting.delete(APP, "manifests/v1").await,
        404,
        "MANIFEST_UNKNOWN",
    );
    assert_error(
        &hosting.delete(APP, "manifests/never").await,
        404,
        "MANIFEST_UNKNOWN",
    );
    assert_eq!(hosting.tags(APP).await, serde_json::json!(["v2"]));
    hosting.assert_holds(APP, "v2", &image).await;
    assert_eq!(hosting.delete(APP, "manifests/v2").await.status, 202);
    hosting.assert_holds(APP, &digest, &image).await;
    assert_eq!(hosting.tags(APP).await, serde_json::json!([]));
}

#[tokio::test]
async fn a_manifest_goes_with_all_its_tags_also_over_a_restart() {
    let mut hosting = Hosting::start().await;
    let (image, other) = (Image::simple(1, 1000), Image::simple(2, 1000));
    let digest = hosting.push(APP, "v1", &image).await;
    hosting.push(APP, "latest", &image).await;
    hosting.push(APP, "other", &other).await;
    hosting.push("acme/copy", "v1", &image).await;
    hosting.assert_holds(APP, "latest", &image).await;
    let by_digest = format!("manifests/{digest}");
    assert_eq!(hosting.delete(APP, &by_digest).await.status, 202);
    for restarted in [false, true] {
        if restarted {
            hosting.daemon.kill().await;
            hosting.daemon.restart().await;
        }
        for rest in [by_digest.as_str(), "manifests/v1", "manifests/latest"] {
            assert_eq!(hosting.status(APP, rest).await, 404, "{rest}");
        }
        assert_error(&hosting.delete(APP, &by_digest).await, 404, "MANIFEST_UNKNOWN");
        assert_eq!(hosting.tags(APP).await, serde_json::json!(["other"]));
        hosting.assert_holds(APP, "other", &other).await;
        hosting.assert_holds("acme/copy", "v1", &image).await;
    }
    // What is pushed again is there again.
    hosting.push(APP, "v1", &image).await;
    hosting.assert_holds(APP, "v1", &image).await;
}

#[tokio::test]
async fn a_blob_goes_unless_an_image_needs_it() {
    let hosting = Hosting::start().await;
    let image = Image::simple(1, 1000);
    let digest = hosting.push(APP, "v1", &image).await;
    let lone = hosting.push_blob(APP, "alone").await;
    hosting.push_blob("acme/copy", "alone").await;
    let blob = |digest: &str| format!("blobs/{digest}");
    assert_eq!(hosting.delete(APP, &blob(&lone)).await.status, 202);
    assert_eq!(hosting.status(APP, &blob(&lone)).await, 404);
    assert_error(&get(hosting.at(APP, &blob(&lone))).await, 404, "BLOB_UNKNOWN");
    assert_error(&hosting.delete(APP, &blob(&lone)).await, 404, "BLOB_UNKNOWN");
    assert_eq!(hosting.status("acme/copy", &blob(&lone)).await, 200);
    // Neither a manifest by the blobs' door, nor what was never here.
    assert_error(&hosting.delete(APP, &blob(&digest)).await, 404, "BLOB_UNKNOWN");
    assert_error(
        &hosting.delete(APP, &blob(&sha256(b"never"))).await,
        404,
        "BLOB_UNKNOWN",
    );
    let layer = image.layer_digest(0);
    assert_error(&hosting.delete(APP, &blob(&layer)).await, 409, "DENIED");
    hosting.assert_holds(APP, "v1", &image).await;
    assert_eq!(
        hosting.delete(APP, &format!("manifests/{digest}")).await.status,
        202
    );
    assert_eq!(hosting.delete(APP, &blob(&layer)).await.status, 202);
    assert_eq!(hosting.status(APP, &blob(&layer)).await, 404);
    // The last one's file is gone, too.
    assert_eq!(hosting.delete("acme/copy", &blob(&lone)).await.status, 202);
    hosting.push_blob("acme/third", "alone").await;
    assert_eq!(hosting.status("acme/copy", &blob(&lone)).await, 404);
}

#[tokio::test]
async fn nothing_of_an_upstream_is_deleted_and_nothing_without_a_name() {
    let upstream = Upstream::start().await;
    let image = Image::simple(1, 1000);
    let digest = image.digest();
    upstream.put("library/app", "v1", &image);
    let hosting = Hosting::of(hosting::over(Daemon::over(&upstream))).await;
    let name = "docker-hub/library/app";
    assert_eq!(hosting.status(name, "manifests/v1").await, 200);
    for rest in [
        "manifests/v1".to_owned(),
        format!("manifests/{digest}"),
        format!("blobs/{}", image.layer_digest(0)),
    ] {
        assert_error(&hosting.delete(name, &rest).await, 405, "UNSUPPORTED");
    }
    assert_eq!(hosting.status(name, "manifests/v1").await, 200);
    assert_error(&hosting.delete(APP, "manifests/v1").await, 404, "NAME_UNKNOWN");
    hosting.push(APP, "v1", &image).await;
    for rest in ["manifests/sha256:short", "blobs/sha256:short"] {
        assert_error(&hosting.delete(APP, rest).await, 400, "DIGEST_INVALID");
    }
    for rest in ["tags/list".to_owned(), format!("referrers/{digest}")] {
        assert_eq!(hosting.delete(APP, &rest).await.status, 405);
    }
}

#[tokio::test]
async fn a_deletion_beside_a_push_takes_no_layer_of_it() {
    let hosting = Hosting::start().await;
    let (mut pushed, mut deleted) = (0, 0);
    for round in 0..60 {
        let image = Image::simple(round, 100);
        let layer = format!("blobs/{}", image.layer_digest(0));
        for blob in image.blobs() {
            hosting.push_blob_as(APP, &blob.digest, blob.bytes).await;
        }
        let root = image.root();
        let (put, removed) =
            futures_util::future::join(hosting.put(APP, "v1", &root), hosting.delete(APP, &layer)).await;
        match (put.status, removed.status) {
            (201, 409) => {
                pushed += 1;
                hosting.assert_holds(APP, "v1", &image).await;
            }
            (404, 202) => {
                deleted += 1;
                assert_eq!(
                    hosting.status(APP, &format!("manifests/{}", root.digest)).await,
                    404
                );
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(pushed + deleted, 60);
}
