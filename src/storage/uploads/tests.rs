//! Sessions over a real folder.

use super::*;
use crate::storage::partial::{beside, boot};
use crate::storage::space::Bounds;

struct Scene {
    _root: tempfile::TempDir,
    layout: Arc<Layout>,
    _lock: File,
    space: Arc<Space>,
    uploads: Uploads,
}

const REPO: &str = "hosted:acme/app";

fn scene(limit: Option<u64>) -> Scene {
    let root = tempfile::tempdir().unwrap();
    let layout = Arc::new(Layout::new(root.path()));
    let lock = layout.prepare().unwrap();
    let bounds = Bounds {
        hosted_max_size: limit,
        ..Bounds::default()
    };
    let space = Space::new(&layout, bounds);
    let uploads = Uploads::recover(layout.clone(), space.clone()).unwrap();
    Scene {
        _root: root,
        layout,
        _lock: lock,
        space,
        uploads,
    }
}

fn new(owner: &str, algorithm: Algorithm, size: Option<u64>) -> NewUpload {
    NewUpload {
        repository: REPO.to_owned(),
        owner: owner.to_owned(),
        counted: owner.to_owned(),
        algorithm,
        size,
    }
}

const TWO: UploadRules = UploadRules {
    most: 2,
    min_chunk: 0,
};

fn again(scene: &Scene) -> Uploads {
    Uploads::recover(scene.layout.clone(), scene.space.clone()).unwrap()
}

#[test]
fn a_session_goes_on_in_another_request_and_another_process() {
    let scene = scene(None);
    let mut upload = scene.uploads.begin(new("ann", Algorithm::Sha256, None)).unwrap();
    upload.append(b"one ").unwrap();
    let id = upload.id();
    assert_eq!(scene.uploads.take(REPO, id).unwrap().err(), Some(NotHad::Busy));
    assert_eq!(
        scene.uploads.take("hosted:other", id).unwrap().err(),
        Some(NotHad::Unknown),
        "a name of another repository's says nothing"
    );
    drop(upload);
    scene
        .uploads
        .take(REPO, id)
        .unwrap()
        .unwrap()
        .append(b"two ")
        .unwrap();
    let uploads = again(&scene);
    let mut upload = uploads.take(REPO, id).unwrap().unwrap();
    assert_eq!((upload.size(), upload.owner()), (8, "ann"));
    upload.append(b"three").unwrap();
    let digest = Hasher::digest(Algorithm::Sha256, b"one two three");
    let wrong = Hasher::digest(Algorithm::Sha256, b"else");
    assert!(matches!(upload.place(&wrong), Err(Error::WrongDigest { .. })));
    upload.place(&digest).unwrap();
    drop(upload);
    assert_eq!(fs::read(scene.layout.blob(&digest)).unwrap(), b"one two three");
    assert_eq!(uploads.take(REPO, id).unwrap().err(), Some(NotHad::Unknown));
    assert!(uploads.resting().is_empty());
    assert_eq!(fs::read_dir(scene.layout.uploads()).unwrap().count(), 0);
}

#[test]
fn after_a_power_cut_what_was_synced_counts() {
    let scene = scene(None);
    let mut upload = scene.uploads.begin(new("ann", Algorithm::Sha512, None)).unwrap();
    upload.append(b"synced").unwrap();
    upload.sync().unwrap();
    upload.append(b" and not").unwrap();
    let (id, path) = (upload.id(), upload.path.clone());
    drop(upload);
    let text = fs::read_to_string(beside(&path, "json")).unwrap();
    fs::write(beside(&path, "json"), text.replace(boot(), "another boot")).unwrap();
    let mut upload = again(&scene).take(REPO, id).unwrap().unwrap();
    assert_eq!(upload.size(), 6);
    upload.append(b"!").unwrap();
    assert_eq!(upload.digest(), Hasher::digest(Algorithm::Sha512, b"synced!"));
    upload.hash_by(Algorithm::Sha256).unwrap();
    assert_eq!(upload.digest(), Hasher::digest(Algorithm::Sha256, b"synced!"));
}

#[test]
fn files_without_a_sound_record_are_removed() {
    let scene = scene(None);
    let id = {
        let mut upload = scene.uploads.begin(new("", Algorithm::Sha256, None)).unwrap();
        upload.append(b"bytes").unwrap();
        upload.id()
    };
    let path = scene.uploads.shared.path(id);
    fs::write(&path, b"by").unwrap();
    fs::write(scene.layout.uploads().join("stray"), b"").unwrap();
    fs::write(scene.layout.uploads().join("stray.json"), b"{}").unwrap();
    assert!(again(&scene).resting().is_empty());
    assert_eq!(fs::read_dir(scene.layout.uploads()).unwrap().count(), 0);
}

