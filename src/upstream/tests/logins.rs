//! Credentials: who sees them, and what happens when they are wrong.

use super::server::{Server, answer, challenge, token};
use super::{
    BASIC, MANIFEST, anonymous, config, configured, login, name, reference, upstream_with, with_login,
};
use crate::upstream::ErrorKind;

#[tokio::test]
async fn basic_credentials_go_where_they_are_asked_for() {
    let server = Server::start(|asked| async move {
        match asked.authorization() {
            Some(BASIC) => answer(200, &[], MANIFEST),
            _ => answer(401, &[("www-authenticate", "Basic realm=\"test\"")], ""),
        }
    })
    .await;
    let upstream = with_login(&server);
    for _ in 0..2 {
        upstream
            .manifest(&name("a"), &reference("v1"), &configured())
            .await
            .unwrap();
    }
    // Unasked, nothing is sent; once known, at once.
    let expected = [None, Some(BASIC), Some(BASIC)];
    assert_eq!(
        server
            .log()
            .iter()
            .map(|asked| asked.authorization())
            .collect::<Vec<_>>(),
        expected
    );
    let error = upstream
        .manifest(&name("a"), &reference("v1"), &anonymous())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Denied);
    assert_eq!(server.log().last().unwrap().authorization(), None);
}

#[tokio::test]
async fn rejected_basic_credentials_are_not_tried_again_at_once() {
    let server =
        Server::start(|_| async { answer(401, &[("www-authenticate", "Basic realm=\"test\"")], "") }).await;
    let upstream = with_login(&server);
    for _ in 0..5 {
        let error = upstream
            .manifest(&name("a"), &reference("v1"), &configured())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::CredentialsRejected);
        assert!(!error.is_not_found() && error.allows_stale());
    }
    let sent = server
        .log()
        .iter()
        .filter(|asked| asked.authorization().is_some())
        .count();
    // And once at `/v2/`: it might have been refused this repository alone.
    assert_eq!(sent, 2);
}

#[tokio::test]
async fn expired_basic_credentials_are_told_from_a_forbidden_repository() {
    let server = Server::start(|asked| async move {
        match asked.authorization() {
            None => answer(401, &[("www-authenticate", "Basic realm=\"test\"")], ""),
            Some(_) if asked.path.contains("/secret/") => answer(
                403,
                &[],
                r#"{"errors":[{"code":"DENIED","message":"not authorized"}]}"#,
            ),
            Some(_) => answer(
                403,
                &[],
                "Your authorization token has expired. Reauthenticate and try again.",
            ),
        }
    })
    .await;
    let upstream = with_login(&server);
    let kind = |repository: &'static str| {
        let upstream = upstream.clone();
        async move {
            let result = upstream
                .manifest(&name(repository), &reference("v1"), &configured())
                .await;
            result.unwrap_err().kind().clone()
        }
    };
    assert_eq!(kind("secret").await, ErrorKind::Denied);
    assert_eq!(kind("open").await, ErrorKind::CredentialsRejected);
}

#[tokio::test]
async fn credentials_go_to_the_token_service_only_for_configured_access() {
    let server = Server::start(|asked| async move {
        match (asked.path.as_str(), asked.authorization()) {
            ("/token", Some(BASIC)) => token("mine"),
            ("/token", None) => token("anyones"),
            (_, Some("Bearer mine")) => answer(200, &[], MANIFEST),
            _ => challenge(&asked, "repository:a:pull"),
        }
    })
    .await;
    let upstream = with_login(&server);
    upstream
        .manifest(&name("a"), &reference("v1"), &configured())
        .await
        .unwrap();
    let error = upstream
        .manifest(&name("a"), &reference("v1"), &anonymous())
        .await
        .unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(
        server.lines(),
        [
            "GET /v2/a/manifests/v1 -".to_owned(),
            format!("GET /token {BASIC}"),
            "GET /v2/a/manifests/v1 Bearer mine".to_owned(),
            "GET /token -".to_owned(),
            "GET /v2/a/manifests/v1 Bearer anyones".to_owned(),
        ]
    );
}

