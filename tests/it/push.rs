//! Pushes through the door: blobs at once and by mount, images of every shape, byte for byte; and where nobody pushes.

use bytes::Bytes;
use serde_json::json;

use crate::expect::{INDEX, assert_error};
use crate::hosting::{self, APP, Hosting, closing};
use crate::support::image::Part;
use crate::support::prelude::*;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A manifest of any bytes.
fn part(media_type: &str, bytes: impl Into<Bytes>) -> Part {
    RawManifest::new(media_type, bytes).root()
}

#[tokio::test]
async fn images_of_every_shape_come_back_byte_for_byte() {
    let mut hosting = Hosting::start().await;
    let shapes = [
        ("oci", Image::simple(1, 70_000)),
        ("docker", Image::simple(2, 70_000).docker()),
        ("long", Image::simple(3, 70_000).sha512()),
        ("empty", Image::new().layer(Bytes::new())),
        ("bare", Image::new()),
    ];
    let indexes = [
        ("index", Index::of_platforms(3)),
        ("list", Index::of_platforms(2).docker()),
        ("none", Index::default()),
    ];
    for (tag, image) in &shapes {
        hosting.push(APP, tag, image).await;
    }
    for (tag, index) in &indexes {
        hosting.push(APP, tag, index).await;
    }
    for restarted in [false, true] {
        if restarted {
            hosting.daemon.kill().await;
            hosting.daemon.restart().await;
        }
        for (tag, image) in &shapes {
            hosting.assert_holds(APP, tag, image).await;
        }
        for (tag, index) in &indexes {
            hosting.assert_holds(APP, tag, index).await;
        }
    }
    // An index of indexes.
    let inner = indexes[0].1.root();
    let outer = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [
        { "mediaType": INDEX, "digest": inner.digest, "size": inner.bytes.len() },
    ] });
    let outer = part(INDEX, outer.to_string());
    assert_eq!(hosting.put(APP, "nested", &outer).await.status, 201);
    assert!(get(hosting.at(APP, "manifests/nested")).await.ok() == outer.bytes);
}

#[tokio::test]
async fn a_blob_at_once_by_either_way() {
    let hosting = Hosting::start().await;
    for (seed, size) in [(1, 0), (2, 1), (3, 3_000_000)] {
        for long in [false, true] {
            let bytes = random(seed, size);
            let digest = if long { sha512(&bytes) } else { sha256(&bytes) };
            for by_post in [true, false] {
                let answer = if by_post {
                    let url = closing(&hosting.at(APP, "blobs/uploads/"), &digest);
                    send(
                        Method::POST,
                        url,
                        &[("content-type", "application/octet-stream")],
                        bytes.clone(),
                    )
                    .await
                } else {
                    let session = hosting.begin(APP).await;
                    assert!(
                        session.starts_with(&hosting.at(APP, "blobs/uploads/")),
                        "{session}"
                    );
                    send(Method::PUT, closing(&session, &digest), &[], bytes.clone()).await
                };
                assert_eq!((answer.status, answer.body.len()), (201, 0), "{}", answer.text());
                assert_eq!(answer.header("docker-content-digest"), digest);
                let place = hosting.follow(&answer);
                assert_eq!(place, hosting.at(APP, &format!("blobs/{digest}")));
                let told = head(&place).await;
                assert_eq!(told.header("content-length"), size.to_string());
                assert!(get(&place).await.ok() == bytes);
                let wanted = get_with(&place, &[("range", "bytes=0-0")]).await;
                assert_eq!(wanted.status, if size == 0 { 416 } else { 206 });
                // The next way begins with nothing.
                assert_eq!(hosting.delete(APP, &format!("blobs/{digest}")).await.status, 202);
            }
        }
    }
    let url = closing(&hosting.at(APP, "blobs/uploads/"), &sha256(b"something else"));
    assert_error(
        &send(Method::POST, &url, &[], "hello").await,
        400,
        "DIGEST_INVALID",
    );
    for digest in ["sha256:abc", "md5:d41d8cd98f00b204e9800998ecf8427e", "x", ""] {
        let url = closing(&hosting.at(APP, "blobs/uploads/"), digest);
        assert_error(
            &send(Method::POST, &url, &[], "hello").await,
            400,
            "DIGEST_INVALID",
        );
    }
    assert_eq!(
        hosting.status(APP, &format!("blobs/{}", sha256(b"hello"))).await,
        404
    );
    assert_eq!(hosting.upload_files(), 0);
}

