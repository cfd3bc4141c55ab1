//! nvcr.io: a name with a dollar, pages in place of errors, and a challenge that changes when a token has ended.

use super::visit::{ALWAYS_DUE, Visit};
use crate::expect::{assert_error, assert_manifest, cached};
use crate::support::prelude::*;
use crate::support::zoo::{Nvidia, Personality};

type Nvcr = Visit<Nvidia>;

#[tokio::test]
async fn an_ended_token_is_asked_for_where_the_first_one_was() {
    for user in [None, Some(Nvidia::USER)] {
        let nvcr = match user {
            Some(user) => Nvcr::as_user(user, &[ALWAYS_DUE]).await,
            None => Nvcr::with(&[ALWAYS_DUE]).await,
        };
        let image = nvcr.put_image(1);
        nvcr.pull(Nvidia::REPO, &image).await;
        nvcr.animal.registry.revoke_tokens();
        let answer = get(nvcr.manifest(Nvidia::REPO, "1")).await;
        assert_manifest(&answer, &image, false);
        assert_eq!(
            cached(&answer),
            "wharfinger; hit; fwd=stale",
            "{:#?}",
            nvcr.internet.requests()
        );
        assert_eq!(
            nvcr.animal.elsewhere.requests().len(),
            0,
            "{:#?}",
            nvcr.internet.requests()
        );
    }
}

#[tokio::test]
async fn a_realm_that_moved_for_good_gets_no_login_until_it_is_listed() {
    let moved = "Bearer realm=\"http://authn.nvidia.com/token\",service=\"registry\",scope=\"repository:nvidia/cuda:pull\"";
    let nvcr = Nvcr::as_user(Nvidia::USER, &[ALWAYS_DUE]).await;
    let image = nvcr.put_image(1);
    nvcr.pull(Nvidia::REPO, &image).await;
    nvcr.animal.registry.revoke_tokens();
    let registry = &nvcr.animal.registry;
    registry.always(
        manifests(),
        reply(401).header("www-authenticate", moved).before_auth(),
    );
    let answer = get(nvcr.manifest(Nvidia::REPO, "1")).await;
    assert_manifest(&answer, &image, false);
    assert!(cached(&answer).contains("fwd=stale"), "{}", cached(&answer));
    assert_eq!(
        nvcr.animal.elsewhere.requests().len(),
        0,
        "{:#?}",
        nvcr.internet.requests()
    );
    let line = nvcr.daemon.wait_for_log("upstream.nvidia.realms").await;
    assert!(line.contains("authn.nvidia.com"), "{line}");

    // Without a login it is a dead end: nothing is found, and a copy stays.
    let nobody = Nvcr::with(&[ALWAYS_DUE]).await;
    let image = nobody.put_image(1);
    nobody.pull(Nvidia::REPO, &image).await;
    nobody.animal.registry.revoke_tokens();
    let plan = reply(401).header("www-authenticate", moved).before_auth();
    nobody.animal.registry.always(manifests(), plan);
    let answer = get(nobody.manifest(Nvidia::REPO, "1")).await;
    assert_manifest(&answer, &image, false);
    assert!(cached(&answer).contains("fwd=stale"), "{}", cached(&answer));
    assert_error(
        &get(nobody.manifest(Nvidia::REPO, "2")).await,
        404,
        "NAME_UNKNOWN",
    );
}

#[tokio::test]
async fn the_user_is_a_word_with_a_dollar() {
    let nvcr = Nvcr::as_user(Nvidia::USER, &[]).await;
    let image = Image::simple(1, 2000);
    nvcr.animal.put(Nvidia::PRIVATE, "1", &image);
    nvcr.pull(Nvidia::PRIVATE, &image).await;
    for asked in nvcr.animal.registry.requests() {
        let basic = asked.header("authorization").starts_with("Basic ");
        assert_eq!(basic, asked.path() == "/proxy_auth", "{asked:?}");
    }
}

#[tokio::test]
async fn pages_in_place_of_errors_are_not_passed_on() {
    let nvcr = Nvcr::start().await;
    nvcr.put_image(1);
    for repo in [Nvidia::PRIVATE, "nvidia/none"] {
        let answer = get(nvcr.manifest(repo, "1")).await;
        assert_error(&answer, 404, "NAME_UNKNOWN");
        assert!(!answer.text().contains("nginx"), "{}", answer.text());
    }
    nvcr.animal.registry.always(manifests(), reply(500));
    let answer = get(nvcr.manifest(Nvidia::REPO, "1")).await;
    assert_error(&answer, 502, "UNAVAILABLE");
    assert!(!answer.text().contains("nginx"), "{}", answer.text());
}
