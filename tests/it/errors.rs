//! What a client is told when something cannot be had: statuses that make it do the right thing next, the
//! specification's body, and no more than it may know.

use std::collections::HashSet;

use crate::expect::{assert_error, code};
use crate::support::prelude::*;

const APP: &str = "docker-hub/library/app";

/// Where a client has nowhere else to go, and where it has; the latter with `ns` or on the mirror door.
fn doors(daemon: &Daemon) -> (Vec<String>, Vec<String>) {
    let (main, mirror) = (daemon.url(), daemon.mirror_url());
    let alone = vec![
        format!("{main}/v2/{APP}/manifests/1"),
        format!("{main}/v2/docker.io/library/app/manifests/1"),
        format!("{main}/v2/library/app/manifests/1"),
        format!("{main}/docker.io/v2/library/app/manifests/1"),
    ];
    let with_others = vec![
        format!("{main}/v2/library/app/manifests/1?ns=docker.io"),
        format!("{main}/docker.io/v2/library/app/manifests/1?ns=docker.io"),
        format!("{main}/mirror/v2/library/app/manifests/1"),
        format!("{mirror}/v2/library/app/manifests/1"),
    ];
    (alone, with_others)
}

async fn start() -> (Upstream, Daemon) {
    let upstream = Upstream::start().await;
    upstream.put("library/app", "1", &Image::simple(1, 100));
    let daemon = Daemon::over(&upstream).mirror_door().start().await;
    (upstream, daemon)
}

#[tokio::test]
async fn a_limit_stays_429_where_there_is_no_other_place_to_ask() {
    let (upstream, daemon) = start().await;
    let (alone, with_others) = doors(&daemon);
    upstream.always(manifests(), reply(429).header("retry-after", "17"));
    for url in &alone {
        let answer = get(url).await;
        assert_error(&answer, 429, "TOOMANYREQUESTS");
        let seconds: u64 = answer.header("retry-after").parse().expect("seconds");
        assert!((1..=17).contains(&seconds), "{url}: {seconds}");
    }
    // containerd repeats a 429 at once, podman sleeps on it: 503 lets both go on elsewhere.
    for url in &with_others {
        let answer = get(url).await;
        assert_error(&answer, 503, "UNAVAILABLE");
        assert!(!answer.header("retry-after").is_empty(), "{url}");
    }
    // One question of ours for all of theirs: a limit is not to be pressed.
    assert_eq!(upstream.requests().len(), 1, "{:#?}", upstream.summary());
    let (upstream, daemon) = start().await;
    let (alone, _) = doors(&daemon);
    upstream.always(manifests(), reply(429));
    let untold = get(&alone[0]).await;
    let seconds: u64 = untold.header("retry-after").parse().expect("seconds");
    assert!(seconds > 0);
    // As GHCR says it.
    let (upstream, daemon) = start().await;
    let (alone, _) = doors(&daemon);
    let text = "{\"errors\":[{\"code\":\"TOOMANYREQUESTS\",\"message\":\"retry-after: 22.5s, allowed: 44000/minute\"}]}";
    upstream.always(manifests(), reply(429).body(text));
    assert_eq!(get(&alone[0]).await.header("retry-after"), "23");
}

#[tokio::test]
async fn blobs_and_lists_are_limited_the_same_way() {
    let (upstream, daemon) = start().await;
    upstream.always(any(), reply(429).header("retry-after", "17"));
    for rest in [
        format!("blobs/{}", sha256(b"x")),
        format!("manifests/{}", sha256(b"x")),
        format!("referrers/{}", sha256(b"x")),
        "tags/list".to_owned(),
    ] {
        let alone = get(format!("{}/v2/{APP}/{rest}", daemon.url())).await;
        assert_error(&alone, 429, "TOOMANYREQUESTS");
        let mirrored = get(format!("{}/v2/library/app/{rest}", daemon.mirror_url())).await;
        assert_error(&mirrored, 503, "UNAVAILABLE");
        assert_eq!(
            head(format!("{}/v2/{APP}/{rest}", daemon.url())).await.status,
            429,
            "{rest}"
        );
    }
}

