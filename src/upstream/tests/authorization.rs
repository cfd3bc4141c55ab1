//! Challenges and tokens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Semaphore;

use super::server::{Asked, Response, Server, answer, challenge, token};
use super::{MANIFEST, configured, name, reference, upstream};
use crate::upstream::ErrorKind;

/// A registry whose repositories need a token of their own name, `t:<scope>`.
fn registry(asked: &Asked) -> Response {
    if asked.path == "/token" {
        let scope = asked.query.split("scope=").nth(1).unwrap_or_default();
        return token(&format!("t.{}", scope.replace("%3A", ".").replace("%2F", "_")));
    }
    let repository = asked
        .path
        .trim_start_matches("/v2/")
        .split("/manifests/")
        .next()
        .unwrap_or_default();
    let expected = format!("Bearer t.repository.{}.pull", repository.replace('/', "_"));
    if asked.authorization() == Some(&expected) {
        return answer(200, &[], MANIFEST);
    }
    challenge(asked, &format!("repository:{repository}:pull"))
}

#[tokio::test]
async fn a_challenge_is_answered_and_remembered_for_other_repositories() {
    let server = Server::start(|asked| async move { registry(&asked) }).await;
    let upstream = upstream(&server);
    for repository in ["a/b", "c", "a/b"] {
        let fetched = upstream
            .manifest(&name(repository), &reference("v1"), &configured())
            .await
            .unwrap();
        assert_eq!(fetched.bytes, MANIFEST);
    }
    assert_eq!(
        server.lines(),
        [
            "GET /v2/a/b/manifests/v1 -",
            "GET /token -",
            "GET /v2/a/b/manifests/v1 Bearer t.repository.a_b.pull",
            // From here on the token is brought along.
            "GET /token -",
            "GET /v2/c/manifests/v1 Bearer t.repository.c.pull",
            "GET /v2/a/b/manifests/v1 Bearer t.repository.a_b.pull",
        ]
    );
    assert_eq!(
        server.log()[1].query,
        "service=test&scope=repository%3Aa%2Fb%3Apull"
    );
}

