//! Parts far ahead of a download are fetched by themselves and kept; what a stop, a kill or a lasting cut leaves goes
//! on; what has no room passes through.

use crate::scene::{Blob, Scene, files_of};
use crate::support::prelude::*;

const MIB: u64 = 1 << 20;

/// What a cut may cost beside the bytes that are kept: what was on its way when we hung up.
const PER_CUT: u64 = 256 * 1024 + 6 * MIB;

async fn with(settings: &[(&str, &str)]) -> Scene {
    let upstream = Upstream::start().await;
    let mut builder = Daemon::over(&upstream);
    for (key, value) in settings {
        builder = builder.setting(key, value);
    }
    Scene {
        daemon: builder.start().await,
        upstream,
    }
}

/// Waits until the record beside the partial file says that all before `end` is there.
async fn recorded(scene: &Scene, blob: &Blob, end: u64) {
    let said = || {
        let files = files_of(&scene.daemon, &blob.digest);
        let record = files.iter().find(|file| file.extension().is_some())?;
        let record: serde_json::Value = serde_json::from_slice(&std::fs::read(record).ok()?).ok()?;
        record["extents"][0][1].as_u64()
    };
    let wait = async {
        while said() != Some(end) {
            scene.daemon.metrics().await;
        }
    };
    soon("the record", wait).await;
}

#[tokio::test]
async fn a_bounded_range_far_ahead_is_answered_at_once_and_kept() {
    let scene = Scene::start().await;
    let blob = scene.put(random(1, 4 << 20));
    let gate = scene.upstream.stall(blob.get(), 100_000);
    // A lazy puller reads the footer first.
    let footer = get_with(&blob.url, &[("range", "bytes=-1000")]).await;
    assert_eq!(footer.status, 206);
    assert!(
        footer.header("cache-status").contains("unverified"),
        "{}",
        footer.header("cache-status")
    );
    assert!(footer.body == blob.bytes[blob.bytes.len() - 1000..]);
    let middle = get_with(&blob.url, &[("range", "bytes=2000000-2099999")]).await;
    assert!(middle.body == blob.bytes[2_000_000..2_100_000]);
    // What is there is not asked for again.
    let again = get_with(&blob.url, &[("range", "bytes=2050000-2059999")]).await;
    assert!(again.body == blob.bytes[2_050_000..2_060_000]);
    let asked = scene.gets(&blob);
    assert_eq!(asked, 3, "{:?}", scene.ranges(&blob));
    gate.release();
    scene.hit(&blob).await;
    let ranges = scene.ranges(&blob);
    let all = scene.upstream.bytes_sent();
    let cuts = 1;
    assert!(
        all <= blob.size() + cuts * PER_CUT,
        "{all} bytes for {}: {ranges:?}",
        blob.size()
    );
}

#[tokio::test]
async fn open_ended_ranges_cut_by_the_client_share_one_download() {
    // containerd 2.1: `bytes=0-`, then `bytes=<i * chunk>-` by several workers, of each one chunk is read.
    const CHUNK: u64 = 4 * MIB;
    let scene = Scene::start().await;
    let blob = scene.put(random(2, 16 << 20));
    let part = |start: u64| {
        let (url, expected) = (
            blob.url.clone(),
            blob.bytes.slice(start as usize..(start + CHUNK) as usize),
        );
        async move {
            let mut part = open_with(&url, &[("range", &format!("bytes={start}-"))]).await;
            assert_eq!(part.status(), 206);
            assert!(part.read(CHUNK as usize).await[..CHUNK as usize] == expected);
        }
    };
    tokio::join!(part(0), part(CHUNK), part(2 * CHUNK), part(3 * CHUNK));
    scene.hit(&blob).await;
    let (all, requests) = (scene.upstream.bytes_sent(), scene.gets(&blob) as u64);
    assert!(
        all <= blob.size() + (requests - 1) * PER_CUT,
        "{all} bytes by {:?}",
        scene.ranges(&blob)
    );
    assert!(requests <= 8, "{:?}", scene.ranges(&blob));
}

#[tokio::test]
async fn what_comes_too_late_for_a_fill_is_not_written_into_the_next_ones_file() {
    let scene = with(&[("cache.finish_fill", "\"never\"")]).await;
    let blob = scene.put(random(9, 4 << 20));
    let front = scene.upstream.stall(blob.get(), 100_000);
    let late = Gate::new();
    let lie = serve().stall_at(2_050_000, &late).flip_at(2_050_000);
    scene.upstream.once(blob.get().ranged(), lie);
    let mut part = open_with(&blob.url, &[("range", "bytes=2000000-2099999")]).await;
    part.read(50_000).await;
    late.reached().await;
    drop(part);
    scene.logged(&["a fill stopped", &blob.digest]).await;
    front.cut();
    scene.hit(&blob).await;
    late.release();
    scene.metric("wharfinger_fills_running 0").await;
    assert!(get(&blob.url).await.ok() == blob.bytes);
}

#[tokio::test]
async fn an_upstream_that_ignores_ranges_is_waited_for() {
    let scene = Scene::start().await;
    let blob = scene.put(random(3, 4 << 20));
    let gate = Gate::new();
    scene.upstream.once(blob.get(), serve().stall_at(1000, &gate));
    scene.upstream.always(blob.get().ranged(), serve().ignore_range());
    let url = blob.url.clone();
    let part = tokio::spawn(async move { get_with(&url, &[("range", "bytes=3000000-3000099")]).await });
    gate.reached().await;
    let ranged = blob.get().ranged();
    scene
        .upstream
        .wait_for(|upstream| upstream.count_of(&ranged) > 0)
        .await;
    gate.release();
    let part = soon("the part", part).await.expect("no panic");
    assert!(part.body == blob.bytes[3_000_000..3_000_100]);
    scene.hit(&blob).await;
}

