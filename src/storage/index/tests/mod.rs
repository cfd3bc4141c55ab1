//! The index on a real file: rows, what is derived from them, and the upgrade of an older one.

mod admission;
mod audit;
mod faults;
mod model;

use std::sync::Mutex;

use bytes::Bytes;

use super::*;
use crate::oci::{Algorithm, Digest, Reference, Tag};
use audit::audit;

fn digest(byte: u8) -> Digest {
    Digest::from_hash(Algorithm::Sha256, &[byte; 32]).unwrap()
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn blob(size: u64, at: u64) -> BlobRow {
    BlobRow {
        size,
        stored_at: Timestamp(at),
    }
}

fn manifest(bytes: &'static str) -> ManifestRow {
    ManifestRow {
        media_type: "a/b".into(),
        bytes: Bytes::from_static(bytes.as_bytes()),
    }
}

fn outline(kind: UnitKind, needs: &[u8]) -> Outline {
    Outline {
        kind,
        bytes: 100,
        class: 2,
        needs: needs.iter().map(|&byte| digest(byte)).collect(),
    }
}

fn tag_row(byte: u8) -> TagRow {
    TagRow {
        digest: digest(byte).to_string(),
        validated_at: Timestamp(5),
        gone_since: None,
    }
}

fn link(size: u64) -> LinkRow {
    LinkRow {
        size,
        proof: Proof::Named,
        manifest: false,
        at: None,
    }
}

fn image(byte: u8, needs: &[u8], at: u64) -> Change {
    let outline = outline(UnitKind::Image, needs);
    Change::put_manifest(&digest(byte), &manifest("{}"), &outline, Timestamp(at))
}

fn digests(units: &[Unit]) -> Vec<Digest> {
    units.iter().map(|unit| unit.key.digest).collect()
}

/// An index in a folder that goes with it.
struct Scene {
    index: Index,
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let index = Index::open(folder.path(), false, None).unwrap();
        Self { index, folder }
    }

    async fn commit(&self, changes: Vec<Change>) -> Removed {
        let removed = self.index.remove(changes).await.unwrap();
        audit(&self.index);
        removed
    }

    fn reopen(self, derive: bool) -> Self {
        let Self { index, folder } = self;
        index.close();
        drop(index);
        let index = Index::open(folder.path(), derive, None).unwrap();
        Self { index, folder }
    }
}

#[tokio::test]
async fn rows_come_back_after_reopening() {
    let scene = Scene::new();
    assert_eq!(scene.index.last_closed(), None);
    let (latest, row) = (tag("latest"), tag_row(7));
    scene
        .commit(vec![
            image(7, &[], 1),
            Change::put_tag("hub/a", &latest, &row),
            Change::put_tag("hub/a", &tag("v1"), &row),
            Change::put_tag("hub/ab", &latest, &row),
            Change::put_blob(&digest(8), &blob(9, 1)),
            Change::put_meta("scrub", vec![1, 2]),
        ])
        .await;
    let scene = scene.reopen(false);
    audit(&scene.index);
    let index = Arc::new(scene.index);
    assert!(index.last_closed().is_some());
    let found = index.tag("hub/a", &latest).unwrap().unwrap();
    assert_eq!(found.validated_at, Timestamp(5));
    assert_eq!(index.tags("hub/a", 10).unwrap(), ["latest", "v1"]);
    assert_eq!(index.tags("hub/a", 1).unwrap(), ["latest"]);
    let read = index.read(|index| index.manifest(&digest(7))).await;
    let read = read.unwrap().unwrap();
    assert_eq!((read.media_type.as_str(), &read.bytes[..]), ("a/b", &b"{}"[..]));
    assert_eq!(index.blob(&digest(8)).unwrap().unwrap().size, 9);
    assert_eq!(index.meta("scrub").unwrap().unwrap(), [1, 2]);
    let changes = vec![
        Change::remove_tag("hub/a", &latest),
        Change::remove_blob(&digest(8)),
    ];
    index.commit(changes).await.unwrap();
    audit(&index);
    assert!(index.tag("hub/a", &latest).unwrap().is_none());
    assert!(index.blob(&digest(8)).unwrap().is_none());
}

