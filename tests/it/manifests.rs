//! Manifests: GET and HEAD, cold and warm, verbatim and verified, of every kind that registries hold, and at the
//! least cost for the upstream's rate limit.

use serde_json::json;

use crate::expect::{INDEX, assert_error, assert_hit, assert_manifest, cached, get_all};
use crate::support::prelude::*;

const APP: &str = "docker-hub/library/app";
const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

async fn start() -> (Upstream, Daemon) {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream).start().await;
    (upstream, daemon)
}

#[tokio::test]
async fn get_and_head_by_tag_and_digest_cold_and_warm() {
    let (upstream, daemon) = start().await;
    // Each starts with another question about something that was never seen.
    let starts = [(true, "1"), (false, "1"), (true, "digest"), (false, "digest")];
    for (seed, (head_first, by)) in starts.into_iter().enumerate() {
        let repo = format!("library/app{seed}");
        let image = Image::simple(seed as u64, 100);
        upstream.put(&repo, "1", &image);
        let name = format!("docker-hub/{repo}");
        let digest = image.digest();
        let first = daemon.manifest_url(&name, if by == "1" { "1" } else { &digest });
        let cold = if head_first {
            head(&first).await
        } else {
            get(&first).await
        };
        assert_manifest(&cold, &image, head_first);
        assert!(
            cached(&cold).starts_with("wharfinger; fwd=miss"),
            "{}",
            cached(&cold)
        );
        let warm = if head_first {
            get(&first).await
        } else {
            head(&first).await
        };
        assert_manifest(&warm, &image, !head_first);
        for reference in ["1", &digest] {
            let url = daemon.manifest_url(&name, reference);
            assert_manifest(&get(&url).await, &image, false);
            assert_manifest(&head(&url).await, &image, true);
        }
        let gets = upstream.count_of(&manifests().in_repo(&repo).get());
        let most = if by == "1" { 1 } else { 2 };
        assert!((1..=most).contains(&gets), "{:#?}", upstream.summary());
        upstream.forget_requests();
        for reference in ["1", &digest] {
            assert_hit(&get(daemon.manifest_url(&name, reference)).await);
            assert_hit(&head(daemon.manifest_url(&name, reference)).await);
        }
        assert_eq!(upstream.requests().len(), 0, "{:#?}", upstream.summary());
    }
    // Nothing was asked for that no client wanted.
    assert_eq!(upstream.count_of(&blobs()), 0);
}

#[tokio::test]
async fn bytes_and_type_stay_as_they_came() {
    let (upstream, daemon) = start().await;
    let odd = format!(
        "\n {{\"layers\" :[ ],\t\"mediaType\":\"{OCI}\",\r\n \"config\":{{\"size\":2,\"digest\":\"{}\",\"mediaType\":\"x/y\"}}, \
         \"z\":1.0e0,\"a\":\"\\u00e9/\\/\", \"schemaVersion\":2}}\n\n",
        sha256(b"{}")
    );
    let manifest = RawManifest::new(OCI, odd);
    upstream.put("library/app", "odd", &manifest);
    for reference in ["odd".to_owned(), manifest.digest()] {
        let url = daemon.manifest_url(APP, &reference);
        assert_manifest(&get(&url).await, &manifest, false);
        let squeezed = get_with(&url, &[("accept-encoding", "zstd;q=1.0, gzip;q=0.8, br")]).await;
        assert_manifest(&squeezed, &manifest, false);
    }
    let asked = upstream.requests();
    assert_eq!(asked.len(), 1);
    assert!(
        matches!(asked[0].header("accept-encoding"), "" | "identity"),
        "{:?}",
        asked[0]
    );
}

