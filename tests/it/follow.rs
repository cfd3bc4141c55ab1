//! Tags that move to another index: the platforms that clients pulled come along, or the tag stays where it was. So a limit
//! between the index and its manifest leaves clients a whole image.

use futures_util::future::join_all;

use crate::admin::asked;
use crate::eviction::idle;
use crate::expect::{assert_hit, assert_manifest, assert_stale};
use crate::freshness::{APP, always_due};
use crate::support::prelude::*;

const REPO: &str = "library/app";

/// An index for two platforms that no other seed has.
fn index(seed: u64) -> Index {
    let image = |seed, architecture| Image::simple(seed, 1000).platform("linux", architecture);
    Index::default()
        .image(image(seed, "amd64"))
        .image(image(seed + 1, "arm64"))
}

/// Two tags of one index, both pulled, and the first platform's manifest.
async fn pulled(upstream: &Upstream, daemon: &Daemon) -> Index {
    let old = index(10);
    for tag in ["1", "latest"] {
        upstream.put(REPO, tag, &old);
        assert_manifest(&get(daemon.manifest_url(APP, tag)).await, &old, false);
    }
    let child = &old.images()[0];
    assert_manifest(
        &get(daemon.manifest_url(APP, &child.digest())).await,
        child,
        false,
    );
    upstream.forget_requests();
    old
}

fn release(upstream: &Upstream, seed: u64) -> Index {
    let new = index(seed);
    for tag in ["1", "latest"] {
        upstream.put(REPO, tag, &new);
    }
    new
}

#[tokio::test]
async fn a_tag_does_not_move_to_an_index_whose_platform_in_use_cannot_be_had() {
    let (upstream, daemon) = always_due().await;
    let old = pulled(&upstream, &daemon).await;
    let new = release(&upstream, 20);
    let child = &new.images()[0];
    upstream.always(manifest(&child.digest()).get(), reply(429));
    // By the second tag the new index is here already.
    for tag in ["1", "latest"] {
        let answer = get(daemon.manifest_url(APP, tag)).await;
        assert_stale(&answer, Some(429));
        assert_manifest(&answer, &old, false);
    }
    assert_hit(&get(daemon.manifest_url(APP, &old.images()[0].digest())).await);
    // Newer still, and nothing in the way.
    upstream.behave();
    let newer = release(&upstream, 30);
    let refreshed = asked(&daemon, &["refresh", "docker-hub/library/app:1"]).await;
    assert_eq!(refreshed["to"], newer.digest());
    assert_hit(&get(daemon.manifest_url(APP, &newer.images()[0].digest())).await);
}

#[tokio::test]
async fn what_was_pulled_of_the_old_index_comes_with_the_new_one_and_nothing_else() {
    let (upstream, daemon) = always_due().await;
    pulled(&upstream, &daemon).await;
    let new = release(&upstream, 20);
    for tag in ["1", "latest"] {
        assert_manifest(&get(daemon.manifest_url(APP, tag)).await, &new, false);
    }
    let gets = |digest: &str| upstream.count_of(&manifest(digest).get());
    let (used, unused) = (new.images()[0].digest(), new.images()[1].digest());
    assert_eq!((gets(&new.digest()), gets(&used), gets(&unused)), (1, 1, 0));
    // It came along, but nobody has pulled it since: next time it stays away.
    let other = &new.images()[1];
    assert_manifest(
        &get(daemon.manifest_url(APP, &other.digest())).await,
        other,
        false,
    );
    let newer = release(&upstream, 30);
    assert_manifest(&get(daemon.manifest_url(APP, "1")).await, &newer, false);
    let (first, second) = (newer.images()[0].digest(), newer.images()[1].digest());
    assert_eq!((gets(&newer.digest()), gets(&first), gets(&second)), (1, 0, 1));
}

#[tokio::test]
async fn tags_that_move_to_one_manifest_at_once_cost_one_pull() {
    let (upstream, daemon) = always_due().await;
    pulled(&upstream, &daemon).await;
    let new = release(&upstream, 20);
    let gate = upstream.hold(manifest(&new.digest()).get());
    let clients = ["1", "latest"].map(|tag| get(daemon.manifest_url(APP, tag)));
    let clients = tokio::spawn(join_all(clients));
    gate.reached().await;
    upstream.wait_for(|upstream| upstream.manifest_heads() == 2).await;
    gate.release();
    for answer in soon("clients", clients).await.expect("no panic") {
        assert_manifest(&answer, &new, false);
    }
    assert_eq!(upstream.count_of(&manifest(&new.digest()).get()), 1);
}

/// Pulls all blobs of an image.
async fn pull_blobs(daemon: &Daemon, image: &Image) {
    for blob in image.blobs() {
        assert!(get(daemon.blob_url(APP, &blob.digest)).await.ok() == blob.bytes);
    }
    idle(daemon).await;
}

#[tokio::test]
async fn blobs_of_the_platform_in_use_come_behind_the_tag_so_that_an_outage_finds_a_whole_image() {
    let (upstream, daemon) = always_due().await;
    let old = pulled(&upstream, &daemon).await;
    pull_blobs(&daemon, &old.images()[0]).await;
    let new = release(&upstream, 20);
    upstream.forget_requests();
    assert_manifest(&head(daemon.manifest_url(APP, "1")).await, &new, true);
    let (used, unused) = (&new.images()[0], &new.images()[1]);
    let asked_for = |blob: &str| upstream.blob_gets(blob) > 0;
    upstream
        .wait_for(|_| used.blobs().iter().all(|blob| asked_for(&blob.digest)))
        .await;
    idle(&daemon).await;
    upstream.refuse().await;
    for blob in used.blobs() {
        assert_hit(&get(daemon.blob_url(APP, &blob.digest)).await);
    }
    assert!(
        unused
            .blobs()
            .iter()
            .all(|blob| upstream.blob_gets(&blob.digest) == 0)
    );
}

#[tokio::test]
async fn blobs_are_left_to_the_next_client_where_that_is_wanted_or_the_old_ones_are_not_here() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream)
        .setting("cache.tag_ttl", "\"0s\"")
        .setting("cache.follow_blobs", "false")
        .start()
        .await;
    let (lazy_upstream, lazy) = always_due().await;
    for (upstream, daemon, with_blobs) in [(&upstream, &daemon, true), (&lazy_upstream, &lazy, false)] {
        let old = pulled(upstream, daemon).await;
        if with_blobs {
            pull_blobs(daemon, &old.images()[0]).await;
        }
        let new = release(upstream, 20);
        upstream.forget_requests();
        assert_manifest(&get(daemon.manifest_url(APP, "1")).await, &new, false);
        assert_hit(&get(daemon.manifest_url(APP, &new.images()[0].digest())).await);
        assert_eq!(upstream.count_of(&blobs()), 0, "{:#?}", upstream.summary());
    }
}
