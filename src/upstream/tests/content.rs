//! Manifests and blobs: what is verified, ranges, cuts, retries.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sha2::Digest as _;

use super::server::{Server, answer, chunked, cut, stalled};
use super::{MANIFEST, config, configured, name, reference, sha256, upstream, upstream_with};
use crate::oci::{ACCEPT_MANIFESTS, Algorithm, Digest, MAX_MANIFEST_SIZE};
use crate::upstream::{ErrorKind, Failure, Limit};

const BLOB: &[u8] = b"0123456789";

#[tokio::test]
async fn manifests_come_with_type_and_digest() {
    let digest = sha256(&MANIFEST).to_string();
    let server = Server::start(move |_| {
        let digest = digest.clone();
        async move {
            let headers = [
                ("content-type", "application/x; charset=utf-8"),
                ("docker-content-digest", &*digest),
            ];
            answer(200, &headers, MANIFEST)
        }
    })
    .await;
    let upstream = upstream(&server);
    let by_tag = upstream
        .manifest(&name("a"), &reference("v1"), &configured())
        .await
        .unwrap();
    assert_eq!((by_tag.digest, &by_tag.bytes), (sha256(&MANIFEST), &MANIFEST));
    assert_eq!(by_tag.media_type.unwrap().as_str(), "application/x");
    let sha512 = Digest::from_hash(Algorithm::Sha512, &sha2::Sha512::digest(&MANIFEST)).unwrap();
    let by_digest = reference(&sha512.to_string());
    let by_digest = upstream
        .manifest(&name("a"), &by_digest, &configured())
        .await
        .unwrap();
    assert_eq!(by_digest.digest, sha512);
    let head = upstream
        .manifest_head(&name("a"), &reference("v1"), &configured())
        .await
        .unwrap();
    assert_eq!(
        (head.digest, head.size),
        (Some(sha256(&MANIFEST)), Some(MANIFEST.len() as u64))
    );
    for asked in server.log() {
        assert_eq!(asked.header("accept"), Some(ACCEPT_MANIFESTS));
        assert_eq!(asked.header("accept-encoding"), Some("identity"));
        assert!(asked.header("user-agent").unwrap().starts_with("wharfinger/"));
    }
}

#[tokio::test]
async fn manifests_that_are_not_what_they_should_be() {
    let server = Server::start(|asked| async move {
        let other = sha256(b"other").to_string();
        let big = MAX_MANIFEST_SIZE + 1;
        match asked.path.as_str() {
            "/v2/told/manifests/v1" => answer(200, &[("docker-content-digest", &other)], MANIFEST),
            "/v2/big/manifests/v1" => answer(200, &[], vec![b' '; big]),
            "/v2/endless/manifests/v1" => chunked(
                200,
                &[],
                vec![Bytes::from(vec![b' '; big / 2]), Bytes::from(vec![b' '; big])],
            ),
            "/v2/odd/manifests/v1" => answer(200, &[("docker-content-digest", "md5:x")], MANIFEST),
            _ => answer(200, &[], MANIFEST),
        }
    })
    .await;
    let upstream = upstream(&server);
    let fetch = |repository: &'static str, what: String| {
        let upstream = upstream.clone();
        async move {
            upstream
                .manifest(&name(repository), &reference(&what), &configured())
                .await
        }
    };
    for (repository, what) in [
        ("asked", sha256(b"x").to_string()),
        ("told", "v1".into()),
        ("big", "v1".into()),
        ("endless", "v1".into()),
    ] {
        let error = fetch(repository, what).await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Protocol, "{repository}");
    }
    // A digest that nobody can read proves nothing.
    fetch("odd", "v1".into()).await.unwrap();
}