#[tokio::test]
async fn an_index_costs_one_request_and_a_pull_of_one_platform_two() {
    let (upstream, daemon) = start().await;
    let index = Index::of_platforms(3);
    upstream.put("library/app", "multi", &index);
    // As containerd pulls: HEAD of the tag, then everything by digest.
    let resolved = head(daemon.manifest_url(APP, "multi")).await;
    assert_manifest(&resolved, &index, true);
    let root = get(daemon.manifest_url(APP, resolved.header("docker-content-digest"))).await;
    assert_manifest(&root, &index, false);
    assert_eq!(
        upstream.requests().len(),
        1,
        "children are not fetched unasked: {:#?}",
        upstream.summary()
    );

    let image = &index.images()[1];
    assert_manifest(
        &get(daemon.manifest_url(APP, &image.digest())).await,
        image,
        false,
    );
    for part in image.blobs() {
        assert_eq!(get(daemon.blob_url(APP, &part.digest)).await.ok(), part.bytes);
        assert_eq!(upstream.blob_gets(&part.digest), 1);
    }
    assert_eq!(
        (upstream.manifest_gets(), upstream.count_of(&blobs().get())),
        (2, 2)
    );

    // Every further pull costs nothing.
    upstream.forget_requests();
    assert_hit(&get(daemon.manifest_url(APP, "multi")).await);
    assert_hit(&get(daemon.manifest_url(APP, &image.digest())).await);
    for part in image.blobs() {
        assert_eq!(get(daemon.blob_url(APP, &part.digest)).await.ok(), part.bytes);
    }
    assert_eq!(upstream.requests().len(), 0, "{:#?}", upstream.summary());
}

#[tokio::test]
async fn every_kind_of_manifest_passes() {
    let (upstream, daemon) = start().await;
    let blob = upstream.put_blob("library/app", random(7, 500));
    let layer = json!({ "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": blob, "size": 500 });
    let image_with = |config: &str, layer: &str| {
        json!({
            "schemaVersion": 2, "mediaType": OCI,
            "config": { "mediaType": config, "digest": blob, "size": 500 },
            "layers": [{ "mediaType": layer, "digest": blob, "size": 500 }],
        })
    };
    let helm = "application/vnd.cncf.helm";
    let cases = [
        (
            OCI,
            image_with(
                &format!("{helm}.config.v1+json"),
                &format!("{helm}.chart.content.v1.tar+gzip"),
            ),
        ),
        (
            OCI,
            image_with(
                "application/vnd.aquasec.trivy.config.v1+json",
                "application/vnd.aquasec.trivy.db.layer.v1.tar+gzip",
            ),
        ),
        (
            OCI,
            image_with(
                "application/vnd.oci.empty.v1+json",
                "application/vnd.dev.sigstore.bundle.v0.3+json",
            ),
        ),
        // BuildKit's cache export: an index whose entries are layers, and a config.
        (
            INDEX,
            json!({
                "schemaVersion": 2, "mediaType": INDEX,
                "manifests": [layer, { "mediaType": "application/vnd.buildkit.cacheconfig.v0", "digest": blob, "size": 500 }],
            }),
        ),
        (
            "application/vnd.oci.artifact.manifest.v1+json",
            json!({ "mediaType": "application/vnd.oci.artifact.manifest.v1+json", "artifactType": "a/b", "blobs": [layer] }),
        ),
        (
            "application/vnd.docker.distribution.manifest.list.v2+json",
            json!({ "schemaVersion": 2, "manifests": [] }),
        ),
        (
            "application/vnd.example.future.v9+json",
            json!({ "tomorrow": { "is": ["another", "day"] } }),
        ),
        ("application/vnd.wasm.content.layer.v1+json", json!({})),
    ];
    for (number, (media_type, document)) in cases.into_iter().enumerate() {
        let tag = format!("v{number}");
        let manifest = RawManifest::new(media_type, document.to_string());
        upstream.put("library/app", &tag, &manifest);
        for reference in [tag, manifest.digest()] {
            let url = daemon.manifest_url(APP, &reference);
            assert_manifest(&get(&url).await, &manifest, false);
            assert_manifest(&head(&url).await, &manifest, true);
        }
        // What an index names need not be manifests.
        let fetched = get(daemon.blob_url(APP, &blob)).await;
        assert_eq!(fetched.ok(), random(7, 500), "after {media_type}");
    }
    assert_eq!(upstream.blob_gets(&blob), 1, "{:#?}", upstream.summary());
}

