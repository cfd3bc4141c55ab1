//! Several endpoints: who is asked, who is left alone, who is raced, and what a slow body leads to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use super::server::{Asked, Response, Server, answer, stalled};
use super::{MANIFEST, WHOLE, anonymous, config, configured, name, reference, sha256, tuning};
use crate::config::{Config, UpstreamConfig};
use crate::oci::Reference;
use crate::upstream::transport::Tuning;
use crate::upstream::{
    BlobBody, BreakerState, Error, ErrorKind, Failure, Observer, RequestKind, StatusLabel, Upstream,
};

const BLOB: &[u8] = b"a blob";

/// What was raced, and what moved on.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Notes {
    fn note(&self, what: &str) {
        self.0.lock().unwrap().push(what.to_owned());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Observer for Notes {
    fn request(&self, _: &str, _: RequestKind, _: StatusLabel) {}

    fn bytes_in(&self, _: &str, _: RequestKind, _: u64) {}

    fn endpoint_open(&self, _: &str, _: &str, open: bool) {
        self.note(if open { "open" } else { "closed" });
    }

    fn hedge(&self, _: &str, won: bool) {
        self.note(if won { "won" } else { "lost" });
    }

    fn moved_on(&self, _: &str) {
        self.note("moved on");
    }
}

/// `config` with what else its table says.
fn with(url: &str, more: &str) -> UpstreamConfig {
    let text = format!("[upstream.test]\nurl = \"{url}\"\nallow_private = true\n{more}\n");
    let config = Config::from_toml_str(&text, "test.toml").unwrap();
    config.upstream("test").unwrap().clone()
}

fn made(config: UpstreamConfig, tuning: &Tuning) -> (Arc<Upstream>, Arc<Notes>) {
    let notes = Arc::new(Notes::default());
    (Upstream::tuned(config, notes.clone(), tuning).unwrap(), notes)
}

fn mirrored(registry: &Server, mirror: &Server, more: &str) -> (Arc<Upstream>, Arc<Notes>) {
    let mirrors = format!("mirrors = [\"{}\"]\n{more}", mirror.url);
    made(with(&registry.url, &mirrors), &tuning())
}

fn by_digest() -> Reference {
    Reference::Digest(sha256(&MANIFEST))
}

async fn tagged(upstream: &Upstream, repository: &str) -> Result<Bytes, Error> {
    let (repository, tag) = (name(repository), reference("v1"));
    let fetched = upstream.manifest(&repository, &tag, &configured()).await;
    fetched.map(|manifest| manifest.bytes)
}

async fn pinned(upstream: &Upstream, repository: &str) -> Result<Bytes, Error> {
    let fetched = upstream
        .manifest(&name(repository), &by_digest(), &configured())
        .await;
    fetched.map(|manifest| manifest.bytes)
}

async fn blob(upstream: &Upstream, part: (u64, Option<u64>)) -> Result<BlobBody, Error> {
    upstream
        .blob(&name("a"), &sha256(BLOB), part, &configured())
        .await
}

async fn serving() -> Server {
    Server::start(|asked| async move { content(&asked) }).await
}

fn content(asked: &Asked) -> Response {
    if asked.path.contains("/blobs/") {
        answer(200, &[], BLOB)
    } else {
        answer(200, &[], MANIFEST)
    }
}

async fn saying(status: u16) -> Server {
    Server::start(move |_| async move { answer(status, &[], "") }).await
}

/// Nobody listens there.
async fn nobody_there() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn an_endpoint_that_fails_too_often_is_left_alone() {
    let server = saying(503).await;
    let (upstream, notes) = made(config(&server.url), &tuning());
    let ask = async |repository| tagged(&upstream, repository).await.unwrap_err();
    for repository in ["a", "b", "c"] {
        assert_eq!(
            ask(repository).await.kind(),
            &ErrorKind::Unavailable(Failure::Status(503))
        );
    }
    let asked = server.log().len();
    assert_eq!(upstream.endpoint_states()[0].breaker, BreakerState::Open);
    let refused = ask("d").await;
    assert_eq!(refused.kind(), &ErrorKind::Unavailable(Failure::Status(503)));
    assert!(refused.message().contains("not asked"), "{refused}");
    // Nor for anything else.
    blob(&upstream, WHOLE).await.unwrap_err();
    upstream.tags(&name("a"), "", &configured()).await.unwrap_err();
    assert_eq!(
        (server.log().len(), notes.all()),
        (asked, vec!["open".to_owned()])
    );
}

#[tokio::test]
async fn a_registry_that_fails_over_one_repository_is_asked_for_others() {
    let server = Server::start(|asked| async move {
        if asked.path.contains("/broken/") {
            answer(500, &[], "")
        } else {
            content(&asked)
        }
    })
    .await;
    let (upstream, _) = made(config(&server.url), &tuning());
    for _ in 0..5 {
        tagged(&upstream, "broken").await.unwrap_err();
    }
    tagged(&upstream, "well").await.unwrap();
}

#[tokio::test]
async fn one_trial_decides_for_all_who_wait() {
    let url = nobody_there().await;
    let tuning = Tuning {
        open_for: Duration::ZERO,
        ..tuning()
    };
    let (upstream, notes) = made(config(&url), &tuning);
    for _ in 0..3 {
        tagged(&upstream, "a").await.unwrap_err();
    }
    assert_eq!(upstream.endpoint_states()[0].breaker, BreakerState::HalfOpen);
    // It is there again, and lets the trial wait until the others have come.
    let listener = tokio::net::TcpListener::bind(url.trim_start_matches("http://"))
        .await
        .unwrap();
    let (trial, others) = (tokio::sync::Notify::new(), tokio::sync::Notify::new());
    let serve = async {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut first = true;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            if std::mem::take(&mut first) {
                trial.notify_one();
                others.notified().await;
                // Nobody else has been let in.
                assert!(futures_util::FutureExt::now_or_never(listener.accept()).is_none());
            }
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                MANIFEST.len()
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&MANIFEST).await.unwrap();
        }
    };
    let ask = async || tagged(&upstream, "a").await.unwrap();
    let clients = async {
        let first = ask();
        let rest = async {
            trial.notified().await;
            let waiting = futures_util::future::join_all((0..8).map(|_| ask()));
            let come = async { others.notify_one() };
            futures_util::join!(waiting, come).0
        };
        let (first, rest) = futures_util::join!(first, rest);
        assert!(first == MANIFEST && rest.iter().all(|bytes| *bytes == MANIFEST));
    };
    tokio::select! {
        () = clients => {}
        () = serve => {}
    }
    assert_eq!(notes.all().last().map(String::as_str), Some("closed"));
}

