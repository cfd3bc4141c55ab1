//! cgr.dev: 403 of the token service is about the caller, and a copy stays; 403 of the registry is about the image.

use super::visit::{ALWAYS_DUE, Visit};
use crate::expect::{assert_error, assert_manifest, assert_stale};
use crate::support::prelude::*;
use crate::support::zoo::{Chainguard, Personality};

#[tokio::test]
async fn a_refusal_means_what_its_sender_knows() {
    let settings = [ALWAYS_DUE, ("cache.gone_ttl", "\"0s\"")];
    let cgr = Visit::<Chainguard>::with(&settings).await;
    let image = cgr.put_image(1);
    cgr.animal.put("chainguard/other", "1", &image);
    cgr.pull(Chainguard::REPO, &image).await;
    cgr.pull("chainguard/other", &image).await;

    cgr.animal.registry.revoke_tokens();
    cgr.animal.refuse_tokens(true);
    let answer = get(cgr.manifest(Chainguard::REPO, "1")).await;
    assert_manifest(&answer, &image, false);
    assert_stale(&answer, Some(403));
    assert_eq!(get(cgr.manifest("chainguard/never-seen", "1")).await.status, 404);

    cgr.animal.refuse_tokens(false);
    cgr.animal.close("chainguard/other");
    let answer = get(cgr.manifest("chainguard/other", "1")).await;
    assert_eq!(answer.status, 404, "{}", answer.text());
    let answer = get(cgr.manifest("chainguard/other", "never-seen")).await;
    assert_eq!(answer.status, 404, "{}", answer.text());
}

#[tokio::test]
async fn a_login_that_the_token_service_refuses_is_named() {
    let cgr = Visit::<Chainguard>::as_user("ci", &[]).await;
    cgr.put_image(1);
    cgr.animal.refuse_tokens(true);
    assert_error(
        &get(cgr.manifest(Chainguard::REPO, "1")).await,
        502,
        "UNAVAILABLE",
    );
    cgr.daemon.wait_for_log("a credential is set aside").await;
}