#[tokio::test]
async fn schema_1_is_refused_by_name() {
    let (upstream, daemon) = start().await;
    let old = RawManifest::schema_1("library/app", "old");
    upstream.put("library/app", "old", &old);
    let disguised = RawManifest::new("application/json", old.root().bytes);
    upstream.put("library/other", "old", &disguised);
    for name in [APP, "docker-hub/library/other"] {
        for _ in 0..2 {
            let answer = get(daemon.manifest_url(name, "old")).await;
            // The code whose message docker and podman show, and after which a mirror's client goes on elsewhere.
            assert_error(&answer, 404, "MANIFEST_UNKNOWN");
            assert!(answer.text().contains("schema 1"), "{}", answer.text());
            assert_eq!(head(daemon.manifest_url(name, "old")).await.status, 404);
        }
    }
}

#[tokio::test]
async fn four_mebibytes_pass_and_more_does_not() {
    let (upstream, daemon) = start().await;
    let padded = |size: usize| {
        let start =
            format!("{{\"schemaVersion\":2,\"mediaType\":\"{INDEX}\",\"manifests\":[],\"padding\":\"");
        let padding = "x".repeat(size - start.len() - 2);
        RawManifest::new(INDEX, format!("{start}{padding}\"}}"))
    };
    let most = 4 * 1024 * 1024;
    let (fits, large) = (padded(most), padded(most + 1));
    upstream.put("library/app", "fits", &fits);
    upstream.put("library/app", "large", &large);
    assert_manifest(&get(daemon.manifest_url(APP, "fits")).await, &fits, false);
    for plan in [serve(), serve().no_length()] {
        upstream.once(manifest("large").get(), plan);
        assert_error(&get(daemon.manifest_url(APP, "large")).await, 502, "UNAVAILABLE");
    }
    assert_error(
        &get(daemon.manifest_url(APP, &large.digest())).await,
        502,
        "UNAVAILABLE",
    );
}

#[tokio::test]
async fn what_is_not_the_manifest_is_refused_and_not_kept() {
    let (upstream, daemon) = start().await;
    let other = sha256(b"something else");
    let plans = [
        ("a web page", html()),
        (
            "a web page that claims to be a manifest",
            html().header("content-type", OCI),
        ),
        ("a wrong byte", serve().flip_at(20)),
        (
            "another digest in the header",
            serve().header("docker-content-digest", &other),
        ),
        (
            "not a manifest at all",
            reply(200).header("content-type", OCI).body("[1, 2]"),
        ),
        ("nothing", reply(200).header("content-type", OCI).body("")),
    ];
    for (number, (what, plan)) in plans.into_iter().enumerate() {
        for by_tag in [true, false] {
            let tag = format!("t{number}{by_tag}");
            let image = Image::simple(number as u64 * 2 + u64::from(by_tag), 50);
            upstream.put("library/app", &tag, &image);
            let reference = if by_tag { tag.clone() } else { image.digest() };
            upstream.once(manifest(&reference).get(), plan.clone());
            let refused = get(daemon.manifest_url(APP, &reference)).await;
            assert_error(&refused, 502, "UNAVAILABLE");
            let good = get(daemon.manifest_url(APP, &reference)).await;
            assert_eq!(good.status, 200, "{what} was kept: {}", good.text());
            assert_manifest(&good, &image, false);
            assert_eq!(upstream.count_of(&manifest(&reference).get()), 2, "{what}");
        }
    }
}

#[tokio::test]
async fn a_manifest_that_breaks_off_is_asked_for_again() {
    let (upstream, daemon) = start().await;
    let image = Image::simple(1, 10);
    upstream.put("library/app", "1", &image);
    upstream.once(manifest("1").get(), serve().cut_at(30));
    assert_manifest(&get(daemon.manifest_url(APP, "1")).await, &image, false);
    assert_eq!(upstream.manifest_gets(), 2);
}