#[tokio::test]
async fn an_upstream_in_trouble_is_502_503_or_504() {
    let (upstream, daemon) = start().await;
    let (alone, with_others) = doors(&daemon);
    for status in [500, 502, 503, 504, 520] {
        let plan = reply(status)
            .header("retry-after", "60")
            .body("the secret plans of 10.1.2.3");
        upstream.always(manifests(), plan);
        let answer = get(&alone[0]).await;
        assert_error(&answer, 502, "UNAVAILABLE");
        let id = answer.header("x-request-id");
        assert!(!id.is_empty() && answer.text().contains(id), "{}", answer.text());
        let port = upstream.port().to_string();
        for inside in ["secret", "10.1.2.3", "127.0.0.1", &port] {
            assert!(!answer.text().contains(inside), "{}", answer.text());
        }
        assert!(!answer.header("retry-after").is_empty());
    }
    for url in &with_others {
        assert_error(&get(url).await, 503, "UNAVAILABLE");
    }
    // 200s that are none.
    upstream.always(manifests(), html());
    assert_error(&get(&alone[0]).await, 502, "UNAVAILABLE");
    assert_error(&get(&with_others[0]).await, 503, "UNAVAILABLE");
    upstream.refuse().await;
    assert_error(&get(&alone[0]).await, 503, "UNAVAILABLE");
    assert_error(&get(&with_others[0]).await, 503, "UNAVAILABLE");
}

#[tokio::test]
async fn a_passing_failure_is_tried_again_before_the_client_hears_of_it() {
    let (upstream, daemon) = start().await;
    upstream.times(2, manifests(), reply(503));
    assert_eq!(get(daemon.manifest_url(APP, "1")).await.status, 200);
    assert_eq!(upstream.manifest_gets(), 3);
    upstream.put("library/app", "2", &Image::simple(2, 10));
    upstream.once(manifests(), serve().hang_up());
    assert_eq!(get(daemon.manifest_url(APP, "2")).await.status, 200);
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_is_504() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream)
        .setting("upstream.docker-hub.header_timeout", "\"50ms\"")
        .start()
        .await;
    let gate = Gate::new();
    upstream.always(manifests(), serve().hold_head(&gate));
    let answer = get(daemon.manifest_url(APP, "1")).await;
    assert_error(&answer, 504, "UNAVAILABLE");
    let with_ns = get(format!(
        "{}/v2/library/app/manifests/1?ns=docker.io",
        daemon.url()
    ))
    .await;
    assert_error(&with_ns, 503, "UNAVAILABLE");
    gate.release();
}

#[tokio::test]
async fn pushes_are_refused_for_what_they_are() {
    let (upstream, daemon) = start().await;
    let digest = sha256(b"x");
    let pushes = [
        (Method::POST, "blobs/uploads/".to_owned()),
        (Method::POST, format!("blobs/uploads/?digest={digest}")),
        (Method::POST, format!("blobs/uploads/?mount={digest}&from=a/b")),
        (
            Method::PATCH,
            "blobs/uploads/8d6f2d6c-95c4-4b3c-b3ad-3b4a1a1f6c10".to_owned(),
        ),
        (
            Method::PUT,
            format!("blobs/uploads/8d6f2d6c-95c4-4b3c-b3ad-3b4a1a1f6c10?digest={digest}"),
        ),
        (
            Method::DELETE,
            "blobs/uploads/8d6f2d6c-95c4-4b3c-b3ad-3b4a1a1f6c10".to_owned(),
        ),
        (Method::PUT, "manifests/1".to_owned()),
        (Method::PUT, format!("manifests/{digest}")),
        (Method::DELETE, "manifests/1".to_owned()),
        (Method::DELETE, format!("manifests/{digest}")),
        (Method::DELETE, format!("blobs/{digest}")),
    ];
    for base in [
        format!("{}/v2/{APP}", daemon.url()),
        format!("{}/v2/library/app", daemon.url()),
        format!("{}/docker.io/v2/library/app", daemon.url()),
        format!("{}/mirror/v2/library/app", daemon.url()),
        format!("{}/v2/library/app", daemon.mirror_url()),
    ] {
        for (method, rest) in &pushes {
            let answer = request(method.clone(), format!("{base}/{rest}"), &[]).await;
            assert_error(&answer, 405, "UNSUPPORTED");
            let allowed = answer.header("allow");
            assert!(allowed.contains("GET") && allowed.contains("HEAD"), "{allowed:?}");
        }
    }
    assert_eq!(upstream.connections(), 0);
    // Also with a body, and on a connection that goes on to be used.
    let url = daemon.manifest_url(APP, "1");
    let mut raw = Raw::connect(&url).await;
    raw.write(&format!(
        "PUT /v2/{APP}/manifests/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"
    ))
    .await;
    let head = raw.head().await.expect("an answer");
    assert_eq!((head.status, raw.finish().await.1), (405, Ending::Complete));
    raw.ask("GET", &url, &[]).await;
    assert_eq!(raw.head().await.map(|head| head.status), Some(200));
}

