//! Pins: what is pinned is never evicted, follows its tag, and survives restarts and the loss of the index.

use serde_json::Value;

use crate::admin::{asked, run};
use crate::freshness::restart_with;
use crate::scene::{NAME, REPO, files_of};
use crate::support::prelude::*;

const MIB: usize = 1 << 20;

async fn daemon(upstream: &Upstream, settings: &[(&str, &str)]) -> Daemon {
    let builder = Daemon::over(upstream).setting("storage.max_size", "\"24MiB\"");
    let builder = settings
        .iter()
        .fold(builder, |builder, (key, value)| builder.setting(key, value));
    builder.start().await
}

fn here(daemon: &Daemon, image: &Image) -> bool {
    files_of(daemon, &image.layer_digest(0))
        .iter()
        .any(|file| file.components().any(|part| part.as_os_str() == "blobs"))
}

/// Everything that may go goes.
async fn evict_all(daemon: &Daemon) {
    run(daemon, &["evict", "1GiB"]).await.text();
}

/// Names and digest of each pin.
fn pins(told: &Value) -> Vec<(Vec<&str>, &str)> {
    let pins = told["pinned"].as_array().expect("pins");
    pins.iter()
        .map(|pin| {
            let names = pin["names"].as_array().expect("names");
            let names = names.iter().filter_map(Value::as_str).collect();
            (names, pin["digest"].as_str().expect("a digest"))
        })
        .collect()
}

#[tokio::test]
async fn what_is_pinned_stays_until_it_is_unpinned() {
    let upstream = Upstream::start().await;
    let daemon = daemon(&upstream, &[]).await;
    let (kept, other) = (Image::simple(1, 2 * MIB), Image::simple(2, 2 * MIB));
    upstream.put(REPO, "kept", &kept);
    upstream.put(REPO, "other", &other);
    // Not here yet: it is pulled.
    let ran = run(&daemon, &["pin", "app:kept"]).await;
    assert!(ran.text().contains("1 image: 1 fetched"), "{}", ran.text());
    assert!(ran.text().contains("1 pinned image, 2.0 MiB"), "{}", ran.text());
    run(&daemon, &["pull", "app:other"]).await.text();
    assert!(here(&daemon, &kept) && here(&daemon, &other));
    evict_all(&daemon).await;
    assert!(here(&daemon, &kept) && !here(&daemon, &other));
    upstream.refuse().await;
    assert_eq!(get(daemon.manifest_url(NAME, "kept")).await.status, 200);
    let layer = &kept.layers()[0];
    assert!(get(daemon.blob_url(NAME, &layer.digest)).await.ok() == layer.bytes);

    // Told wherever an operator looks.
    let told = asked(&daemon, &["pins"]).await;
    let (name, digest) = (format!("{NAME}:kept"), kept.digest());
    assert_eq!(pins(&told), [(vec![name.as_str()], digest.as_str())]);
    assert_eq!(told["pinned"][0]["state"], "here", "{told}");
    assert_eq!(asked(&daemon, &["pin"]).await["pinned"], told["pinned"]);
    let status = asked(&daemon, &["status"]).await;
    assert_eq!(
        (&status["pins"]["pins"], &status["pins"]["too_large"]),
        (&1.into(), &false.into())
    );
    for reference in ["app:kept".to_owned(), format!("app@{digest}")] {
        let explained = asked(&daemon, &["explain", &reference]).await;
        assert_eq!(
            explained["pinned"]["names"],
            serde_json::json!([name]),
            "{explained}"
        );
    }
    let text = run(&daemon, &["explain", "app:kept"]).await;
    assert!(
        text.text().contains("never evicted, pinned by"),
        "{}",
        text.text()
    );
    // A purge must be meant: the pin comes first.
    for arguments in [
        &["purge", &format!("app@{digest}")][..],
        &["purge", "--with-content", &format!("app@{digest}")],
    ] {
        let told = asked(&daemon, arguments).await;
        assert_eq!(
            (&told["removed"], &told["kept"]),
            (&false.into(), &"it is pinned".into())
        );
    }

    let ran = run(&daemon, &["unpin", "app:kept"]).await;
    assert_eq!(ran.text().trim(), format!("{name}: unpinned"));
    let again = run(&daemon, &["unpin", "app:kept"]).await;
    assert_eq!(again.code(), Some(1));
    assert!(again.printed().contains("was not pinned"), "{}", again.printed());
    evict_all(&daemon).await;
    assert!(!here(&daemon, &kept));
    assert!(run(&daemon, &["pins"]).await.text().contains("nothing is pinned"));
}

