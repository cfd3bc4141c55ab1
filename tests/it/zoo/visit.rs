//! A daemon with one personality of the zoo before it, and the ways in which clients pull.

use crate::expect::assert_manifest;
use crate::support::image::Part;
use crate::support::prelude::*;
use crate::support::zoo::{Internet, PASSWORD, Personality};

/// One registry with all its hosts, and a daemon that reaches it through them alone.
pub struct Visit<P> {
    pub internet: Internet,
    pub animal: P,
    pub daemon: Daemon,
}

/// A tag's time to live that makes each question a new one.
pub const ALWAYS_DUE: (&str, &str) = ("cache.tag_ttl", "\"0s\"");

impl<P: Personality> Visit<P> {
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With further settings; the upstream's own are written `.name`.
    pub async fn with(settings: &[(&str, &str)]) -> Self {
        let internet = Internet::start().await;
        let animal = P::open(&internet);
        let mut builder = Daemon::builder()
            .through::<P>(&internet)
            .setting("server.mirror_listen", "\"127.0.0.1:0\"");
        for (key, value) in settings {
            let key = if key.starts_with('.') {
                format!("upstream.{}{key}", P::PREFIX)
            } else {
                (*key).to_owned()
            };
            builder = builder.setting(&key, value);
        }
        Self {
            daemon: builder.start().await,
            internet,
            animal,
        }
    }

    /// Logged in as this user, with the zoo's password; what that opens is for everybody.
    pub async fn as_user(user: &str, settings: &[(&str, &str)]) -> Self {
        let (user, password) = (format!("{user:?}"), format!("{PASSWORD:?}"));
        let login = [
            (".username", user.as_str()),
            (".password", password.as_str()),
            (".share_private", "true"),
        ];
        Self::with(&[&login, settings].concat()).await
    }

    /// How clients call a repository.
    pub fn name(repo: &str) -> String {
        format!("{}/{repo}", P::PREFIX)
    }

    /// The URL of a manifest.
    pub fn manifest(&self, repo: &str, reference: &str) -> String {
        self.daemon.manifest_url(&Self::name(repo), reference)
    }

    /// The URL of a blob.
    pub fn blob(&self, repo: &str, digest: &str) -> String {
        self.daemon.blob_url(&Self::name(repo), digest)
    }

    /// The URL of a list of referrers.
    pub fn referrers(&self, repo: &str, digest: &str) -> String {
        format!("{}/v2/{}/referrers/{digest}", self.daemon.url(), Self::name(repo))
    }

    /// The URL of the tags.
    pub fn tags(&self, repo: &str) -> String {
        format!("{}/v2/{}/tags/list", self.daemon.url(), Self::name(repo))
    }

    /// The same manifest for a client that could ask elsewhere.
    pub fn mirrored(&self, repo: &str, reference: &str) -> String {
        format!(
            "{}/v2/{repo}/manifests/{reference}?ns={}",
            self.daemon.mirror_url(),
            P::HOST
        )
    }

    /// Holds an image with one layer under the tag `1` of its usual repository.
    pub fn put_image(&self, seed: u64) -> Image {
        let image = Image::simple(seed, 3000);
        self.animal.put(P::REPO, "1", &image);
        image
    }

    /// Pulls manifest by tag, config and layers.
    pub async fn pull(&self, repo: &str, image: &Image) {
        let answer = get(self.manifest(repo, "1")).await;
        assert_manifest(&answer, image, false);
        for part in image.blobs() {
            self.pull_blob(repo, &part).await;
        }
    }

    /// Pulls one blob.
    pub async fn pull_blob(&self, repo: &str, part: &Part) {
        let answer = get(self.blob(repo, &part.digest)).await;
        assert_eq!(
            answer.status,
            200,
            "{}\n{:#?}",
            answer.text(),
            self.internet.requests()
        );
        assert!(answer.ok() == part.bytes, "wrong bytes of {}", part.digest);
    }

    /// All that a client asks for an index: the tag by HEAD and by GET, each image in it by digest, and its blobs, of
    /// which parts and several parts are asked for too.
    pub async fn pull_index(&self, repo: &str, tag: &str, index: &Index) {
        assert_manifest(&head(self.manifest(repo, tag)).await, index, true);
        assert_manifest(&get(self.manifest(repo, &index.digest())).await, index, false);
        assert_manifest(&get(self.manifest(repo, tag)).await, index, false);
        for image in index.images() {
            assert_manifest(&head(self.manifest(repo, &image.digest())).await, image, true);
            assert_manifest(&get(self.manifest(repo, &image.digest())).await, image, false);
            for part in image.blobs() {
                let url = self.blob(repo, &part.digest);
                let size = part.bytes.len();
                let described = head(&url).await;
                assert_eq!(
                    (described.status, described.header("content-length")),
                    (200, size.to_string().as_str()),
                    "{:#?}",
                    self.internet.requests()
                );
                let (from, to) = (size / 3, size / 2);
                let piece = get_with(&url, &[("range", &format!("bytes={from}-{to}"))]).await;
                assert_eq!((piece.status, &piece.body), (206, &part.bytes.slice(from..=to)));
                let pieces = get_with(&url, &[("range", "bytes=0-1,10-19")]).await;
                let kind = pieces.header("content-type").to_owned();
                assert!(
                    pieces.status == 206 && kind.starts_with("multipart/byteranges"),
                    "{kind}"
                );
                self.pull_blob(repo, &part).await;
            }
        }
    }

    /// Waits until nothing is being downloaded any more, and forgets what was asked so far.
    pub async fn settle(&self) {
        let idle = async {
            while !self
                .daemon
                .metrics()
                .await
                .lines()
                .any(|line| line == "wharfinger_fills_running 0")
            {}
        };
        soon("all fills to end", idle).await;
        self.internet.forget();
    }

    /// Nobody was asked anything.
    pub fn assert_silence(&self) {
        let requests = self.internet.requests();
        assert!(requests.is_empty(), "{requests:#?}");
    }
}
