//! Artifact Registry: the way to a token is told at `/v2/` alone, refusals are 403 or 404, storage takes one range.

use super::visit::Visit;
use crate::expect::assert_manifest;
use crate::support::prelude::*;
use crate::support::zoo::{Google, Personality};

#[tokio::test]
async fn the_challenge_is_asked_for_where_it_is_given() {
    let google = Visit::<Google>::start().await;
    let image = google.put_image(1);
    google.animal.put("acme/images/other", "1", &image);
    google.pull(Google::REPO, &image).await;
    google.pull("acme/images/other", &image).await;
    let registry = &google.animal.registry;
    assert_eq!(registry.count_of(&ping()), 1, "{:#?}", registry.summary());
    let scopes: Vec<_> = registry
        .requests_of(&tokens())
        .iter()
        .map(|asked| (asked.method().clone(), asked.asked.parameters("scope").concat()))
        .collect();
    // By GET, each for its repository though the challenge names none.
    let expected = [
        "repository:acme/images/app:pull",
        "repository:acme/images/other:pull",
    ];
    assert_eq!(scopes, expected.map(|scope| (Method::GET, scope.to_owned())));
    // A token that has ended is a 401 without a word too.
    registry.revoke_tokens();
    assert_eq!(
        get(google.manifest(Google::REPO, &Image::simple(9, 9).digest()))
            .await
            .status,
        404
    );
    google.animal.put(Google::REPO, "2", &Image::simple(2, 10));
    assert_eq!(
        get(google.manifest(Google::REPO, "2")).await.status,
        200,
        "{:#?}",
        registry.summary()
    );
}

#[tokio::test]
async fn forbidden_is_not_found() {
    let google = Visit::<Google>::start().await;
    let image = Image::simple(1, 10);
    google.animal.put(Google::FORBIDDEN, "1", &image);
    for url in [
        google.manifest(Google::FORBIDDEN, "1"),
        google.blob(Google::FORBIDDEN, &image.layer_digest(0)),
    ] {
        assert_eq!(get(&url).await.status, 404, "{url}");
    }
    // It is asked again, as rights may come.
    google.animal.put("acme/none/app", "1", &image);
    assert_manifest(&get(google.manifest("acme/none/app", "1")).await, &image, false);
}

#[tokio::test]
async fn a_key_file_is_a_login() {
    let google = Visit::<Google>::as_user("_json_key", &[]).await;
    let image = google.put_image(1);
    google.pull(Google::REPO, &image).await;
    let asked = google.animal.registry.requests_of(&tokens());
    assert!(
        asked
            .iter()
            .all(|asked| asked.header("authorization").starts_with("Basic ")),
        "{asked:#?}"
    );
    assert!(
        google
            .animal
            .storage
            .requests()
            .iter()
            .all(|asked| asked.header("authorization").is_empty())
    );
    // A wrong one is told; what is public is pulled all the same.
    let wrong = Visit::<Google>::as_user("oauth2accesstoken", &[]).await;
    let image = wrong.put_image(1);
    assert_manifest(&get(wrong.manifest(Google::REPO, "1")).await, &image, false);
    wrong.daemon.wait_for_log("a credential is set aside").await;
}
