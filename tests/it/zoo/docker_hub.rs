//! Docker Hub: what a pull costs there, what it says at its limits, and that nothing of it is taken for granted.

use super::visit::{ALWAYS_DUE, Visit};
use crate::expect::{assert_error, assert_hit, assert_manifest, cached};
use crate::support::prelude::*;
use crate::support::zoo::{Abuse, DockerHub, MirrorGcr, Personality};

const ALPINE: &str = "library/alpine";

type Hub = Visit<DockerHub>;

#[tokio::test]
async fn an_image_costs_its_manifests_once_for_everybody() {
    let hub = Hub::start().await;
    let index = Index::of_platforms(3);
    hub.animal.put(ALPINE, "3", &index);
    let image = &index.images()[0];
    for _ in 0..3 {
        // As containerd asks, and as podman does.
        assert_eq!(head(hub.manifest(ALPINE, "3")).await.status, 200);
        assert_manifest(&get(hub.manifest(ALPINE, &index.digest())).await, &index, false);
        assert_manifest(&get(hub.manifest(ALPINE, "3")).await, &index, false);
        assert_manifest(&get(hub.manifest(ALPINE, &image.digest())).await, image, false);
        for part in image.blobs() {
            hub.pull_blob(ALPINE, &part).await;
        }
    }
    assert_eq!(hub.animal.counted(), 2, "{:#?}", hub.animal.registry.summary());
    // Another architecture is one more.
    assert_eq!(
        get(hub.manifest(ALPINE, &index.images()[1].digest()))
            .await
            .status,
        200
    );
    assert_eq!(hub.animal.counted(), 3);
    let metrics = hub.daemon.metrics().await;
    let told = |name: &str, value: u64| {
        let found = metrics.lines().any(|line| {
            line.contains(name) && line.contains("docker-hub") && line.ends_with(&format!(" {value}"))
        });
        assert!(found, "{name} {value} is not in\n{metrics}");
    };
    told("limit", 100);
    told("remaining", 97);
}

#[tokio::test]
async fn the_question_whether_a_tag_moved_is_free() {
    let hub = Hub::with(&[ALWAYS_DUE]).await;
    let image = hub.put_image(1);
    for _ in 0..5 {
        assert_manifest(&get(hub.manifest(ALPINE, "1")).await, &image, false);
    }
    assert_eq!(hub.animal.counted(), 1, "{:#?}", hub.animal.registry.summary());
    let moved = hub.put_image(2);
    for _ in 0..2 {
        assert_manifest(&get(hub.manifest(ALPINE, "1")).await, &moved, false);
    }
    assert_eq!(hub.animal.counted(), 2, "{:#?}", hub.animal.registry.summary());
    assert_eq!(
        hub.animal.registry.manifest_heads(),
        6,
        "{:#?}",
        hub.animal.registry.summary()
    );
}

#[tokio::test]
async fn with_no_pulls_left_a_copy_is_confirmed_by_head_and_its_blobs_flow() {
    let hub = Hub::with(&[ALWAYS_DUE]).await;
    let image = hub.put_image(1);
    hub.animal.put(ALPINE, "2", &Image::simple(2, 10));
    hub.animal.allow(1);
    assert_manifest(&get(hub.manifest(ALPINE, "1")).await, &image, false);
    let answer = get(hub.manifest(ALPINE, "1")).await;
    assert_manifest(&answer, &image, false);
    assert!(
        cached(&answer).starts_with("wharfinger; hit"),
        "{}",
        cached(&answer)
    );
    for part in image.blobs() {
        hub.pull_blob(ALPINE, &part).await;
    }
    // What nobody has must wait; that the tag is there is known by HEAD.
    let described = head(hub.manifest(ALPINE, "2")).await;
    assert!(matches!(described.status, 200 | 429), "{}", described.status);
    let answer = get(hub.manifest(ALPINE, "2")).await;
    assert_error(&answer, 429, "TOOMANYREQUESTS");
    assert_error(&get(hub.mirrored(ALPINE, "2")).await, 503, "UNAVAILABLE");
    assert_eq!(hub.animal.counted(), 1);
}

