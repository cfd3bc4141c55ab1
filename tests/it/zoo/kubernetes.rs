//! registry.k8s.io: everything is somewhere else, some of it behind a challenge of its own.

use super::visit::{ALWAYS_DUE, Visit};
use crate::expect::{assert_manifest, cached};
use crate::support::prelude::*;
use crate::support::zoo::{Kubernetes, Personality};

type K8s = Visit<Kubernetes>;

#[tokio::test]
async fn clients_see_no_redirect() {
    let k8s = K8s::start().await;
    let image = k8s.put_image(1);
    for url in [
        k8s.manifest(Kubernetes::REPO, "1"),
        k8s.manifest(Kubernetes::REPO, &image.digest()),
        k8s.blob(Kubernetes::REPO, &image.layer_digest(0)),
        k8s.tags(Kubernetes::REPO),
    ] {
        for answer in [head(&url).await, get(&url).await] {
            assert_eq!((answer.status, answer.header("location")), (200, ""), "{url}");
        }
    }
    assert_eq!(
        get(k8s.tags(Kubernetes::REPO)).await.json()["tags"],
        serde_json::json!(["1"])
    );
    let backend = &k8s.animal.backend;
    let scopes: Vec<_> = backend
        .requests_of(&tokens())
        .iter()
        .flat_map(|asked| asked.asked.parameters("scope"))
        .collect();
    assert!(
        scopes
            .iter()
            .all(|scope| scope == "repository:k8s-artifacts-prod/images/pause:pull"),
        "{scopes:?}"
    );
    assert_eq!(
        k8s.animal.bucket.count_of(&signed().get()),
        k8s.animal.bucket.requests().len()
    );
}

#[tokio::test]
async fn a_login_for_the_redirector_is_not_for_those_it_sends_to() {
    let k8s = K8s::as_user("ci", &[]).await;
    let image = k8s.put_image(1);
    k8s.pull(Kubernetes::REPO, &image).await;
    for host in [&k8s.animal.backend, &k8s.animal.bucket] {
        let told = host.requests();
        assert!(
            told.iter()
                .all(|asked| !asked.header("authorization").starts_with("Basic ")),
            "{:#?}",
            host.summary()
        );
    }
}

#[tokio::test]
async fn a_due_tag_is_confirmed_behind_the_redirect_also_when_its_token_has_ended() {
    let k8s = K8s::with(&[ALWAYS_DUE]).await;
    let image = k8s.put_image(1);
    k8s.pull(Kubernetes::REPO, &image).await;
    k8s.settle().await;
    for revoked in [false, true] {
        if revoked {
            k8s.animal.backend.revoke_tokens();
        }
        let answer = get(k8s.manifest(Kubernetes::REPO, "1")).await;
        assert_manifest(&answer, &image, false);
        assert_eq!(cached(&answer), "wharfinger; hit; fwd=stale");
        assert_eq!(
            k8s.animal.backend.manifest_gets(),
            0,
            "{:#?}",
            k8s.internet.requests()
        );
    }
}

#[tokio::test]
async fn what_the_bucket_lacks_comes_from_the_backend() {
    let k8s = K8s::start().await;
    let image = k8s.put_image(1);
    // As the redirector does for what was not copied yet.
    let layer = &image.layers()[0];
    let place = format!(
        "http://us-west2-docker.pkg.dev/v2/k8s-artifacts-prod/images/pause/blobs/{}",
        layer.digest
    );
    k8s.animal
        .redirector
        .always(blob(&layer.digest), redirect(307, &place));
    k8s.pull_blob(Kubernetes::REPO, layer).await;
    assert_eq!(k8s.animal.bucket.requests().len(), 0);
}
