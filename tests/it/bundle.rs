//! Bundles: what one cache writes another takes in that nothing reaches, and serves; other tools' archives too; and what is
//! broken or hostile is refused, while what came whole is kept.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tar::{EntryType, Header};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::admin::{Ran, asked, run};
use crate::drill::{drill, pull, pull_digest};
use crate::expect::{assert_error, assert_hit};
use crate::scene::{NAME, REPO, files_of};
use crate::support::prelude::*;

const OCI_LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// A cache behind an air gap: it must never connect to its upstream, which counts.
struct Gap {
    upstream: Upstream,
    daemon: Daemon,
}

impl Gap {
    async fn start() -> Self {
        Self::with(&[]).await
    }

    async fn with(settings: &[(&str, &str)]) -> Self {
        let upstream = Upstream::start().await;
        let mut builder = Daemon::over(&upstream).setting("cache.offline", "true");
        for (key, value) in settings {
            builder = builder.setting(key, value);
        }
        let daemon = builder.start().await;
        Self { upstream, daemon }
    }

    fn check(&self) {
        assert_eq!(self.upstream.connections(), 0, "{:#?}", self.upstream.summary());
    }
}

/// A place for archives.
struct Shelf(tempfile::TempDir);

impl Shelf {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes an archive of these files.
    fn archive(&self, name: &str, files: &[(String, Vec<u8>)]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, tar_of(files)).expect("a file");
        path
    }
}

fn tar_of(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, path, content.as_slice())
            .expect("an entry");
    }
    builder.into_inner().expect("an archive")
}