#[tokio::test]
async fn a_pin_follows_its_tag() {
    let upstream = Upstream::start().await;
    let daemon = daemon(&upstream, &[("cache.tag_ttl", "\"0s\"")]).await;
    let (old, new) = (Image::simple(1, 2 * MIB), Image::simple(2, 2 * MIB));
    upstream.put(REPO, "1", &old);
    run(&daemon, &["pin", "app:1"]).await.text();
    upstream.put(REPO, "1", &new);
    run(&daemon, &["pull", "app:1"]).await.text();
    assert!(here(&daemon, &old) && here(&daemon, &new));
    let told = asked(&daemon, &["pins"]).await;
    assert_eq!(
        pins(&told),
        [(vec![format!("{NAME}:1").as_str()], new.digest().as_str())]
    );
    evict_all(&daemon).await;
    assert!(!here(&daemon, &old), "the old one was released");
    assert!(here(&daemon, &new));
    // By digest it stays whatever the tag does; and one name less is not none.
    let by_digest = format!("{NAME}@{}", new.digest());
    run(&daemon, &["pin", &by_digest]).await.text();
    let ran = run(&daemon, &["unpin", "app:1"]).await;
    assert!(
        ran.text().contains(&format!("stays pinned by {by_digest}")),
        "{}",
        ran.text()
    );
    evict_all(&daemon).await;
    assert!(here(&daemon, &new));
}

#[tokio::test]
async fn what_a_pinned_tag_moved_to_is_brought_in() {
    let upstream = Upstream::start().await;
    let mut daemon = daemon(&upstream, &[("cache.tag_ttl", "\"0s\"")]).await;
    let index = |seed| {
        Index::of_platforms(0)
            .image(Image::simple(seed, MIB).platform("linux", "amd64"))
            .image(Image::simple(seed + 1, MIB).platform("linux", "arm64"))
    };
    let (old, new) = (index(1), index(3));
    upstream.put(REPO, "1", &old);
    run(&daemon, &["pin", "app:1", "--platform", "linux/arm64"])
        .await
        .text();
    upstream.put(REPO, "1", &new);
    // A client hears of it, and pulls no more than the index.
    assert_eq!(get(daemon.manifest_url(NAME, "1")).await.status, 200);
    let [amd, arm] = new.images() else {
        panic!("two images")
    };
    assert!(!here(&daemon, arm));
    daemon.restart().await;
    daemon.wait_for_log("what is pinned is whole again").await;
    assert!(here(&daemon, arm) && !here(&daemon, amd));
    let told = asked(&daemon, &["pins"]).await;
    assert_eq!(told["pinned"][0]["digest"], new.digest());
    evict_all(&daemon).await;
    assert!(here(&daemon, arm) && !here(&daemon, &old.images()[1]));
}

#[tokio::test]
async fn pins_survive_a_restart_and_the_loss_of_the_index() {
    let upstream = Upstream::start().await;
    let mut daemon = daemon(&upstream, &[]).await;
    let images = [
        Image::simple(1, MIB).platform("linux", "amd64"),
        Image::simple(2, MIB).platform("linux", "arm64"),
    ];
    let [first, second] = images.clone();
    let index = Index::of_platforms(0).image(first).image(second);
    let other = Image::simple(3, MIB);
    upstream.put(REPO, "1", &index);
    upstream.put(REPO, "other", &other);
    run(&daemon, &["pin", "app:1", "--all-platforms"]).await.text();
    run(&daemon, &["pull", "app:other"]).await.text();
    let before = asked(&daemon, &["pins"]).await;
    assert_eq!(
        (&before["pinned"][0]["manifests"], &before["pinned"][0]["blobs"]),
        (&3.into(), &4.into()),
        "{before}"
    );
    daemon.restart().await;
    assert_eq!(asked(&daemon, &["pins"]).await["pinned"], before["pinned"]);
    daemon.stop().await;
    std::fs::remove_file(daemon.data_dir().join("index.redb")).expect("an index");
    run(&daemon, &["rebuild-index"]).await.text();
    daemon.restart().await;
    assert_eq!(asked(&daemon, &["pins"]).await["pinned"], before["pinned"]);
    // The children of a pinned index stay with it.
    evict_all(&daemon).await;
    assert!(images.iter().all(|image| here(&daemon, image)));
    assert!(!here(&daemon, &other));
}

#[tokio::test]
async fn what_cannot_be_pulled_is_not_pinned() {
    let upstream = Upstream::start().await;
    let daemon = daemon(&upstream, &[]).await;
    let image = Image::simple(1, 1000);
    upstream.put(REPO, "1", &image);
    upstream.always(blobs(), reply(404));
    let ran = run(&daemon, &["pin", "app:1"]).await;
    assert_eq!(ran.code(), Some(1));
    assert!(
        ran.printed().contains("what failed is not pinned"),
        "{}",
        ran.printed()
    );
    assert_eq!(asked(&daemon, &["pins"]).await["pins"], 0);
}

#[tokio::test]
async fn more_than_there_is_room_for_is_told() {
    let upstream = Upstream::start().await;
    let mut daemon = daemon(&upstream, &[("storage.max_size", "\"40MiB\"")]).await;
    upstream.put(
        REPO,
        "1",
        &Image::new().layer(random(1, 10 * MIB)).layer(random(2, 10 * MIB)),
    );
    run(&daemon, &["pin", "app:1"]).await.text();
    assert_eq!(asked(&daemon, &["pins"]).await["too_large"], false);
    restart_with(&mut daemon, "40MiB", "16MiB").await;
    daemon
        .wait_for_log("what is pinned is larger than the room for it")
        .await;
    let told = run(&daemon, &["pins"]).await;
    assert!(told.text().contains("not all of it can stay"), "{}", told.text());
    assert_eq!(asked(&daemon, &["status"]).await["pins"]["too_large"], true);
}
