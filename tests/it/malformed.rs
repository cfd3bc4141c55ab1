//! Names, tags and digests that are none: refused at the door with the specification's words, whatever spelling of `..`
//! and `%` they come in, and never passed on.

use crate::expect::{assert_error, code};
use crate::support::prelude::*;

async fn start() -> (Upstream, Daemon) {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream).start().await;
    (upstream, daemon)
}

/// As [`get`], but the path goes out as it is written: other clients tidy up `..` first.
async fn get_verbatim(base: &str, target: &str) -> Answer {
    let mut raw = Raw::connect(base).await;
    let host = base.trim_start_matches("http://");
    raw.write(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        .await;
    let head = raw
        .head()
        .await
        .unwrap_or_else(|| panic!("no answer to {target}"));
    let (body, ending) = raw.finish().await;
    assert_eq!(ending, Ending::Complete, "{target}");
    Answer {
        status: head.status,
        headers: head.headers,
        body,
        error: None,
    }
}

#[tokio::test]
async fn malformed_names_tags_and_digests_are_refused_at_the_door() {
    let (upstream, daemon) = start().await;
    let hex = "a".repeat(64);
    let long_name = format!("docker-hub/{}", "a/".repeat(130));
    let long_tag = "t".repeat(129);
    let name_faults = [
        "docker-hub/Library/nginx",
        "Docker-Hub/library/nginx",
        "docker-hub/lib___rary/nginx",
        "docker-hub/-lib/nginx",
        "docker-hub/lib-/nginx",
        "docker-hub/lib..rary/nginx",
        "docker-hub/..",
        "docker-hub/../../etc",
        "docker-hub/.",
        "docker-hub/%2e%2e/%2e%2e/etc",
        "docker-hub/library%252Fnginx",
        "docker-hub/library%00/nginx",
        "docker-hub/libr%C3%A4ry/nginx",
        "docker-hub/library%20/nginx",
        "docker-hub/%zz/nginx",
        "docker-hub//nginx",
        "docker.io:443/library/nginx",
        "",
        "/",
        &format!("{long_name}a"),
    ];
    for name in name_faults {
        for rest in ["manifests/1", "tags/list"] {
            let answer = get_verbatim(&daemon.url(), &format!("/v2/{name}/{rest}")).await;
            let code = code(&answer);
            assert!(matches!(answer.status, 400 | 404), "{name}: {}", answer.status);
            assert!(
                matches!(code.as_str(), "NAME_INVALID" | "NAME_UNKNOWN" | "UNSUPPORTED"),
                "{name}: {code}"
            );
        }
    }
    let reference_faults = [
        ".hidden",
        "-tag",
        "a%20b",
        "a%2Fb",
        "%00",
        "..",
        "%2e%2e",
        "t%C3%A4g",
        &long_tag,
        "sha256:",
        "sha256:abc",
        "sha256:baddigeststring",
        &format!("sha256:{}", "A".repeat(64)),
        &format!("sha256:{}", "g".repeat(64)),
        &format!("sha256:{hex}0"),
        &format!("sha512:{hex}"),
        &format!("SHA256:{hex}"),
        &format!("md5:{}", "a".repeat(32)),
        &format!("sha256:{hex}/.."),
        &format!("sha256:..%2f{hex}"),
    ];
    for reference in reference_faults {
        for kind in ["manifests", "blobs", "referrers"] {
            let target = format!("/v2/docker-hub/library/nginx/{kind}/{reference}");
            let answer = get_verbatim(&daemon.url(), &target).await;
            let code = code(&answer);
            assert!(matches!(answer.status, 400 | 404), "{target}: {}", answer.status);
            assert!(
                !matches!(code.as_str(), "UNKNOWN" | "UNAVAILABLE"),
                "{target}: {code}"
            );
        }
    }
    // The specification asks for exactly this.
    let target = "/v2/docker-hub/library/nginx/referrers/sha256:abc";
    let invalid = get_verbatim(&daemon.url(), target).await;
    assert_error(&invalid, 400, "DIGEST_INVALID");
    let tag = get_verbatim(&daemon.url(), "/v2/docker-hub/library/nginx/blobs/latest").await;
    assert_error(&tag, 400, "DIGEST_INVALID");
    assert_eq!(upstream.requests().len(), 0, "nothing of this is for an upstream");

    // What is escaped without need means what it says.
    let image = Image::simple(1, 10);
    upstream.put("library/nginx", "1", &image);
    let escaped = image.digest().replace(':', "%3A");
    for path in [
        format!("/v2/docker-hub/library/nginx/manifests/{escaped}"),
        format!("/v2/docker-hub%2Flibrary%2fnginx/manifests/{escaped}"),
        "/v2/docker-hub/library/%6Eginx/manifests/%31".to_owned(),
    ] {
        let answer = get_verbatim(&daemon.url(), &path).await;
        assert_eq!(answer.ok(), image.root().bytes, "{path}");
    }
    let asked: Vec<_> = upstream
        .requests()
        .iter()
        .map(|asked| asked.path().to_owned())
        .collect();
    assert!(asked.iter().all(|path| !path.contains('%')), "{asked:?}");
}
