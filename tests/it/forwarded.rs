//! What proxies say of their clients is believed from trusted ones alone; and the bounds of a connection, as configured.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::prelude::*;

const TOLD: [(&str, &str); 3] = [
    ("x-forwarded-for", "10.9.9.9, 203.0.113.9"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "cache.example.com"),
];

#[tokio::test]
async fn a_stranger_is_not_believed() {
    let daemon = Daemon::builder()
        .setting("server.trusted_proxies", "[\"10.0.0.0/8\"]")
        .start()
        .await;
    get_with(format!("{}/v2/?stranger", daemon.url()), &TOLD)
        .await
        .ok();
    let line = daemon.wait_for_log("/v2/?stranger").await;
    assert!(line.contains(" client=127.0.0.1:"), "{line}");
    assert!(
        !line.contains("203.0.113.9") && !line.contains("scheme=") && !line.contains("proxy="),
        "{line}"
    );
}

#[tokio::test]
async fn a_trusted_proxy_speaks_for_its_client() {
    let daemon = Daemon::builder()
        .setting("server.trusted_proxies", "[\"10.0.0.0/8\", \"127.0.0.1\"]")
        .start()
        .await;
    get_with(format!("{}/v2/?old", daemon.url()), &TOLD).await.ok();
    let line = daemon.wait_for_log("/v2/?old").await;
    assert!(
        line.contains(" client=203.0.113.9 proxy=127.0.0.1:") && line.contains(" scheme=https "),
        "{line}"
    );
    let standard = [(
        "forwarded",
        "for=\"[2001:db8::9]:4711\";proto=https, for=10.1.1.1",
    )];
    get_with(format!("{}/v2/?new", daemon.url()), &standard)
        .await
        .ok();
    let line = daemon.wait_for_log("/v2/?new").await;
    assert!(
        line.contains(" client=2001:db8::9 proxy=127.0.0.1:") && line.contains(" scheme=https "),
        "{line}"
    );
    get(format!("{}/v2/?itself", daemon.url())).await.ok();
    let line = daemon.wait_for_log("/v2/?itself").await;
    assert!(
        line.contains(" client=127.0.0.1:") && !line.contains("proxy="),
        "{line}"
    );
    // No word of a proxy opens the admin API.
    let refused = get_with(
        format!("{}/api/status", daemon.url()),
        &[("x-forwarded-for", "127.0.0.1")],
    )
    .await;
    assert_eq!(refused.status, 403);
}

#[tokio::test]
async fn heads_have_a_bound() {
    let daemon = Daemon::builder()
        .setting("server.max_header_size", "\"16KiB\"")
        .start()
        .await;
    let url = format!("{}/v2/", daemon.url());
    let of = |size: usize| "x".repeat(size);
    get_with(&url, &[("x-long", &of(12_000))]).await.ok();
    assert_eq!(get_with(&url, &[("x-long", &of(40_000))]).await.status, 431);
    let default = Daemon::builder().start().await;
    let url = format!("{}/v2/", default.url());
    get_with(&url, &[("x-long", &of(28_000))]).await.ok();
    assert_eq!(get_with(&url, &[("x-long", &of(60_000))]).await.status, 431);
}

#[tokio::test]
async fn a_head_that_comes_in_drops_is_not_waited_for() {
    let daemon = Daemon::builder()
        .setting("server.header_timeout", "\"300ms\"")
        .start()
        .await;
    let stream = TcpStream::connect(daemon.address()).await.expect("a connection");
    let (mut read, mut write) = stream.into_split();
    write
        .write_all(b"GET /v2/ HTTP/1.1\r\nhost: test\r\nx-slow: ")
        .await
        .expect("an open connection");
    let drops = tokio::spawn(async move {
        let mut pause = tokio::time::interval(std::time::Duration::from_millis(20));
        while write.write_all(b"x").await.is_ok() {
            pause.tick().await;
        }
    });
    let mut got = Vec::new();
    let _ = soon("the end", read.read_to_end(&mut got)).await;
    let got = String::from_utf8_lossy(&got).into_owned();
    assert!(got.is_empty() || got.starts_with("HTTP/1.1 408 "), "{got}");
    drops.abort();
}

#[tokio::test]
async fn one_address_has_so_many_connections() {
    let daemon = Daemon::builder()
        .setting("server.max_connections_per_address", "2")
        .start()
        .await;
    let url = format!("{}/v2/", daemon.url());
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut raw = Raw::get(&url).await;
        assert_eq!(raw.head().await.expect("an answer").status, 200);
        held.push(raw);
    }
    let mut beyond = TcpStream::connect(daemon.address()).await.expect("a connection");
    let mut rest = Vec::new();
    let _ = soon("the end", beyond.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
    daemon.wait_for_log("too many connections from one address").await;
    drop(held);
    soon("a place", async {
        while try_get(&url, &[]).await.is_none_or(|answer| answer.status != 200) {}
    })
    .await;
}