#[tokio::test]
async fn a_manifest_that_breaks_off_is_asked_for_once_more() {
    let times = Arc::new(AtomicUsize::new(0));
    let server = Server::start(move |asked| {
        let first = times.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first || asked.path.starts_with("/v2/never/") {
                cut(200, &[], &[b"{"])
            } else {
                answer(200, &[], MANIFEST)
            }
        }
    })
    .await;
    let upstream = upstream(&server);
    upstream
        .manifest(&name("a"), &reference("v1"), &configured())
        .await
        .unwrap();
    let result = upstream
        .manifest(&name("never"), &reference("v1"), &configured())
        .await;
    assert_eq!(result.unwrap_err().kind(), &ErrorKind::Unavailable(Failure::Cut));
    assert_eq!(server.log().len(), 4);
}

#[tokio::test]
async fn downloads_go_on_by_range() {
    let server = Server::start(|asked| async move {
        let range = asked.header("range").map(str::to_owned);
        match (asked.path.split('/').nth(2).unwrap(), range.as_deref()) {
            ("good", Some("bytes=4-")) => answer(206, &[("content-range", "bytes 4-9/10")], &BLOB[4..]),
            ("unknown", Some("bytes=4-")) => answer(206, &[("content-range", "bytes 4-9/*")], &BLOB[4..]),
            ("part", Some("bytes=4-")) => answer(206, &[("content-range", "bytes 4-6/10")], &BLOB[4..7]),
            ("other", Some("bytes=4-")) => answer(206, &[("content-range", "bytes 0-9/10")], BLOB),
            ("length", Some("bytes=4-")) => answer(206, &[("content-range", "bytes 4-9/10")], BLOB),
            ("none", Some("bytes=4-")) => answer(206, &[], &BLOB[4..]),
            ("end", Some("bytes=10-")) => answer(416, &[("content-range", "bytes */10")], ""),
            _ => answer(200, &[], BLOB),
        }
    })
    .await;
    let upstream = upstream(&server);
    let blob = |repository: &'static str, offset| {
        let upstream = upstream.clone();
        async move {
            upstream
                .blob(&name(repository), &sha256(BLOB), (offset, None), &configured())
                .await
        }
    };
    // repository, where it starts, size, what comes
    let table: [(_, _, _, &[u8]); 4] = [
        ("good", 4, Some(10), b"456789"),
        ("unknown", 4, None, b"456789"),
        ("part", 4, Some(10), b"456"),
        ("ignores", 0, Some(10), b"0123456789"),
    ];
    for (repository, offset, size, bytes) in table {
        let mut body = blob(repository, 4).await.unwrap();
        assert_eq!((body.offset, body.size), (offset, size), "{repository}");
        let mut received = Vec::new();
        while let Some(chunk) = body.chunk().await.unwrap() {
            received.extend_from_slice(&chunk);
        }
        assert_eq!(received, bytes, "{repository}");
    }
    for repository in ["other", "length", "none"] {
        let error = blob(repository, 4).await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Protocol, "{repository}");
    }
    let error = blob("end", 10).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::RangeNotSatisfiable { size: Some(10) });
    blob("whole", 0).await.unwrap();
    assert_eq!(server.log().last().unwrap().header("range"), None);
}

