//! What is pushed and what is cached share files, and nothing else: a file stays while either needs it, and neither opens
//! what the other has.

use crate::admin::run;
use crate::eviction::{blocks, idle};
use crate::expect::assert_error;
use crate::hosting::{APP, Hosting, over};
use crate::scene::{NAME, REPO, files_of};
use crate::support::prelude::*;

const MIB: usize = 1 << 20;
/// What the cache may use.
const CAP: u64 = 16 * MIB as u64;

async fn start() -> (Upstream, Hosting) {
    let upstream = Upstream::start().await;
    let builder = over(Daemon::over(&upstream)).setting("storage.max_size", "\"16MiB\"");
    (upstream, Hosting::of(builder).await)
}

async fn pull(hosting: &Hosting, tag: &str, image: &Image) {
    let daemon = &hosting.daemon;
    assert_eq!(get(daemon.manifest_url(NAME, tag)).await.status, 200);
    for part in image.layers().into_iter().chain([image.config()]) {
        assert!(get(daemon.blob_url(NAME, &part.digest)).await.ok() == part.bytes);
    }
    idle(daemon).await;
}

/// The one file of a blob, if it is here.
fn file(hosting: &Hosting, digest: &str) -> Option<std::path::PathBuf> {
    let mut files = files_of(&hosting.daemon, digest);
    assert!(files.len() < 2, "{files:?}");
    files.pop()
}

#[tokio::test]
async fn a_blob_that_is_cached_and_pushed_is_one_file_that_eviction_leaves() {
    let (upstream, hosting) = start().await;
    let images: Vec<Image> = (0..3)
        .map(|seed| Image::new().layer(random(seed, 2 * MIB)))
        .collect();
    let [pushed, mounted, cached] = &images[..] else {
        unreachable!()
    };
    for (tag, image) in [("pushed", pushed), ("mounted", mounted), ("cached", cached)] {
        upstream.put(REPO, tag, image);
        pull(&hosting, tag, image).await;
    }
    let folder = hosting.daemon.data_dir().join("blobs");
    let before = blocks(&folder);
    // One is sent once more, of the other nothing is: it is mounted from where it was cached.
    hosting.push(APP, "pushed", pushed).await;
    for part in mounted.blobs() {
        let query = format!("blobs/uploads/?mount={}&from={NAME}", part.digest);
        let answer = send(Method::POST, hosting.at(APP, &query), &[], "").await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    assert_eq!(hosting.put(APP, "mounted", &mounted.root()).await.status, 201);
    assert_eq!(blocks(&folder), before);
    for image in &images {
        assert!(file(&hosting, &image.layer_digest(0)).is_some());
    }
    // Under the cap, which holds for what is cached alone; and all that can be spared.
    let others: Vec<Image> = (10..16)
        .map(|seed| Image::new().layer(random(seed, 3 * MIB)))
        .collect();
    for (number, image) in others.iter().enumerate() {
        let tag = format!("v{number}");
        upstream.put(REPO, &tag, image);
        pull(&hosting, &tag, image).await;
    }
    assert!(file(&hosting, &cached.layer_digest(0)).is_none());
    run(&hosting.daemon, &["evict", "16MiB"]).await.text();
    for image in &others {
        assert!(file(&hosting, &image.layer_digest(0)).is_none());
    }
    assert!(blocks(&hosting.daemon.data_dir()) <= CAP);
    upstream.refuse().await;
    for (tag, image) in [("pushed", pushed), ("mounted", mounted)] {
        assert!(file(&hosting, &image.layer_digest(0)).is_some());
        hosting.assert_holds(APP, tag, image).await;
    }
}

#[tokio::test]
async fn what_was_pushed_is_not_to_be_had_under_an_upstreams_name() {
    let (upstream, hosting) = start().await;
    let daemon = &hosting.daemon;
    let (secret, public) = (Image::simple(1, 10_000), Image::simple(2, 10_000));
    upstream.put(REPO, "public", &public);
    hosting.push(APP, "v1", &secret).await;
    hosting.push(APP, "v2", &public).await;
    // Who learned its digest learns no more by it: the upstream is asked as for any other.
    for part in secret.blobs() {
        let url = daemon.blob_url(NAME, &part.digest);
        for answer in [
            head(&url).await,
            get(&url).await,
            get_with(&url, &[("range", "bytes=0-9")]).await,
        ] {
            assert_eq!(answer.status, 404, "{url}");
        }
        let asked = upstream.requests_of(&blob(&part.digest));
        assert!(
            !asked.is_empty() && asked.iter().all(|one| one.status == 404),
            "{asked:#?}"
        );
    }
    let digest = secret.digest();
    let answer = get(daemon.manifest_url(NAME, &digest)).await;
    assert_error(&answer, 404, "MANIFEST_UNKNOWN");
    assert_eq!(head(daemon.manifest_url(NAME, &digest)).await.status, 404);
    assert!(upstream.count_of(&path_has(&digest)) > 0);
    let referrers = get(format!("{}/v2/{NAME}/referrers/{digest}", daemon.url())).await;
    assert_eq!(referrers.json()["manifests"], serde_json::json!([]));
    // Nor does a mount take it out of there: it is no place where it is.
    let query = format!("blobs/uploads/?mount={}&from={NAME}", secret.layer_digest(0));
    let begun = send(Method::POST, hosting.at("acme/other", &query), &[], "").await;
    assert_eq!(begun.status, 202);
    // What the upstream has as well it gives itself, once it has said so.
    let layer = &public.layers()[0];
    assert!(get(daemon.blob_url(NAME, &layer.digest)).await.ok() == layer.bytes);
    assert!(upstream.count_of(&blob(&layer.digest)) > 0);
    hosting.assert_holds(APP, "v1", &secret).await;
}
