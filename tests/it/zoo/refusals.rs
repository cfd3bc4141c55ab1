//! What any registry may say instead of content: in whichever form, told again in ours; asked again where that may help,
//! and only there.

use super::visit::Visit;
use crate::expect::{assert_error, code};
use crate::support::prelude::*;
use crate::support::upstream::Style;
use crate::support::zoo::{DockerHub, Google, Personality};

#[tokio::test]
async fn errors_of_every_form_are_told_in_ours() {
    let google = Visit::<Google>::start().await;
    google.put_image(1);
    let registry = &google.animal.registry;
    let mut number = 0;
    for style in [
        Style::Spec,
        Style::Message,
        Style::Details,
        Style::Plain,
        Style::Html,
    ] {
        registry.speak(style);
        let expected = [
            (404, 404, "MANIFEST_UNKNOWN"),
            (403, 404, "NAME_UNKNOWN"),
            (500, 502, "UNAVAILABLE"),
            (418, 502, "UNAVAILABLE"),
        ];
        for (status, told, name) in expected {
            number += 1;
            registry.always(manifests(), reply(status));
            let answer = get(google.manifest(Google::REPO, &format!("t{number}"))).await;
            assert_eq!(
                (answer.status, code(&answer).as_str()),
                (told, name),
                "{style:?} {status}"
            );
            assert!(!answer.text().contains('<'), "{}", answer.text());
            registry.behave();
        }
    }
}

#[tokio::test]
async fn every_kind_of_redirect_leads_to_a_blob() {
    let hub = Visit::<DockerHub>::start().await;
    let cdn = hub.animal.storage().remove(0);
    for (seed, status) in [301, 302, 303, 307, 308].into_iter().enumerate() {
        let image = Image::simple(seed as u64, 1000);
        hub.animal.put(DockerHub::REPO, "1", &image);
        let layer = image.layers().remove(0);
        hub.animal
            .registry
            .once(blob(&layer.digest), via_cdn(&cdn, status, 1));
        hub.pull_blob(DockerHub::REPO, &layer).await;
    }
    assert_eq!(cdn.requests().len(), 5, "{:#?}", cdn.summary());
}

#[tokio::test]
async fn what_may_pass_is_asked_again_and_nothing_else() {
    let hub = Visit::<DockerHub>::start().await;
    let image = hub.put_image(1);
    let registry = &hub.animal.registry;
    // A token first, so that only what is counted is counted.
    assert_eq!(get(hub.manifest(DockerHub::REPO, "1")).await.status, 200);
    let layers = (0..18).fold(Image::new(), |layers, seed| layers.layer(random(100 + seed, 50)));
    hub.animal.put(DockerHub::REPO, "2", &layers);
    let mut layers = layers.layers().into_iter();
    for status in [408, 500, 502, 503, 504, 522] {
        let layer = layers.next().expect("a layer for each");
        registry.once(blob(&layer.digest), reply(status));
        hub.pull_blob(DockerHub::REPO, &layer).await;
        assert_eq!(
            registry.blob_gets(&layer.digest),
            2,
            "{status}: {:#?}",
            registry.summary()
        );
    }
    let expected = [
        (400, 502),
        (403, 404),
        (404, 404),
        (405, 502),
        (410, 404),
        (451, 404),
        (501, 502),
    ];
    for (status, told) in expected {
        let layer = layers.next().expect("a layer for each");
        registry.once(blob(&layer.digest), reply(status));
        let answer = get(hub.blob(DockerHub::REPO, &layer.digest)).await;
        assert_eq!(answer.status, told, "{status}: {}", answer.text());
        assert_eq!(
            registry.blob_gets(&layer.digest),
            1,
            "{status}: {:#?}",
            registry.summary()
        );
    }
    // Too many requests: again, but not at once.
    let layer = layers.next().expect("a layer for each");
    registry.once(blob(&layer.digest), reply(429));
    hub.pull_blob(DockerHub::REPO, &layer).await;
    assert_eq!(registry.blob_gets(&layer.digest), 2);
    // No answer at all.
    let layer = layers.next().expect("a layer for each");
    registry.once(blob(&layer.digest), serve().hang_up());
    hub.pull_blob(DockerHub::REPO, &layer).await;
    // A pause that is told is kept, and passed on.
    let layer = layers.next().expect("a layer for each");
    registry.once(blob(&layer.digest), reply(503).header("retry-after", "30"));
    let answer = get(hub.blob(DockerHub::REPO, &layer.digest)).await;
    assert_error(&answer, 502, "UNAVAILABLE");
    assert_eq!(registry.blob_gets(&layer.digest), 1);
    hub.pull_blob(DockerHub::REPO, &image.config()).await;
}
