//! The daemon harness, over a shell script that stands in for the daemon: starting, logs, signals, restart.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::support::prelude::*;

/// Says what it was given, where it "listens", and waits for its end.
const STAND_IN: &str = r#"#!/bin/sh
trap 'kill $!; echo "drained" >&2; exit 0' TERM
echo "asked to $1 $2 with proxy [$HTTPS_PROXY] and extra [$EXTRA]"
cat "$3"
[ -z "$FAULT" ] || { echo "error: server.listen: not an address" >&2; exit 64; }
mkdir -p "$DATA" && echo run >> "$DATA/runs" && echo "runs: $(wc -l < "$DATA/runs")" >&2
echo "2026-01-01T00:00:00Z  INFO wharfinger::server: listening address=127.0.0.1:$PORT door=\"main\"" >&2
echo '{"level":"INFO","fields":{"message":"listening","door":"mirror","address":"127.0.0.1:2"}}' >&2
while :; do sleep 30 >/dev/null 2>&1 & wait $!; done
"#;

fn stand_in() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("stand-in");
    std::fs::write(&path, STAND_IN).expect("a writable folder");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("an own file");
    (folder, path)
}

#[tokio::test]
async fn a_daemon_is_started_stopped_killed_and_restarted() {
    let upstream = Upstream::start().await;
    upstream.always(path_has("/metrics"), reply(200).body("requests_total 1"));
    let (folder, path) = stand_in();
    let data = folder.path().join("kept");
    let mut daemon = Daemon::over(&upstream)
        .upstream("acme", &upstream)
        .setting("cache.tag_ttl", "\"1s\"")
        .mirror_door()
        .env("EXTRA", "yes")
        .env("PORT", &upstream.port().to_string())
        .env("DATA", data.to_str().expect("a plain path"))
        .binary(&path)
        .start()
        .await;
    assert_eq!(
        (daemon.url(), daemon.mirror_url()),
        (upstream.url(), "http://127.0.0.1:2".to_owned())
    );
    assert_eq!(
        daemon.blob_url("a/b", "sha256:1"),
        format!("{}/v2/a/b/blobs/sha256:1", upstream.url())
    );
    assert_eq!(
        daemon.manifest_url("a/b", "1"),
        format!("{}/v2/a/b/manifests/1", upstream.url())
    );
    assert_eq!(daemon.metrics().await, "requests_total 1");
    assert!(daemon.pid() > 1);
    assert_eq!(
        daemon.wait_for_log("asked to").await,
        "asked to serve --config with proxy [] and extra [yes]"
    );

    let config: toml::Table = std::fs::read_to_string(daemon.config_path())
        .expect("a file")
        .parse()
        .expect("TOML");
    assert_eq!(
        config["upstream"]["docker-hub"]["url"].as_str(),
        Some(upstream.url().as_str())
    );
    assert_eq!(config["upstream"]["acme"]["hosts"][0].as_str(), Some("acme.test"));
    assert_eq!(config["upstream"]["quay"]["enabled"].as_bool(), Some(false));
    assert_eq!(config["cache"]["tag_ttl"].as_str(), Some("1s"));
    assert!(config["cache"].get("mirror").is_none());
    assert_eq!(config["storage"]["data_dir"].as_str(), daemon.data_dir().to_str());

    assert_eq!(daemon.stop().await.code(), Some(0));
    assert!(daemon.logs().contains(&"drained".to_owned()));
    daemon.restart().await;
    daemon.wait_for_log("runs: 2").await;
    assert_eq!(daemon.kill().await.code(), None);
    daemon.restart().await;
    daemon.restart().await;
    daemon.wait_for_log("runs: 4").await;
    daemon.terminate();
    assert!(daemon.exited().await.success());
}

#[tokio::test]
async fn a_daemon_that_does_not_start_gives_its_reason() {
    let (_folder, path) = stand_in();
    let (status, logs) = Daemon::builder().binary(path).env("FAULT", "1").fail().await;
    assert_eq!(status.code(), Some(64));
    assert!(logs.contains(&"error: server.listen: not an address".to_owned()));
    assert!(logs.contains(&"mirror = \"\"".to_owned()), "{logs:?}");
}
