//! Manifests as clients put them: of what size, of what they may name, under which tags; and what is refused.

use bytes::Bytes;
use serde_json::json;

use crate::expect::{INDEX, assert_error};
use crate::hosting::{APP, Hosting, descriptor, hosting};
use crate::support::image::Part;
use crate::support::prelude::*;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const MOST: usize = 4 * 1024 * 1024;

/// A manifest of any bytes.
fn part(media_type: &str, bytes: impl Into<Bytes>) -> Part {
    RawManifest::new(media_type, bytes).root()
}

/// An image without layers whose config is this blob.
fn over_config(digest: &str, size: usize) -> serde_json::Value {
    json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(digest, size), "layers": [] })
}

/// A manifest of just this size.
async fn of_size(hosting: &Hosting, size: usize) -> Part {
    let config = hosting.push_blob(APP, "{}").await;
    let mut manifest = over_config(&config, 2);
    manifest["annotations"] = json!({ "padding": "" });
    let padding = size - manifest.to_string().len();
    manifest["annotations"] = json!({ "padding": "x".repeat(padding) });
    let part = part(MANIFEST, manifest.to_string());
    assert_eq!(part.bytes.len(), size);
    part
}

#[tokio::test]
async fn a_manifest_may_be_four_mebibytes_and_no_more() {
    let hosting = Hosting::start().await;
    let fits = of_size(&hosting, MOST).await;
    let answer = hosting.put(APP, "large", &fits).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert!(get(hosting.at(APP, "manifests/large")).await.ok() == fits.bytes);
    let larger = of_size(&hosting, MOST + 1).await;
    assert_error(&hosting.put(APP, "larger", &larger).await, 413, "SIZE_INVALID");
    // Without end, and without saying so.
    let mut raw = Raw::connect(&hosting.daemon.url()).await;
    raw.write(&format!(
        "PUT /v2/{APP}/manifests/endless HTTP/1.1\r\nHost: x\r\nContent-Type: {MANIFEST}\r\nTransfer-Encoding: chunked\r\n\r\n"
    ))
    .await;
    let (piece, mut sent) = (vec![b' '; 65_536], 0);
    while sent < 100 * MOST
        && raw.try_write(b"10000\r\n").await
        && raw.try_write(&piece).await
        && raw.try_write(b"\r\n").await
    {
        sent += piece.len();
    }
    assert!(sent < 100 * MOST, "all of it was read");
    assert_eq!(raw.head().await.expect("an answer").status, 413);
    assert_eq!(hosting.tags(APP).await, json!(["large"]));
}

#[tokio::test]
async fn what_a_manifest_names_has_to_be_here() {
    let hosting = Hosting::start().await;
    let image = Image::simple(1, 1000);
    let (layer, config) = (image.layers().remove(0), image.config());
    let refused = async |tag: &str, manifest: &Part| {
        let answer = hosting.put(APP, tag, manifest).await;
        assert_error(&answer, 404, "MANIFEST_BLOB_UNKNOWN");
        answer.text()
    };
    let told = refused("v1", &image.root()).await;
    assert!(
        told.contains(&layer.digest) && told.contains(&config.digest),
        "{told}"
    );
    hosting.push_blob_as(APP, &config.digest, config.bytes).await;
    let told = refused("v1", &image.root()).await;
    assert!(
        told.contains(&layer.digest) && !told.contains(&config.digest),
        "{told}"
    );
    // Another repository's layer is none of this one (nobody gets a blob by guessing its digest).
    hosting
        .push_blob_as("acme/other", &layer.digest, layer.bytes.clone())
        .await;
    refused("v1", &image.root()).await;
    assert_eq!(hosting.status(APP, &format!("blobs/{}", layer.digest)).await, 404);
    let index = Index::default().image(image.clone());
    refused("index", &index.root()).await;
    assert_eq!(hosting.tags(APP).await, json!([]));
    hosting.push(APP, "v1", &index).await;
    hosting.assert_holds(APP, "v1", &index).await;
    // What lies elsewhere by its own word need not be here, nor what is referred to.
    let mut foreign = over_config(&image.config().digest, 2);
    foreign["layers"] = json!([{
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "digest": sha256(b"elsewhere"), "size": 9, "urls": ["https://example.com/layer"],
    }]);
    foreign["subject"] = descriptor(&sha256(b"nowhere"), 7);
    let answer = hosting
        .put(APP, "foreign", &part(MANIFEST, foreign.to_string()))
        .await;
    assert_eq!(
        (answer.status, answer.header("oci-subject")),
        (201, sha256(b"nowhere").as_str())
    );
    assert_eq!(
        hosting.put(APP, "v1", &index.root()).await.header("oci-subject"),
        ""
    );
}