#[tokio::test]
async fn one_token_for_many_requests_at_once() {
    let refused = Arc::new(Semaphore::new(0));
    let gate = refused.clone();
    // The token comes when all 50 have been challenged.
    let server = Server::start(move |asked| {
        let gate = gate.clone();
        async move {
            if asked.path == "/token" {
                gate.acquire_many(50).await.unwrap().forget();
            } else if asked.authorization().is_none() {
                gate.add_permits(1);
            }
            registry(&asked)
        }
    })
    .await;
    let upstream = upstream(&server);
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let upstream = upstream.clone();
            tokio::spawn(async move {
                upstream
                    .manifest(&name("a"), &reference("v1"), &configured())
                    .await
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(server.count("/token"), 1);
    assert_eq!(server.log().len(), 101);
}

#[tokio::test]
async fn a_token_is_fetched_on_when_its_first_caller_leaves() {
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    let server = Server::start(move |asked| {
        let gate = gate.clone();
        async move {
            if asked.path == "/token" {
                gate.acquire().await.unwrap().forget();
            }
            registry(&asked)
        }
    })
    .await;
    let upstream = upstream(&server);
    let call = || {
        let upstream = upstream.clone();
        tokio::spawn(async move {
            upstream
                .manifest(&name("a"), &reference("v1"), &configured())
                .await
        })
    };
    let first = call();
    server.wait_for(2).await; // the challenge and the token
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let second = call();
    opened.add_permits(1);
    second.await.unwrap().unwrap();
    assert_eq!(server.count("/token"), 1);
}

#[tokio::test]
async fn a_revoked_token_is_replaced() {
    let revoked = Arc::new(AtomicBool::new(false));
    let state = revoked.clone();
    let server = Server::start(move |asked| {
        let valid = if state.load(Ordering::SeqCst) {
            "new"
        } else {
            "old"
        };
        async move {
            let expected = format!("Bearer {valid}");
            match asked.authorization() {
                _ if asked.path == "/token" => token(valid),
                Some(value) if value == expected => answer(200, &[], MANIFEST),
                // As nvcr.io: what is said to an expired token leads nowhere.
                Some(_) => answer(
                    401,
                    &[("www-authenticate", "Bearer realm=\"http://127.0.0.1:1/dead\"")],
                    "",
                ),
                None => challenge(&asked, "repository:a:pull"),
            }
        }
    })
    .await;
    let upstream = upstream(&server);
    let fetch = || async {
        upstream
            .manifest(&name("a"), &reference("v1"), &configured())
            .await
    };
    fetch().await.unwrap();
    revoked.store(true, Ordering::SeqCst);
    fetch().await.unwrap();
    assert_eq!(
        server.lines()[3..],
        [
            "GET /v2/a/manifests/v1 Bearer old",
            "GET /v2/a/manifests/v1 -",
            "GET /token -",
            "GET /v2/a/manifests/v1 Bearer new",
        ]
    );
}

#[tokio::test]
async fn a_new_token_that_is_refused_is_the_last_word() {
    let server = Server::start(|asked| async move {
        match asked.path.as_str() {
            "/token" => token("t"),
            _ => challenge(&asked, "repository:nobody/nothing:pull"),
        }
    })
    .await;
    let upstream = upstream(&server);
    for _ in 0..2 {
        let error = upstream
            .manifest(&name("nobody/nothing"), &reference("v1"), &configured())
            .await
            .unwrap_err();
        assert_eq!((error.kind(), error.status()), (&ErrorKind::Absent, Some(401)));
        assert!(error.is_not_found() && !error.allows_stale());
    }
    // Asked, token, asked; then token, asked.
    assert_eq!(server.log().len(), 5);
}

#[tokio::test]
async fn only_a_token_for_the_very_repository_tells_that_there_is_none() {
    let table = [
        ("repository:a/b:pull", 401, ErrorKind::Absent),
        ("repository:project/a/b:pull", 401, ErrorKind::Absent),
        ("repository:a/b:pull", 403, ErrorKind::Denied),
        ("repository:other:pull", 401, ErrorKind::Denied),
        // ECR Public refuses HEADs of blobs so, whatever the token.
        ("aws", 401, ErrorKind::Denied),
    ];
    for (scope, status, kind) in table {
        let server = Server::start(move |asked| async move {
            match (asked.path.as_str(), asked.authorization()) {
                ("/token", _) => token("t"),
                (_, Some(_)) if status != 401 => answer(status, &[], ""),
                _ => challenge(&asked, scope),
            }
        })
        .await;
        let result = upstream(&server)
            .manifest_head(&name("a/b"), &reference("v1"), &configured())
            .await;
        assert_eq!(result.unwrap_err().kind(), &kind, "{scope} {status}");
    }
}

#[tokio::test]
async fn a_constant_scope_costs_one_token() {
    let server = Server::start(|asked| async move {
        match (asked.path.as_str(), asked.authorization()) {
            ("/token", _) => token("t"),
            (_, Some("Bearer t")) => answer(200, &[], MANIFEST),
            _ => challenge(&asked, "aws"),
        }
    })
    .await;
    let upstream = upstream(&server);
    for repository in ["a", "b/c", "d"] {
        upstream
            .manifest(&name(repository), &reference("v1"), &configured())
            .await
            .unwrap();
    }
    assert_eq!(server.count("/token"), 1);
    assert_eq!(server.log()[1].query, "service=test&scope=aws");
    assert_eq!(server.log().len(), 5);
}

#[tokio::test]
async fn a_refusal_without_challenge_asks_the_root() {
    let server = Server::start(|asked| async move {
        match (asked.path.as_str(), asked.authorization()) {
            ("/token", _) => token("t"),
            ("/sub/v2/", None) => {
                let line = format!("Bearer realm=\"{}/token\",service=\"test\"", asked.me);
                answer(401, &[("www-authenticate", &line)], "")
            }
            (_, Some("Bearer t")) => answer(200, &[], MANIFEST),
            _ => answer(401, &[], ""),
        }
    })
    .await;
    let upstream = super::upstream_with(super::config(&format!("{}/sub/", server.url)));
    upstream
        .manifest(&name("a/b"), &reference("v1"), &configured())
        .await
        .unwrap();
    assert_eq!(
        server.lines(),
        [
            "GET /sub/v2/a/b/manifests/v1 -",
            "GET /sub/v2/ -",
            "GET /token -",
            "GET /sub/v2/a/b/manifests/v1 Bearer t",
        ]
    );
    assert_eq!(
        server.log()[2].query,
        "service=test&scope=repository%3Aa%2Fb%3Apull"
    );
}

#[tokio::test]
async fn a_token_service_that_refuses_means_private_or_missing() {
    let server = Server::start(|asked| async move {
        match asked.path.as_str() {
            "/token" => answer(
                403,
                &[],
                r#"{"errors":[{"code":"DENIED","message":"requested access"}]}"#,
            ),
            _ => challenge(&asked, "repository:a:pull"),
        }
    })
    .await;
    let error = upstream(&server)
        .manifest(&name("a"), &reference("v1"), &configured())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::TokenDenied);
    assert!(error.is_not_found() && error.allows_stale());
    assert!(error.message().contains("DENIED"));
}

#[tokio::test]
async fn answers_that_are_no_tokens() {
    for body in ["", "<html>", "{}", r#"{"token":""}"#, "[]"] {
        let server = Server::start(move |asked| async move {
            if asked.path == "/token" {
                answer(200, &[], body)
            } else {
                challenge(&asked, "x")
            }
        })
        .await;
        let error = upstream(&server)
            .manifest(&name("a"), &reference("v1"), &configured())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Protocol, "{body}");
    }
}