#[tokio::test]
async fn a_late_endpoint_is_raced_and_the_first_to_answer_wins() {
    let late = Server::start(|_| std::future::pending()).await;
    let mirror = serving().await;
    let (upstream, notes) = mirrored(&late, &mirror, "header_timeout = \"2s\"");
    let body = blob(&upstream, WHOLE).await;
    assert!(body.unwrap().is_mirrored);
    assert_eq!(pinned(&upstream, "a").await.unwrap(), MANIFEST);
    assert_eq!(notes.all(), ["won", "won"]);
    // What a tag means the mirror is not asked, however late the registry is.
    let (repository, tag) = (name("a"), reference("v1"));
    assert!(
        upstream
            .manifest_head(&repository, &tag, &configured())
            .await
            .is_err()
    );
    assert_eq!(mirror.log().len(), 2);
}

#[tokio::test]
async fn who_hangs_is_soon_asked_last_and_not_waited_for_by_each() {
    let hanging = Server::start(|_| std::future::pending()).await;
    let mirror = serving().await;
    let (upstream, notes) = mirrored(&hanging, &mirror, "header_timeout = \"2s\"");
    for _ in 0..6 {
        assert!(blob(&upstream, WHOLE).await.unwrap().is_mirrored);
    }
    // No time-out is ever heard of, for who wins a race ends it.
    assert_eq!((hanging.log().len(), notes.all().len()), (3, 3));
}

#[tokio::test]
async fn where_blobs_are_may_be_in_trouble_while_the_registry_is_well() {
    let elsewhere = nobody_there().await;
    let registry = Server::start(move |asked| {
        let to = format!("{elsewhere}{}", asked.path);
        async move {
            if asked.path.contains("/blobs/") {
                answer(307, &[("location", &to)], "")
            } else {
                content(&asked)
            }
        }
    })
    .await;
    let (upstream, notes) = made(with(&registry.url, ""), &tuning());
    for _ in 0..4 {
        let error = blob(&upstream, WHOLE).await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Unavailable(Failure::Connect));
        assert_eq!(tagged(&upstream, "a").await.unwrap(), MANIFEST);
    }
    for _ in 0..4 {
        blob(&upstream, WHOLE).await.unwrap_err();
    }
    assert_eq!(upstream.endpoint_states()[0].breaker, BreakerState::Closed);
    assert_eq!(tagged(&upstream, "a").await.unwrap(), MANIFEST);
    assert_eq!(notes.all(), Vec::<String>::new());
}