/// The files of an archive, in order.
fn files_in(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(std::fs::File::open(path).expect("an archive"));
    let entries = archive.entries().expect("entries").map(|entry| {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").to_string_lossy().into_owned();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).expect("its content");
        (path, content)
    });
    entries.collect()
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

/// `index.json` with these images by name.
fn index(images: &[(&str, &dyn Content)]) -> (String, Vec<u8>) {
    let manifests: Vec<Value> = images
        .iter()
        .map(|(name, content)| {
            let root = content.root();
            json!({
                "mediaType": root.media_type, "digest": root.digest, "size": root.bytes.len(),
                "annotations": { "org.opencontainers.image.ref.name": name },
            })
        })
        .collect();
    let index = json!({ "schemaVersion": 2, "manifests": manifests });
    ("index.json".to_owned(), index.to_string().into_bytes())
}

/// All contents of an image as files.
fn contents(image: &impl Content) -> Vec<(String, Vec<u8>)> {
    let parts = [image.root()]
        .into_iter()
        .chain(image.children())
        .chain(image.blobs());
    parts
        .map(|part| (blob_path(&part.digest), part.bytes.to_vec()))
        .collect()
}

fn layout() -> (String, Vec<u8>) {
    ("oci-layout".to_owned(), OCI_LAYOUT.as_bytes().to_vec())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// Imports an archive, and gives what came of it, with the exit status held against it.
async fn import(daemon: &Daemon, path: &Path) -> Value {
    let ran = run(daemon, &["bundle", "import", text(path), "--json"]).await;
    let last = ran.printed().lines().last().unwrap_or_default().to_owned();
    let event: Value =
        serde_json::from_str(&last).unwrap_or_else(|error| panic!("{error}: {last} {}", ran.said()));
    assert_eq!(event["event"], "done", "{last}");
    let result = event["result"].clone();
    assert_eq!(
        ran.code(),
        Some(i32::from(result["refused"] != json!([]))),
        "{last}"
    );
    result
}

/// What was refused, as text.
fn refused(told: &Value) -> String {
    let refused = told["refused"].as_array().expect("refusals").iter();
    let lines: Vec<_> = refused
        .map(|one| format!("{}: {}", one["what"], one["reason"]))
        .collect();
    lines.join("\n")
}

/// The images that are here now, without their digests.
fn images(told: &Value) -> Vec<&str> {
    let images = told["images"].as_array().expect("images").iter();
    images
        .map(|image| image["image"].as_str().expect("a name"))
        .collect()
}

/// Nothing is left of what was refused: no blob without use, no partial file.
async fn assert_nothing_left(daemon: &Daemon, blobs: u64) {
    let status = asked(daemon, &["status"]).await;
    assert_eq!(status["content"]["blobs"], blobs, "{status}");
    assert_eq!(status["room"]["interrupted"], 0, "{status}");
    let partial = daemon.data_dir().join("partial");
    assert_eq!(std::fs::read_dir(partial).expect("a folder").count(), 0);
}

#[tokio::test]
async fn from_one_cache_to_one_that_nothing_reaches() {
    let upstream = Upstream::start().await;
    let near = Daemon::over(&upstream).start().await;
    let big = Image::simple(1, 6 << 20)
        .layer(random(2, 0))
        .layer(random(3, 5000));
    let long = Image::simple(4, 700_000).sha512();
    let platforms = Index::of_platforms(3);
    let signature = Image::simple(6, 900).referring_to(&big, "application/vnd.example.signature");
    upstream.put(REPO, "big", &big);
    upstream.put_untagged(REPO, &signature);
    upstream.put("org/long", "1", &long);
    upstream.put("org/platforms", "1", &platforms);
    pull(&near, NAME, "big", &big).await;
    pull(&near, "docker-hub/org/long", "1", &long).await;
    get(near.manifest_url("docker-hub/org/platforms", "1")).await.ok();
    pull_digest(&near, "docker-hub/org/platforms", &platforms.images()[2]).await;
    let list = |daemon: &Daemon| format!("{}/v2/{NAME}/referrers/{}", daemon.url(), big.digest());
    get(list(&near)).await.ok();
    let shelf = Shelf::new();
    let path = shelf.path("all.tar");
    // The signature is known, and was never fetched.
    let refusal = run(&near, &["bundle", "export", text(&path)]).await;
    assert_eq!(refusal.code(), Some(1));
    assert!(
        refusal.said().contains("drill --fill") && refusal.said().contains("referrer"),
        "{}",
        refusal.said()
    );
    assert!(!path.exists());
    drill(&near, &["--fill"]).await;
    let told = asked(&near, &["bundle", "export", text(&path)]).await;
    assert_eq!(
        (&told["images"], &told["manifests"]),
        (&json!(3), &json!(5)),
        "{told}"
    );
    assert_eq!(
        told["bytes"],
        json!(std::fs::metadata(&path).expect("an archive").len())
    );
    // The same again is the same to the byte; and to a pipe.
    let again = shelf.path("again.tar");
    run(&near, &["bundle", "export", text(&again)]).await.text();
    assert!(std::fs::read(&again).expect("a file") == std::fs::read(&path).expect("a file"));
    let files = files_in(&path);
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..2], ["oci-layout", "index.json"]);
    assert_eq!(
        names.iter().collect::<std::collections::HashSet<_>>().len(),
        names.len(),
        "each blob once"
    );
    let docker: Value = serde_json::from_slice(&files[2].1).expect("JSON");
    assert_eq!(
        (names[2], docker.as_array().map(Vec::len)),
        ("manifest.json", Some(3)),
        "{docker}"
    );
    assert_eq!(docker[0]["Config"], json!(blob_path(&big.config().digest)));
    for (name, content) in &files[3..] {
        let digest = name.trim_start_matches("blobs/").replacen('/', ":", 1);
        let actual = if digest.starts_with("sha512") {
            sha512(content)
        } else {
            sha256(content)
        };
        assert_eq!(actual, digest);
    }
    let index: Value = serde_json::from_slice(&files[1].1).expect("JSON");
    let notes = &index["manifests"][0]["annotations"];
    assert_eq!(
        notes["org.opencontainers.image.ref.name"], "docker.io/library/app:big",
        "{index}"
    );
    assert_eq!(notes["io.containerd.image.name"], "docker.io/library/app:big");
    drop(near);
    drop(upstream);

    let far = Gap::start().await;
    let told = import(&far.daemon, &path).await;
    assert_eq!(refused(&told), "");
    assert_eq!(images(&told).len(), 4, "{told}");
    pull(&far.daemon, NAME, "big", &big).await;
    pull(&far.daemon, "docker-hub/org/long", "1", &long).await;
    let root = get(far.daemon.manifest_url("docker-hub/org/platforms", "1")).await;
    assert_eq!(root.header("content-type"), platforms.root().media_type);
    assert!(root.ok() == platforms.root().bytes);
    pull_digest(&far.daemon, "docker-hub/org/platforms", &platforms.images()[2]).await;
    let missing = get(far
        .daemon
        .manifest_url("docker-hub/org/platforms", &platforms.images()[0].digest()))
    .await;
    assert_error(&missing, 503, "UNAVAILABLE");
    let referrers = get(list(&far.daemon)).await.json();
    assert_eq!(referrers["manifests"][0]["digest"], json!(signature.digest()));
    assert_eq!(
        referrers["manifests"][0]["artifactType"],
        "application/vnd.example.signature"
    );
    pull_digest(&far.daemon, NAME, &signature).await;
    // It is all there, so that it can go on from here.
    let drilled = drill(&far.daemon, &[]).await;
    assert_eq!(
        drilled["upstreams"][0]["images"], drilled["upstreams"][0]["survive"],
        "{drilled}"
    );
    let onward = shelf.path("onward.tar");
    let names = [
        "docker.io/library/app:big",
        "docker-hub/org/long:1",
        "org/platforms:1",
    ];
    run(
        &far.daemon,
        &[&["bundle", "export", text(&onward)], &names[..]].concat(),
    )
    .await
    .text();
    let sorted = |path: &Path| {
        let mut names: Vec<_> = files_in(path).into_iter().map(|(name, _)| name).collect();
        names.sort();
        names
    };
    assert_eq!(sorted(&onward), sorted(&path));
    // Once more it is no news.
    let told = import(&far.daemon, &path).await;
    assert_eq!((&told["blobs"], &told["bytes"]), (&json!(0), &json!(0)), "{told}");
    // After a restart and a scrub it is as good as anything.
    let mut far = far;
    far.daemon.restart().await;
    pull(&far.daemon, NAME, "big", &big).await;
    let scrubbed = run(&far.daemon, &["scrub", "--rate", "0"]).await;
    assert!(scrubbed.text().contains("all are well"), "{}", scrubbed.text());
    far.check();
}