#[tokio::test]
async fn totals_are_exact_when_rows_are_replaced_and_removed() {
    let scene = Scene::new();
    let big = ManifestRow {
        bytes: Bytes::from_static(b"{ }"),
        ..manifest("")
    };
    scene
        .commit(vec![
            Change::put_blob(&digest(1), &blob(1, 1)),
            Change::put_blob(&digest(1), &blob(4097, 1)),
            Change::put_blob(&digest(2), &blob(0, 1)),
            image(3, &[1], 1),
            Change::put_manifest(&digest(3), &big, &outline(UnitKind::Image, &[1]), Timestamp(2)),
        ])
        .await;
    let totals = Totals {
        blobs: 2,
        blob_bytes: 8192,
        manifests: 1,
        manifest_bytes: 3,
        ..Totals::default()
    };
    assert_eq!(scene.index.totals().unwrap(), totals);
    let scene = scene.reopen(false);
    assert_eq!(scene.index.totals().unwrap(), totals);
    scene
        .commit(vec![
            Change::remove_blob(&digest(1)),
            Change::remove_blob(&digest(1)),
            Change::remove_manifest(&digest(3)),
            Change::remove_manifest(&digest(3)),
            Change::remove_blob(&digest(2)),
        ])
        .await;
    assert_eq!(scene.index.totals().unwrap(), Totals::default());
}

#[tokio::test]
async fn a_manifest_takes_a_loose_blob_over_and_gives_it_back() {
    let scene = Scene::new();
    scene
        .commit(vec![Change::put_blob(&digest(1), &blob(5, 50))])
        .await;
    let unit = scene.index.unit(&digest(1)).unwrap().unwrap();
    assert_eq!((unit.kind, unit.bytes), (UnitKind::Blob, 4096));
    scene.commit(vec![image(9, &[1, 2], 10)]).await;
    assert!(scene.index.unit(&digest(1)).unwrap().is_none());
    let unit = scene.index.unit(&digest(9)).unwrap().unwrap();
    assert_eq!((unit.kind, unit.key.last_used), (UnitKind::Image, Timestamp(50)));
    // A blob that comes after its manifest never is a unit.
    scene
        .commit(vec![
            Change::put_blob(&digest(2), &blob(5, 60)),
            image(8, &[2], 70),
        ])
        .await;
    assert!(scene.index.unit(&digest(2)).unwrap().is_none());
    assert_eq!(
        scene.index.needed_by(&digest(2), 9).unwrap(),
        [digest(8), digest(9)]
    );
    let removed = scene.commit(vec![Change::remove_manifest(&digest(9))]).await;
    assert_eq!(
        (removed.manifests, removed.loose),
        (vec![digest(9)], vec![digest(1)])
    );
    let unit = scene.index.unit(&digest(1)).unwrap().unwrap();
    assert_eq!((unit.kind, unit.key.class), (UnitKind::Blob, 2));
    assert!(scene.index.unit(&digest(2)).unwrap().is_none());
}

#[tokio::test]
async fn removing_a_manifest_removes_what_only_it_explains() {
    let scene = Scene::new();
    let forgotten = Arc::new(Mutex::new(Vec::new()));
    let its = forgotten.clone();
    scene
        .index
        .on_removed(move |removed| its.lock().unwrap().push(removed.clone()));
    let referrers = ReferrersRow {
        descriptors: Vec::new(),
        validated_at: Timestamp(1),
    };
    scene
        .commit(vec![
            // 9 needs 1 (here), 2 (not here), 3 (not here, but 8 names it too).
            image(9, &[1, 2, 3], 1),
            image(8, &[3], 1),
            Change::put_blob(&digest(1), &blob(1, 1)),
            Change::put_link("a", &digest(9), &link(2)),
            Change::put_link("b", &digest(9), &link(2)),
            Change::put_link("a", &digest(1), &link(1)),
            Change::put_link("a", &digest(2), &link(1)),
            Change::put_link("a", &digest(3), &link(1)),
            Change::put_tag("a", &tag("x"), &tag_row(9)),
            Change::put_tag("b", &tag("x"), &tag_row(9)),
            Change::put_tag("b", &tag("moved"), &tag_row(9)),
            Change::put_tag("b", &tag("moved"), &tag_row(8)),
            Change::put_referrers("a", &digest(9), &referrers),
        ])
        .await;
    assert_eq!(scene.index.holders(&digest(9), 9).unwrap(), ["a", "b"]);
    let both = [("a".to_owned(), tag("x")), ("b".to_owned(), tag("x"))];
    assert_eq!(scene.index.tagged(&digest(9), 9).unwrap(), both);
    let removed = scene.commit(vec![Change::remove_manifest(&digest(9))]).await;
    assert_eq!(removed.tags, both);
    let gone = [("a", 2), ("a", 9), ("b", 9)].map(|(holder, byte)| (holder.to_owned(), digest(byte)));
    assert_eq!(removed.links, gone);
    assert!(scene.index.referrers("a", &digest(9)).unwrap().is_none());
    assert!(scene.index.link("a", &digest(1)).unwrap().is_some());
    assert!(scene.index.link("a", &digest(3)).unwrap().is_some());
    assert_eq!(scene.index.tags("b", 9).unwrap(), ["moved"]);
    assert_eq!(*forgotten.lock().unwrap(), [removed]);
    // The last link goes with the blob.
    let removed = scene.commit(vec![Change::remove_blob(&digest(1))]).await;
    assert_eq!(removed.links, [("a".to_owned(), digest(1))]);
    // Blob 3 is not here, but may still be served: 8 names it.
    scene.commit(vec![Change::remove_blob(&digest(3))]).await;
    assert!(scene.index.link("a", &digest(3)).unwrap().is_some());
}