#[tokio::test]
async fn where_it_is_allowed_a_part_of_an_index_may_be_missing() {
    let template = r#"[{ pattern = "acme/*", sparse = true }]"#;
    let hosting = Hosting::of(hosting().setting("hosted.template", template)).await;
    let index = Index::of_platforms(3);
    let here = &index.images()[1];
    hosting.push(APP, "one-platform", here).await;
    let root = index.root();
    let answer = hosting.put(APP, "all", &root).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert!(get(hosting.at(APP, "manifests/all")).await.ok() == root.bytes);
    hosting.assert_holds(APP, &here.digest(), here).await;
    for missing in [&index.images()[0], &index.images()[2]] {
        assert_error(
            &get(hosting.at(APP, &format!("manifests/{}", missing.digest()))).await,
            404,
            "MANIFEST_UNKNOWN",
        );
        let layer = format!("blobs/{}", missing.layer_digest(0));
        assert_error(&get(hosting.at(APP, &layer)).await, 404, "BLOB_UNKNOWN");
    }
    // What comes later makes it whole.
    hosting.push(APP, "all", &index).await;
    hosting.assert_holds(APP, "all", &index).await;
}

#[tokio::test]
async fn a_manifest_is_what_its_bytes_say() {
    let hosting = Hosting::start().await;
    let image = Image::simple(1, 1000);
    let digest = hosting.push(APP, "v1", &image).await;
    let root = image.root();
    let put = async |reference: &str, media_type: &str, bytes: &[u8]| {
        hosting
            .put(APP, reference, &part(media_type, bytes.to_vec()))
            .await
    };
    assert_error(
        &put(&sha256(b"other"), MANIFEST, &root.bytes).await,
        400,
        "DIGEST_INVALID",
    );
    assert_error(
        &put("sha256:short", MANIFEST, &root.bytes).await,
        400,
        "DIGEST_INVALID",
    );
    for media_type in [
        INDEX,
        "application/vnd.docker.distribution.manifest.v2+json",
        "text/x; y",
        "a/b",
    ] {
        let answer = put("v2", media_type, &root.bytes).await;
        let vague = media_type.starts_with("text/");
        assert_eq!(
            answer.status,
            if vague { 201 } else { 400 },
            "{media_type}: {}",
            answer.text()
        );
    }
    // Without a word of its own the same bytes are the same in all repositories.
    let mut silent: serde_json::Value = serde_json::from_slice(&root.bytes).expect("JSON");
    silent.as_object_mut().expect("an object").remove("mediaType");
    let silent = silent.to_string();
    assert_eq!(put("v3", MANIFEST, silent.as_bytes()).await.status, 201);
    assert_error(
        &put("v4", "application/x", silent.as_bytes()).await,
        400,
        "MANIFEST_INVALID",
    );
    assert_eq!(
        get(hosting.at(APP, "manifests/v3")).await.header("content-type"),
        MANIFEST
    );
    let both = json!({ "mediaType": MANIFEST, "config": descriptor(&digest, 1), "manifests": [descriptor(&digest, 1)] });
    let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    let deeper = format!("{}1{}", r#"{"a":"#.repeat(500_000), "}".repeat(500_000));
    let schema_1 = RawManifest::schema_1("acme/app", "v1").root().bytes;
    let bad_digest = over_config("sha256:../../../etc/passwd", 1).to_string();
    for bytes in [
        &b""[..],
        b"{}",
        b"[]",
        b"null",
        b"hello",
        b"\xff\xfe",
        both.to_string().as_bytes(),
        deep.as_bytes(),
        deeper.as_bytes(),
        &schema_1,
        bad_digest.as_bytes(),
        br#"{"schemaVersion":2,"config":7}"#,
    ] {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let answer = put("bad", MANIFEST, bytes).await;
        assert_eq!(answer.status, 400, "{shown}: {}", answer.text());
        assert_error(&answer, 400, "MANIFEST_INVALID");
    }
    assert_eq!(hosting.tags(APP).await, json!(["v1", "v2", "v3"]));
    hosting.assert_holds(APP, "v1", &image).await;
}

#[tokio::test]
async fn one_push_sets_several_tags() {
    let hosting = Hosting::start().await;
    let image = Image::simple(1, 1000);
    let digest = hosting.push(APP, "old", &Image::simple(2, 10)).await;
    hosting.push(APP, "first", &image).await;
    assert_eq!(
        hosting
            .delete(APP, &format!("manifests/{}", image.digest()))
            .await
            .status,
        202
    );
    let tags: Vec<String> = (0..12)
        .map(|number| format!("v1.{number}"))
        .chain(["old".to_owned()])
        .collect();
    let query = tags.join("&tag=");
    let reference = format!("{}?tag={query}", image.digest());
    let answer = hosting.put(APP, &reference, &image.root()).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let mut told: Vec<_> = answer
        .headers
        .get_all("oci-tag")
        .iter()
        .map(|tag| tag.to_str().expect("text"))
        .collect();
    told.sort_unstable();
    let mut sorted = tags.clone();
    sorted.sort_unstable();
    assert_eq!(told, sorted);
    assert_eq!(answer.header("docker-content-digest"), image.digest());
    // Those, and none that the deletion took along.
    assert_eq!(hosting.tags(APP).await, json!(told));
    for tag in &tags {
        hosting.assert_holds(APP, tag, &image).await;
    }
    // One that cannot be sets none; and too many.
    let bad = format!("{digest}?tag=fine&tag=.bad");
    let old = Image::simple(2, 10).root();
    let answer = hosting.put(APP, &bad, &old).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert_eq!(hosting.status(APP, "manifests/fine").await, 404);
    let many: Vec<String> = (0..101).map(|number| format!("tag={number}")).collect();
    let answer = hosting
        .put(APP, &format!("{digest}?{}", many.join("&")), &old)
        .await;
    assert_eq!(answer.status, 414, "{}", answer.text());
    assert_eq!(hosting.status(APP, "manifests/0").await, 404);
}

#[tokio::test]
async fn tags_that_may_not_move_stay() {
    let template = r#"[{ pattern = "acme/*", tags = "immutable", except = ["dev-*"] }]"#;
    let hosting = Hosting::of(hosting().setting("hosted.template", template)).await;
    let (one, two) = (Image::simple(1, 100), Image::simple(2, 100));
    hosting.push(APP, "v1", &one).await;
    hosting.push(APP, "dev-1", &one).await;
    hosting.push(APP, "dev-1", &two).await;
    assert_error(&hosting.put(APP, "v1", &two.root()).await, 409, "TAG_INVALID");
    let several = format!("{}?tag=v2&tag=v1", two.digest());
    assert_error(&hosting.put(APP, &several, &two.root()).await, 409, "TAG_INVALID");
    assert_eq!(hosting.status(APP, "manifests/v2").await, 404);
    // The same again is no move.
    assert_eq!(hosting.put(APP, "v1", &one.root()).await.status, 201);
    hosting.assert_holds(APP, "v1", &one).await;
    hosting.assert_holds(APP, "dev-1", &two).await;
}