#[tokio::test]
async fn a_breaker_that_closes_is_told_whatever_the_answer_was() {
    for status in [200, 404, 403, 429] {
        let down = Arc::new(AtomicBool::new(true));
        let its = down.clone();
        let server = Server::start(move |asked| {
            let status = if its.load(Ordering::SeqCst) { 503 } else { status };
            async move {
                if status == 200 {
                    content(&asked)
                } else {
                    answer(status, &[("retry-after", "60")], "")
                }
            }
        })
        .await;
        let tuning = Tuning {
            open_for: Duration::ZERO,
            ..tuning()
        };
        let (upstream, notes) = made(config(&server.url), &tuning);
        for repository in ["a", "b", "c"] {
            tagged(&upstream, repository).await.unwrap_err();
        }
        down.store(false, Ordering::SeqCst);
        assert_eq!(tagged(&upstream, "a").await.is_ok(), status == 200);
        assert_eq!(
            upstream.endpoint_states()[0].breaker,
            BreakerState::Closed,
            "{status}"
        );
        assert_eq!(notes.all(), ["open", "closed"], "{status}");
    }
}

#[tokio::test]
async fn a_race_may_be_lost_to_the_late_one() {
    let mirror = Arc::new(Server::start(|_| std::future::pending()).await);
    let other = mirror.clone();
    // It answers once the other was asked.
    let late = Server::start(move |asked| {
        let other = other.clone();
        async move {
            other.wait_for(1).await;
            content(&asked)
        }
    })
    .await;
    let (upstream, notes) = mirrored(&late, &mirror, "header_timeout = \"2s\"");
    let body = blob(&upstream, WHOLE).await;
    assert!(!body.unwrap().is_mirrored);
    assert_eq!(notes.all(), ["lost"]);
}

#[tokio::test]
async fn nobody_is_raced_where_that_is_not_wanted() {
    let late = Server::start(|_| std::future::pending()).await;
    let mirror = serving().await;
    let more = "header_timeout = \"40ms\"\nhedge = false";
    let (upstream, notes) = mirrored(&late, &mirror, more);
    // It fails, and then the mirror is asked.
    let body = blob(&upstream, WHOLE).await;
    assert!(body.unwrap().is_mirrored);
    assert_eq!(notes.all(), Vec::<String>::new());
}

#[tokio::test]
async fn a_body_that_crawls_ends_where_somebody_else_can_be_asked() {
    let registry = Server::start(|asked| async move {
        if asked.path.contains("/blobs/") {
            stalled(200, &[("content-length", "6")], b"a")
        } else {
            content(&asked)
        }
    })
    .await;
    let mirror = serving().await;
    let mirrors = format!("mirrors = [\"{}\"]\nmin_rate = \"1MiB\"", mirror.url);
    let tuning = Tuning {
        floor_span: Duration::from_millis(10),
        ..tuning()
    };
    let (upstream, notes) = made(with(&registry.url, &mirrors), &tuning);
    let mut body = blob(&upstream, WHOLE).await.unwrap();
    assert_eq!(body.chunk().await.unwrap(), Some(Bytes::from_static(b"a")));
    let error = body.chunk().await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unavailable(Failure::Slow));
    assert_eq!(notes.all(), ["moved on"]);
    assert!(blob(&upstream, (1, None)).await.unwrap().is_mirrored);
}

#[tokio::test]
async fn alone_it_is_tried_anew_once_in_a_while() {
    let server = Server::start(|_| async { stalled(200, &[("content-length", "6")], b"a") }).await;
    let tuning = Tuning {
        floor_span: Duration::from_millis(10),
        ..tuning()
    };
    let more = "min_rate = \"1MiB\"\nidle_timeout = \"100ms\"";
    let (upstream, _) = made(with(&server.url, more), &tuning);
    let end = async || {
        let mut body = blob(&upstream, WHOLE).await.unwrap();
        body.chunk().await.unwrap();
        loop {
            if let Err(error) = body.chunk().await {
                return error.kind().clone();
            }
        }
    };
    assert_eq!(end().await, ErrorKind::Unavailable(Failure::Slow));
    assert_eq!(end().await, ErrorKind::Unavailable(Failure::Timeout));
}