#[tokio::test]
async fn the_upstream_hears_the_whole_accept_list_whatever_the_client_says() {
    let (upstream, daemon) = start().await;
    let index = Index::of_platforms(2);
    let schema_2 = "application/vnd.docker.distribution.manifest.v2+json";
    let accepts: [&[(&str, &str)]; 5] = [
        &[],
        &[("accept", schema_2)],
        &[("accept", "*/*")],
        &[("accept", "text/html")],
        // One line per type, as podman and older dockers send them.
        &[
            ("accept", schema_2),
            ("accept", "application/vnd.docker.distribution.manifest.v1+json"),
            ("accept", OCI),
            ("accept", INDEX),
        ],
    ];
    for (number, accept) in accepts.into_iter().enumerate() {
        let repo = format!("library/app{number}");
        upstream.put(&repo, "1", &index);
        let url = daemon.manifest_url(&format!("docker-hub/{repo}"), "1");
        let mut raw = Raw::connect(&url).await;
        for _ in 0..2 {
            raw.ask("GET", &url, accept).await;
            let head = raw.head().await.expect("an answer");
            assert_eq!(
                (head.status, head.header("content-type")),
                (200, INDEX),
                "{accept:?}"
            );
            assert_eq!(raw.finish().await, (index.root().bytes, Ending::Complete));
        }
    }
    for asked in upstream.requests() {
        let lines: Vec<_> = asked
            .headers()
            .get_all("accept")
            .iter()
            .filter_map(|line| line.to_str().ok())
            .collect();
        let list = lines.join(",");
        for media_type in [
            OCI,
            INDEX,
            schema_2,
            "application/vnd.docker.distribution.manifest.list.v2+json",
            "*/*",
        ] {
            assert!(list.contains(media_type), "{media_type} is not in {list}");
        }
        assert!(
            !list.contains("docker.distribution.manifest.v1"),
            "schema 1 in {list}"
        );
    }
}

#[tokio::test]
async fn a_herd_of_cold_requests_is_one_request() {
    let (upstream, daemon) = start().await;
    let image = Image::simple(1, 10);
    upstream.put("library/app", "1", &image);
    let gate = upstream.hold(manifest("1").get());
    let url = daemon.manifest_url(APP, "1");
    let herd = tokio::spawn(get_all(vec![url; 32]));
    gate.reached().await;
    gate.release();
    for answer in herd.await.expect("no panic") {
        assert_manifest(&answer, &image, false);
    }
    assert_eq!(upstream.requests().len(), 1, "{:#?}", upstream.summary());
}

#[tokio::test]
async fn sha512_names_content_too() {
    let (upstream, daemon) = start().await;
    let image = Image::simple(1, 3000).sha512();
    upstream.put("library/app", "1", &image);
    let url = daemon.manifest_url(APP, &image.digest());
    for _ in 0..2 {
        assert_manifest(&get(&url).await, &image, false);
        assert_manifest(&head(&url).await, &image, true);
    }
    assert_eq!(upstream.manifest_gets(), 1);
    for part in image.blobs() {
        assert!(part.digest.starts_with("sha512:"));
        for _ in 0..2 {
            assert_eq!(get(daemon.blob_url(APP, &part.digest)).await.ok(), part.bytes);
        }
        assert_eq!(upstream.blob_gets(&part.digest), 1);
    }
}

#[tokio::test]
async fn a_tag_is_named_by_the_algorithm_of_its_upstream() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream)
        .setting("cache.tag_ttl", "\"0s\"")
        .start()
        .await;
    let image = Image::simple(1, 3000).sha512();
    upstream.put("library/app", "1", &image);
    for _ in 0..2 {
        assert_manifest(&get(daemon.manifest_url(APP, "1")).await, &image, false);
    }
    assert_eq!(upstream.manifest_gets(), 1, "{:#?}", upstream.summary());
    // Nothing told: the usual one.
    upstream.behave();
    upstream.put("library/app", "2", &image);
    upstream.always(manifests(), serve().without("docker-content-digest"));
    let answer = get(daemon.manifest_url(APP, "2")).await;
    assert_eq!(
        answer.header("docker-content-digest"),
        sha256(&image.root().bytes)
    );
}

