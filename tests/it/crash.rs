//! `kill -9` under load, again and again: after each, every row has its bytes, every answer its digest, and no reader
//! has seen a wrong byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wharfinger::config::StorageConfig;
use wharfinger::storage::Storage;

use crate::scene::{NAME, REPO};
use crate::support::prelude::*;

const MIB: usize = 1 << 20;

/// Rounds in CI; more with `WHARFINGER_CRASH_ROUNDS`.
const ROUNDS: u64 = 50;

/// Images that share a layer, so that evictions have to tell them apart.
fn images() -> Vec<Image> {
    let base = random(1, MIB);
    (0..10)
        .map(|seed| {
            Image::new()
                .layer(base.clone())
                .layer(random(100 + seed, MIB / 2))
                .layer(random(200 + seed, 2 * MIB))
        })
        .collect()
}

/// Pulls at random until the daemon is gone; `seen` counts the bytes that came.
async fn client(daemon: Arc<[String; 2]>, images: Arc<Vec<Image>>, seed: u64, seen: Arc<AtomicU64>) {
    let mut random = fastrand::Rng::with_seed(seed);
    loop {
        let number = random.usize(..images.len());
        let image = &images[number];
        let manifest = try_get(&format!("{}v{number}", daemon[0]), &[]).await;
        let Some(manifest) = manifest else { return };
        assert_eq!(manifest.status, 200, "{}", manifest.text());
        assert!(!manifest.is_complete() || manifest.body == image.root().bytes);
        for layer in image.layers() {
            let url = format!("{}{}", daemon[1], layer.digest);
            let start = random.usize(..layer.bytes.len() - 1000);
            let range = format!("bytes={start}-{}", start + 999);
            let part = random.bool();
            let headers: &[(&str, &str)] = if part { &[("range", &range)] } else { &[] };
            let Some(answer) = try_get(&url, headers).await else {
                return;
            };
            let expected = if part {
                layer.bytes.slice(start..start + 1000)
            } else {
                layer.bytes.clone()
            };
            assert!(
                expected.starts_with(&answer.body),
                "wrong bytes of {}",
                layer.digest
            );
            if !answer.is_complete() {
                return;
            }
            assert!(answer.body == expected, "a short body that ended cleanly");
            seen.fetch_add(answer.body.len() as u64, Ordering::Relaxed);
        }
    }
}

/// Holds every row against its file; gives the number of blobs.
pub async fn audit(daemon: &Daemon) -> u64 {
    let folder = daemon.data_dir();
    let audited = tokio::task::spawn_blocking(move || {
        let storage =
            Storage::open(&StorageConfig::in_folder(folder.clone())).expect("a data folder that opens");
        let (mut after, mut count, mut blocks) = (None, 0, 0);
        loop {
            let rows = storage.index.blobs_after(after, 100).expect("rows");
            let Some((last, _)) = rows.last() else { break };
            after = Some(*last);
            for (digest, row) in rows {
                let hex = digest.hex();
                let algorithm = digest.algorithm().name();
                let path = folder.join("blobs").join(algorithm).join(&hex[..2]).join(&hex);
                let bytes =
                    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                assert_eq!(bytes.len() as u64, row.size);
                let hash = if algorithm == "sha512" { sha512 } else { sha256 };
                assert_eq!(hash(&bytes), digest.to_string());
                count += 1;
                blocks += row.size.next_multiple_of(4096);
            }
        }
        let totals = storage.index.totals().expect("totals");
        assert_eq!((totals.blobs, totals.blob_bytes), (count, blocks));
        storage.close();
        count
    });
    audited.await.expect("an audit")
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "the seed, which a failure is repeated with")]
async fn killed_under_load_again_and_again() {
    let rounds =
        std::env::var("WHARFINGER_CRASH_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("a number"));
    let seed = std::env::var("WHARFINGER_SEED")
        .map_or_else(|_| fastrand::u64(..), |seed| seed.parse().expect("a number"));
    eprintln!("WHARFINGER_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let upstream = Upstream::start().await;
    let images = Arc::new(images());
    for (number, image) in images.iter().enumerate() {
        upstream.put(REPO, &format!("v{number}"), image);
    }
    // Every third blob is cut somewhere, so that fills are continued as well.
    let turn = AtomicU64::new(0);
    let third = blobs()
        .get()
        .and(move |_| turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(3));
    upstream.always(third, serve().cut_after(300_000));
    let mut daemon = Daemon::over(&upstream)
        .setting("storage.max_size", "\"24MiB\"")
        .start()
        .await;
    let mut most = 0;
    for _ in 0..rounds {
        let urls = Arc::new([daemon.manifest_url(NAME, ""), daemon.blob_url(NAME, "")]);
        let seen = Arc::new(AtomicU64::new(0));
        let clients: Vec<_> = (0..4)
            .map(|_| tokio::spawn(client(urls.clone(), images.clone(), random.u64(..), seen.clone())))
            .collect();
        let enough = random.u64(1..12 * MIB as u64);
        let came = async {
            while seen.load(Ordering::Relaxed) < enough {
                daemon.metrics().await;
            }
        };
        soon("some load", came).await;
        daemon.kill().await;
        for client in clients {
            soon("the end of a client", client)
                .await
                .expect("a client that saw nothing wrong");
        }
        most = most.max(audit(&daemon).await);
        daemon.restart().await;
    }
    assert!(most > 3, "it has kept something: {most}");
}