#[tokio::test]
async fn unknown_routes_are_404_with_a_body_that_says_so() {
    let (upstream, daemon) = start().await;
    for path in [
        "/",
        "/favicon.ico",
        "/v1/",
        "/v1/search",
        "/v2/foo",
        "/v2/docker-hub/library/app",
        "/v2/docker-hub/library/app/",
        "/v2/docker-hub/library/app/manifests",
        "/v2/docker-hub/library/app/tags",
        "/v2/docker-hub/library/app/tags/1",
        "/v2/docker-hub/library/app/layers/1",
        "/a/b/v2/library/app/manifests/1",
        "/mirror",
        "/mirror/docker.io/v2/library/app/manifests/1",
        "/metrics/x",
        "//v2/",
    ] {
        let answer = get(format!("{}{path}", daemon.url())).await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
        code(&answer);
    }
    // The operator's pages are not for the nodes of a cluster.
    for path in ["/metrics", "/livez", "/readyz", "/"] {
        assert_eq!(
            get(format!("{}{path}", daemon.mirror_url())).await.status,
            404,
            "{path}"
        );
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn an_oversized_head_is_431() {
    let (upstream, daemon) = start().await;
    let mut raw = Raw::connect(&daemon.url()).await;
    let long = "x".repeat(100_000);
    raw.write(&format!(
        "GET /v2/{APP}/manifests/1 HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n"
    ))
    .await;
    assert_eq!(raw.head().await.map(|head| head.status), Some(431));
    // A long path fits into the head, and is no name.
    let answer = get(format!("{}/v2/{}/manifests/1", daemon.url(), "a".repeat(8000))).await;
    assert_error(&answer, 400, "NAME_INVALID");
    // Nonsense does not bring it down.
    let mut raw = Raw::connect(&daemon.url()).await;
    raw.write("\u{1}\u{2}\u{3} nonsense\r\n\r\n").await;
    assert!(raw.head().await.is_none_or(|head| head.status == 400));
    assert_eq!(get(format!("{}/v2/", daemon.url())).await.status, 200);
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn every_answer_has_an_id_and_says_what_it_is() {
    let (_, daemon) = start().await;
    let (main, mirror) = (daemon.url(), daemon.mirror_url());
    let urls = [
        format!("{main}/v2/"),
        format!("{main}/v2"),
        format!("{main}/mirror/v2/"),
        format!("{main}/docker.io/v2/"),
        format!("{mirror}/v2/"),
        daemon.manifest_url(APP, "1"),
        daemon.manifest_url(APP, "none"),
        daemon.manifest_url(APP, "1"),
        format!("{main}/v2/{APP}/tags/list"),
        format!("{main}/v2/nothing/of/ours"),
        format!("{main}/v2/UPPER/manifests/1"),
    ];
    let mut ids = HashSet::new();
    for url in &urls {
        for answer in [get(url).await, head_with(url, &[("x-request-id", "mine")]).await] {
            assert_eq!(
                answer.header("docker-distribution-api-version"),
                "registry/2.0",
                "{url}"
            );
            let id = answer.header("x-request-id").to_owned();
            assert!(!id.is_empty() && id != "mine", "{url}: {id:?}");
            assert!(ids.insert(id), "{url}: an id came twice");
            assert_eq!(answer.headers.get_all("x-request-id").iter().count(), 1);
        }
    }
    for url in &urls[..5] {
        let base = get(url).await;
        assert_eq!(
            (base.status, base.header("content-type")),
            (200, "application/json")
        );
        assert_eq!(base.json(), serde_json::json!({}));
        assert_eq!(base.header("www-authenticate"), "");
        assert_eq!(head(url).await.header("content-length"), "2");
    }
    // The log knows it under the same id.
    let answer = get(daemon.manifest_url(APP, "1")).await;
    let id = answer.header("x-request-id");
    let line = daemon.wait_for_log(id).await;
    assert!(
        line.contains("status=200") && line.contains("outcome=hit"),
        "{line}"
    );
}
