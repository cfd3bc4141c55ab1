//! Clients that send a byte now and then, to hold something up for ever.

use std::time::Duration;

use crate::hosting::{APP, Hosting, closing, hosting};
use crate::support::client::Head;
use crate::support::prelude::*;

/// The head of a request of known length.
async fn begin(method: &str, url: &str, kind: &str, length: usize) -> Raw {
    let mut raw = Raw::connect(url).await;
    let length = length.to_string();
    let headers = [("content-length", &*length), ("content-type", kind)];
    raw.ask(method, url, &headers).await;
    raw
}

/// Sends a byte every few milliseconds until there is an answer: it, and how many were sent.
async fn trickle(raw: &mut Raw) -> (Head, usize) {
    let mut sent = 0;
    let answered = async {
        loop {
            // The answer may come just before; then the other end takes nothing more.
            let open = raw.try_write(b"{").await;
            sent += 1;
            let pause = Duration::from_millis(5);
            match tokio::time::timeout(pause, raw.head()).await {
                Ok(head) => return head.expect("an answer, before the connection ends"),
                Err(_) => assert!(open, "the connection ended without an answer"),
            }
        }
    };
    (soon("an answer to a body that trickles", answered).await, sent)
}

#[tokio::test]
async fn small_bodies_have_so_much_time_and_blobs_have_theirs() {
    let hosting = Hosting::of(hosting().setting("server.body_timeout", "\"200ms\"")).await;
    // This one takes longer than all that follow.
    let (session, bytes) = (hosting.begin(APP).await, random(1, 1000));
    let end = closing(&session, &sha256(&bytes));
    let mut blob = begin("PUT", &end, "application/octet-stream", bytes.len()).await;
    assert!(blob.try_write(&bytes[..500]).await);
    let form = "application/x-www-form-urlencoded";
    let index = "application/vnd.oci.image.index.v1+json";
    for (method, url, kind) in [
        ("PUT", hosting.at(APP, "manifests/v1"), index),
        ("POST", format!("{}/token", hosting.daemon.url()), form),
        (
            "POST",
            format!("{}/api/repository-create", hosting.daemon.url()),
            "application/json",
        ),
    ] {
        let mut raw = begin(method, &url, kind, 60_000).await;
        let (head, sent) = trickle(&mut raw).await;
        assert_eq!(head.status, 408, "{url}");
        assert!(sent < 60_000);
        let (text, _) = raw.finish().await;
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(text.contains("did not come within 200ms"), "{text}");
        // And one that says nothing of its length.
        let mut raw = Raw::connect(&url).await;
        let headers = [("transfer-encoding", "chunked"), ("content-type", kind)];
        raw.ask(method, &url, &headers).await;
        raw.write("ffff\r\n").await;
        assert_eq!(trickle(&mut raw).await.0.status, 408, "{url}");
    }
    assert!(blob.try_write(&bytes[500..]).await);
    assert_eq!(blob.head().await.expect("an answer").status, 201);
    assert_eq!(hosting.status(APP, "manifests/v1").await, 404);
}