#[tokio::test]
async fn what_other_tools_write_is_taken_in_whatever_its_order() {
    let (image, index_image) = (Image::simple(1, 300_000).docker(), Index::of_platforms(2));
    let far = Gap::start().await;
    let shelf = Shelf::new();
    let names: [(&str, &dyn Content); 2] = [
        ("docker.io/library/app:1", &image),
        ("docker.io/org/platforms:latest", &index_image),
    ];
    let mut files = [
        contents(&image),
        contents(&index_image),
        vec![index(&names), layout()],
    ]
    .concat();
    files.push(("manifest.json".to_owned(), b"[]".to_vec()));
    // As a folder is packed: by name, with the folders themselves, and everything below `./`.
    files.sort();
    for (path, _) in &mut files {
        *path = format!("./{path}");
    }
    let told = import(&far.daemon, &shelf.archive("skopeo.tar", &files)).await;
    assert_eq!(refused(&told), "");
    assert_eq!(
        images(&told),
        ["docker-hub/library/app:1", "docker-hub/org/platforms:latest"]
    );
    pull(&far.daemon, NAME, "1", &image).await;
    for image in index_image.images() {
        pull_digest(&far.daemon, "docker-hub/org/platforms", image).await;
    }
    far.check();
}

#[tokio::test]
async fn a_blob_is_linked_only_where_its_bytes_came_along() {
    // A private image of one repository is here; a bundle for another names its layer without having it.
    let far = Gap::start().await;
    let shelf = Shelf::new();
    let secret = Image::simple(1, 50_000);
    let private: [(&str, &dyn Content); 1] = [("docker.io/corp/secret:1", &secret)];
    let files = [vec![layout(), index(&private)], contents(&secret)].concat();
    import(&far.daemon, &shelf.archive("secret.tar", &files)).await;
    let names: [(&str, &dyn Content); 1] = [("docker.io/evil/app:1", &secret)];
    let root = secret.root();
    let files = [
        layout(),
        index(&names),
        (blob_path(&root.digest), root.bytes.to_vec()),
    ];
    let told = import(&far.daemon, &shelf.archive("evil.tar", &files)).await;
    assert!(refused(&told).contains("is not in the bundle"), "{told}");
    for name in ["docker-hub/evil/app", "docker-hub/other/app"] {
        let blob = get(far.daemon.blob_url(name, &secret.layer_digest(0))).await;
        assert_error(&blob, 503, "UNAVAILABLE");
        assert_error(&get(far.daemon.manifest_url(name, "1")).await, 503, "UNAVAILABLE");
    }
    // With the bytes it is another matter.
    let files = [vec![layout(), index(&names)], contents(&secret)].concat();
    let told = import(&far.daemon, &shelf.archive("good.tar", &files)).await;
    assert_eq!(
        (refused(&told).as_str(), &told["blobs"], &told["present"]),
        ("", &json!(0), &json!(2))
    );
    pull(&far.daemon, "docker-hub/evil/app", "1", &secret).await;
    // And the same repository needs only what it has not: a bundle of what is new.
    let more = Image::simple(1, 50_000).layer(random(7, 400));
    let names: [(&str, &dyn Content); 1] = [("docker.io/evil/app:2", &more)];
    let shared = blob_path(&more.layer_digest(0));
    let mut files = [vec![layout(), index(&names)], contents(&more)].concat();
    files.retain(|(path, _)| *path != shared);
    let told = import(&far.daemon, &shelf.archive("more.tar", &files)).await;
    assert_eq!(refused(&told), "");
    pull(&far.daemon, "docker-hub/evil/app", "2", &more).await;
    far.check();
}