#[tokio::test]
async fn a_client_that_has_it_already_is_told_so() {
    let (upstream, daemon) = start().await;
    let image = Image::simple(1, 10);
    upstream.put("library/app", "1", &image);
    for reference in ["1".to_owned(), image.digest()] {
        let url = daemon.manifest_url(APP, &reference);
        let etag = get(&url).await.header("etag").to_owned();
        assert!(etag.contains(&image.digest()), "{etag:?}");
        let lists = [
            etag.clone(),
            format!("W/{etag}"),
            format!("\"x\", {etag}"),
            "*".to_owned(),
        ];
        for list in lists {
            let known = get_with(&url, &[("if-none-match", &list)]).await;
            assert_eq!((known.status, known.body.len()), (304, 0), "{list}");
            assert_eq!(known.header("etag"), etag);
            assert_eq!(known.header("docker-content-digest"), image.digest());
            assert_eq!(head_with(&url, &[("if-none-match", &list)]).await.status, 304);
        }
        let other = get_with(&url, &[("if-none-match", "\"sha256:other\"")]).await;
        assert_manifest(&other, &image, false);
    }
    assert_eq!(upstream.manifest_gets(), 1);
}

#[tokio::test]
async fn unknown_tags_digests_and_repositories_are_404() {
    let (upstream, daemon) = start().await;
    upstream.put("library/app", "1", &Image::simple(1, 10));
    let nowhere = sha256(b"nowhere");
    for reference in ["2", &nowhere] {
        for name in [APP, "docker-hub/library/none"] {
            let answer = get(daemon.manifest_url(name, reference)).await;
            assert_error(&answer, 404, "MANIFEST_UNKNOWN");
            let by_head = head(daemon.manifest_url(name, reference)).await;
            assert_eq!((by_head.status, by_head.body.len()), (404, 0));
        }
    }
    // A blob is no manifest.
    let layer = Image::simple(1, 10).layer_digest(0);
    assert_error(
        &get(daemon.manifest_url(APP, &layer)).await,
        404,
        "MANIFEST_UNKNOWN",
    );
}

#[tokio::test]
async fn one_repository_does_not_open_anothers_manifests() {
    let (upstream, daemon) = start().await;
    let image = Image::simple(1, 10);
    upstream.put("library/app", "1", &image);
    assert_eq!(get(daemon.manifest_url(APP, "1")).await.status, 200);
    // It is on the disk, but this repository's own upstream does not have it there.
    let other = get(daemon.manifest_url("docker-hub/library/other", &image.digest())).await;
    assert_error(&other, 404, "MANIFEST_UNKNOWN");
    assert_eq!(upstream.count_of(&manifests().in_repo("library/other").get()), 1);
}

#[tokio::test]
async fn a_manifest_that_is_asked_for_as_a_blob_stays_servable() {
    let (upstream, daemon) = start().await;
    let image = Image::simple(1, 100);
    upstream.put("library/app", "1", &image);
    // Some registries give manifests out under both names.
    upstream.put_blob_as("library/app", &image.digest(), image.root().bytes.clone());
    get(daemon.manifest_url(APP, "1")).await.ok();
    head(daemon.blob_url(APP, &image.digest())).await;
    get(daemon.blob_url(APP, &image.digest())).await.ok();
    upstream.refuse().await;
    assert_hit(&get(daemon.manifest_url(APP, "1")).await);
    assert_hit(&get(daemon.manifest_url(APP, &image.digest())).await);
}

#[tokio::test]
async fn odd_entries_pass_and_json_that_is_no_manifest_does_not() {
    let (upstream, daemon) = start().await;
    let odd = json!({"schemaVersion": 2, "mediaType": OCI, "config": {"mediaType": "a/b", "size": 2,
        "digest": sha256(b"{}")}, "layers": null});
    let odd = RawManifest::new(OCI, odd.to_string());
    upstream.put("library/app", "odd", &odd);
    assert_manifest(&get(daemon.manifest_url(APP, "odd")).await, &odd, false);

    let portal = reply(200)
        .header("content-type", "application/json")
        .body(r#"{"message":"log in first"}"#);
    upstream.always(manifest("portal"), portal);
    assert_error(&get(daemon.manifest_url(APP, "portal")).await, 502, "UNAVAILABLE");
}