#[tokio::test]
async fn a_pause_that_is_told_is_told_to_clients() {
    let hub = Hub::start().await;
    hub.put_image(1);
    hub.animal.allow(0);
    hub.animal.retry_after(1234);
    let answer = get(hub.manifest(ALPINE, "1")).await;
    assert_error(&answer, 429, "TOOMANYREQUESTS");
    let seconds: u64 = answer.header("retry-after").parse().expect("seconds");
    assert!((1200..=1234).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn no_limit_is_told_of_what_has_none() {
    let hub = Hub::start().await;
    hub.animal.unlimited();
    let image = hub.put_image(1);
    hub.pull(ALPINE, &image).await;
    let metrics = hub.daemon.metrics().await;
    let told = |line: &str| line.contains("remaining{") && line.contains("docker-hub");
    assert!(!metrics.lines().any(told), "{metrics}");
}

#[tokio::test]
async fn official_images_and_the_service_are_named_as_docker_hub_wants_them() {
    let hub = Hub::start().await;
    let image = hub.put_image(1);
    hub.animal.put("acme/app", "1", &image);
    hub.pull("alpine", &image).await;
    hub.pull("acme/app", &image).await;
    let asked = hub.animal.auth.requests();
    let scopes: Vec<_> = asked
        .iter()
        .flat_map(|asked| asked.asked.parameters("scope"))
        .collect();
    assert_eq!(
        scopes,
        ["repository:library/alpine:pull", "repository:acme/app:pull"]
    );
    for asked in &asked {
        assert_eq!(
            asked.asked.parameter("service").as_deref(),
            Some("registry.docker.io")
        );
        assert_eq!((asked.path(), asked.status), ("/token", 200));
    }
    // Whatever a client takes, Docker Hub is asked for the real thing: else it answers as to a client of 2015.
    let old = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    hub.animal.put(ALPINE, "2", &Image::simple(2, 10));
    for accept in [old, "*/*"] {
        let answer = get_with(hub.manifest(ALPINE, "2"), &[("accept", accept)]).await;
        assert_ne!(answer.header("content-type"), old, "{}", answer.text());
    }
    for asked in hub.animal.registry.requests_of(&manifests()) {
        for kind in [
            "index.v1+json",
            "manifest.list.v2+json",
            "image.manifest.v1+json",
            "manifest.v2+json",
        ] {
            assert!(asked.header("accept").contains(kind), "{asked:?}");
        }
    }
}

#[tokio::test]
async fn a_repository_of_nobody_is_refused_with_a_good_token() {
    let hub = Hub::start().await;
    hub.put_image(1);
    assert_error(&get(hub.manifest("acme/none", "1")).await, 404, "NAME_UNKNOWN");
    let statuses: Vec<_> = hub
        .animal
        .registry
        .requests()
        .iter()
        .map(|asked| asked.status)
        .collect();
    assert_eq!(statuses, [401, 401], "{:#?}", hub.internet.requests());
    assert_eq!(hub.animal.auth.token_requests(), 1);
    // Once is enough for a while.
    assert_error(&get(hub.manifest("acme/none", "1")).await, 404, "NAME_UNKNOWN");
    assert_eq!(head(hub.manifest("acme/none", "1")).await.status, 404);
    assert_eq!(
        (
            hub.animal.registry.requests().len(),
            hub.animal.auth.token_requests()
        ),
        (2, 1)
    );
}

#[tokio::test]
async fn the_cdn_may_move() {
    let hub = Hub::start().await;
    let image = Image::new().layer(random(1, 2000)).layer(random(2, 2000));
    hub.animal.put(ALPINE, "1", &image);
    let layers = image.layers();
    hub.pull_blob(ALPINE, &layers[0]).await;
    let old = hub.animal.storage().remove(0);
    let new = hub
        .animal
        .move_cdn("docker-images-prod.6aa30f8b08e16409b46e0173d6de2f56.r2.cloudflarestorage.com");
    old.always(any(), reply(404));
    hub.pull_blob(ALPINE, &layers[1]).await;
    assert_eq!(
        (old.requests().len(), new.requests().len()),
        (1, 1),
        "{:#?}",
        hub.internet.requests()
    );
    // Nor is what the CDN says of a blob's type worth anything.
    new.decorate(signed(), "content-type", "text/html");
    let answer = get(hub.blob(ALPINE, &image.config().digest)).await;
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    assert_eq!(answer.ok(), image.config().bytes);
}

#[tokio::test]
async fn a_large_blob_comes_by_several_signed_urls() {
    let hub = Hub::start().await;
    let image = Image::new().layer(random(1, 80 << 20));
    hub.animal.put(ALPINE, "1", &image);
    let layer = image.layers().remove(0);
    let cdn = hub.animal.storage().remove(0);
    let pace = Pace::of_each(3 << 20);
    cdn.always(signed(), serve().at_pace(&pace));
    let client = tokio::spawn(get(hub.blob(ALPINE, &layer.digest)));
    cdn.wait_for(|cdn| cdn.blob_gets(&layer.digest) >= 1).await;
    // Whoever opens the next connection needs another token, and each a URL of its own: one is good for one GET.
    hub.animal.registry.revoke_tokens();
    cdn.wait_for(|cdn| cdn.blob_gets(&layer.digest) >= 3).await;
    pace.release();
    assert!(soon("the client", client).await.expect("no panic").ok() == layer.bytes);
    let asked = cdn.requests();
    assert!(
        asked
            .iter()
            .all(|asked| asked.status == 200 || asked.status == 206),
        "{:#?}",
        cdn.summary()
    );
    let mut paths: Vec<_> = asked.iter().map(|asked| asked.path().to_owned()).collect();
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), asked.len(), "{:#?}", cdn.summary());
    assert_eq!((hub.animal.auth.token_requests(), hub.animal.counted()), (2, 0));
}

