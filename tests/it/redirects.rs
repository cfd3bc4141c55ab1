//! Where an upstream may send the daemon, and with what: signed URLs of other hosts, their end, loops, and the machines
//! around us, which are nobody's to point at.

use crate::expect::assert_error;
use crate::support::daemon::Builder;
use crate::support::prelude::*;
use crate::upstream_auth::{APP, PASSWORD, authorizations, login, pull, with_image};

#[tokio::test]
async fn a_redirect_to_another_host_leaves_the_credentials_behind() {
    let (registry, image) = with_image("library/app").await;
    let cdn = Upstream::start().await;
    registry.require_bearer(Bearer::new().user("ci", PASSWORD));
    registry.always(blobs(), via_cdn(&cdn, 307, 1));
    registry.always(manifests(), via_cdn(&cdn, 302, 1));
    let daemon = login(Daemon::over(&registry), "docker-hub", PASSWORD)
        .start()
        .await;
    // The CDN answers 400 to any Authorization, and says application/octet-stream of everything.
    pull(&daemon, APP, &image).await;
    assert_eq!(
        (cdn.requests().len(), authorizations(&cdn)),
        (2, Vec::new()),
        "{:#?}",
        cdn.summary()
    );
    assert!(
        cdn.requests()
            .iter()
            .all(|asked| asked.header("cookie").is_empty())
    );
    // The signed URL is nobody else's business.
    assert!(
        daemon
            .logs()
            .iter()
            .all(|line| !line.contains("signature=secret"))
    );
}

#[tokio::test]
async fn an_expired_signed_url_is_asked_for_anew() {
    let (registry, image) = with_image("library/app").await;
    let cdn = Upstream::start().await;
    let layer = &image.layers()[0];
    registry.once(blob(&layer.digest), via_cdn(&cdn, 307, 0));
    registry.always(blobs(), via_cdn(&cdn, 307, 1));
    let daemon = Daemon::over(&registry).start().await;
    assert_eq!(get(daemon.blob_url(APP, &layer.digest)).await.ok(), layer.bytes);
    let statuses: Vec<_> = cdn.requests().iter().map(|asked| asked.status).collect();
    assert_eq!((registry.blob_gets(&layer.digest), statuses), (2, vec![403, 200]));

    // For ever expired: no endless dance, and no "not found" for what the registry has.
    let config = image.config();
    registry.always(blobs(), via_cdn(&cdn, 307, 0));
    let answer = get(daemon.blob_url(APP, &config.digest)).await;
    assert_error(&answer, 502, "UNAVAILABLE");
    assert_eq!(registry.blob_gets(&config.digest), 2);
}

#[tokio::test]
async fn redirects_end_after_five() {
    let (registry, image) = with_image("library/app").await;
    let digest = image.layer_digest(0);
    let path = format!("/v2/library/app/blobs/{digest}");
    let daemon = Daemon::over(&registry).start().await;
    registry.times(5, blob(&digest), redirect(302, &path));
    assert_eq!(get(daemon.blob_url(APP, &digest)).await.status, 200);
    assert_eq!(registry.blob_gets(&digest), 6);

    let config = image.config().digest;
    registry.always(
        blob(&config),
        redirect(307, &format!("/v2/library/app/blobs/{config}")),
    );
    let answer = get(daemon.blob_url(APP, &config)).await;
    assert_error(&answer, 502, "UNAVAILABLE");
    assert_eq!(registry.blob_gets(&config), 6, "{:#?}", registry.summary());
    // To nowhere, or to what is no place.
    for location in [
        "",
        "mailto:a@b.test",
        "file:///etc/passwd",
        "http://",
        "http://user:pw@127.0.0.1/",
    ] {
        registry.always(manifests(), redirect(302, location));
        let answer = get(daemon.manifest_url(APP, "1")).await;
        assert_error(&answer, 502, "UNAVAILABLE");
    }
}

/// A registry of the public internet, as seen through an outbound proxy: `proxy` plays both.
fn behind_proxy(proxy: &Upstream) -> Builder {
    Daemon::builder()
        .setting("upstream.corp.url", "\"http://registry.example.com\"")
        .setting("upstream.corp.proxy", &format!("{:?}", proxy.url()))
}

#[tokio::test]
async fn nobody_sends_us_to_the_machines_around_us() {
    let (proxy, image) = with_image("team/app").await;
    let config = image.config();
    let daemon = behind_proxy(&proxy).start().await;
    pull(&daemon, "corp/team/app", &image).await;
    proxy.forget_requests();
    let places = [
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1:1/x",
        "http://localhost/x",
        "http://10.0.0.1/x",
        "http://192.168.1.1/x",
        "http://[::1]/x",
        "http://[fd00::1]/x",
        "http://[::ffff:169.254.169.254]/x",
        "http://2852039166/x",
        "http://0xa9fea9fe/x",
    ];
    for place in places {
        proxy.always(blobs(), redirect(307, place));
        let answer = get(daemon.blob_url("corp/team/app", &config.digest)).await;
        assert_error(&answer, 502, "UNAVAILABLE");
    }
    assert_eq!(
        (proxy.requests().len(), proxy.blob_gets(&config.digest)),
        (places.len(), places.len()),
        "{:#?}",
        proxy.summary()
    );
    // Nor by the name of a token service.
    proxy.behave();
    let challenge = "Bearer realm=\"http://169.254.169.254/token\",service=\"x\"";
    proxy.require_bearer(Bearer::new().challenges(&[challenge]));
    assert_error(
        &get(daemon.blob_url("corp/team/app", &config.digest)).await,
        502,
        "UNAVAILABLE",
    );
    assert_eq!(proxy.token_requests(), 0);
}

#[tokio::test]
async fn private_places_are_allowed_by_the_operator_alone() {
    let (proxy, image) = with_image("team/app").await;
    let config = image.config();
    let elsewhere = format!("http://169.254.169.254/v2/team/app/blobs/{}", config.digest);
    proxy.once(blobs(), redirect(307, &elsewhere));
    let daemon = behind_proxy(&proxy)
        .setting("upstream.corp.allow_private", "true")
        .start()
        .await;
    let answer = get(daemon.blob_url("corp/team/app", &config.digest)).await;
    assert_eq!(answer.ok(), config.bytes);
    let hosts: Vec<_> = proxy
        .requests()
        .iter()
        .map(|asked| asked.header("host").to_owned())
        .collect();
    assert_eq!(hosts, ["registry.example.com", "169.254.169.254"]);
}