#[tokio::test]
async fn units_are_found_oldest_first_in_their_class() {
    let scene = Scene::new();
    let changes = (1..=5).map(|byte| image(byte, &[], 100 - u64::from(byte)));
    scene.commit(changes.collect()).await;
    scene
        .commit(vec![
            Change::touch(&digest(5), Timestamp(200)),
            Change::touch(&digest(4), Timestamp(3)),
            Change::touch(&digest(77), Timestamp(300)),
            Change::classify(&digest(1), 99),
        ])
        .await;
    let index = &scene.index;
    let all = index.oldest(2, None, 10).unwrap();
    assert_eq!(digests(&all), [digest(4), digest(3), digest(2), digest(5)]);
    assert_eq!(all[3].key.last_used, Timestamp(200));
    let first = index.oldest(2, None, 2).unwrap();
    assert_eq!(first, all[..2]);
    assert_eq!(index.oldest(2, Some(first[1].key), 10).unwrap(), all[2..]);
    assert_eq!(digests(&index.oldest(15, None, 10).unwrap()), [digest(1)]);
    assert_eq!(index.oldest(3, None, 10).unwrap(), []);
}

#[tokio::test]
async fn an_index_is_childless_when_its_last_child_goes() {
    let scene = Scene::new();
    let list = outline(UnitKind::Index, &[1, 2, 3]);
    scene
        .commit(vec![
            image(1, &[], 1),
            image(2, &[], 1),
            Change::put_manifest(&digest(9), &manifest("{}"), &list, Timestamp(1)),
            Change::put_link("a", &digest(1), &link(2)),
        ])
        .await;
    assert_eq!(scene.index.child(&digest(9)).unwrap(), Some(digest(1)));
    let pin = PinRow {
        pinned_at: Timestamp(1),
        note: None,
        names: Vec::new(),
    };
    scene.commit(vec![Change::put_pin(&digest(9), &pin)]).await;
    assert!(scene.index.is_pinned(&digest(9)).unwrap());
    assert!(scene.index.is_pinned(&digest(1)).unwrap());
    scene.commit(vec![Change::remove_pin(&digest(9))]).await;
    assert!(!scene.index.is_pinned(&digest(1)).unwrap());

    let removed = scene.commit(vec![Change::remove_manifest(&digest(1))]).await;
    // The index still names it, so the link stays good.
    assert_eq!((removed.childless, removed.links), (vec![], vec![]));
    let removed = scene.commit(vec![Change::remove_manifest(&digest(2))]).await;
    assert_eq!(removed.childless, [digest(9)]);
    assert_eq!(scene.index.child(&digest(9)).unwrap(), None);
    let removed = scene.commit(vec![Change::remove_manifest(&digest(9))]).await;
    assert_eq!(removed.links, [("a".to_owned(), digest(1))]);
}