#[tokio::test]
async fn a_wrong_login_does_not_storm_the_token_service() {
    let server = Server::start(|asked| async move {
        match asked.path.as_str() {
            "/token" => answer(401, &[], r#"{"details":"incorrect username or password"}"#),
            _ => challenge(&asked, "repository:a:pull"),
        }
    })
    .await;
    let upstream = with_login(&server);
    for repository in ["a", "b", "c", "a"] {
        let error = upstream
            .manifest(&name(repository), &reference("v1"), &configured())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::CredentialsRejected);
    }
    // One for the repository, one without scope that tells the login from the repository.
    let with_login =
        |asked: &&super::server::Asked| asked.path == "/token" && asked.authorization().is_some();
    assert_eq!(server.log().iter().filter(with_login).count(), 2);
}

#[tokio::test]
async fn a_good_login_without_rights_is_not_a_wrong_one() {
    let server = Server::start(|asked| async move {
        match asked.path.as_str() {
            "/token" if asked.query.contains("secret") => answer(403, &[], ""),
            "/token" => token("mine"),
            _ if asked.authorization() == Some("Bearer mine") => answer(200, &[], MANIFEST),
            _ => challenge(&asked, "repository:secret:pull"),
        }
    })
    .await;
    let upstream = with_login(&server);
    for _ in 0..3 {
        let error = upstream
            .manifest(&name("secret"), &reference("v1"), &configured())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::TokenDenied);
    }
    assert_eq!(server.count("/token"), 4);
    upstream
        .manifest(&name("open"), &reference("v1"), &configured())
        .await
        .unwrap();
}

#[tokio::test]
async fn an_expired_token_may_be_answered_with_another_scheme() {
    // Harbor: without a token it wants Basic.
    let server = Server::start(|asked| async move {
        match (asked.path.as_str(), asked.authorization()) {
            ("/token", _) => token("t"),
            (_, Some(BASIC)) => answer(200, &[], MANIFEST),
            (path, None) if path.starts_with("/v2/first/") => challenge(&asked, "repository:first:pull"),
            (path, Some("Bearer t")) if path.starts_with("/v2/first/") => answer(200, &[], MANIFEST),
            _ => answer(401, &[("www-authenticate", "Basic realm=\"harbor\"")], ""),
        }
    })
    .await;
    let upstream = with_login(&server);
    upstream
        .manifest(&name("first"), &reference("v1"), &configured())
        .await
        .unwrap();
    upstream
        .manifest(&name("second"), &reference("v1"), &configured())
        .await
        .unwrap();
    let tail: Vec<_> = server.log()[4..]
        .iter()
        .map(|a| a.authorization().map(str::to_owned))
        .collect();
    assert_eq!(tail, [Some("Bearer t".to_owned()), None, Some(BASIC.to_owned())]);
}

#[tokio::test]
async fn an_untrusted_realm_never_sees_credentials() {
    // The registry is on 127.0.0.1, its realm on localhost: other names, so other hosts.
    let service = Server::start(|_| async { token("t") }).await;
    let realm = service.url.replace("127.0.0.1", "localhost");
    let line = format!("Bearer realm=\"{realm}/token\",service=\"test\"");
    let server = Server::start(move |asked| {
        let line = line.clone();
        async move {
            match asked.authorization() {
                Some("Bearer t") => answer(200, &[], MANIFEST),
                _ => answer(401, &[("www-authenticate", &line)], ""),
            }
        }
    })
    .await;
    let error = with_login(&server)
        .manifest(&name("a"), &reference("v1"), &configured())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Refused);
    assert!(error.message().contains("upstream.test.realms"), "{error}");
    assert!(service.log().is_empty());

    // Without credentials there is nothing to protect; with the realm listed they may go there.
    let upstream = upstream_with(config(&server.url));
    upstream
        .manifest(&name("a"), &reference("v1"), &configured())
        .await
        .unwrap();
    assert_eq!(service.lines(), ["GET /token -"]);
    let mut listed = config(&server.url);
    listed.realms = vec!["localhost".to_owned()];
    listed.credentials = vec![login("user", "pass")];
    upstream_with(listed)
        .manifest(&name("a"), &reference("v1"), &configured())
        .await
        .unwrap();
    assert_eq!(service.lines()[1], format!("GET /token {BASIC}"));
}