/// An import of which the good image is kept, and something is refused for a reason that has these words.
async fn kept_and_refused(what: &str, spoil: impl FnOnce(&mut Vec<(String, Vec<u8>)>, &Image), reason: &str) {
    let (good, bad) = (Image::simple(1, 5 << 20), Image::simple(2, 5 << 20));
    let far = Gap::start().await;
    let shelf = Shelf::new();
    let names: [(&str, &dyn Content); 2] = [
        ("docker.io/library/app:good", &good),
        ("docker.io/library/app:bad", &bad),
    ];
    let mut files = [vec![layout(), index(&names)], contents(&good), contents(&bad)].concat();
    spoil(&mut files, &bad);
    let told = import(&far.daemon, &shelf.archive("spoilt.tar", &files)).await;
    assert!(refused(&told).contains(reason), "{what}: {}", refused(&told));
    assert_eq!(images(&told), ["docker-hub/library/app:good"], "{what}");
    pull(&far.daemon, NAME, "good", &good).await;
    let missing = get(far.daemon.manifest_url(NAME, "bad")).await;
    assert_error(&missing, 503, "UNAVAILABLE");
    assert_nothing_left(&far.daemon, 2).await;
    far.check();
}

fn position(files: &[(String, Vec<u8>)], digest: &str) -> usize {
    let path = blob_path(digest);
    files.iter().position(|(name, _)| *name == path).expect("a file")
}

#[tokio::test]
async fn a_blob_with_wrong_bytes_is_refused() {
    let flip = |files: &mut Vec<(String, Vec<u8>)>, bad: &Image| {
        let at = position(files, &bad.layer_digest(0));
        files[at].1[4_000_000] ^= 1;
    };
    kept_and_refused("a layer", flip, "wrong content").await;
    let flip = |files: &mut Vec<(String, Vec<u8>)>, bad: &Image| {
        let at = position(files, &bad.config().digest);
        files[at].1[3] ^= 1;
    };
    kept_and_refused("a config", flip, "its bytes are those of").await;
    let flip = |files: &mut Vec<(String, Vec<u8>)>, bad: &Image| {
        let at = position(files, &bad.digest());
        files[at].1[3] ^= 1;
    };
    kept_and_refused("a manifest", flip, "its bytes are those of").await;
}

