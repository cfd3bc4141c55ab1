//! The scripted upstream with no script: a correct registry that counts.

use serde_json::json;

use crate::support::prelude::*;

#[tokio::test]
async fn an_image_is_served_by_tag_and_digest() {
    let upstream = Upstream::start().await;
    let image = Image::new().layer(random(1, 100_000)).layer("").docker();
    upstream.put("library/app", "1", &image);
    let base = format!("{}/v2/library/app", upstream.url());

    let tag = get(format!("{base}/manifests/1")).await;
    assert_eq!(
        tag.header("content-type"),
        "application/vnd.docker.distribution.manifest.v2+json"
    );
    assert_eq!(tag.header("docker-content-digest"), image.digest());
    assert_eq!(sha256(&tag.ok()), image.digest());
    let by_digest = head(format!("{base}/manifests/{}", image.digest())).await;
    assert_eq!(
        by_digest.header("content-length"),
        image.root().bytes.len().to_string()
    );
    assert_eq!((by_digest.status, by_digest.body.len()), (200, 0));
    for part in image.blobs() {
        assert_eq!(
            get(format!("{base}/blobs/{}", part.digest)).await.ok(),
            part.bytes
        );
    }
    let blob_head = head(format!("{base}/blobs/{}", image.layer_digest(0))).await;
    assert_eq!(
        (blob_head.status, blob_head.header("content-length")),
        (200, "100000")
    );

    assert_eq!((upstream.manifest_gets(), upstream.manifest_heads()), (1, 1));
    assert_eq!(upstream.blob_gets(&image.layer_digest(0)), 1);
    assert_eq!(upstream.count(Method::HEAD, |path| path.contains("/blobs/")), 1);
    assert_eq!(upstream.count_of(&any().in_repo("library/app")), 6);
    let sent: usize = image.blobs().iter().map(|part| part.bytes.len()).sum();
    assert_eq!(upstream.bytes_sent(), (sent + image.root().bytes.len()) as u64);
    assert!(
        upstream
            .requests()
            .iter()
            .all(|request| request.outcome == Outcome::Complete)
    );
    assert_eq!(upstream.connections(), 6);
    upstream.forget_requests();
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test]
async fn other_shapes_of_content_are_served() {
    let upstream = Upstream::start().await;
    let index = Index::of_platforms(3);
    let list = Index::default().image(Image::simple(9, 10)).docker();
    let long = Image::simple(4, 1000).sha512();
    let old = RawManifest::schema_1("library/app", "old");
    upstream.put("a/manifests/blobs", "index", &index);
    upstream.put("a/manifests/blobs", "list", &list);
    upstream.put("a/manifests/blobs", "long", &long);
    upstream.put("a/manifests/blobs", "old", &old);
    let base = format!("{}/v2/a/manifests/blobs", upstream.url());

    let root = get(format!("{base}/manifests/index")).await.json();
    for (image, descriptor) in index
        .images()
        .iter()
        .zip(root["manifests"].as_array().unwrap_or(&vec![]))
    {
        assert_eq!(descriptor["digest"], image.digest());
        get(format!("{base}/manifests/{}", image.digest())).await.ok();
        get(format!("{base}/blobs/{}", image.config().digest)).await.ok();
    }
    assert!(
        get(format!("{base}/manifests/list"))
            .await
            .header("content-type")
            .contains("manifest.list.v2")
    );
    let layer = long.layer_digest(0);
    assert_eq!(sha512(&get(format!("{base}/blobs/{layer}")).await.ok()), layer);
    let old = get(format!("{base}/manifests/old")).await;
    assert_eq!(
        old.header("content-type"),
        "application/vnd.docker.distribution.manifest.v1+prettyjws"
    );
}

#[tokio::test]
async fn single_ranges_are_answered_as_rfc_9110_says() {
    let upstream = Upstream::start().await;
    let content = random(2, 1000);
    let url = format!(
        "{}/v2/a/blobs/{}",
        upstream.url(),
        upstream.put_blob("a", content.clone())
    );
    for (range, status, content_range, part) in [
        ("bytes=0-0", 206, "bytes 0-0/1000", 0..1),
        ("bytes=10-19", 206, "bytes 10-19/1000", 10..20),
        ("bytes=990-5000", 206, "bytes 990-999/1000", 990..1000),
        ("bytes=400-", 206, "bytes 400-999/1000", 400..1000),
        ("bytes=-100", 206, "bytes 900-999/1000", 900..1000),
        ("bytes=-5000", 206, "bytes 0-999/1000", 0..1000),
        ("bytes=1000-", 416, "bytes */1000", 0..0),
        ("bytes=20-10", 416, "bytes */1000", 0..0),
        ("bytes=-0", 416, "bytes */1000", 0..0),
        ("bytes=0-1,5-6", 200, "", 0..1000),
        ("lines=0-1", 200, "", 0..1000),
    ] {
        let answer = get_with(&url, &[("range", range)]).await;
        assert_eq!(
            (answer.status, answer.header("content-range")),
            (status, content_range),
            "{range}"
        );
        assert_eq!(answer.body, content[part.clone()], "{range}");
        assert_eq!(answer.header("content-length"), part.len().to_string(), "{range}");
    }
    assert_eq!(upstream.count_of(&blobs().ranged()), 11);
}

