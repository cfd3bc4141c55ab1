//! stub tests
use super::*;
use crate::oci::{Digest, MediaType};
use crate::registry::{Error, ErrorKind, StoredManifest};
use crate::telemetry::AccessLogGuard;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use std::sync::Mutex;

#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Vec<u8>>>);
impl std::io::Write for Shelf {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
struct House {
    api: Api,
    shelf: Shelf,
    guard: Option<AccessLogGuard>,
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
}
const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
fn digest(n: u8) -> Digest {
    format!("sha256:{}", hex::encode([n; 32])).parse().unwrap()
}
fn house() -> House {
    let registry = Arc::new(Registry::default());
    let m = Arc::new(StoredManifest {
        bytes: Bytes::from_static(b"{\"m\":1}"),
        media_type: MediaType::oci_index(),
        digest: EMPTY.parse().unwrap(),
    });
    registry
        .manifests
        .lock()
        .unwrap()
        .insert("latest".into(), m.clone());
    registry.manifests.lock().unwrap().insert(EMPTY.into(), m);
    let mut blobs = registry.blobs.lock().unwrap();
    blobs.insert(digest(1), (Bytes::from_static(b"0123456789"), false, None));
    blobs.insert(digest(2), (Bytes::from_static(b"0123456789"), true, None));
    blobs.insert(digest(3), (Bytes::from_static(b"0123456789"), true, Some(5)));
    blobs.insert(digest(4), (Bytes::from_static(b""), false, None));
    drop(blobs);
    let shelf = Shelf::default();
    let metrics = Arc::new(Metrics::new());
    let (access, guard) = AccessLog::start(false, Box::new(shelf.clone())).unwrap();
    House {
        api: Api::new(
            registry.clone(),
            metrics.clone(),
            access,
            Options { admin_on_main: true },
        ),
        shelf,
        guard: Some(guard),
        registry,
        metrics,
    }
}
async fn ask(house: &House, method: &str, uri: &str, headers: &[(&str, &str)]) -> Response<Body> {
    let mut request = Request::builder()
        .method(method)
        .uri(uri)
        .header("user-agent", "test\"1");
    for (k, v) in headers {
        request = request.header(*k, *v);
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let connection = Connection {
        peer: ([127, 0, 0, 1], 9).into(),
        local: ([127, 0, 0, 1], 8).into(),
        plain: true,
    };
    answer(&house.api.shared, Entrance::Main, connection, parts).await
}
async fn told(house: &House, method: &str, uri: &str, headers: &[(&str, &str)]) -> String {
    let response = ask(house, method, uri, headers).await;
    let mut out = format!("{}", response.status().as_u16());
    for name in [
        "content-type",
        "content-length",
        "content-range",
        "docker-content-digest",
        "etag",
        "cache-status",
        "oci-namespace",
        "link",
        "retry-after",
        "oci-filters-applied",
    ] {
        if let Some(v) = response.headers().get(name) {
            out += &format!(" {name}={}", v.to_str().unwrap());
        }
    }
    assert!(response.headers().contains_key("x-request-id"));
    assert_eq!(
        response.headers()["docker-distribution-api-version"],
        "registry/2.0"
    );
    let body = match response.into_body().collect().await {
        Ok(all) => String::from_utf8(all.to_bytes().to_vec()).unwrap(),
        Err(e) => format!("ERR {e}"),
    };
    format!("{out} | {body}")
}
#[tokio::test]
async fn show() {
    let mut house = house();
    let b = |n: u8| format!("/v2/library/nginx/blobs/{}", digest(n));
    let list: Vec<(&str, String, Vec<(&str, &str)>)> = vec![
        ("GET", "/v2/".into(), vec![]),
        ("GET", "/v2/nginx/manifests/latest?ns=docker.io".into(), vec![]),
        ("HEAD", "/v2/nginx/manifests/latest".into(), vec![]),
        (
            "GET",
            "/v2/nginx/manifests/latest".into(),
            vec![(
                "if-none-match",
                "\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"",
            )],
        ),
        ("GET", "/v2/nginx/manifests/nope".into(), vec![]),
        ("HEAD", "/v2/nginx/manifests/nope".into(), vec![]),
        (
            "GET",
            "/v2/nginx/manifests/latest?ns=unknown.example".into(),
            vec![],
        ),
        ("GET", b(1), vec![]),
        ("HEAD", b(1), vec![]),
        ("GET", b(1), vec![("range", "bytes=2-4")]),
        ("GET", b(1), vec![("range", "bytes=20-")]),
        ("GET", b(1), vec![("range", "bytes=5-500")]),
        ("GET", b(1), vec![("range", "bytes=5-2")]),
        ("GET", b(2), vec![]),
        ("GET", b(2), vec![("range", "bytes=2-4")]),
        ("GET", b(2), vec![("range", "bytes=-2")]),
        ("GET", b(3), vec![]),
        ("GET", b(4), vec![]),
        ("GET", b(4), vec![("range", "bytes=0-")]),
        ("GET", b(9), vec![]),
        (
            "GET",
            "/docker.io/v2/nginx/tags/list?n=2&ns=docker.io".into(),
            vec![],
        ),
        ("GET", "/v2/nginx/tags/list?n=0".into(), vec![]),
        (
            "GET",
            format!("/v2/nginx/referrers/{EMPTY}?artifactType=a/b+json"),
            vec![],
        ),
        ("PUT", "/v2/nginx/manifests/x".into(), vec![]),
        ("GET", "/readyz".into(), vec![]),
    ];
    for (m, u, h) in &list {
        println!("{m} {u} {h:?}\n   {}", told(&house, m, u, h).await);
    }
    *house.registry.fail.lock().unwrap() =
        Some(Error::new(ErrorKind::RateLimited { retry_after: None }, "limit"));
    for u in ["/v2/nginx/manifests/latest", "/mirror/v2/nginx/manifests/latest"] {
        println!("{u}\n   {}", told(&house, "GET", u, &[]).await);
    }
    *house.registry.fail.lock().unwrap() = None;
    drop(ask(&house, "GET", &b(1), &[]).await);
    house.guard.take();
    println!(
        "{}",
        String::from_utf8(house.shelf.0.lock().unwrap().clone()).unwrap()
    );
    println!("{}", house.metrics.render());
}
#[tokio::test]
async fn speed() {
    let house = house();
    let uri = "/v2/docker-hub/library/nginx/manifests/latest";
    for _ in 0..2 {
        let began = std::time::Instant::now();
        for _ in 0..100_000 {
            let mut r = ask(&house, "GET", uri, &[]).await;
            std::hint::black_box(r.body_mut().frame().await);
        }
        println!("{:?} per request", began.elapsed() / 100_000);
    }
}