#[tokio::test]
async fn many_push_the_same_at_once() {
    let hosting = Hosting::start().await;
    let image = Image::simple(1, 2_000_000);
    let pushes =
        (0..8).map(|number| hosting.push(if number % 2 == 0 { APP } else { "acme/other" }, "v1", &image));
    futures_util::future::join_all(pushes).await;
    for repository in [APP, "acme/other"] {
        hosting.assert_holds(repository, "v1", &image).await;
    }
    assert_eq!(hosting.upload_files(), 0);
}

#[tokio::test]
async fn what_is_sent_is_kept_whatever_it_is_packed_with() {
    let hosting = Hosting::start().await;
    // Looks like gzip and is none: whoever unpacks it fails.
    let bytes = [&[0x1f, 0x8b, 8, 0][..], &random(1, 5000)].concat();
    let digest = sha256(&bytes);
    let url = closing(&hosting.at(APP, "blobs/uploads/"), &digest);
    let answer = send(Method::POST, url, &[("content-encoding", "gzip")], bytes.clone()).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let blob = hosting.at(APP, &format!("blobs/{digest}"));
    let answer = get_with(&blob, &[("accept-encoding", "gzip, zstd, br")]).await;
    assert_eq!(answer.header("content-encoding"), "");
    assert!(answer.ok() == bytes);
    // Odd, and still JSON: white space, order, escapes, fields of others, a number that no float holds.
    let text = format!(
        "\n{{ \"zzz\" : 12345678901234567890123, \"schemaVersion\":2,\r\n\t\"mediaType\":\"{MANIFEST}\", \"config\" :\
         {{\"size\":{},\"digest\":\"{digest}\",\"mediaType\":\"a\\/b\", \"more\":[null]}},\"layers\":[ ],\"layers2\":\"\\u00e4ö\" }}\n\n",
        bytes.len()
    );
    let odd = part(MANIFEST, text);
    let url = hosting.at(APP, "manifests/odd");
    let kind = [
        (
            "content-type",
            "application/vnd.oci.image.manifest.v1+json; charset=utf-8",
        ),
        ("content-encoding", "gzip"),
    ];
    let answer = send(Method::PUT, &url, &kind, odd.bytes.clone()).await;
    assert_eq!(
        (answer.status, answer.header("docker-content-digest")),
        (201, odd.digest.as_str())
    );
    assert_eq!(
        hosting.follow(&answer),
        hosting.at(APP, &format!("manifests/{}", odd.digest))
    );
    let answer = get_with(&url, &[("accept-encoding", "gzip"), ("accept", "text/html")]).await;
    assert_eq!(
        (answer.header("content-type"), answer.header("content-encoding")),
        (MANIFEST, "")
    );
    assert!(answer.ok() == odd.bytes);
}

