//! What is not what its digest says reaches nobody whole and is kept nowhere, over HTTP/1 and HTTP/2; and what is
//! arrives whole, whatever its size.

use futures_util::future::join_all;

use crate::scene::{Blob, NAME, REPO, Scene};
use crate::support::client::Open;
use crate::support::prelude::*;

/// A client of each protocol gets a part at the most; then nothing is kept, and who asks again at once gets the truth
/// from an upstream that is healthy again.
async fn never_whole(scene: &Scene, blob: &Blob, lie: Plan, what: &str) {
    scene.upstream.always(blob.get(), lie);
    let framed = tokio::spawn({
        let url = blob.url.clone();
        async move { h2_get(&url).await }
    });
    let mut plain = Raw::get(&blob.url).await;
    // A body that fails at once may take the head with it.
    if let Some(head) = plain.head().await {
        assert_eq!(head.status, 200, "{what}");
        let (body, ending) = plain.finish().await;
        let chunked = !head.headers.contains_key("content-length");
        match ending {
            Ending::Short(missing) => assert!(missing > 0 && !chunked, "{what}"),
            Ending::NoFinalChunk => assert!(chunked, "{what}"),
            other => panic!("{what}: {other:?} after {} bytes", body.len()),
        }
    }
    let framed = soon("an HTTP/2 client", framed).await.expect("no panic");
    assert!(matches!(framed.end, H2End::Reset(_)), "{what}: {:?}", framed.end);
    scene.upstream.behave();
    let answer = get(&blob.url).await;
    assert!(answer.ok() == blob.bytes, "{what}: after the lie");
    let line = scene.failed(blob).await;
    assert!(line.contains(&scene.upstream.url()["http://".len()..]), "{line}");
}

#[tokio::test]
async fn one_wrong_byte_anywhere_breaks_off() {
    let scene = Scene::start().await;
    // Below and above the size from which files are mapped.
    for (seed, size) in [(1, 5_000), (2, 300_000)] {
        for (number, at) in [0, size / 2, size - 1].into_iter().enumerate() {
            let blob = scene.put(random(10 * seed + number as u64, size as usize));
            never_whole(
                &scene,
                &blob,
                serve().flip_at(at),
                &format!("byte {at} of {size}"),
            )
            .await;
            let blob = scene.put(random(100 * seed + number as u64, size as usize));
            let lie = serve().flip_at(at).no_length();
            never_whole(&scene, &blob, lie, &format!("byte {at} of {size}, no length")).await;
        }
    }
    let blob = scene.put_long(random(3, 100_000));
    never_whole(&scene, &blob, serve().flip_at(99_999), "SHA-512").await;
    let blob = scene.put(random(4, 1));
    never_whole(&scene, &blob, serve().flip_at(0), "the only byte").await;
}