#[tokio::test]
async fn what_is_absent_or_of_another_size_is_refused() {
    let remove = |files: &mut Vec<(String, Vec<u8>)>, bad: &Image| {
        files.remove(position(files, &bad.layer_digest(0)));
    };
    kept_and_refused("no layer", remove, "is not in the bundle").await;
    let remove = |files: &mut Vec<(String, Vec<u8>)>, bad: &Image| {
        files.remove(position(files, &bad.digest()));
    };
    kept_and_refused("no manifest", remove, "is not in the bundle").await;
    let lie = |files: &mut Vec<(String, Vec<u8>)>, bad: &Image| {
        let text = String::from_utf8(files[1].1.clone()).expect("text");
        let size = bad.root().bytes.len();
        let mut index: Value = serde_json::from_str(&text).expect("JSON");
        index["manifests"][1]["size"] = json!(size + 1);
        files[1].1 = index.to_string().into_bytes();
    };
    kept_and_refused("another size", lie, "is said to have").await;
    let stranger = |files: &mut Vec<(String, Vec<u8>)>, _: &Image| {
        let text = String::from_utf8(files[1].1.clone()).expect("text");
        files[1].1 = text
            .replace("docker.io/library/app:bad", "nowhere.example/app:bad")
            .into_bytes();
    };
    kept_and_refused(
        "an unknown host",
        stranger,
        "no upstream is configured for nowhere.example",
    )
    .await;
    let nameless = |files: &mut Vec<(String, Vec<u8>)>, _: &Image| {
        let text = String::from_utf8(files[1].1.clone()).expect("text");
        files[1].1 = text.replace("docker.io/library/app:bad", "bad").into_bytes();
    };
    kept_and_refused("no repository", nameless, "which repository it belongs to").await;
}

#[tokio::test]
async fn a_hostile_archive_is_refused_from_where_it_is_and_what_came_before_is_kept() {
    let (good, late) = (Image::simple(1, 5 << 20), Image::simple(2, 5 << 20));
    let names: [(&str, &dyn Content); 2] = [
        ("docker.io/library/app:good", &good),
        ("docker.io/library/app:late", &late),
    ];
    let first = tar_of(&[vec![layout(), index(&names)], contents(&good)].concat());
    let rest = tar_of(&contents(&late));
    let header = |kind, path: &str, size| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.as_gnu_mut().expect("a GNU header").name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_size(size);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let mut checksum = header(EntryType::Regular, "x", 0);
    checksum[0] ^= 1;
    let cases = [
        (
            "traversal",
            header(EntryType::Regular, "../../etc/passwd", 0),
            "leads elsewhere",
        ),
        (
            "an absolute path",
            header(EntryType::Regular, "/tmp/x", 0),
            "leads elsewhere",
        ),
        (
            "a symlink",
            header(EntryType::Symlink, "blobs/sha256/x", 0),
            "neither file nor folder",
        ),
        (
            "a giant header",
            header(EntryType::XHeader, "x", 1 << 40),
            "an extended header of 1099511627776 bytes",
        ),
        (
            "a giant layout",
            header(EntryType::Regular, "oci-layout", 1 << 40),
            "more than",
        ),
        (
            "a second index",
            header(EntryType::Regular, "index.json", 0),
            "a second index.json",
        ),
        ("a wrong checksum", checksum, "no tar archive"),
    ];
    for (what, spoil, reason) in cases {
        let far = Gap::start().await;
        let shelf = Shelf::new();
        // Without the first one's end.
        let bytes = [&first[..first.len() - 1024], &spoil, &rest].concat();
        let path = shelf.path("hostile.tar");
        std::fs::write(&path, bytes).expect("a file");
        let told = import(&far.daemon, &path).await;
        assert!(refused(&told).contains(reason), "{what}: {}", refused(&told));
        assert_eq!(images(&told), ["docker-hub/library/app:good"], "{what}");
        assert_nothing_left(&far.daemon, 2).await;
        pull(&far.daemon, NAME, "good", &good).await;
        far.check();
    }
}

#[tokio::test]
async fn an_archive_that_is_cut_or_none_at_all() {
    let (good, late) = (Image::simple(1, 5 << 20), Image::simple(2, 5 << 20));
    let names: [(&str, &dyn Content); 2] = [
        ("docker.io/library/app:good", &good),
        ("docker.io/library/app:late", &late),
    ];
    let whole = tar_of(&[vec![layout(), index(&names)], contents(&good), contents(&late)].concat());
    let far = Gap::start().await;
    let shelf = Shelf::new();
    let path = shelf.path("cut.tar");
    let give = |bytes: &[u8]| std::fs::write(&path, bytes).expect("a file");
    give(&whole[..9 << 20]);
    let told = import(&far.daemon, &path).await;
    assert!(
        refused(&told).contains("ends in the middle"),
        "{}",
        refused(&told)
    );
    assert_eq!(images(&told), ["docker-hub/library/app:good"]);
    assert_nothing_left(&far.daemon, 2).await;
    give(&whole);
    let told = import(&far.daemon, &path).await;
    assert_eq!((refused(&told).as_str(), images(&told).len()), ("", 2));
    pull(&far.daemon, NAME, "late", &late).await;
    for (bytes, reason) in [
        (&b"\x1f\x8b\x08 and so on"[..], "ends in the middle"),
        (&[&b"\x1f\x8b\x08"[..], &[0; 2000]].concat(), "compressed"),
        (&b"<html>".repeat(1000), "no tar archive"),
        (&[0; 1024][..], "no index.json"),
        (b"", "has no end"),
    ] {
        give(bytes);
        let told = import(&far.daemon, &path).await;
        assert!(refused(&told).contains(reason), "{reason}: {}", refused(&told));
    }
    let ran: Ran = run(&far.daemon, &["bundle", "import", "/nowhere/at.all"]).await;
    assert!(
        ran.code() == Some(1) && ran.said().contains("/nowhere/at.all"),
        "{}",
        ran.said()
    );
    far.check();
}

