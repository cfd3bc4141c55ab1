//! What the tests of hosted repositories share: a daemon that a push makes repositories of, and clients' steps.

use bytes::Bytes;
use serde_json::Value;

use crate::support::daemon::Builder;
use crate::support::image::Part;
use crate::support::prelude::*;

/// Where most of them push to.
pub const APP: &str = "acme/app";

/// A daemon that hosts what begins with `acme/`, where a push makes the repository, and lets everybody do everything.
pub fn hosting() -> Builder {
    over(Daemon::builder())
}

/// The same of a daemon with upstreams.
pub fn over(builder: Builder) -> Builder {
    builder
        .setting("hosted.namespaces", r#"["acme"]"#)
        .setting("hosted.template", r#"[{ pattern = "acme/*" }]"#)
        .setting("auth.anonymous", r#"["pull", "push", "delete", "list"]"#)
}

/// A daemon with the steps of a client that pushes.
pub struct Hosting {
    pub daemon: Daemon,
}

impl Hosting {
    pub async fn start() -> Self {
        Self::of(hosting()).await
    }

    pub async fn of(builder: Builder) -> Self {
        Self {
            daemon: builder.start().await,
        }
    }

    /// The URL of something in a repository.
    pub fn at(&self, repository: &str, rest: &str) -> String {
        format!("{}/v2/{repository}/{rest}", self.daemon.url())
    }

    /// The URL that a `Location` leads to.
    pub fn follow(&self, answer: &Answer) -> String {
        let location = answer.header("location");
        assert!(location.starts_with("/v2/"), "{location:?}");
        format!("{}{location}", self.daemon.url())
    }

    /// Begins an upload: the URL of its session.
    pub async fn begin(&self, repository: &str) -> String {
        self.begin_with(repository, "").await
    }

    /// The same with a query.
    pub async fn begin_with(&self, repository: &str, query: &str) -> String {
        let url = self.at(repository, &format!("blobs/uploads/{query}"));
        let answer = send(Method::POST, url, &[], "").await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        self.follow(&answer)
    }

    /// Pushes a blob as most clients do: POST, then PUT.
    pub async fn push_blob(&self, repository: &str, bytes: impl Into<Bytes>) -> String {
        let bytes = bytes.into();
        let digest = sha256(&bytes);
        self.push_blob_as(repository, &digest, bytes).await;
        digest
    }

    pub async fn push_blob_as(&self, repository: &str, digest: &str, bytes: Bytes) {
        let session = self.begin(repository).await;
        let answer = send(Method::PUT, closing(&session, digest), &[], bytes).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }

    /// Puts a manifest as it is.
    pub async fn put(&self, repository: &str, reference: &str, manifest: &Part) -> Answer {
        let url = self.at(repository, &format!("manifests/{reference}"));
        let kind = [("content-type", manifest.media_type.as_str())];
        send(Method::PUT, url, &kind, manifest.bytes.clone()).await
    }

    /// Pushes all of an image: its root's digest.
    pub async fn push(&self, repository: &str, tag: &str, content: &impl Content) -> String {
        for blob in content.blobs() {
            self.push_blob_as(repository, &blob.digest, blob.bytes).await;
        }
        for child in content.children() {
            let answer = self.put(repository, &child.digest, &child).await;
            assert_eq!(answer.status, 201, "{}", answer.text());
        }
        let root = content.root();
        // A tag alone would name it by SHA-256.
        let long = root.digest.starts_with("sha512:");
        let reference = if long {
            format!("{}?tag={tag}", root.digest)
        } else {
            tag.to_owned()
        };
        let answer = self.put(repository, &reference, &root).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        root.digest
    }

    /// The status of a HEAD.
    pub async fn status(&self, repository: &str, rest: &str) -> u16 {
        head(self.at(repository, rest)).await.status
    }

    /// DELETEs something.
    pub async fn delete(&self, repository: &str, rest: &str) -> Answer {
        request(Method::DELETE, self.at(repository, rest), &[]).await
    }

    /// Asserts that all of an image is to be had, byte for byte.
    pub async fn assert_holds(&self, repository: &str, reference: &str, content: &impl Content) {
        let root = content.root();
        let mut manifests = vec![(reference.to_owned(), root.clone()), (root.digest.clone(), root)];
        manifests.extend(
            content
                .children()
                .into_iter()
                .map(|part| (part.digest.clone(), part)),
        );
        for (reference, part) in &manifests {
            let url = self.at(repository, &format!("manifests/{reference}"));
            let told = head(&url).await;
            let answer = get(&url).await;
            for answer in [&told, &answer] {
                assert_eq!(answer.status, 200, "{reference}");
                assert_eq!(answer.header("content-type"), part.media_type);
                assert_eq!(answer.header("docker-content-digest"), part.digest);
                assert_eq!(answer.header("content-length"), part.bytes.len().to_string());
            }
            assert!(answer.ok() == part.bytes, "{reference}");
        }
        for part in content.blobs() {
            let url = self.at(repository, &format!("blobs/{}", part.digest));
            let told = head(&url).await;
            assert_eq!(told.header("content-length"), part.bytes.len().to_string());
            let answer = get(&url).await;
            assert_eq!(answer.header("docker-content-digest"), part.digest);
            assert!(answer.ok() == part.bytes, "{}", part.digest);
        }
    }

    /// Tags of a repository.
    pub async fn tags(&self, repository: &str) -> Value {
        get(self.at(repository, "tags/list")).await.json()["tags"].clone()
    }

    /// Files of upload sessions: two each.
    pub fn upload_files(&self) -> usize {
        let folder = self.daemon.data_dir().join("uploads");
        folder.read_dir().expect("a folder").count()
    }
}

/// The URL that ends a session.
pub fn closing(session: &str, digest: &str) -> String {
    let mark = if session.contains('?') { '&' } else { '?' };
    format!("{session}{mark}digest={digest}")
}

/// What names a blob in a manifest.
pub fn descriptor(digest: &str, size: usize) -> Value {
    serde_json::json!({ "mediaType": "application/octet-stream", "digest": digest, "size": size })
}

/// Sends one chunk with its range.
pub async fn chunk(session: &str, bytes: &[u8], first: usize) -> Answer {
    let range = format!("{first}-{}", first + bytes.len() - 1);
    send(
        Method::PATCH,
        session,
        &[("content-range", &range)],
        bytes.to_vec(),
    )
    .await
}

/// Asserts that the session is at this byte.
pub async fn assert_at(hosting: &Hosting, session: &str, size: usize) {
    let answer = get(session).await;
    assert_eq!(answer.status, 204, "{}", answer.text());
    assert_eq!(answer.header("range"), format!("0-{}", size.saturating_sub(1)));
    assert_eq!(hosting.follow(&answer), session);
}

/// Ends a session.
pub async fn finish(session: &str, digest: &str) -> Answer {
    send(Method::PUT, closing(session, digest), &[], "").await
}

/// The head of a request whose body is still to come.
pub async fn begin_request(method: &str, url: &str, framing: &str) -> Raw {
    let mut raw = Raw::connect(url).await;
    let uri: http::Uri = url.parse().expect("a URL");
    let (path, host) = (
        uri.path_and_query().expect("a path"),
        uri.authority().expect("a host"),
    );
    raw.write(&format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{framing}\r\n\r\n"
    ))
    .await;
    raw
}

/// Writes a chunk as HTTP/1.1 frames it; false when the other end takes no more.
pub async fn write_chunk(raw: &mut Raw, bytes: &[u8]) -> bool {
    raw.try_write(format!("{:x}\r\n", bytes.len()).as_bytes()).await
        && raw.try_write(bytes).await
        && raw.try_write(b"\r\n").await
}
