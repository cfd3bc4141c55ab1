//! Redirects: where they are followed, what is left behind, and what happens when their target refuses.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::server::{Response, Server, answer, challenge, token};
use super::{
    BASIC, MANIFEST, WHOLE, config, configured, name, nobody, reference, sha256, tuning, upstream, with_login,
};
use crate::upstream::{ErrorKind, Failure, Upstream};

const BLOB: &[u8] = b"some layer";

fn redirect(status: u16, location: &str) -> Response {
    answer(status, &[("location", location)], "")
}

/// A registry with Basic that sends every blob to `target`.
async fn registry(target: String) -> Server {
    Server::start(move |asked| {
        let target = target.clone();
        async move {
            match asked.authorization() {
                Some(BASIC) => redirect(307, &target),
                _ => answer(401, &[("www-authenticate", "Basic realm=\"test\"")], ""),
            }
        }
    })
    .await
}

#[tokio::test]
async fn credentials_do_not_follow_to_another_host() {
    let storage = Server::start(|_| async { answer(200, &[], BLOB) }).await;
    let server = registry(format!("{}/signed?key=1", storage.url)).await;
    let mut body = with_login(&server)
        .blob(&name("a"), &sha256(BLOB), WHOLE, &configured())
        .await
        .unwrap();
    assert_eq!(body.chunk().await.unwrap().unwrap(), BLOB);
    assert_eq!(body.chunk().await.unwrap(), None);
    assert!(storage.url.ends_with(&body.host));
    let asked = &storage.log()[0];
    assert_eq!(
        (asked.authorization(), asked.path.as_str(), asked.query.as_str()),
        (None, "/signed", "key=1")
    );
}

#[tokio::test]
async fn on_the_same_host_they_do_and_never_come_back() {
    // a -> b on the registry itself, then to storage, then back to the registry.
    let storage =
        Server::start(|asked| async move { redirect(302, asked.header("x-none").unwrap_or(&asked.query)) })
            .await;
    let away = storage.url.clone();
    let server = Server::start(move |asked| {
        let away = away.clone();
        async move {
            match (asked.path.as_str(), asked.authorization()) {
                ("/back", None) => answer(200, &[], MANIFEST),
                ("/moved", Some(BASIC)) => redirect(308, &format!("{away}/x?{}/back", asked.me)),
                (_, Some(BASIC)) => redirect(301, "/moved"),
                _ => answer(401, &[("www-authenticate", "Basic realm=\"test\"")], ""),
            }
        }
    })
    .await;
    let upstream = with_login(&server);
    upstream
        .manifest(&name("a"), &reference("v1"), &configured())
        .await
        .unwrap();
    assert_eq!(
        server.lines()[1..],
        [
            format!("GET /v2/a/manifests/v1 {BASIC}"),
            format!("GET /moved {BASIC}"),
            "GET /back -".to_owned(),
        ]
    );
}

#[tokio::test]
async fn an_expired_signed_url_is_asked_for_anew_once() {
    let refusals = Arc::new(AtomicUsize::new(1));
    let left = refusals.clone();
    let storage = Server::start(move |_| {
        let refuse = left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
            .is_ok();
        async move {
            if refuse {
                answer(403, &[], "Request has expired")
            } else {
                answer(200, &[], BLOB)
            }
        }
    })
    .await;
    let target = format!("{}/signed", storage.url);
    let server = Server::start(move |_| {
        let target = target.clone();
        async move { redirect(307, &target) }
    })
    .await;
    let upstream = upstream(&server);
    upstream
        .blob(&name("a"), &sha256(BLOB), WHOLE, &configured())
        .await
        .unwrap();
    assert_eq!((server.log().len(), storage.log().len()), (2, 2));

    // A redirect is not remembered: each download asks the registry. And twice is enough.
    refusals.store(10, Ordering::SeqCst);
    let error = upstream
        .blob(&name("a"), &sha256(BLOB), WHOLE, &configured())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unavailable(Failure::Status(403)));
    assert!(storage.url.ends_with(error.host()));
    assert_eq!((server.log().len(), storage.log().len()), (4, 4));
}

