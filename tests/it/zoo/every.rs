//! What holds for every registry of the zoo: a cold pull by every way of asking, a warm one that asks nobody, tokens and
//! signed URLs that end in the middle, what is not there, limits, referrers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::visit::{ALWAYS_DUE, Visit};
use crate::expect::{INDEX, assert_error, assert_manifest, cached, code, get_all};
use crate::support::prelude::*;
use crate::support::zoo::{
    Acr, Chainguard, DockerHub, Ecr, EcrPublic, GitHub, GitLab, Google, Harbor, Kubernetes, Mcr, MirrorGcr,
    Nvidia, Personality, Quay,
};

/// The tests of this file for each personality.
macro_rules! visit_each {
    ($($name:ident: $animal:ty),* $(,)?) => {$(
        mod $name {
            use super::*;

            #[tokio::test]
            async fn is_pulled_cold_and_warm() {
                super::is_pulled_cold_and_warm::<$animal>().await;
            }

            #[tokio::test]
            async fn may_end_tokens_and_downloads_in_the_middle() {
                super::may_end_tokens_and_downloads_in_the_middle::<$animal>().await;
            }

            #[tokio::test]
            async fn is_asked_once_by_a_crowd() {
                super::is_asked_once_by_a_crowd::<$animal>().await;
            }

            #[tokio::test]
            async fn may_be_in_trouble_with_all_its_hosts() {
                super::may_be_in_trouble_with_all_its_hosts::<$animal>().await;
            }

            #[tokio::test]
            async fn says_what_it_does_not_have() {
                super::says_what_it_does_not_have::<$animal>().await;
            }

            #[tokio::test]
            async fn has_limits() {
                super::has_limits::<$animal>().await;
            }

            #[tokio::test]
            async fn tells_what_refers_to_an_image() {
                super::tells_what_refers_to_an_image::<$animal>().await;
            }
        }
    )*};
}

visit_each! {
    docker_hub: DockerHub,
    github: GitHub,
    quay: Quay,
    ecr_public: EcrPublic,
    ecr: Ecr,
    google: Google,
    mirror_gcr: MirrorGcr,
    kubernetes: Kubernetes,
    mcr: Mcr,
    azure: Acr,
    gitlab: GitLab,
    nvidia: Nvidia,
    chainguard: Chainguard,
    harbor: Harbor,
}

async fn is_pulled_cold_and_warm<P: Personality>() {
    let visit = Visit::<P>::start().await;
    let index = Index::of_platforms(2);
    visit.animal.put(P::REPO, "1", &index);
    visit.pull_index(P::REPO, "1", &index).await;

    for storage in visit.animal.storage() {
        for asked in storage.requests_of(&signed()) {
            // Its URLs are signed for GET, and it says 400 to any Authorization.
            assert_eq!(
                (asked.method(), asked.header("authorization")),
                (&Method::GET, "")
            );
            assert_eq!(asked.header("cookie"), "");
            assert!(!asked.header("range").contains(','), "{asked:?}");
        }
    }
    let registry = visit.animal.registry();
    assert_eq!(registry.count_of(&blobs().head()), 0, "{:#?}", registry.summary());
    let digests = [
        index.digest(),
        index.images()[0].digest(),
        index.images()[1].digest(),
    ];
    for digest in &digests {
        let fetched = registry.requests_of(&manifest(digest).get());
        let fetched = fetched
            .iter()
            .filter(|asked| matches!(asked.status, 200 | 307))
            .count();
        assert!(fetched <= 1, "{:#?}", registry.summary());
    }

    visit.settle().await;
    visit.pull_index(P::REPO, "1", &index).await;
    visit.assert_silence();
    let strange = visit
        .daemon
        .logs()
        .into_iter()
        .find(|line| line.contains("signature=secret"));
    assert_eq!(strange, None, "a signed URL is nobody else's business");
}