#[tokio::test]
async fn a_blob_is_mounted_from_where_the_caller_may_read_it() {
    let upstream = Upstream::start().await;
    let cached = Image::simple(9, 5000);
    upstream.put("library/app", "v1", &cached);
    let hosting = Hosting::of(hosting::over(Daemon::over(&upstream))).await;
    let bytes = random(1, 100_000);
    let digest = hosting.push_blob("acme/base", bytes.clone()).await;
    let mount = async |repository: &str, query: String| {
        let url = hosting.at(repository, &format!("blobs/uploads/?{query}"));
        send(Method::POST, url, &[], "").await
    };
    for (repository, query) in [
        ("acme/one", format!("mount={digest}&from=acme/base")),
        (
            "acme/two",
            format!("from=acme%2Fbase&mount={}", digest.replace(':', "%3A")),
        ),
        ("acme/three", format!("mount={digest}")),
        ("acme/base", format!("mount={digest}&from=acme/base")),
    ] {
        let answer = mount(repository, query).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        assert_eq!(
            hosting.follow(&answer),
            hosting.at(repository, &format!("blobs/{digest}"))
        );
        assert_eq!(answer.header("docker-content-digest"), digest);
        assert!(get(hosting.follow(&answer)).await.ok() == bytes);
    }
    // From the cache, once it is there.
    let layer = cached.layer_digest(0);
    let from_cache = format!("mount={layer}&from=docker-hub/library/app");
    let from_anywhere = format!("mount={layer}");
    for query in [&from_cache, &from_anywhere] {
        assert_eq!(mount("acme/one", query.clone()).await.status, 202, "{query}");
    }
    get(hosting.at("docker-hub/library/app", &format!("blobs/{layer}")))
        .await
        .ok();
    let linked = async {
        while mount("acme/one", from_cache.clone()).await.status != 201 {
            tokio::task::yield_now().await;
        }
    };
    soon("the cached blob to be mounted", linked).await;
    assert_eq!(mount("acme/two", from_anywhere).await.status, 201);
    upstream.refuse().await;
    assert!(get(hosting.at("acme/one", &format!("blobs/{layer}"))).await.ok() == cached.layers()[0].bytes);
    // What cannot be mounted is uploaded.
    for query in [
        format!("mount={}&from=acme/base", sha256(b"never")),
        format!("mount={}", sha256(b"never")),
        format!("mount={digest}&from=acme/nowhere"),
        format!("mount={digest}&from=UPPER"),
        format!("mount={digest}&from=..%2F..%2Fetc"),
    ] {
        let answer = mount("acme/four", query.clone()).await;
        assert_eq!(answer.status, 202, "{query}: {}", answer.text());
        let answer = send(
            Method::PUT,
            closing(&hosting.follow(&answer), &sha256(b"x")),
            &[],
            "x",
        )
        .await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    assert_error(
        &mount("acme/four", "mount=sha256:short&from=acme/base".to_owned()).await,
        400,
        "DIGEST_INVALID",
    );
    assert_eq!(hosting.status("acme/four", &format!("blobs/{digest}")).await, 404);
    // A manifest is no blob.
    let root = hosting.push("acme/base", "v1", &Image::simple(2, 10)).await;
    for query in [format!("mount={root}&from=acme/base"), format!("mount={root}")] {
        assert_eq!(mount("acme/four", query).await.status, 202);
    }
    assert_eq!(hosting.status("acme/base", &format!("blobs/{root}")).await, 404);
}

#[tokio::test]
async fn a_lost_file_is_pushed_again() {
    let mut hosting = Hosting::start().await;
    let bytes = random(1, 100_000);
    let digest = hosting.push_blob(APP, bytes.clone()).await;
    let hex = digest.strip_prefix("sha256:").expect("a digest");
    let file = hosting
        .daemon
        .data_dir()
        .join("blobs/sha256")
        .join(&hex[..2])
        .join(hex);
    for by_head in [true, false] {
        hosting.daemon.stop().await;
        std::fs::remove_file(&file).expect("the blob's file");
        hosting.daemon.restart().await;
        if by_head {
            assert_eq!(hosting.status(APP, &format!("blobs/{digest}")).await, 404);
        } else {
            let url = hosting.at("acme/other", &format!("blobs/uploads/?mount={digest}&from={APP}"));
            assert_eq!(send(Method::POST, url, &[], "").await.status, 202);
        }
        hosting.push_blob(APP, bytes.clone()).await;
        assert!(get(hosting.at(APP, &format!("blobs/{digest}"))).await.ok() == bytes);
    }
}

#[tokio::test]
async fn only_what_is_ours_is_pushed_to() {
    let upstream = Upstream::start().await;
    let hosting = Hosting::of(hosting::over(Daemon::over(&upstream)).mirror_door()).await;
    let pushes = async |base: String, name: &str, status: u16, code: &str| {
        for (method, rest) in [
            (Method::POST, "blobs/uploads/".to_owned()),
            (Method::POST, closing("blobs/uploads/", &sha256(b"x"))),
            (Method::PUT, "manifests/v1".to_owned()),
        ] {
            let url = format!("{base}/v2/{name}/{rest}");
            assert_error(
                &send(method, url, &[("content-type", MANIFEST)], "x").await,
                status,
                code,
            );
        }
    };
    for name in [
        "docker-hub/library/app",
        "docker.io/library/app",
        "docker.io/acme/app",
    ] {
        pushes(hosting.daemon.url(), name, 405, "UNSUPPORTED").await;
    }
    pushes(
        format!("{}/mirror", hosting.daemon.url()),
        APP,
        405,
        "UNSUPPORTED",
    )
    .await;
    pushes(hosting.daemon.mirror_url(), APP, 405, "UNSUPPORTED").await;
    pushes(hosting.daemon.url(), "elsewhere/app", 405, "UNSUPPORTED").await;
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(
        get(format!("{}/v2/_catalog", hosting.daemon.url())).await.json(),
        json!({ "repositories": [] })
    );
    // A name of ours is never looked for at an upstream.
    assert_error(&get(hosting.at(APP, "manifests/v1")).await, 404, "NAME_UNKNOWN");
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test]
async fn names_lead_nowhere_else() {
    let hosting = Hosting::start().await;
    hosting.push(APP, "v1", &Image::simple(1, 10)).await;
    let long = format!("acme/{}", "a".repeat(260));
    let names = [
        "acme/..",
        "acme/../..",
        "../../etc",
        "acme/./app",
        "acme/%2e%2e/%2e%2e/etc",
        "acme/%2e%2e%2fapp",
        "acme/app%00",
        "acme//app",
        "acme/App",
        "acme/app%0d%0aX: y",
        "acme/-app",
        "acme/app/..",
        "acme%2f..%2fapp",
        "acme/a%5cb",
        "acme/%ff",
        &long,
    ];
    for name in names {
        for (method, rest) in [
            ("POST", "blobs/uploads/".to_owned()),
            ("PUT", "manifests/v1".to_owned()),
            ("DELETE", "manifests/v1".to_owned()),
            ("DELETE", format!("blobs/{}", sha256(b"x"))),
        ] {
            let mut raw = Raw::connect(&hosting.daemon.url()).await;
            raw.write(&format!(
                "{method} /v2/{name}/{rest} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
            ))
            .await;
            let head = raw.head().await.unwrap_or_else(|| panic!("no answer to {name}"));
            assert!(
                matches!(head.status, 400 | 404 | 405),
                "{method} {name}: {}",
                head.status
            );
        }
    }
    for reference in [
        "..",
        "%2e%2e",
        "a%2fb",
        ".hidden",
        "-x",
        "a%00",
        "sha256:..%2f..",
        &"t".repeat(129),
    ] {
        let answer = hosting.put(APP, reference, &Image::simple(1, 10).root()).await;
        assert!(
            matches!(answer.status, 400 | 404 | 405),
            "{reference}: {}",
            answer.status
        );
    }
    let catalog = get(format!("{}/v2/_catalog", hosting.daemon.url())).await.json();
    assert_eq!(catalog, json!({ "repositories": [APP] }));
    assert_eq!(hosting.tags(APP).await, json!(["v1"]));
    // Names with the words of the protocol in them are names.
    for name in [
        "acme/blobs/uploads",
        "acme/manifests",
        "acme/tags/list",
        "acme/referrers/v2",
    ] {
        let image = Image::simple(3, 100);
        hosting.push(name, "v1", &image).await;
        hosting.assert_holds(name, "v1", &image).await;
    }
}