#[tokio::test]
async fn what_is_not_there_gets_the_errors_of_the_specification() {
    let upstream = Upstream::start().await;
    let image = Image::simple(1, 10);
    upstream.put("a", "1", &image);
    upstream.put("a", "2", &image);
    upstream.untag("a", "2");
    let gone = upstream.put_blob("a", "gone");
    upstream.remove_blob("a", &gone);
    for (path, code) in [
        ("b/manifests/1", "NAME_UNKNOWN"),
        ("a/manifests/2", "MANIFEST_UNKNOWN"),
        (&format!("a/blobs/{gone}"), "BLOB_UNKNOWN"),
        ("b/tags/list", "NAME_UNKNOWN"),
    ] {
        let answer = get(format!("{}/v2/{path}", upstream.url())).await;
        assert_eq!(
            (answer.status, &answer.json()["errors"][0]["code"]),
            (404, &json!(code)),
            "{path}"
        );
    }
    upstream.remove_manifest("a", &image.digest());
    assert_eq!(
        head(format!("{}/v2/a/manifests/1", upstream.url())).await.status,
        404
    );
    assert_eq!(get(format!("{}/v1/", upstream.url())).await.status, 404);
    assert_eq!(get(format!("{}/v2/", upstream.url())).await.status, 200);
    let upload = format!("{}/v2/a/blobs/uploads/", upstream.url());
    assert_eq!(request(Method::POST, upload, &[]).await.status, 405);
}

#[tokio::test]
async fn tags_are_paged_by_name_or_by_opaque_pages() {
    let upstream = Upstream::start().await;
    let image = Image::simple(1, 10);
    for tag in ["a", "b", "c", "d", "e"] {
        upstream.put("app", tag, &image);
    }
    let list = format!("{}/v2/app/tags/list", upstream.url());
    let all = get(&list).await;
    assert_eq!(all.header("link"), "");
    assert_eq!(
        all.json(),
        json!({ "name": "app", "tags": ["a", "b", "c", "d", "e"] })
    );
    let page = get(format!("{list}?n=2&last=b")).await;
    assert_eq!(
        page.header("link"),
        "</v2/app/tags/list?last=d&n=2>; rel=\"next\""
    );
    assert_eq!(page.json()["tags"], json!(["c", "d"]));
    for opaque in [false, true] {
        upstream.page_tags(2, opaque);
        let (mut url, mut found) = (list.clone(), Vec::new());
        loop {
            let page = get(&url).await;
            found.extend(page.json()["tags"].as_array().cloned().unwrap_or_default());
            let link = page.header("link").to_owned();
            let Some((path, _)) = link.trim_start_matches('<').split_once('>') else {
                break;
            };
            assert_eq!(path.contains("next_page="), opaque);
            url = format!("{}{path}", upstream.url());
        }
        assert_eq!(found, ["a", "b", "c", "d", "e"]);
    }
    assert_eq!(upstream.count_of(&tags()), 8);
}

#[tokio::test]
async fn referrers_come_by_the_api_or_by_the_fallback_tag() {
    let upstream = Upstream::start().await;
    let image = Image::simple(1, 10);
    let signature = Image::new()
        .layer("signature")
        .referring_to(&image, "application/vnd.example.signature");
    let bill = Image::new()
        .layer("bill")
        .referring_to(&image, "application/vnd.example.bill");
    upstream.put("app", "1", &image);
    upstream.put_untagged("app", &signature);
    upstream.put_untagged("app", &bill);
    let url = format!("{}/v2/app/referrers/{}", upstream.url(), image.digest());

    let all = get(&url).await;
    assert_eq!(
        all.header("content-type"),
        "application/vnd.oci.image.index.v1+json"
    );
    assert_eq!(all.json()["manifests"].as_array().map(Vec::len), Some(2));
    let one = get(format!("{url}?artifactType=application/vnd.example.bill")).await;
    assert_eq!(one.header("oci-filters-applied"), "artifactType");
    assert_eq!(one.json()["manifests"][0]["digest"], bill.digest());
    let none = get(format!("{}/v2/app/referrers/{}", upstream.url(), bill.digest())).await;
    assert_eq!((none.status, none.json()["manifests"].clone()), (200, json!([])));

    upstream.always(referrers(), reply(404).body("404 page not found"));
    upstream.put_referrers_tag("app", &image.digest());
    assert_eq!(get(&url).await.status, 404);
    let tag = image.digest().replace(':', "-");
    let fallback = get(format!("{}/v2/app/manifests/{tag}", upstream.url())).await;
    assert_eq!(fallback.json(), all.json());
}