#[tokio::test]
async fn nothing_of_a_lie_is_kept() {
    let scene = Scene::start().await;
    let blob = scene.put(random(5, 300_000));
    let gate = scene.upstream.stall(blob.get(), 200_000);
    scene.upstream.put_blob_as(REPO, &blob.digest, random(6, 300_000));
    let clients = scene.join(&blob, 8).await;
    gate.reached().await;
    assert_eq!(scene.files(&blob).len(), 1);
    gate.release();
    for answer in join_all(clients.into_iter().map(Open::finish)).await {
        assert!(!answer.is_complete());
        assert!(answer.body.len() < 300_000);
    }
    scene.failed(&blob).await;
    assert!(scene.files(&blob).is_empty());
    assert_eq!(scene.gets(&blob), 1);
    scene
        .metric(r#"wharfinger_fills_total{result="failed",upstream="docker-hub"} 1"#)
        .await;
}

#[tokio::test]
async fn a_length_that_is_not_the_bodys_breaks_off() {
    let scene = Scene::start().await;
    let blob = scene.put(random(7, 200_000));
    never_whole(&scene, &blob, serve().claim_length(199_990), "shorter").await;
    let blob = scene.put(random(8, 200_000));
    never_whole(&scene, &blob, serve().claim_length(200_010), "longer").await;
}

#[tokio::test]
async fn a_page_instead_of_a_blob_breaks_off() {
    let scene = Scene::start().await;
    let blob = scene.put(random(9, 200_000));
    never_whole(&scene, &blob, html(), "a page").await;
    let blob = scene.put(random(10, 200_000));
    never_whole(&scene, &blob, html().no_length(), "a page without length").await;
}

#[tokio::test]
async fn nothing_instead_of_a_blob_is_no_blob() {
    let scene = Scene::start().await;
    let blob = scene.put(random(11, 200_000));
    scene.upstream.always(blob.get(), reply(200).body(""));
    // An empty body has no last byte that could be withheld: it is refused before.
    assert_eq!(get(&blob.url).await.status, 502);
    scene
        .logged(&["empty", &blob.digest, r#"upstream="docker-hub""#, "127.0.0.1"])
        .await;
    scene.upstream.always(blob.get(), reply(200).body("").no_length());
    let mut client = Raw::get(&blob.url).await;
    if client.head().await.is_some() {
        assert_eq!(client.finish().await, (bytes::Bytes::new(), Ending::NoFinalChunk));
    }
    scene.failed(&blob).await;
    assert!(scene.files(&blob).is_empty());
    scene.upstream.behave();
    assert!(get(&blob.url).await.ok() == blob.bytes);
}

#[tokio::test]
async fn a_size_that_the_manifest_contradicts_is_refused_before_a_byte() {
    let scene = Scene::start().await;
    let image = Image::new()
        .layer(random(12, 70_000))
        .layer(random(13, 70_001))
        .layer(random(14, 70_002));
    scene.upstream.put(REPO, "latest", &image);
    get(scene.daemon.manifest_url(NAME, "latest")).await.ok();
    let lies = [serve().claim_length(80_000), serve().claim_length(60_000), html()];
    for (layer, lie) in image.layers().into_iter().zip(lies) {
        let blob = scene.known(layer.digest, layer.bytes);
        scene.upstream.always(blob.get(), lie);
        let refused = get(&blob.url).await;
        assert_eq!(refused.status, 502);
        assert!(refused.json()["errors"][0]["code"].is_string());
        let said = [
            "wrong size",
            &blob.digest,
            r#"upstream="docker-hub""#,
            "127.0.0.1",
        ];
        scene.logged(&said).await;
        assert!(scene.files(&blob).is_empty());
        scene.upstream.behave();
        scene.hit(&blob).await;
    }
}

#[tokio::test]
async fn a_body_without_length_has_to_have_the_manifests_size() {
    let scene = Scene::start().await;
    let image = Image::new().layer(random(15, 100_000)).layer(random(16, 100_000));
    scene.upstream.put(REPO, "latest", &image);
    get(scene.daemon.manifest_url(NAME, "latest")).await.ok();
    for (layer, size) in image.layers().into_iter().zip([99_000, 101_000]) {
        let blob = scene.known(layer.digest, layer.bytes);
        scene.upstream.put_blob_as(REPO, &blob.digest, random(17, size));
        scene.upstream.always(blob.get(), serve().no_length());
        let mut client = Raw::get(&blob.url).await;
        if let Some(head) = client.head().await {
            assert_eq!(head.header("content-length"), "100000");
            let (body, ending) = client.finish().await;
            assert!(
                matches!(ending, Ending::Short(1..)),
                "{ending:?} after {} bytes",
                body.len()
            );
        }
        scene.failed(&blob).await;
        assert!(scene.files(&blob).is_empty());
        scene.upstream.behave();
        scene.upstream.put_blob_as(REPO, &blob.digest, blob.bytes.clone());
        scene.hit(&blob).await;
    }
}

#[tokio::test]
async fn the_last_byte_waits_for_the_proof() {
    let scene = Scene::start().await;
    for size in [2, 3_000, 300_000] {
        let blob = scene.put(random(18, size));
        let gate = scene.upstream.stall(blob.get(), blob.size() - 1);
        let mut client = open(&blob.url).await;
        assert!(client.read(size - 1).await == &blob.bytes[..size - 1]);
        gate.release();
        assert!(client.finish().await.ok() == blob.bytes);
        // All bytes are here, but nobody said that they are all.
        let blob = scene.put(random(19, size));
        let gate = Gate::new();
        scene
            .upstream
            .once(blob.get(), serve().no_length().stall_at(blob.size(), &gate));
        let mut client = open(&blob.url).await;
        gate.reached().await;
        assert!(client.read(size - 1).await == &blob.bytes[..size - 1]);
        gate.release();
        assert!(client.finish().await.ok() == blob.bytes);
    }
}

#[tokio::test]
async fn every_size_arrives_whole_cold_and_warm_over_both_protocols() {
    let scene = Scene::start().await;
    let sizes = [
        0, 1, 2, 1_000, 65_535, 65_536, 65_537, 262_144, 262_145, 1_000_000,
    ];
    for (number, size) in sizes.into_iter().enumerate() {
        let bytes = random(20 + number as u64, size);
        let (one, two) = if size % 2 == 0 {
            (scene.put(bytes.clone()), scene.put_long(bytes))
        } else {
            (scene.put_long(bytes.clone()), scene.put(bytes))
        };
        let plain = get(&one.url).await;
        assert_eq!(plain.header("content-length"), size.to_string());
        assert!(plain.ok() == one.bytes, "{size}");
        let framed = h2_get(&two.url).await;
        assert_eq!((framed.status, framed.end), (200, H2End::Clean), "{size}");
        assert!(framed.body == two.bytes, "{size}");
        for blob in [one, two] {
            scene.hit(&blob).await;
            let framed = h2_get(&blob.url).await;
            assert_eq!((framed.status, framed.end), (200, H2End::Clean), "{size}");
            assert!(framed.body == blob.bytes, "{size}");
            let head = head(&blob.url).await;
            assert_eq!(head.header("content-length"), size.to_string());
            assert_eq!(head.header("docker-content-digest"), blob.digest);
            assert_eq!(scene.gets(&blob), 1, "{size}");
        }
    }
}

#[tokio::test]
async fn the_size_of_a_blob_is_known_before_it_is_here() {
    let scene = Scene::start().await;
    for size in [0, 1, 70_000] {
        let blob = scene.put(random(40, size));
        for _ in 0..2 {
            let answer = head(&blob.url).await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("content-length"), size.to_string());
            assert_eq!(answer.header("docker-content-digest"), blob.digest);
        }
        assert!(scene.files(&blob).is_empty());
        assert_eq!(scene.ranges(&blob), ["bytes=0-0"]);
        assert!(get(&blob.url).await.ok() == blob.bytes);
        assert_eq!(scene.ranges(&blob), ["bytes=0-0", ""]);
    }
}

#[tokio::test]
async fn a_blob_without_length_arrives_whole() {
    let scene = Scene::start().await;
    for size in [0, 1, 3_000, 300_000] {
        let blob = scene.put(random(41, size));
        scene.upstream.once(blob.get(), serve().no_length());
        assert!(get(&blob.url).await.ok() == blob.bytes, "{size}");
        scene.hit(&blob).await;
        assert_eq!(scene.gets(&blob), 1, "{size}");
    }
}