#[tokio::test]
async fn the_abuse_limit_is_met_at_every_door() {
    for form in [Abuse::Text, Abuse::Page] {
        let hub = Hub::with(&[ALWAYS_DUE]).await;
        let image = hub.put_image(1);
        hub.pull(ALPINE, &image).await;
        hub.animal.put("acme/app", "1", &image);
        hub.settle().await;
        hub.animal.abuse(Some(form));
        let answer = get(hub.manifest(ALPINE, "1")).await;
        assert_manifest(&answer, &image, false);
        assert!(cached(&answer).contains("fwd=stale"), "{}", cached(&answer));
        // The token for it is refused.
        let cold = get(hub.manifest("acme/app", "1")).await;
        assert_error(&cold, 429, "TOOMANYREQUESTS");
        let limited = hub.internet.requests();
        let limited = limited.iter().filter(|line| line.contains("-> 429")).count();
        // For the copy once; for what is not here by HEAD, by GET.
        assert!(limited <= 3, "{form:?}: {:#?}", hub.internet.requests());
        for part in image.blobs() {
            assert_hit(&get(hub.blob(ALPINE, &part.digest)).await);
        }
    }
}

#[tokio::test]
async fn an_account_has_a_limit_of_its_own() {
    let hub = Hub::as_user("ci", &[]).await;
    hub.animal.allow(0);
    hub.animal.allow(1);
    let image = hub.put_image(1);
    hub.animal.put(ALPINE, "2", &Image::simple(2, 10));
    hub.pull(ALPINE, &image).await;
    assert_eq!(
        get(hub.manifest(ALPINE, "2")).await.status,
        200,
        "{:#?}",
        hub.internet.requests()
    );
    assert_eq!(hub.animal.counted(), 2);
    // The password is for the token service alone, which is on another host of the same domain.
    for line in hub.animal.registry.requests() {
        assert!(!line.header("authorization").starts_with("Basic "), "{line:?}");
    }
    let asked = hub.animal.auth.requests();
    assert!(
        asked
            .iter()
            .all(|asked| asked.header("authorization").starts_with("Basic ")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_wrong_password_is_not_tried_until_the_name_is_locked() {
    let hub = Hub::as_user("ci", &[(".password", "\"wrong\"")]).await;
    let image = hub.put_image(1);
    // What is public is pulled anonymously meanwhile.
    assert_manifest(&get(hub.manifest(ALPINE, "1")).await, &image, false);
    for tag in ["2", "3", "4"] {
        let answer = get(hub.manifest(ALPINE, tag)).await;
        assert_error(&answer, 404, "MANIFEST_UNKNOWN");
    }
    let logins = tokens().and(|asked| !asked.header("authorization").is_empty());
    assert!(
        hub.animal.auth.count_of(&logins) <= 2,
        "{:#?}",
        hub.internet.requests()
    );
}

#[tokio::test]
async fn googles_mirror_has_what_it_has() {
    let mirrors = (".mirrors", "[\"http://mirror.gcr.io\"]");
    let hub = Hub::with(&[mirrors]).await;
    let mirror = MirrorGcr::open(&hub.internet);
    let (there, not_there) = (Image::simple(1, 2000), Image::simple(2, 2000));
    hub.animal.put(ALPINE, "1", &there);
    hub.animal.put(ALPINE, "2", &not_there);
    mirror.put(ALPINE, "1", &there);
    hub.animal.allow(0);
    let answer = get(hub.manifest(ALPINE, &there.digest())).await;
    assert_manifest(&answer, &there, false);
    let answer = get(hub.manifest(ALPINE, &not_there.digest())).await;
    assert_error(&answer, 429, "TOOMANYREQUESTS");
    // Of tags it says nothing: where one leads Docker Hub tells by a HEAD, which is free, or nobody.
    let answer = get(hub.manifest(ALPINE, "1")).await;
    if answer.status == 200 {
        assert_manifest(&answer, &there, false);
    } else {
        assert_error(&answer, 429, "TOOMANYREQUESTS");
    }
    assert_eq!(mirror.registry.count_of(&manifest("1")), 0);
    // Blobs are not counted: both are to be had.
    for image in [&there, &not_there] {
        hub.pull_blob(ALPINE, &image.layers()[0]).await;
    }
}