/// What each pinned digest is pinned by.
fn pinned(index: &Index) -> Vec<(u8, Vec<String>)> {
    let pins = index.pins_after(None, 100).unwrap();
    let names = |row: PinRow| row.names.into_iter().map(|had| had.name).collect();
    pins.into_iter()
        .map(|(digest, row)| (digest.hash()[0], names(row)))
        .collect()
}

#[tokio::test]
async fn a_pin_follows_its_tag() {
    let scene = Scene::new();
    let at = Timestamp(5);
    scene
        .commit(vec![
            image(1, &[], 1),
            image(2, &[], 1),
            image(3, &[], 1),
            Change::put_tag("a", &tag("x"), &tag_row(1)),
            // Not here, so there is nothing to pin.
            Change::pin_tag("a", &tag("y"), false, &[], at),
            Change::pin_digest("a", &digest(9), false, &[], at),
        ])
        .await;
    assert_eq!(pinned(&scene.index), []);
    let by_digest = format!("a@{}", digest(1));
    scene
        .commit(vec![
            Change::pin_tag("a", &tag("x"), false, &[], at),
            Change::pin_digest("a", &digest(1), false, &[], at),
            Change::pin_tag("a", &tag("x"), false, &[], at),
        ])
        .await;
    assert_eq!(
        pinned(&scene.index),
        [(1, vec!["a:x".to_owned(), by_digest.clone()])]
    );
    // The tag moves: its pin goes with it, the other one stays.
    scene
        .commit(vec![Change::put_tag("a", &tag("x"), &tag_row(2))])
        .await;
    let both = [(1, vec![by_digest.clone()]), (2, vec!["a:x".to_owned()])];
    assert_eq!(pinned(&scene.index), both);
    assert_eq!(scene.index.pin(&digest(2)).unwrap().unwrap().pinned_at, at);
    // A tag that goes leaves what it meant pinned, and takes the pin up again when it comes back.
    scene.commit(vec![Change::remove_tag("a", &tag("x"))]).await;
    assert_eq!(pinned(&scene.index), both);
    scene
        .commit(vec![
            Change::put_tag("b", &tag("x"), &tag_row(3)),
            Change::put_tag("a", &tag("x"), &tag_row(3)),
        ])
        .await;
    let scene = scene.reopen(false);
    assert_eq!(
        pinned(&scene.index),
        [(1, vec![by_digest.clone()]), (3, vec!["a:x".to_owned()])]
    );
    scene
        .commit(vec![
            Change::unpin("a:x"),
            Change::unpin("a:y"),
            Change::unpin(&by_digest),
        ])
        .await;
    assert_eq!(pinned(&scene.index), []);
}

#[tokio::test]
async fn who_pins_again_adds_platforms_and_an_operators_pin_stands() {
    let scene = Scene::new();
    let row = |scene: &Scene| scene.index.pin(&digest(1)).unwrap().unwrap();
    scene
        .commit(vec![
            image(1, &[], 1),
            image(2, &[], 1),
            Change::put_tag("a", &tag("x"), &tag_row(1)),
        ])
        .await;
    let steps = [
        (true, "linux/b", true, "linux/b"),
        (false, "linux/a", false, "linux/a linux/b"),
        (true, "linux/c", false, "linux/a linux/b linux/c"),
    ];
    for (by_list, platform, listed, platforms) in steps {
        let change = Change::pin_tag("a", &tag("x"), by_list, &[platform.to_owned()], Timestamp(1));
        scene.commit(vec![change]).await;
        let names = row(&scene).names;
        assert_eq!(names.len(), 1);
        assert_eq!(
            (names[0].listed, names[0].platforms.join(" ")),
            (listed, platforms.to_owned())
        );
    }
    let before = row(&scene);
    scene
        .commit(vec![Change::put_tag("a", &tag("x"), &tag_row(2))])
        .await;
    assert_eq!(scene.index.pin(&digest(2)).unwrap(), Some(before));
    assert_eq!(pinned(&scene.index).len(), 1);
}

#[tokio::test]
async fn blobs_and_manifests_are_paged() {
    let scene = Scene::new();
    let mut changes: Vec<_> = (1..=9)
        .map(|byte| Change::put_blob(&digest(byte), &blob(1, 1)))
        .collect();
    changes.extend((21..=24).map(|byte| image(byte, &[], 1)));
    scene.commit(changes).await;
    let (mut after, mut found) = (None, Vec::new());
    loop {
        let page = scene.index.blobs_after(after, 4).unwrap();
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        found.extend(page.into_iter().map(|(digest, _)| digest));
    }
    assert_eq!(found, (1..=9).map(digest).collect::<Vec<_>>());
    let rest = scene.index.manifests_after(Some(digest(22)), 9).unwrap();
    assert_eq!(rest.len(), 2);
}

