//! What the tests of fills share: a daemon over a scripted Docker Hub, blobs with the URL that a client asks for,
//! and ways to wait for what the daemon does behind its answers.

use std::path::PathBuf;

use bytes::Bytes;
use futures_util::future::join_all;

use crate::support::client::Open;
use crate::support::prelude::*;

/// The repository at the upstream.
pub const REPO: &str = "library/app";
/// The same one, as clients of the daemon call it.
pub const NAME: &str = "docker-hub/library/app";

/// A daemon and its upstream.
pub struct Scene {
    pub upstream: Upstream,
    pub daemon: Daemon,
}

/// A blob that the upstream holds.
pub struct Blob {
    pub digest: String,
    pub bytes: Bytes,
    /// Where clients get it.
    pub url: String,
}

impl Blob {
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The GETs of it.
    pub fn get(&self) -> Match {
        blob(&self.digest).get()
    }
}

impl Scene {
    /// A daemon with all defaults over an empty upstream.
    pub async fn start() -> Self {
        let upstream = Upstream::start().await;
        let daemon = Daemon::over(&upstream).start().await;
        Self { upstream, daemon }
    }

    /// As [`Self::start`], with one setting.
    pub async fn start_with(key: &str, value: &str) -> Self {
        let upstream = Upstream::start().await;
        let daemon = Daemon::over(&upstream).setting(key, value).start().await;
        Self { upstream, daemon }
    }

    /// Puts a blob into [`REPO`].
    pub fn put(&self, bytes: Bytes) -> Blob {
        let digest = self.upstream.put_blob(REPO, bytes.clone());
        self.known(digest, bytes)
    }

    /// Puts a blob that is named by SHA-512.
    pub fn put_long(&self, bytes: Bytes) -> Blob {
        let digest = sha512(&bytes);
        self.upstream.put_blob_as(REPO, &digest, bytes.clone());
        self.known(digest, bytes)
    }

    /// A blob that is in [`REPO`] already.
    pub fn known(&self, digest: String, bytes: Bytes) -> Blob {
        let url = self.daemon.blob_url(NAME, &digest);
        Blob { digest, bytes, url }
    }

    /// GETs of the blob that the upstream has seen.
    pub fn gets(&self, blob: &Blob) -> usize {
        self.upstream.blob_gets(&blob.digest)
    }

    /// The `Range` of each GET of the blob, in order.
    pub fn ranges(&self, blob: &Blob) -> Vec<String> {
        let requests = self.upstream.requests_of(&blob.get());
        requests
            .iter()
            .map(|request| request.header("range").to_owned())
            .collect()
    }

    /// Starts `count` GETs, and has the head of each: all of them read from the fill, or lead it.
    pub async fn join(&self, blob: &Blob, count: usize) -> Vec<Open> {
        join_all((0..count).map(|_| open(&blob.url))).await
    }

    /// GETs until the answer comes from disk alone. A client has its last byte a little before the blob is in its
    /// place, so the next answer may still be one of the fill.
    pub async fn hit(&self, blob: &Blob) {
        let wait = async {
            loop {
                let answer = get(&blob.url).await;
                let hit = answer.header("cache-status") == "wharfinger; hit";
                assert!(answer.ok() == blob.bytes, "wrong bytes of {}", blob.digest);
                if hit {
                    return;
                }
            }
        };
        soon("a hit", wait).await;
    }

    /// Waits until /metrics has this line.
    pub async fn metric(&self, line: &str) {
        let wait = async { while !self.daemon.metrics().await.lines().any(|had| had == line) {} };
        soon(&format!("the metric {line}"), wait).await;
    }

    /// Waits until no fill runs, and `count` have ended well since the daemon started.
    pub async fn completed(&self, count: usize) {
        let line = format!(r#"wharfinger_fills_total{{result="completed",upstream="docker-hub"}} {count}"#);
        self.metric(&line).await;
        self.metric("wharfinger_fills_running 0").await;
    }

    /// Waits for the log to say that a fill of the blob failed: the line names the upstream and its host.
    pub async fn failed(&self, blob: &Blob) -> String {
        self.logged(&[
            "a fill failed",
            &blob.digest,
            r#"upstream="docker-hub""#,
            "127.0.0.1",
        ])
        .await
    }

    /// Waits for one line of the log that has all these words.
    pub async fn logged(&self, words: &[&str]) -> String {
        let wait = async {
            loop {
                let said = |line: &String| words.iter().all(|word| line.contains(word));
                if let Some(line) = self.daemon.logs().into_iter().find(said) {
                    return line;
                }
                // As good as a pause, and it proves that the daemon lives.
                self.daemon.metrics().await;
            }
        };
        soon(&format!("the log to say {words:?}"), wait).await
    }

    /// All files that hold bytes of the blob, whole or partial.
    pub fn files(&self, blob: &Blob) -> Vec<PathBuf> {
        files_of(&self.daemon, &blob.digest)
    }

    /// The blob's file, once it is in its place.
    pub fn file(&self, blob: &Blob) -> PathBuf {
        let mut files = self.files(blob);
        assert_eq!(files.len(), 1, "{files:?}");
        files.remove(0)
    }
}

/// Files below the data folder whose name has the hexadecimal part of the digest.
pub fn files_of(daemon: &Daemon, digest: &str) -> Vec<PathBuf> {
    let (_, hex) = digest.split_once(':').expect("a digest");
    let (mut folders, mut found) = (vec![daemon.data_dir()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a readable folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().contains(hex))
            {
                found.push(path);
            }
        }
    }
    found
}