#[test]
fn room_is_taken_as_it_comes_and_given_back() {
    let scene = scene(Some(32 * 1024));
    let refused = scene.uploads.begin(new("", Algorithm::Sha256, Some(40_000)));
    assert!(matches!(refused.map(drop), Err(Error::NoRoom(_))));
    let mut upload = scene.uploads.begin(new("", Algorithm::Sha256, None)).unwrap();
    upload.append(&vec![1; 20_000]).unwrap();
    assert!(matches!(upload.append(&vec![1; 20_000]), Err(Error::NoRoom(_))));
    assert_eq!(upload.size(), 20_000, "what came before stays");
    let id = upload.id();
    drop(upload);
    assert!(scene.space.usage().hosted >= 20_000);
    assert_eq!(scene.uploads.resting().len(), 1);
    // Somebody wrote to it after that.
    assert_eq!(scene.uploads.discard(id, Timestamp(1)), None);
    let size = scene.uploads.resting()[0].size;
    assert_eq!(scene.uploads.discard(id, Timestamp::now()), Some(size));
    assert_eq!(scene.uploads.discard(id, Timestamp::now()), None);
    assert_eq!(scene.space.usage().hosted, 0);
    let upload = scene
        .uploads
        .begin(new("", Algorithm::Sha256, Some(30_000)))
        .unwrap();
    upload.cancel();
    assert_eq!(scene.space.usage().hosted, 0);
    assert_eq!(fs::read_dir(scene.layout.uploads()).unwrap().count(), 0);
}

#[test]
fn only_bytes_keep_a_session() {
    let scene = scene(None);
    let mut upload = scene.uploads.begin(new("ann", Algorithm::Sha256, None)).unwrap();
    upload.append(b"some").unwrap();
    let (id, path) = (upload.id(), upload.path.clone());
    drop(upload);
    // As if that had been long ago.
    let began = scene.uploads.resting()[0].at;
    let text = fs::read_to_string(beside(&path, "json")).unwrap();
    let old = text.replace(&format!("\"at\":{}", began.0), "\"at\":5");
    assert_ne!(old, text);
    fs::write(beside(&path, "json"), old).unwrap();
    let uploads = again(&scene);
    for _ in 0..3 {
        // Asked about, and given nothing.
        let mut upload = uploads.take(REPO, id).unwrap().unwrap();
        upload.append(b"").unwrap();
        drop(upload);
        assert_eq!(uploads.resting()[0].at, Timestamp(5));
    }
    uploads.take(REPO, id).unwrap().unwrap().append(b"more").unwrap();
    assert!(uploads.resting()[0].at >= began);
    assert_eq!(uploads.discard(id, Timestamp(5)), None);
    // What was written down says the same.
    assert!(again(&scene).resting()[0].at >= began);
}

#[test]
fn so_many_are_open_for_one_and_no_more() {
    let scene = scene(Some(64 * 1024 * 1024));
    let uploads = scene.uploads.clone().held_to(TWO);
    let begin = |owner| uploads.begin(new(owner, Algorithm::Sha256, None));
    let (first, second) = (begin("ann").unwrap(), begin("ann").unwrap());
    drop(second);
    assert!(matches!(begin("ann").map(drop), Err(Error::TooManyUploads(2))));
    drop(begin("bob").unwrap());
    // What cannot begin for want of room does not count.
    for _ in 0..3 {
        let large = uploads.begin(new("bob", Algorithm::Sha256, Some(1 << 40)));
        assert!(matches!(large.map(drop), Err(Error::NoRoom(_))));
    }
    first.cancel();
    let mut nameless = begin("ann").unwrap();
    nameless.make_nameless();
    drop(nameless);
    drop(begin("ann").unwrap());
    // Those of an earlier process count.
    let uploads = again(&scene).held_to(TWO);
    let more = uploads.begin(new("ann", Algorithm::Sha256, None));
    assert!(matches!(more.map(drop), Err(Error::TooManyUploads(2))));
    let of_ann = uploads.resting()[0].id;
    assert!(uploads.discard(of_ann, Timestamp::now()).is_some());
}

#[test]
fn a_chunk_is_as_long_as_it_was_sent_in_whatever_pieces() {
    let scene = scene(None);
    let mut upload = scene.uploads.begin(new("ann", Algorithm::Sha256, None)).unwrap();
    upload.end_chunk(8);
    assert!(!upload.is_short(), "nothing is no chunk");
    upload.append(b"broke").unwrap();
    let id = upload.id();
    drop(upload);
    let mut upload = scene.uploads.take(REPO, id).unwrap().unwrap();
    upload.append(b" off").unwrap();
    upload.end_chunk(8);
    assert!(!upload.is_short());
    upload.sync().unwrap();
    upload.append(b"last").unwrap();
    upload.end_chunk(8);
    assert!(upload.is_short());
    let path = upload.path.clone();
    drop(upload);
    assert!(again(&scene).take(REPO, id).unwrap().unwrap().is_short());
    // After a power cut it is not here, and comes again.
    let text = fs::read_to_string(beside(&path, "json")).unwrap();
    fs::write(beside(&path, "json"), text.replace(boot(), "another boot")).unwrap();
    let mut upload = again(&scene).take(REPO, id).unwrap().unwrap();
    assert_eq!((upload.size(), upload.is_short()), (9, false));
    upload.append(b"last one").unwrap();
    upload.end_chunk(8);
    assert!(!upload.is_short());
}
