//! Harbor: whoever comes with a token that has ended is asked for a password, which is the wrong question.

use super::visit::{ALWAYS_DUE, Visit};
use crate::expect::{assert_error, assert_manifest, cached};
use crate::support::prelude::*;
use crate::support::zoo::{Harbor, Personality};

#[tokio::test]
async fn an_ended_token_is_replaced_by_a_token() {
    for user in [None, Some("robot$ci")] {
        let harbor = match user {
            Some(user) => Visit::<Harbor>::as_user(user, &[ALWAYS_DUE]).await,
            None => Visit::<Harbor>::with(&[ALWAYS_DUE]).await,
        };
        let image = harbor.put_image(1);
        harbor.pull(Harbor::REPO, &image).await;
        harbor.animal.registry.revoke_tokens();
        let answer = get(harbor.manifest(Harbor::REPO, "1")).await;
        assert_manifest(&answer, &image, false);
        assert_eq!(cached(&answer), "wharfinger; hit; fwd=stale");
        let registry = &harbor.animal.registry;
        assert_eq!(registry.token_requests(), 2, "{:#?}", registry.summary());
        let with_password = Match::when(|asked| asked.header("authorization").starts_with("Basic "));
        let expected = if user.is_some() { 2 } else { 0 };
        assert_eq!(
            registry.count_of(&with_password),
            expected,
            "{:#?}",
            registry.summary()
        );
        for asked in registry.requests_of(&with_password) {
            assert_eq!(asked.path(), "/service/token");
        }
    }
}

#[tokio::test]
async fn a_robot_opens_a_private_project() {
    let image = Image::simple(1, 2000);
    let harbor = Visit::<Harbor>::as_user("robot$ci", &[]).await;
    harbor.animal.put(Harbor::PRIVATE, "1", &image);
    harbor.pull(Harbor::PRIVATE, &image).await;
    let nobody = Visit::<Harbor>::start().await;
    nobody.animal.put(Harbor::PRIVATE, "1", &image);
    assert_error(
        &get(nobody.manifest(Harbor::PRIVATE, "1")).await,
        404,
        "NAME_UNKNOWN",
    );
}