async fn may_end_tokens_and_downloads_in_the_middle<P: Personality>() {
    let visit = Visit::<P>::start().await;
    let image = Image::new().layer(random(1, 300_000)).layer(random(2, 200_000));
    visit.animal.put(P::REPO, "1", &image);
    assert_manifest(&get(visit.manifest(P::REPO, "1")).await, &image, false);
    if let Some(guard) = visit.animal.guard() {
        guard.revoke_tokens();
    }
    let layers = image.layers();
    // Whoever sends the bytes stops in the middle of them, and its URL is used up.
    let senders = visit.animal.storage();
    let senders = if senders.is_empty() {
        vec![visit.animal.registry().clone()]
    } else {
        senders
    };
    once_of_all(&senders, &blob(&layers[0].digest).get(), &serve().cut_at(100_000));
    visit.pull_blob(P::REPO, &layers[0]).await;
    let asked = visit.animal.registry().blob_gets(&layers[0].digest);
    assert!(asked >= 2, "{:#?}", visit.internet.requests());
    let sent: u64 = senders.iter().map(Upstream::bytes_sent).sum();
    // Continued, not begun again; 401s of a sender that is the registry itself have bodies too.
    assert!(sent < 310_000, "{:#?}", visit.internet.requests());

    // A URL that has ended before it was used.
    let ended = reply(403).body("<Error><Code>AccessDenied</Code></Error>");
    once_of_all(&senders, &signed(), &ended);
    visit.pull_blob(P::REPO, &layers[1]).await;
    visit.pull_blob(P::REPO, &image.config()).await;
}

async fn is_asked_once_by_a_crowd<P: Personality>() {
    let visit = Visit::<P>::start().await;
    let image = visit.put_image(1);
    let layer = &image.layers()[0];
    let urls = [visit.manifest(P::REPO, "1"), visit.blob(P::REPO, &layer.digest)];
    let answers = get_all((0..40).map(|number| urls[number % 2].clone())).await;
    for (number, answer) in answers.into_iter().enumerate() {
        let expected = if number % 2 == 0 {
            image.root().bytes
        } else {
            layer.bytes.clone()
        };
        assert!(answer.ok() == expected, "wrong bytes");
    }
    let requests = visit.internet.requests();
    let given = |what: &str| {
        let of_what = requests
            .iter()
            .filter(|line| line.contains("GET") && line.contains(what));
        of_what.filter(|line| line.contains("-> 20")).count()
    };
    // Two questions at the same moment may each learn how to ask; after that there is one token.
    assert_eq!(
        (given("/manifests/"), given(&layer.digest)),
        (1, 1),
        "{requests:#?}"
    );
    let tokens: usize = visit.internet.hosts().iter().map(Upstream::token_requests).sum();
    assert!(tokens <= 1, "{requests:#?}");
}

async fn may_be_in_trouble_with_all_its_hosts<P: Personality>() {
    let visit = Visit::<P>::with(&[ALWAYS_DUE]).await;
    let image = visit.put_image(1);
    visit.animal.put(P::REPO, "2", &Image::simple(2, 10));
    visit.pull(P::REPO, &image).await;
    visit.settle().await;
    if let Some(guard) = visit.animal.guard() {
        guard.revoke_tokens();
    }
    // Only whoever gives the tokens, then everybody. The time is told so that nobody tries again by itself.
    let trouble = || reply(503).header("retry-after", "60").before_auth();
    for matcher in [tokens(), any()] {
        for host in visit.internet.hosts() {
            host.always(matcher.clone(), trouble());
        }
        let answer = get(visit.manifest(P::REPO, "1")).await;
        assert_manifest(&answer, &image, false);
        for part in image.blobs() {
            visit.pull_blob(P::REPO, &part).await;
        }
    }
    assert!(cached(&get(visit.manifest(P::REPO, "1")).await).contains("fwd=stale"));
    let answer = get(visit.manifest(P::REPO, "2")).await;
    assert!(
        matches!(answer.status, 502 | 503),
        "{} {}",
        answer.status,
        answer.text()
    );
    assert_eq!(code(&answer), "UNAVAILABLE");
    assert!(answer.text().contains(P::PREFIX), "{}", answer.text());
}

/// The next such request, whichever of them gets it, is answered by this plan.
fn once_of_all(senders: &[Upstream], matcher: &Match, plan: &Plan) {
    let left = Arc::new(AtomicBool::new(true));
    for sender in senders {
        let (left, plan) = (left.clone(), plan.clone());
        sender.habit_before(matcher.clone(), move |_| {
            left.swap(false, Ordering::SeqCst).then(|| plan.clone())
        });
    }
}

