//! ECR Public and ECR: one scope for all, blobs that take no HEAD, passwords that end with a 403, pages that have a limit.

use super::visit::{ALWAYS_DUE, Visit};
use crate::expect::{assert_error, assert_manifest, assert_stale};
use crate::support::prelude::*;
use crate::support::zoo::{Ecr, EcrPublic, PASSWORD, Personality};

#[tokio::test]
async fn one_token_opens_every_public_repository() {
    let ecr = Visit::<EcrPublic>::start().await;
    let image = ecr.put_image(1);
    ecr.animal.put("nginx/nginx", "1", &image);
    ecr.pull(EcrPublic::REPO, &image).await;
    ecr.pull("nginx/nginx", &image).await;
    let asked = ecr.animal.registry.requests_of(&tokens());
    assert_eq!(asked.len(), 1, "{:#?}", ecr.animal.registry.summary());
    assert_eq!(asked[0].asked.parameters("scope"), ["aws"]);
    assert_eq!(
        asked[0].asked.parameter("service").as_deref(),
        Some("public.ecr.aws")
    );
    assert_eq!(asked[0].path(), "/token/");
    // It hides nothing: what is not there is 404 with that token.
    assert_error(
        &get(ecr.manifest("acme/none", "1")).await,
        404,
        "MANIFEST_UNKNOWN",
    );
    assert_eq!(ecr.animal.registry.token_requests(), 1);
}

#[tokio::test]
async fn the_size_of_a_public_blob_is_learnt_without_head() {
    let ecr = Visit::<EcrPublic>::start().await;
    let image = ecr.put_image(1);
    for part in image.blobs() {
        let answer = head(ecr.blob(EcrPublic::REPO, &part.digest)).await;
        assert_eq!(
            (answer.status, answer.header("content-length")),
            (200, part.bytes.len().to_string().as_str())
        );
    }
    assert_eq!(ecr.animal.registry.count_of(&blobs().head()), 0);
    assert_eq!(ecr.animal.cdn.count_of(&signed().head()), 0);
    // The server is as it should be: whoever asks so is refused.
    assert_eq!(
        ecr.animal.registry.count_of(&any().get()),
        ecr.animal.registry.requests().len()
    );
}

#[tokio::test]
async fn the_password_stays_with_the_private_registry() {
    let ecr = Visit::<Ecr>::start().await;
    let image = ecr.put_image(1);
    ecr.pull(Ecr::REPO, &image).await;
    let refused = ecr.animal.registry.requests();
    let refused = refused.iter().filter(|asked| asked.status == 401).count();
    assert_eq!(refused, 1, "{:#?}", ecr.animal.registry.summary());
    assert!(
        ecr.animal
            .bucket
            .requests()
            .iter()
            .all(|asked| asked.header("authorization").is_empty())
    );
    assert!(ecr.daemon.logs().iter().all(|line| !line.contains(PASSWORD)));
}

#[tokio::test]
async fn an_ended_password_leaves_the_copies() {
    // Nothing is served that the registry itself says is gone: an ended password says nothing of the kind.
    let ecr = Visit::<Ecr>::with(&[ALWAYS_DUE, ("cache.gone_ttl", "\"0s\"")]).await;
    let image = ecr.put_image(1);
    ecr.animal.put(Ecr::REPO, "2", &Image::simple(2, 10));
    ecr.pull(Ecr::REPO, &image).await;
    ecr.animal.expire("another");
    let answer = get(ecr.manifest(Ecr::REPO, "1")).await;
    assert_manifest(&answer, &image, false);
    assert_stale(&answer, Some(403));
    let cold = get(ecr.manifest(Ecr::REPO, "2")).await;
    assert_error(&cold, 502, "UNAVAILABLE");
    ecr.daemon.wait_for_log("a credential is set aside").await;
    let refused = ecr.animal.registry.requests_of(&manifests());
    let refused = refused.iter().filter(|asked| asked.status == 403).count();
    assert!(refused <= 2, "{:#?}", ecr.animal.registry.summary());
}

#[tokio::test]
async fn a_refusal_that_passes_is_asked_again_with_the_login() {
    let ecr = Visit::<Ecr>::start().await;
    let image = ecr.put_image(1);
    assert_eq!(get(ecr.manifest(Ecr::REPO, "1")).await.status, 200);
    ecr.animal.registry.once(blobs(), reply(403));
    ecr.pull_blob(Ecr::REPO, &image.layers()[0]).await;
}

#[tokio::test]
async fn no_more_than_a_thousand_tags_are_asked_for_at_once() {
    let ecr = Visit::<Ecr>::start().await;
    ecr.put_image(1);
    for query in ["", "?n=1000", "?n=1001", "?n=100000", "?last=0&n=5000"] {
        let answer = get(format!("{}{query}", ecr.tags(Ecr::REPO))).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        assert_eq!(answer.json()["tags"], serde_json::json!(["1"]), "{query}");
    }
}