#[tokio::test]
async fn the_cap_holds_and_what_has_no_room_is_refused() {
    let far = Gap::with(&[("storage.max_size", "\"24MiB\"")]).await;
    let shelf = Shelf::new();
    let (small, large) = (Image::simple(1, 3 << 20), Image::simple(2, 40 << 20));
    let names: [(&str, &dyn Content); 2] = [
        ("docker.io/library/app:small", &small),
        ("docker.io/library/app:large", &large),
    ];
    let files = [vec![layout(), index(&names)], contents(&small), contents(&large)].concat();
    let told = import(&far.daemon, &shelf.archive("large.tar", &files)).await;
    assert!(refused(&told).contains("no room"), "{}", refused(&told));
    assert_eq!(images(&told), ["docker-hub/library/app:small"]);
    assert_nothing_left(&far.daemon, 2).await;
    // What was used longest ago goes for what is brought.
    let next = Image::simple(3, 5 << 20).layer(random(4, 5 << 20));
    let names: [(&str, &dyn Content); 1] = [("docker.io/library/app:next", &next)];
    let files = [vec![layout(), index(&names)], contents(&next)].concat();
    let told = import(&far.daemon, &shelf.archive("next.tar", &files)).await;
    assert_eq!(refused(&told), "");
    pull(&far.daemon, NAME, "next", &next).await;
    let status = asked(&far.daemon, &["status"]).await;
    assert!(
        status["room"]["used"].as_u64() <= status["room"]["limit_for_blobs"].as_u64(),
        "{status}"
    );
    far.check();
}

#[tokio::test]
async fn a_tag_that_was_confirmed_later_stays_and_one_that_is_due_is_asked_for() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream).start().await;
    let (old, new) = (Image::simple(1, 3000), Image::simple(2, 3000));
    upstream.put(REPO, "1", &old);
    pull(&daemon, NAME, "1", &old).await;
    let shelf = Shelf::new();
    let path = shelf.path("old.tar");
    let refused_first = run(
        &daemon,
        &["bundle", "export", text(&path), "docker-hub/library/app:2"],
    )
    .await;
    assert!(
        refused_first.said().contains("tag is absent"),
        "{}",
        refused_first.said()
    );
    run(
        &daemon,
        &["bundle", "export", text(&path), "docker-hub/library/app:1"],
    )
    .await
    .text();
    upstream.put(REPO, "1", &new);
    run(&daemon, &["refresh", "docker-hub/library/app:1"])
        .await
        .text();
    let told = import(&daemon, &path).await;
    assert_eq!(told["images"][0]["tag_kept"], true, "{told}");
    let answer = get(daemon.manifest_url(NAME, "1")).await;
    assert_hit(&answer);
    assert!(answer.ok() == new.root().bytes);
    // Elsewhere it is taken, and the upstream is asked at the first pull.
    let other = Daemon::over(&upstream).start().await;
    assert_eq!(import(&other, &path).await["images"][0]["tag_kept"], false);
    let answer = get(other.manifest_url(NAME, "1")).await;
    assert_eq!(answer.header("cache-status"), "wharfinger; fwd=miss; stored");
    assert!(answer.ok() == new.root().bytes);
    upstream.refuse().await;
    pull_digest(&other, NAME, &old).await;
}

