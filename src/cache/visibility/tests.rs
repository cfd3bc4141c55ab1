//! What is public stays so while the upstream cannot tell, and no longer.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::config::{Config, StorageConfig};
use crate::storage::Storage;
use crate::telemetry::Metrics;
use crate::upstream::Upstream;

/// An upstream that answers everything like this.
async fn answering(status: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn what_was_public_stays_so_while_the_upstream_cannot_tell_and_no_longer() {
    let minutes = |minutes: u64| Timestamp(Timestamp::now().0 - minutes * 60_000);
    // What the upstream says, when it was last seen to be public, and whether it may be served.
    let table = [
        ("429 Too Many Requests", Some(minutes(6)), true),
        ("429 Too Many Requests", Some(minutes(61)), false),
        ("429 Too Many Requests", None, false),
        ("418 Teapot", Some(minutes(6)), true),
        ("404 Not Found", Some(minutes(6)), false),
        ("403 Forbidden", Some(minutes(6)), false),
        ("403 Forbidden", Some(minutes(1)), true),
    ];
    for (status, seen, expected) in table {
        let url = answering(status).await;
        let text = format!(
            "[upstream.test]\nurl = \"{url}\"\nusername = \"u\"\npassword = \"p\"\nstale_if_error = \"1h\"\n"
        );
        let config = Config::from_toml_str(&text, "test.toml").unwrap();
        let upstream = Upstream::new(config.upstream("test").unwrap().clone(), Arc::new(())).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::open(&StorageConfig::in_folder(folder.path().join("data"))).unwrap();
        let cache = Cache::new(
            storage,
            Arc::new(Metrics::new()),
            tokio::runtime::Handle::current(),
        );
        let place = Place::new(upstream, "acme/app".parse().unwrap());
        let reference: Reference = "v1".parse().unwrap();
        if let Some(seen) = seen {
            let seen = Seen::at(seen);
            cache.shared.visibility.public.insert(place.key.clone(), seen);
        }
        let visible = cache.shared.visible_manifest(&place, &reference).await;
        assert_eq!(visible.is_ok(), expected, "{status} {seen:?}");
        // A refusal is remembered against it, whatever was seen before.
        if status.starts_with("403") && !expected {
            assert!(cache.shared.was_public(&place).await.is_none());
        }
        let storage = cache.clone();
        tokio::task::spawn_blocking(move || storage.close())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn an_outage_is_asked_about_once_for_what_is_here() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let head = "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).await;
        }
    });
    let text = format!("[upstream.test]\nurl = \"{url}\"\nusername = \"u\"\npassword = \"p\"\n");
    let config = Config::from_toml_str(&text, "test.toml").unwrap();
    let upstream = Upstream::new(config.upstream("test").unwrap().clone(), Arc::new(())).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::open(&StorageConfig::in_folder(folder.path().join("data"))).unwrap();
    let cache = Cache::new(
        storage,
        Arc::new(Metrics::new()),
        tokio::runtime::Handle::current(),
    );
    let place = Place::new(upstream, "acme/app".parse().unwrap());
    let long_ago = Seen::at(Timestamp(Timestamp::now().0 - 4 * 3_600_000));
    cache.shared.visibility.public.insert(place.key.clone(), long_ago);
    let count = || asked.load(std::sync::atomic::Ordering::SeqCst);
    let reference: Reference = "v1".parse().unwrap();
    cache
        .shared
        .visible_though_here(&place, &reference)
        .await
        .unwrap();
    let first = count();
    assert!(first > 0);
    for _ in 0..5 {
        cache
            .shared
            .visible_though_here(&place, &reference)
            .await
            .unwrap();
    }
    // The first question may still be asked behind its answer.
    assert!(count() <= first + 8, "{first} {}", count());
    assert!(cache.shared.visibility.troubled.contains_key(&place.key));
    tokio::task::spawn_blocking(move || cache.close()).await.unwrap();
}
