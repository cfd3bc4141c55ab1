//! GHCR: refusals by the token service, referrers that lead astray, limits on anything.

use super::visit::{ALWAYS_DUE, Visit};
use crate::expect::{assert_error, assert_manifest, assert_stale};
use crate::support::prelude::*;
use crate::support::zoo::{GitHub, Personality};

type Ghcr = Visit<GitHub>;

#[tokio::test]
async fn what_the_token_service_denies_is_not_found() {
    let ghcr = Ghcr::start().await;
    ghcr.animal.put(GitHub::PRIVATE, "1", &Image::simple(1, 10));
    for repo in [GitHub::PRIVATE, "acme/none"] {
        assert_error(&get(ghcr.manifest(repo, "1")).await, 404, "NAME_UNKNOWN");
    }
    let given = ghcr.animal.registry.requests();
    let given: Vec<_> = given.iter().filter(|asked| asked.status == 200).collect();
    assert!(given.is_empty(), "{given:#?}");
}

#[tokio::test]
async fn a_login_opens_what_is_private() {
    let ghcr = Ghcr::as_user("ci", &[]).await;
    let image = Image::simple(1, 2000);
    ghcr.animal.put(GitHub::PRIVATE, "1", &image);
    ghcr.pull(GitHub::PRIVATE, &image).await;
    // A package that is not there is 403 with a good login: that says nothing against the login.
    assert_error(&get(ghcr.manifest("acme/none", "1")).await, 404, "NAME_UNKNOWN");
    ghcr.pull(GitHub::PRIVATE, &image).await;
    let logs = ghcr.daemon.logs();
    assert!(
        !logs.iter().any(|line| line.contains("a credential is set aside")),
        "{logs:#?}"
    );
}

#[tokio::test]
async fn a_copy_outlives_a_token_service_that_refuses() {
    let ghcr = Ghcr::with(&[ALWAYS_DUE]).await;
    let image = ghcr.put_image(1);
    ghcr.pull(GitHub::REPO, &image).await;
    ghcr.animal.registry.revoke_tokens();
    ghcr.animal.registry.always(tokens(), reply(403));
    let answer = get(ghcr.manifest(GitHub::REPO, "1")).await;
    assert_manifest(&answer, &image, false);
    assert_stale(&answer, Some(403));
}

#[tokio::test]
async fn the_way_to_the_referrers_is_not_followed() {
    let ghcr = Ghcr::start().await;
    let image = ghcr.put_image(1);
    let answer = get(ghcr.referrers(GitHub::REPO, &image.digest())).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        ghcr.animal.registry.count_of(&referrers()),
        2,
        "401 and 303: {:#?}",
        ghcr.internet.requests()
    );
    assert_eq!(ghcr.animal.pages.requests().len(), 0);
    let tag = image.digest().replacen(':', "-", 1);
    assert_eq!(
        ghcr.animal.registry.count_of(&manifest(&tag)),
        1,
        "the fallback, by HEAD"
    );
}

#[tokio::test]
async fn many_ranges_are_answered_though_the_cdn_knows_none() {
    let ghcr = Ghcr::start().await;
    let image = Image::new().layer(random(1, 100_000));
    ghcr.animal.put(GitHub::REPO, "1", &image);
    let layer = &image.layers()[0];
    let ranges: Vec<_> = (0..20)
        .map(|n| format!("{}-{}", n * 4000, n * 4000 + 99))
        .collect();
    let answer = get_with(
        ghcr.blob(GitHub::REPO, &layer.digest),
        &[("range", &format!("bytes={}", ranges.join(",")))],
    )
    .await;
    assert_eq!(answer.status, 206, "{}", answer.text());
    let parts = answer
        .body
        .windows(14)
        .filter(|window| *window == b"Content-Range:" || *window == b"content-range:");
    assert_eq!(parts.count(), 20);
    let asked = ghcr.animal.cdn.requests();
    assert!(
        asked.iter().all(|asked| asked.status != 501),
        "{:#?}",
        ghcr.animal.cdn.summary()
    );
}

#[tokio::test]
async fn a_pause_of_microseconds_is_one_and_no_refusal_for_long() {
    let ghcr = Ghcr::start().await;
    let image = ghcr.put_image(1);
    assert_manifest(&get(ghcr.manifest(GitHub::REPO, "1")).await, &image, false);
    let layer = &image.layers()[0];
    let (_, _, plan) = GitHub::limits().remove(0);
    ghcr.animal.registry.once(blob(&layer.digest), plan);
    let url = ghcr.blob(GitHub::REPO, &layer.digest);
    let first = get(&url).await;
    if first.status != 200 {
        assert_error(&first, 429, "TOOMANYREQUESTS");
        assert_eq!(first.header("retry-after"), "1");
    }
    // The pause was over before the client could have counted it.
    ghcr.pull_blob(GitHub::REPO, layer).await;
}