#[tokio::test]
async fn a_body_that_breaks_off_or_falls_silent_never_ends_well() {
    let server = Server::start(|asked| async move {
        match asked.path.split('/').nth(2).unwrap() {
            "cut" => cut(200, &[("content-length", "10")], &[b"0123"]),
            "chunked" => cut(200, &[], &[b"0123"]),
            "short" => chunked(
                206,
                &[("content-range", "bytes 1-9/10")],
                vec![Bytes::from_static(b"0123")],
            ),
            "long" => chunked(
                206,
                &[("content-range", "bytes 1-2/10")],
                vec![Bytes::from_static(b"0123")],
            ),
            _ => stalled(200, &[("content-length", "10")], b"0123"),
        }
    })
    .await;
    let mut config = config(&server.url);
    config.idle_timeout = Duration::from_millis(20);
    let upstream = upstream_with(config);
    let table = [
        ("cut", 0, ErrorKind::Unavailable(Failure::Cut)),
        ("chunked", 0, ErrorKind::Unavailable(Failure::Cut)),
        ("short", 1, ErrorKind::Unavailable(Failure::Cut)),
        ("long", 1, ErrorKind::Protocol),
        ("silent", 0, ErrorKind::Unavailable(Failure::Timeout)),
    ];
    for (repository, offset, kind) in table {
        let mut body = upstream
            .blob(&name(repository), &sha256(BLOB), (offset, None), &configured())
            .await
            .unwrap();
        let error = loop {
            match body.chunk().await {
                Ok(chunk) => assert!(chunk.is_some(), "{repository} ended well"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), &kind, "{repository}");
    }
}

#[tokio::test]
async fn a_probe_tells_the_size() {
    let server = Server::start(|asked| async move {
        assert_eq!(asked.header("range"), Some("bytes=0-0"));
        match asked.path.split('/').nth(2).unwrap() {
            "range" => answer(206, &[("content-range", "bytes 0-0/10")], "0"),
            "untold" => answer(206, &[("content-range", "bytes 0-0/*")], "0"),
            "whole" => answer(200, &[], BLOB),
            "empty" => answer(200, &[], ""),
            "empty-range" => answer(416, &[("content-range", "bytes */0")], ""),
            "odd" => answer(416, &[("content-range", "bytes */10")], ""),
            _ => answer(404, &[], ""),
        }
    })
    .await;
    let upstream = upstream(&server);
    let sizes = [
        ("range", Some(10)),
        ("untold", None),
        ("whole", Some(10)),
        ("empty", Some(0)),
        ("empty-range", Some(0)),
    ];
    for (repository, size) in sizes {
        let probed = upstream
            .blob_probe(&name(repository), &sha256(BLOB), &configured())
            .await
            .unwrap();
        assert_eq!(probed, size, "{repository}");
    }
    for (repository, kind) in [("odd", ErrorKind::Unexpected), ("gone", ErrorKind::NotFound)] {
        let error = upstream
            .blob_probe(&name(repository), &sha256(BLOB), &configured())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), &kind, "{repository}");
    }
}

#[tokio::test]
async fn passing_failures_are_asked_again_and_others_not() {
    let times = Arc::new(AtomicUsize::new(0));
    let counter = times.clone();
    let server = Server::start(move |asked| {
        let time = counter.fetch_add(1, Ordering::SeqCst);
        async move {
            match asked.path.split('/').nth(2).unwrap() {
                "twice" if time == 2 => answer(200, &[], MANIFEST),
                "twice" => answer(503, &[], ""),
                "busy" => answer(503, &[("retry-after", "120")], ""),
                "limited" => answer(429, &[("retry-after", "70")], r#"{"message":"slow down"}"#),
                "ghcr" => answer(
                    429,
                    &[],
                    r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"retry-after: 35.852µs, allowed: 44000/minute"}]}"#,
                ),
                code => answer(code.parse().unwrap(), &[], ""),
            }
        }
    })
    .await;
    let limited = |duration| ErrorKind::RateLimited {
        retry_after: Some(duration),
        limit: Limit::Requests,
    };
    let failing = |status| ErrorKind::Unavailable(Failure::Status(status));
    // repository, what becomes of it, requests
    let table = [
        ("twice", None, 3),
        ("503", Some(failing(503)), 3),
        ("500", Some(failing(500)), 3),
        ("408", Some(failing(408)), 3),
        ("501", Some(failing(501)), 1),
        ("busy", Some(failing(503)), 1),
        ("limited", Some(limited(Duration::from_secs(70))), 1),
        // When its turn comes.
        ("ghcr", Some(limited(Duration::from_nanos(35_852))), 3),
        ("404", Some(ErrorKind::NotFound), 1),
        ("403", Some(ErrorKind::Denied), 1),
        ("400", Some(ErrorKind::Unexpected), 1),
    ];
    for (repository, kind, requests) in table {
        // Each with a breaker of its own.
        let upstream = upstream(&server);
        times.store(0, Ordering::SeqCst);
        let result = upstream
            .manifest(&name(repository), &reference("v1"), &configured())
            .await;
        assert_eq!(
            result.err().map(|error| error.kind().clone()),
            kind,
            "{repository}"
        );
        assert_eq!(times.load(Ordering::SeqCst), requests, "{repository}");
    }
}
