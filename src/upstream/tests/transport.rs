//! The wire: hosts that do not answer, proxies, and what the metrics are told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use url::Url;

use super::server::{Server, answer};
use super::{
    MANIFEST, WHOLE, config, configured, name, nobody, observed, reference, sha256, tuning, upstream_with,
};
use crate::upstream::transport::Tuning;
use crate::upstream::{BudgetReport, ErrorKind, Failure, Observer, RequestKind, StatusLabel, Upstream};

#[tokio::test]
async fn hosts_that_cannot_be_reached() {
    // Held, so that no other test listens there, and not listened at.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nobody = held.local_addr().unwrap();
    let silent = Server::start(|_| std::future::pending()).await;
    let plain = Server::start(|_| async { answer(200, &[], "") }).await;
    let table = [
        (format!("http://{nobody}"), Failure::Connect),
        (silent.url.clone(), Failure::Timeout),
        (plain.url.replace("http:", "https:"), Failure::Tls),
    ];
    for (url, failure) in table {
        let mut config = config(&url);
        // Long enough for a handshake that fails, and short enough to wait for an answer that never comes.
        config.header_timeout = Duration::from_millis(if failure == Failure::Timeout { 20 } else { 5_000 });
        let result = upstream_with(config)
            .manifest(&name("a"), &reference("v1"), &configured())
            .await;
        assert_eq!(
            result.unwrap_err().kind(),
            &ErrorKind::Unavailable(failure),
            "{url}"
        );
    }
    assert_eq!(silent.log().len(), 3);
}

#[tokio::test]
async fn a_name_server_that_never_answers() {
    let mut config = config("http://registry.example.com");
    config.connect_timeout = Duration::from_millis(10);
    let tuning = Tuning {
        look_up: Arc::new(|_| Box::pin(std::future::pending())),
        ..tuning()
    };
    let upstream = Upstream::tuned(config, nobody(), &tuning).unwrap();
    let result = upstream
        .manifest_head(&name("a"), &reference("v1"), &configured())
        .await;
    assert_eq!(
        result.unwrap_err().kind(),
        &ErrorKind::Unavailable(Failure::Timeout)
    );
}

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Observer for Notes {
    fn request(&self, prefix: &str, kind: RequestKind, status: StatusLabel) {
        self.0
            .lock()
            .unwrap()
            .push(format!("{prefix} {} {status}", kind.as_str()));
    }

    fn budget(&self, _: &str, budget: &BudgetReport) {
        let (left, limit) = (budget.left, budget.limit);
        self.0.lock().unwrap().push(format!("{left:?} of {limit:?}"));
    }

    fn bytes_in(&self, _: &str, kind: RequestKind, bytes: u64) {
        self.0
            .lock()
            .unwrap()
            .push(format!("{} {bytes} bytes", kind.as_str()));
    }
}

#[tokio::test]
async fn an_observer_sees_each_request() {
    let server = Server::start(|asked| async move {
        if asked.path.contains("blobs") {
            return answer(404, &[], "");
        }
        let limits = [
            ("ratelimit-limit", "100;w=21600"),
            ("ratelimit-remaining", "76;w=21600"),
        ];
        answer(200, &limits, MANIFEST)
    })
    .await;
    let notes = Arc::new(Notes::default());
    let upstream = observed(config(&server.url), notes.clone());
    upstream
        .manifest(&name("a"), &reference("v1"), &configured())
        .await
        .unwrap();
    upstream
        .blob(&name("a"), &sha256(b"x"), WHOLE, &configured())
        .await
        .unwrap_err();
    let expected = [
        "test manifest 200",
        "Some(76) of Some(100)",
        "manifest 19 bytes",
        "test blob 404",
    ];
    assert_eq!(*notes.0.lock().unwrap(), expected);
}

#[tokio::test]
async fn a_proxy_is_asked_for_every_host_but_those_without() {
    let proxy = Server::start(|asked| async move {
        match asked.header("host").unwrap() {
            "registry.invalid" => answer(307, &[("location", "http://cdn.invalid/signed")], ""),
            "cdn.invalid" => answer(200, &[], MANIFEST),
            _ => answer(400, &[], ""),
        }
    })
    .await;
    let mut proxied = config("http://registry.invalid");
    proxied.proxy = Some(Url::parse(&proxy.url).unwrap());
    let upstream = upstream_with(proxied);
    // Neither name exists: only the proxy can have answered.
    upstream
        .manifest(&name("a"), &reference("v1"), &configured())
        .await
        .unwrap();
    assert_eq!(proxy.log().len(), 2);

    let direct = Server::start(|_| async { answer(200, &[], MANIFEST) }).await;
    let mut excepted = config(&direct.url);
    excepted.proxy = Some(Url::parse(&proxy.url).unwrap());
    excepted.no_proxy = vec!["127.0.0.0/8".to_owned()];
    upstream_with(excepted)
        .manifest(&name("a"), &reference("v1"), &configured())
        .await
        .unwrap();
    assert_eq!((direct.log().len(), proxy.log().len()), (1, 2));
}