#[tokio::test]
async fn an_older_index_gets_what_is_derived() {
    let scene = Scene::new();
    let layer = digest(1);
    let bytes = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[{{"mediaType":"x/y","digest":"{layer}","size":10}}]}}"#
    );
    let row = ManifestRow {
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        bytes: bytes.clone().into(),
    };
    // What a version of format 1 knew of it.
    let changes = vec![
        Change::put_manifest(&digest(9), &row, &outline(UnitKind::Image, &[]), Timestamp(1)),
        Change::put_blob(&layer, &blob(10, 1)),
        Change::put_blob(&digest(2), &blob(10, 1)),
        Change::put_link("a", &layer, &link(10)),
        Change::put_tag("a", &tag("x"), &tag_row(9)),
    ];
    scene.commit(changes).await;
    scene.index.close();
    let path = scene.folder.path().join("index.redb");
    drop(scene.index);
    {
        let database = redb::Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        for table in tables::DERIVED.into_iter().chain([tables::META]) {
            assert!(transaction.delete_table(table).unwrap());
        }
        transaction.commit().unwrap();
    }
    let scene = Scene {
        index: Index::open(scene.folder.path(), false, None).unwrap(),
        folder: scene.folder,
    };
    audit(&scene.index);
    let index = &scene.index;
    let unit = index.unit(&digest(9)).unwrap().unwrap();
    assert_eq!(
        (unit.kind, unit.bytes),
        (UnitKind::Image, bytes.len() as u64 + 10)
    );
    assert!(index.unit(&layer).unwrap().is_none(), "the image needs it");
    assert_eq!(index.unit(&digest(2)).unwrap().unwrap().kind, UnitKind::Blob);
    assert_eq!(index.totals().unwrap().blob_bytes, 8192);
    assert_eq!(index.holders(&layer, 9).unwrap(), ["a"]);
    // Once more, as after a version of format 1 has written to it: the same.
    let totals = index.totals().unwrap();
    let scene = scene.reopen(true);
    audit(&scene.index);
    assert_eq!(scene.index.totals().unwrap(), totals);
}

#[tokio::test]
async fn what_was_pulled_is_told_repository_by_repository_also_when_it_has_gone() {
    let scene = Scene::new();
    let used = |at, byte| UseRow {
        at: Timestamp(at),
        digest: digest(byte),
    };
    let (name, content) = (Reference::Tag(tag("1")), Reference::Digest(digest(9)));
    let changes = vec![
        image(9, &[], 1),
        Change::put_use("hub/a", &name, used(1, 9)),
        Change::put_use("hub/a", &content, used(2, 9)),
        Change::put_use("hub/a/b", &name, used(3, 8)),
        Change::put_use("hub/b", &name, used(4, 9)),
        Change::put_use("quay/a", &name, used(5, 9)),
        Change::put_use("hub/a", &name, used(6, 9)),
        Change::remove_use("hub/b", &name),
        Change::remove_manifest(&digest(9)),
    ];
    scene.commit(changes).await;
    let scene = scene.reopen(false);
    assert_eq!(scene.index.last_use("hub/a", &name).unwrap(), Some(used(6, 9)));
    assert_eq!(scene.index.last_use("hub/b", &name).unwrap(), None);
    let all = scene.index.uses_after("hub/", None, 9).unwrap();
    let expected = [
        ("hub/a".to_owned(), name.clone(), used(6, 9)),
        ("hub/a".to_owned(), content, used(2, 9)),
        ("hub/a/b".to_owned(), name, used(3, 8)),
    ];
    assert_eq!(all, expected);
    let mut paged = Vec::new();
    loop {
        let after = paged
            .last()
            .map(|(repository, reference, _): &(String, Reference, UseRow)| {
                (repository.clone(), reference.clone())
            });
        let page = scene.index.uses_after("hub/", after.as_ref(), 1).unwrap();
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, expected);
    audit(&scene.index);
}