async fn says_what_it_does_not_have<P: Personality>() {
    let visit = Visit::<P>::start().await;
    let image = visit.put_image(1);
    assert_error(
        &get(visit.manifest(P::REPO, "none")).await,
        404,
        "MANIFEST_UNKNOWN",
    );
    let nothing = sha256(b"nothing");
    assert_error(
        &get(visit.manifest(P::REPO, &nothing)).await,
        404,
        "MANIFEST_UNKNOWN",
    );
    let answer = get(visit.blob(P::REPO, &nothing)).await;
    assert_eq!(answer.status, 404, "{}", answer.text());
    // A repository of nobody: in the form of our own, whatever the registry's was, and no challenge (`code` looks).
    for url in [
        visit.manifest("acme/nothing", "1"),
        visit.manifest("acme/nothing", &image.digest()),
        visit.blob("acme/nothing", &image.layer_digest(0)),
        visit.tags("acme/nothing"),
    ] {
        let answer = get(&url).await;
        assert_eq!(answer.status, 404, "{url}: {}", answer.text());
        let code = code(&answer);
        assert!(code.ends_with("_UNKNOWN"), "{url}: {code}");
        let by_head = head(&url).await;
        assert_eq!(
            (by_head.status, by_head.header("www-authenticate")),
            (404, ""),
            "{url}"
        );
    }
    // What it has is there all the same.
    visit.pull(P::REPO, &image).await;
}

async fn has_limits<P: Personality>() {
    for (what, matcher, plan) in P::limits() {
        let visit = Visit::<P>::with(&[ALWAYS_DUE]).await;
        let image = visit.put_image(1);
        visit.animal.put(P::REPO, "2", &Image::simple(2, 10));
        visit.pull(P::REPO, &image).await;
        visit.settle().await;
        visit.animal.registry().always(matcher, plan);
        // Where only GETs are limited, a HEAD still says that the copy is the right one.
        let answer = get(visit.manifest(P::REPO, "1")).await;
        assert_manifest(&answer, &image, false);
        assert!(
            cached(&answer).contains("fwd=stale"),
            "{what}: {}",
            cached(&answer)
        );
        visit.pull_blob(P::REPO, &image.layers()[0]).await;
        visit.settle().await;

        let answer = get(visit.manifest(P::REPO, "2")).await;
        assert_error(&answer, 429, "TOOMANYREQUESTS");
        let seconds: u64 = answer.header("retry-after").parse().expect("seconds");
        assert!(seconds >= 1, "{what}");
        assert!(!answer.text().contains("html"), "{what}: {}", answer.text());
        // Asked for it once, and where a client waits twice more in its turn, however many ask.
        let limited = visit.internet.requests();
        let limited = limited.iter().filter(|line| line.contains("-> 429")).count();
        assert!(limited <= 3, "{what}: {:#?}", visit.internet.requests());
        // Whoever can ask elsewhere is sent on.
        assert_error(&get(visit.mirrored(P::REPO, "2")).await, 503, "UNAVAILABLE");
        let layer = Image::simple(2, 10).layer_digest(0);
        let blob = get(visit.blob(P::REPO, &layer)).await;
        assert!(matches!(blob.status, 200 | 404 | 429), "{what}: {}", blob.text());
    }
}

async fn tells_what_refers_to_an_image<P: Personality>() {
    let visit = Visit::<P>::start().await;
    let image = visit.put_image(1);
    let signature = Image::simple(2, 10).referring_to(&image, "application/vnd.example.signature");
    visit.animal.put(P::REPO, "signature", &signature);
    let fallback = Index::default().image(signature.clone());
    visit
        .animal
        .put(P::REPO, &image.digest().replacen(':', "-", 1), &fallback);
    visit.pull(P::REPO, &image).await;
    let answer = get(visit.referrers(P::REPO, &image.digest())).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, INDEX),
        "{}",
        answer.text()
    );
    assert_eq!(answer.json()["manifests"][0]["digest"], signature.digest());
    // Of what nothing refers to: an empty list, and no error.
    let none = get(visit.referrers(P::REPO, &signature.digest())).await;
    assert_eq!(
        (none.status, none.header("content-type")),
        (200, INDEX),
        "{}",
        none.text()
    );
    assert_eq!(none.json()["manifests"], serde_json::json!([]));
}
