//! Quay and GitLab: users with odd names, token services in odd places, and CDNs of their own.

use super::visit::Visit;
use crate::expect::{assert_error, assert_manifest};
use crate::support::prelude::*;
use crate::support::zoo::{GitLab, Personality, Quay};

/// The user of a Basic authorization.
fn user(asked: &Recorded) -> String {
    use base64::Engine as _;
    let encoded = asked
        .header("authorization")
        .strip_prefix("Basic ")
        .unwrap_or_default();
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .unwrap_or_default();
    let text = String::from_utf8(decoded).unwrap_or_default();
    text.split(':').next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_robot_keeps_its_plus() {
    let quay = Visit::<Quay>::as_user(Quay::ROBOT, &[]).await;
    let image = Image::simple(1, 2000);
    quay.animal.put(Quay::PRIVATE, "1", &image);
    quay.pull(Quay::PRIVATE, &image).await;
    let asked = quay.animal.registry.requests_of(&tokens());
    assert_eq!(
        (asked.len(), user(&asked[0]).as_str()),
        (1, Quay::ROBOT),
        "{asked:#?}"
    );
    assert_eq!(asked[0].path(), "/v2/auth");
    let others = quay.animal.registry.requests();
    let others = others.iter().filter(|asked| asked.path() != "/v2/auth");
    assert!(
        others
            .clone()
            .all(|asked| !asked.header("authorization").starts_with("Basic "))
    );
}

#[tokio::test]
async fn quays_blobs_come_from_whichever_cdn() {
    let quay = Visit::<Quay>::start().await;
    let image = (0..4).fold(Image::new(), |image, seed| image.layer(random(seed, 1000)));
    quay.animal.put(Quay::REPO, "1", &image);
    for part in image.layers() {
        quay.pull_blob(Quay::REPO, &part).await;
    }
    for cdn in &quay.animal.cdns {
        assert_eq!(cdn.requests().len(), 1, "{:#?}", quay.internet.requests());
    }
}

#[tokio::test]
async fn quays_opaque_pages_lead_to_all_tags() {
    let quay = Visit::<Quay>::start().await;
    for number in 0..5 {
        quay.animal
            .put(Quay::REPO, &format!("t{number}"), &Image::simple(number, 10));
    }
    let (mut url, mut tags) = (quay.tags(Quay::REPO), Vec::new());
    loop {
        let answer = get(&url).await;
        let page = answer.json()["tags"].as_array().cloned().expect("a list");
        tags.extend(page.iter().map(|tag| tag.as_str().expect("a tag").to_owned()));
        let Some(link) = answer.header("link").strip_prefix('<') else {
            break;
        };
        let (path, _) = link.split_once('>').expect("a link");
        url = format!("{}{path}", quay.daemon.url());
        assert!(tags.len() < 10, "no end");
    }
    assert_eq!(tags, ["t0", "t1", "t2", "t3", "t4"]);
}

#[tokio::test]
async fn an_image_of_2014_is_none() {
    let quay = Visit::<Quay>::start().await;
    let old = RawManifest::schema_1("acme/old", "1");
    quay.animal.put("acme/old", "1", &old);
    assert_error(
        &get(quay.manifest("acme/old", "1")).await,
        404,
        "MANIFEST_UNKNOWN",
    );
}

#[tokio::test]
async fn gitlabs_token_service_is_trusted_as_of_the_same_domain() {
    let gitlab = Visit::<GitLab>::as_user("ci", &[]).await;
    let image = Image::simple(1, 2000);
    gitlab.animal.put(GitLab::PRIVATE, "1", &image);
    gitlab.pull(GitLab::PRIVATE, &image).await;
    let asked = gitlab.animal.main.requests();
    assert_eq!(
        (asked.len(), asked[0].path(), user(&asked[0]).as_str()),
        (1, "/jwt/auth", "ci")
    );
    assert_eq!(
        asked[0].asked.parameter("service").as_deref(),
        Some("container_registry")
    );
    for host in [&gitlab.animal.registry, &gitlab.animal.cdn] {
        assert!(
            host.requests().iter().all(|asked| user(asked).is_empty()),
            "{:#?}",
            host.summary()
        );
    }
    // To nobody it is not there.
    let nobody = Visit::<GitLab>::start().await;
    nobody.animal.put(GitLab::PRIVATE, "1", &image);
    assert_error(
        &get(nobody.manifest(GitLab::PRIVATE, "1")).await,
        404,
        "NAME_UNKNOWN",
    );
    let public = nobody.put_image(2);
    assert_manifest(&get(nobody.manifest(GitLab::REPO, "1")).await, &public, false);
}