#[tokio::test]
async fn a_rotten_blob_is_not_carried_away() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::over(&upstream).start().await;
    let image = Image::simple(1, 2 << 20);
    upstream.put(REPO, "1", &image);
    pull(&daemon, NAME, "1", &image).await;
    let file = files_of(&daemon, &image.layer_digest(0)).remove(0);
    crate::maintenance::rot(&file);
    let shelf = Shelf::new();
    let path = shelf.path("rotten.tar");
    let ran = run(&daemon, &["bundle", "export", text(&path)]).await;
    assert_eq!(ran.code(), Some(1), "{}", ran.said());
    assert_eq!(
        std::fs::read_dir(shelf.0.path()).expect("a folder").count(),
        0,
        "nothing is left of it"
    );
    daemon.wait_for_log("is rotten").await;
}

/// Starts a subcommand whose pipes the test holds.
fn piped(daemon: &Daemon, arguments: &[&str]) -> tokio::process::Child {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_wharfinger"));
    command
        .args(arguments)
        .arg("--config")
        .arg(daemon.config_path())
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command.spawn().expect("the program to start")
}

#[tokio::test]
async fn through_pipes_and_what_is_being_exported_is_not_evicted() {
    let upstream = Upstream::start().await;
    let near = Daemon::over(&upstream).start().await;
    let image = Image::simple(1, 6 << 20).layer(random(2, 6 << 20));
    upstream.put(REPO, "1", &image);
    pull(&near, NAME, "1", &image).await;
    let mut export = piped(&near, &["bundle", "export", "-"]);
    let mut out = export.stdout.take().expect("a pipe");
    let mut archive = vec![0; 512];
    soon("the first block", out.read_exact(&mut archive))
        .await
        .expect("bytes");
    // Nobody reads on: most of it is still to be read from the disk.
    run(&near, &["evict", "1GiB"]).await.text();
    soon("the rest", out.read_to_end(&mut archive))
        .await
        .expect("bytes");
    let output = soon("the end", export.wait_with_output())
        .await
        .expect("a status");
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(
        output.status.success() && said.contains("wrote 1 image: 1 manifest, 3 blobs"),
        "{said}"
    );
    // Now it may go.
    run(&near, &["evict", "1GiB"]).await.text();
    assert_eq!(asked(&near, &["status"]).await["content"]["blobs"], 0);

    let far = Gap::start().await;
    let mut import = piped(&far.daemon, &["bundle", "import", "-"]);
    let mut input = import.stdin.take().expect("a pipe");
    input.write_all(&archive).await.expect("a reader");
    drop(input);
    let output = soon("the end", import.wait_with_output())
        .await
        .expect("a status");
    let told = String::from_utf8(output.stdout).expect("text");
    assert!(
        output.status.success() && told.contains("took in 1 image: 1 manifest, 3 new blobs"),
        "{told}"
    );
    pull(&far.daemon, NAME, "1", &image).await;
    far.check();
}

#[tokio::test]
async fn a_daemon_that_ends_keeps_the_images_that_came_whole() {
    let (good, late) = (Image::simple(1, 5 << 20), Image::simple(2, 5 << 20));
    let names: [(&str, &dyn Content); 2] = [
        ("docker.io/library/app:good", &good),
        ("docker.io/library/app:late", &late),
    ];
    let whole = tar_of(&[vec![layout(), index(&names)], contents(&good), contents(&late)].concat());
    let mut far = Gap::start().await;
    let mut import = piped(&far.daemon, &["bundle", "import", "-", "--json"]);
    let mut input = import.stdin.take().expect("a pipe");
    input.write_all(&whole[..8 << 20]).await.expect("a reader");
    // Taken in, all of it: the sender is silent from here on.
    let arrived = async {
        while !asked(&far.daemon, &["status"]).await["fills"]
            .as_array()
            .is_some_and(|fills| fills.iter().any(|fill| fill["present"].as_u64() > Some(2 << 20)))
        {}
    };
    soon("the late one's layer", arrived).await;
    assert!(soon("the daemon's end", far.daemon.stop()).await.success());
    drop(input);
    let output = soon("the end", import.wait_with_output())
        .await
        .expect("a status");
    assert!(!output.status.success());
    far.daemon.restart().await;
    pull(&far.daemon, NAME, "good", &good).await;
    assert_error(
        &get(far.daemon.manifest_url(NAME, "late")).await,
        503,
        "UNAVAILABLE",
    );
    assert_nothing_left(&far.daemon, 2).await;
    far.check();
}