#[tokio::test]
async fn a_killed_fill_goes_on_by_itself_after_the_start() {
    let mut scene = Scene::start().await;
    let blob = scene.put(random(4, 4 << 20));
    let _gate = scene.upstream.stall(blob.get(), 3 * MIB);
    let mut client = open(&blob.url).await;
    client.read(100).await;
    recorded(&scene, &blob, 3 * MIB).await;
    scene.daemon.kill().await;
    scene.upstream.behave();
    scene.daemon.restart().await;
    scene.completed(1).await;
    assert_eq!(
        scene.ranges(&blob),
        [String::new(), format!("bytes={}-", 3 * MIB)]
    );
    let blob = scene.known(blob.digest, blob.bytes);
    scene.hit(&blob).await;
    assert_eq!(scene.gets(&blob), 2);
}

#[tokio::test]
async fn a_stopped_fill_goes_on_with_the_parts_that_it_had() {
    let mut scene = with(&[("server.drain_timeout", "\"0s\"")]).await;
    let blob = scene.put(random(5, 4 << 20));
    let _gate = scene.upstream.stall(blob.get(), MIB);
    let part = get_with(&blob.url, &[("range", "bytes=3000000-3299999")]).await;
    assert!(part.body == blob.bytes[3_000_000..3_300_000]);
    scene.daemon.stop().await;
    scene.upstream.behave();
    scene.upstream.forget_requests();
    scene.daemon.restart().await;
    scene.completed(1).await;
    let rest = scene.ranges(&blob);
    assert_eq!(
        rest,
        [format!("bytes={MIB}-2999999"), "bytes=3300000-".to_owned()]
    );
}

#[tokio::test]
async fn a_spoilt_partial_file_is_found_out_and_fetched_anew() {
    let mut scene = Scene::start().await;
    let blob = scene.put(random(6, 4 << 20));
    let _gate = scene.upstream.stall(blob.get(), 3 * MIB);
    let mut client = open(&blob.url).await;
    client.read(100).await;
    recorded(&scene, &blob, 3 * MIB).await;
    scene.daemon.kill().await;
    let files = files_of(&scene.daemon, &blob.digest);
    for file in files {
        if let Some("json") = file.extension().and_then(|ending| ending.to_str()) {
            // Without the hash of what is there, it is hashed again.
            let text = std::fs::read_to_string(&file).expect("a record");
            let mut record: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            record["hash"] = "".into();
            std::fs::write(&file, record.to_string()).expect("a record");
        } else {
            use std::os::unix::fs::FileExt as _;
            let file = std::fs::File::options()
                .write(true)
                .open(file)
                .expect("a partial file");
            file.write_all_at(b"rot", 1_000_000).expect("written");
        }
    }
    scene.upstream.behave();
    scene.daemon.restart().await;
    scene.failed(&blob).await;
    let blob = scene.known(blob.digest, blob.bytes);
    scene.hit(&blob).await;
}

#[tokio::test]
async fn a_fill_that_nobody_waits_for_stops_when_told_so() {
    let scene = with(&[("cache.finish_fill", "\"50%\"")]).await;
    let (less, more) = (scene.put(random(7, 1 << 20)), scene.put(random(8, 1 << 20)));
    let _gate = scene.upstream.stall(less.get(), 300_000);
    let enough = scene.upstream.stall(more.get(), 700_000);
    for (blob, there) in [(&less, 290_000), (&more, 690_000)] {
        let mut client = open(&blob.url).await;
        client.read(there).await;
    }
    scene.logged(&["a fill stopped", &less.digest]).await;
    enough.release();
    scene.hit(&more).await;
    assert_eq!(scene.gets(&more), 1);
    assert!(get(&less.url).await.ok() == less.bytes);
    assert_eq!(scene.ranges(&less), ["", "bytes=300000-"]);
}

#[tokio::test]
async fn what_cannot_fit_passes_through_for_all_who_are_near() {
    let scene = with(&[("storage.max_size", "\"16MiB\"")]).await;
    let blob = scene.put(random(9, 20 << 20));
    let gate = scene.upstream.hold(blob.get());
    let clients: Vec<_> = (0..4).map(|_| tokio::spawn(get(blob.url.clone()))).collect();
    gate.reached().await;
    gate.release();
    for client in clients {
        let answer = soon("a client", client).await.expect("no panic");
        assert!(
            answer.header("cache-status").contains("stored=?0"),
            "{}",
            answer.header("cache-status")
        );
        assert!(answer.ok() == blob.bytes);
    }
    assert!(scene.gets(&blob) <= 4, "{:?}", scene.ranges(&blob));
    scene.metric("wharfinger_fills_running 0").await;
    assert!(scene.files(&blob).is_empty());
    // A part is fetched as such.
    scene.upstream.forget_requests();
    let part = get_with(&blob.url, &[("range", "bytes=15000000-15000999")]).await;
    assert!(part.body == blob.bytes[15_000_000..15_001_000]);
    // What fits is kept beside it.
    let small = scene.put(random(10, 1 << 20));
    scene.hit(&small).await;
}

#[tokio::test]
async fn a_lie_that_passes_through_never_arrives_whole() {
    let scene = with(&[("storage.max_size", "\"16MiB\"")]).await;
    let blob = scene.put(random(11, 20 << 20));
    scene.upstream.always(blob.get(), serve().flip_at(19 * MIB));
    let mut client = Raw::get(&blob.url).await;
    client.head().await.expect("a head");
    let (body, ending) = client.finish().await;
    assert!((body.len() as u64) < blob.size(), "{ending:?}");
}
