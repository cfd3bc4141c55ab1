//! Behind a proxy: whose address counts, and where clients are sent. From a trusted one; a stranger may say what it likes.

use serde_json::json;

use super::{Login as _, PULLED};
use crate::support::daemon::Builder;
use crate::support::prelude::*;

const TRUSTED: &str = r#"["127.0.0.1"]"#;
const STRANGER: &str = r#"["192.0.2.0/24"]"#;

fn behind(builder: Builder, proxies: &str) -> Builder {
    builder.setting("server.trusted_proxies", proxies)
}

#[tokio::test]
async fn an_open_network_is_where_the_client_is() {
    let upstream = Upstream::start().await;
    upstream.put("library/app", "latest", &Image::simple(1, 10_000));
    let over = |proxies| {
        behind(Daemon::over(&upstream), proxies)
            .setting("auth.anonymous", "[]")
            .setting("auth.open_networks", r#"["10.0.0.0/8"]"#)
            .start()
    };
    let (daemon, other) = (over(TRUSTED).await, over(STRANGER).await);
    daemon.user("alice", "correct horse").await;
    let inside = [
        ("x-forwarded-for", "10.1.2.3"),
        ("forwarded", "for=10.1.2.3;proto=https"),
        ("forwarded", "for=203.0.113.9, for=10.1.2.3;proto=https"),
    ];
    let outside = [
        ("x-forwarded-for", "203.0.113.9"),
        // What the client wrote itself stands before what the proxy did.
        ("x-forwarded-for", "10.1.2.3, 203.0.113.9"),
        ("forwarded", "for=10.1.2.3, for=203.0.113.9;proto=https"),
        ("forwarded", "for=unknown;proto=https"),
        ("x-none", ""),
    ];
    let check = async |daemon: &Daemon, header: (&str, &str), secured: bool, status: u16| {
        // The standard's header says it itself.
        let told = [header, ("x-forwarded-proto", "https")];
        let old = header.0 != "forwarded";
        let headers = &told[..=usize::from(secured && old)];
        for url in [
            format!("{}/v2/", daemon.url()),
            daemon.manifest_url(PULLED, "latest"),
        ] {
            let answer = get_with(&url, headers).await;
            assert_eq!(answer.status, status, "{headers:?} {url}");
            let asked = answer.headers.contains_key("www-authenticate");
            assert_eq!(asked, status == 401, "{headers:?} {url}");
        }
    };
    for header in inside {
        check(&daemon, header, true, 200).await;
        check(&other, header, true, 401).await;
    }
    for header in outside {
        check(&daemon, header, true, 401).await;
    }
    // Where a login would be seen on its way nobody is asked for one.
    check(&daemon, outside[0], false, 403).await;
    check(&other, outside[0], false, 401).await;
}

#[tokio::test]
async fn clients_are_sent_where_they_came_from() {
    let open = || {
        Daemon::builder()
            .setting("hosted.template", r#"[{ pattern = "team/*" }]"#)
            .setting("auth.anonymous", r#"["pull"]"#)
            .setting("auth.open_networks", r#"["192.0.2.0/24"]"#)
    };
    let trusting = behind(open(), TRUSTED).start().await;
    let wary = behind(open(), STRANGER).start().await;
    let old = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "cache.example.com"),
    ];
    let new = [(
        "forwarded",
        "for=203.0.113.9;proto=https;host=\"cache.example.com:8443\"",
    )];
    for (headers, base) in [
        (&old[..], "https://cache.example.com"),
        (&new[..], "https://cache.example.com:8443"),
        // The host by which the proxy asked, when it tells of no other.
        (&old[..2], ""),
    ] {
        for daemon in [&trusting, &wary] {
            let own = daemon.url();
            let secured = own.replace("http:", "https:");
            let expected = match (std::ptr::eq(daemon, &raw const trusting), base) {
                (false, _) => &own,
                (true, "") => &secured,
                (true, base) => base,
            };
            let url = format!("{own}/v2/team/app/blobs/uploads/");
            let refused = send(Method::POST, &url, headers, "").await;
            assert_eq!(refused.status, 401);
            let challenge = refused.header("www-authenticate");
            let realm = format!("Bearer realm=\"{expected}/token\",service=\"wharfinger\",");
            assert!(challenge.starts_with(&realm), "{headers:?}: {challenge}");
        }
    }
}

#[tokio::test]
async fn places_are_told_without_a_host() {
    let daemon = behind(crate::hosting::hosting(), TRUSTED).start().await;
    let told = [
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "cache.example.com"),
        ("x-forwarded-for", "203.0.113.9"),
    ];
    for headers in [&told[..], &[]] {
        let begun = send(
            Method::POST,
            format!("{}/v2/acme/app/blobs/uploads/", daemon.url()),
            headers,
            "",
        )
        .await;
        let location = begun.header("location").to_owned();
        // Right behind whatever is in front, since it is said relative to what was asked for (RFC 9110, section 10.2.2).
        assert!(location.starts_with("/v2/acme/app/blobs/uploads/"), "{location}");
        let digest = sha256(b"a layer");
        let url = crate::hosting::closing(&format!("{}{location}", daemon.url()), &digest);
        let ended = send(Method::PUT, url, headers, "a layer").await;
        assert_eq!(ended.status, 201, "{}", ended.text());
        assert_eq!(ended.header("location"), format!("/v2/acme/app/blobs/{digest}"));
        // So is the next page.
        let config = json!({ "mediaType": "text/plain", "digest": digest, "size": "a layer".len() });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": [],
        });
        let list = format!("{}/v2/acme/app/tags/list?n=1", daemon.url());
        for tag in ["1", "2"] {
            let url = format!("{}/v2/acme/app/manifests/{tag}", daemon.url());
            let put = send(Method::PUT, url, headers, manifest.to_string()).await;
            assert_eq!(put.status, 201, "{}", put.text());
            assert_eq!(
                put.header("location"),
                format!("/v2/acme/app/manifests/{}", put.header("docker-content-digest"))
            );
        }
        let page = send(Method::GET, list, headers, "").await;
        assert_eq!(
            page.header("link"),
            "</v2/acme/app/tags/list?n=1&last=1>; rel=\"next\""
        );
    }
}