/// An upstream that counts as public, though its name leads to a server on loopback.
fn public(server: &Server) -> Arc<Upstream> {
    let address: std::net::SocketAddr = server.url.trim_start_matches("http://").parse().unwrap();
    let mut tuning = tuning();
    tuning.addresses = vec![("registry.example.com".to_owned(), address)];
    let config = config(&format!("http://registry.example.com:{}", address.port()));
    Upstream::tuned(config, nobody(), &tuning).unwrap()
}

#[tokio::test]
async fn a_public_registry_cannot_send_us_inside() {
    let inside = Server::start(|_| async { answer(200, &[], BLOB) }).await;
    for target in [
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        inside.url.clone(),
        inside.url.replace("127.0.0.1", "localhost"),
        inside.url.replace("127.0.0.1", "[::ffff:127.0.0.1]"),
        "ftp://example.net/x".to_owned(),
        "http://user:pass@example.net/x".to_owned(),
    ] {
        let location = target.clone();
        let server = Server::start(move |_| {
            let location = location.clone();
            async move { redirect(307, &location) }
        })
        .await;
        let error = public(&server)
            .blob(&name("a"), &sha256(BLOB), WHOLE, &configured())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Refused, "{target}");
        assert_eq!(server.log().len(), 1, "a refusal is not retried");
    }
    // Nor by a realm.
    let line = format!("Bearer realm=\"{}/token\"", inside.url);
    let server = Server::start(move |_| {
        let line = line.clone();
        async move { answer(401, &[("www-authenticate", &line)], "") }
    })
    .await;
    let result = public(&server)
        .manifest(&name("a"), &reference("v1"), &configured())
        .await;
    assert_eq!(result.unwrap_err().kind(), &ErrorKind::Refused);
    assert!(inside.log().is_empty());
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let server = Server::start(|_| async { redirect(302, "/round") }).await;
    let error = upstream(&server)
        .blob(&name("a"), &sha256(BLOB), WHOLE, &configured())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Protocol);
    assert_eq!(server.log().len(), 6);
    // Without a target it is a status like others.
    let server = Server::start(|_| async { answer(302, &[], "") }).await;
    let error = upstream(&server)
        .blob(&name("a"), &sha256(BLOB), WHOLE, &configured())
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.status()),
        (&ErrorKind::Unexpected, Some(302))
    );
}

#[tokio::test]
async fn a_target_with_a_challenge_of_its_own_gets_an_anonymous_token() {
    let other = Server::start(|asked| async move {
        match (asked.path.as_str(), asked.authorization()) {
            ("/token", None) => token("public"),
            (_, Some("Bearer public")) => answer(200, &[], MANIFEST),
            _ => challenge(&asked, "repository:k8s/pause:pull"),
        }
    })
    .await;
    let server = registry(format!("{}/v2/k8s/pause/manifests/3", other.url)).await;
    let upstream = with_login(&server);
    upstream
        .manifest(&name("pause"), &reference("3"), &configured())
        .await
        .unwrap();
    assert_eq!(
        other.lines(),
        [
            "GET /v2/k8s/pause/manifests/3 -",
            "GET /token -",
            "GET /v2/k8s/pause/manifests/3 Bearer public",
        ]
    );
    assert_eq!(
        other.log()[1].query,
        "service=test&scope=repository%3Ak8s%2Fpause%3Apull"
    );
}

#[tokio::test]
async fn head_is_followed_and_its_refusal_is_told() {
    for (status, at_home) in [(403, false), (405, false), (405, true), (501, true)] {
        let storage = Server::start(move |_| async move { answer(status, &[], "") }).await;
        let target = storage.url.clone();
        let server = Server::start(move |_| {
            let target = target.clone();
            async move {
                if at_home {
                    answer(status, &[], "")
                } else {
                    redirect(307, &target)
                }
            }
        })
        .await;
        let error = upstream(&server)
            .manifest_head(&name("a"), &reference("v1"), &configured())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::HeadRefused, "{status} {at_home}");
        assert!(
            server
                .log()
                .iter()
                .chain(&storage.log())
                .all(|asked| asked.method == "HEAD")
        );
        assert_eq!(server.log().len(), 1);
    }
}