#[tokio::test]
async fn what_begins_with_the_first_byte_each_time_is_not_begun_anew() {
    let server = Server::start(|_| async { stalled(200, &[("content-length", "6")], b"a") }).await;
    let tuning = Tuning {
        floor_span: Duration::from_millis(10),
        ..tuning()
    };
    let more = "min_rate = \"1MiB\"\nidle_timeout = \"100ms\"";
    let (upstream, notes) = made(with(&server.url, more), &tuning);
    // Asked for the rest, it sends all of it.
    let mut body = blob(&upstream, (1, None)).await.unwrap();
    assert_eq!(body.offset, 0);
    body.chunk().await.unwrap();
    let error = body.chunk().await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unavailable(Failure::Timeout));
    assert_eq!(notes.all(), Vec::<String>::new());
}

#[tokio::test]
async fn a_mirror_calls_repositories_otherwise() {
    let registry = saying(503).await;
    let mirror = serving().await;
    let mirrors = format!(
        "mirrors = [{{ url = \"{}\", rewrite = {{ \"library/\" = \"docker/library/\" }} }}]",
        mirror.url
    );
    let (upstream, _) = made(with(&registry.url, &mirrors), &tuning());
    let asked = async |repository| pinned(&upstream, repository).await.is_ok();
    assert!(asked("library/nginx").await);
    assert!(!asked("acme/app").await);
    let paths: Vec<_> = mirror.log().into_iter().map(|asked| asked.path).collect();
    assert_eq!(
        paths,
        [format!("/v2/docker/library/nginx/manifests/{}", by_digest())]
    );
}

#[tokio::test]
async fn a_mirror_tells_what_a_tag_means_where_it_is_believed() {
    let registry = saying(503).await;
    let mirror = serving().await;
    for (tags, expected) in [(false, 0), (true, 2)] {
        let mirrors = format!("mirrors = [{{ url = \"{}\", tags = {tags} }}]", mirror.url);
        let (upstream, _) = made(with(&registry.url, &mirrors), &tuning());
        let before = mirror.log().len();
        let (repository, tag) = (name("a"), reference("v1"));
        let head = upstream.manifest_head(&repository, &tag, &configured()).await;
        let got = upstream.manifest(&repository, &tag, &configured()).await;
        assert_eq!((head.is_ok(), got.is_ok()), (tags, tags));
        // A question about what anybody may read is for the registry.
        upstream
            .manifest(&repository, &tag, &anonymous())
            .await
            .unwrap_err();
        assert_eq!(mirror.log().len() - before, expected);
    }
}

#[tokio::test]
async fn who_limits_pulls_is_asked_last_for_them_and_first_for_blobs() {
    let registry = Server::start(|asked| async move {
        if asked.path.contains("/blobs/") {
            content(&asked)
        } else {
            answer(429, &[("retry-after", "60"), ("ratelimit-remaining", "0")], "")
        }
    })
    .await;
    let mirror = serving().await;
    let (upstream, _) = mirrored(&registry, &mirror, "");
    for _ in 0..3 {
        assert_eq!(pinned(&upstream, "a").await.unwrap(), MANIFEST);
    }
    let body = blob(&upstream, WHOLE).await;
    assert!(!body.unwrap().is_mirrored);
    assert_eq!((registry.log().len(), mirror.log().len()), (2, 3));
}

#[tokio::test]
async fn each_endpoint_has_its_own_login() {
    let basic = |asked: Asked| async move {
        if asked.authorization().is_some() {
            answer(503, &[], "")
        } else {
            answer(401, &[("www-authenticate", "Basic realm=\"x\"")], "")
        }
    };
    let (registry, mirror) = (Server::start(basic).await, Server::start(basic).await);
    let more = format!(
        "username = \"user\"\npassword = \"pass\"\n\
         mirrors = [{{ url = \"{}\", username = \"other\", password = \"word\" }}]",
        mirror.url
    );
    let (upstream, _) = made(with(&registry.url, &more), &tuning());
    pinned(&upstream, "a").await.unwrap_err();
    let sent = |server: &Server| {
        let log = server.log();
        log.last()
            .and_then(|asked| asked.authorization().map(str::to_owned))
    };
    assert_eq!(sent(&registry).as_deref(), Some(super::BASIC));
    // `other:word`.
    assert_eq!(sent(&mirror).as_deref(), Some("Basic b3RoZXI6d29yZA=="));
}
