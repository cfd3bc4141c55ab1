//! Pushes, deletions and collections over a real data folder.

use std::time::Duration;

use super::*;
use crate::config::StorageConfig;
use crate::oci::{Algorithm, MediaType, Reference};
use crate::storage::{Hasher, LinkRow, Proof, Storage};

const HOUR: Duration = Duration::from_hours(1);

pub(super) struct Scene {
    _root: tempfile::TempDir,
    storage: Storage,
    pub(super) hosted: Hosted,
    pub(super) app: Arc<HostedRepository>,
}

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

pub(super) fn sha(bytes: &[u8]) -> Digest {
    Hasher::digest(Algorithm::Sha256, bytes)
}

fn ann() -> Uploader {
    Uploader {
        owner: "ann".to_owned(),
        counted: "ann".to_owned(),
    }
}

impl Scene {
    async fn with(settings: Settings) -> Self {
        let root = tempfile::tempdir().unwrap();
        let storage = Storage::open(&StorageConfig::in_folder(root.path().join("data"))).unwrap();
        let repositories = Arc::new(Repositories::new(storage.index.clone()));
        let hosted = Hosted::new(
            repositories,
            storage.index.clone(),
            storage.blobs.clone(),
            storage.uploads.clone(),
            HOUR,
            Timestamp(0),
        );
        let (app, new) = hosted.create(&name("acme/app"), "ann", settings).await.unwrap();
        assert!(new);
        Self {
            _root: root,
            storage,
            hosted,
            app,
        }
    }

    pub(super) async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    pub(super) async fn upload(&self, bytes: &'static [u8]) -> Result<Digest, Error> {
        let hosted = &self.hosted;
        let upload = hosted.begin_upload(&self.app, ann(), Algorithm::Sha256).await?;
        let upload = hosted.append(upload, bytes.into()).await?;
        let finished = hosted.finish_upload(&self.app, upload, &sha(bytes)).await?;
        assert_eq!(finished.size, bytes.len() as u64);
        Ok(finished.digest)
    }

    pub(super) async fn put(&self, tag: &str, bytes: &str) -> Result<Pushed, Error> {
        let pushing = Pushing {
            reference: Reference::Tag(tag.parse().unwrap()),
            tags: Vec::new(),
            media_type: Some(MediaType::oci_manifest()),
            bytes: bytes.to_owned().into(),
        };
        self.hosted.push_manifest(&self.app, pushing).await
    }

    /// An image of one blob.
    pub(super) async fn image(&self, tag: &str, layer: &'static [u8]) -> Digest {
        let layer = self.upload(layer).await.unwrap();
        self.put(tag, &manifest(&[layer], None)).await.unwrap().digest
    }

    async fn get(&self, reference: &str) -> Result<Digest, Error> {
        let found = self.hosted.manifest(&self.app, &reference.parse().unwrap()).await;
        found.map(|found| found.digest)
    }

    /// Makes a blob of the repository older than the grace period.
    async fn age(&self, digest: &Digest, size: usize) {
        let row = LinkRow {
            size: size as u64,
            proof: Proof::Pushed,
            manifest: false,
            at: Some(Timestamp(0)),
        };
        let change = Change::put_link(&self.app.key, digest, &row);
        self.storage.index.commit(vec![change]).await.unwrap();
        self.hosted.shared.leases.invalidate_all();
    }
}

pub(super) fn manifest(layers: &[Digest], subject: Option<&Digest>) -> String {
    let descriptor = |digest: &Digest| serde_json::json!({ "mediaType": "a/layer", "digest": digest.to_string(), "size": 1 });
    let mut document = serde_json::json!({
        "schemaVersion": 2,
        "layers": layers.iter().map(descriptor).collect::<Vec<_>>(),
    });
    if let Some(subject) = subject {
        document["subject"] = descriptor(subject);
        document["artifactType"] = "a/signature".into();
    }
    document.to_string()
}

#[tokio::test]
async fn what_is_pushed_is_here_and_stays_here() {
    let scene = Scene::new().await;
    let digest = scene.image("v1", b"a layer").await;
    assert_eq!(scene.get("v1").await.unwrap(), digest);
    assert_eq!(scene.get(&digest.to_string()).await.unwrap(), digest);
    let layer = sha(b"a layer");
    let blob = scene.hosted.blob(&scene.app, &layer).await.unwrap();
    assert_eq!(blob.size(), 7);
    // Pushed again it costs no room.
    let before = scene.storage.blobs.space().usage().hosted;
    scene.image("v2", b"a layer").await;
    let usage = scene.storage.blobs.space().usage();
    assert_eq!((usage.hosted, usage.used), (before, 0));
    assert_eq!(scene.hosted.tags(&scene.app, "", 9).await.unwrap(), ["v1", "v2"]);
    assert_eq!(scene.hosted.tags(&scene.app, "v1", 1).await.unwrap(), ["v2"]);
    // Nothing of it could be evicted.
    for digest in [layer, digest] {
        let unit = scene.storage.index.read(move |index| index.unit(&digest)).await;
        assert_eq!(unit.unwrap(), None);
    }
}

#[tokio::test]
async fn a_wrong_digest_ends_the_session_and_another_owner_never_sees_it() {
    let scene = Scene::new().await;
    let hosted = &scene.hosted;
    let upload = hosted
        .begin_upload(&scene.app, ann(), Algorithm::Sha256)
        .await
        .unwrap();
    let id = upload.id();
    let busy = hosted.take_upload(&scene.app, "ann", id).await;
    assert!(matches!(busy.map(drop), Err(Error::UploadBusy)));
    drop(hosted.append(upload, "some".into()).await.unwrap());
    let foreign = hosted.take_upload(&scene.app, "bob", id).await;
    assert!(matches!(foreign.map(drop), Err(Error::UploadUnknown)));
    let upload = hosted.take_upload(&scene.app, "ann", id).await.unwrap();
    assert_eq!(upload.size(), 4);
    let wrong = hosted.finish_upload(&scene.app, upload, &sha(b"other")).await;
    assert!(matches!(wrong, Err(Error::DigestInvalid(_))), "{wrong:?}");
    let over = hosted.take_upload(&scene.app, "ann", id).await;
    assert!(matches!(over.map(drop), Err(Error::UploadUnknown)));
    assert_eq!(scene.storage.blobs.space().usage().hosted, 0);
}

#[tokio::test]
async fn a_manifest_names_only_what_its_own_repository_holds() {
    let scene = Scene::new().await;
    let layer = scene.upload(b"a layer").await.unwrap();
    let other = scene
        .hosted
        .create(&name("acme/other"), "bob", Settings::default())
        .await
        .unwrap()
        .0;
    let pushing = || Pushing {
        reference: Reference::Tag("v1".parse().unwrap()),
        tags: vec!["v2".parse().unwrap()],
        media_type: None,
        bytes: manifest(&[layer], None).into(),
    };
    let dangling = scene.hosted.push_manifest(&other, pushing()).await;
    assert!(
        matches!(&dangling, Err(Error::Dangling(missing)) if missing == &[layer]),
        "{dangling:?}"
    );
    assert!(matches!(
        scene.hosted.blob(&other, &layer).await.map(drop),
        Err(Error::BlobUnknown)
    ));
    let absent = sha(b"absent");
    assert!(!scene.hosted.mount(&other, &scene.app.key, &absent).await.unwrap());
    assert!(scene.hosted.mount(&other, &scene.app.key, &layer).await.unwrap());
    assert_eq!(
        scene.hosted.holders(&layer).await.unwrap(),
        [scene.app.name.clone(), other.name.clone()]
    );
    scene.hosted.push_manifest(&other, pushing()).await.unwrap();
    assert_eq!(scene.hosted.tags(&other, "", 9).await.unwrap(), ["v1", "v2"]);
    // Whoever may see both sees both.
    let all = scene.hosted.catalog("", 9, |_| true).await.unwrap();
    assert_eq!(all, [scene.app.name.clone(), other.name.clone()]);
    let some = scene
        .hosted
        .catalog("", 9, |repository| repository.name == other.name)
        .await
        .unwrap();
    assert_eq!(some, std::slice::from_ref(&other.name));
}

#[tokio::test]
async fn immutable_tags_stay_and_a_quota_holds() {
    let scene = Scene::with(Settings {
        tags: Mutability::ImmutableExcept(vec![crate::config::Glob::new("dev*")]),
        quota: Some(600),
        ..Settings::default()
    })
    .await;
    let first = scene.image("v1", b"one").await;
    scene.put("dev", &manifest(&[sha(b"one")], None)).await.unwrap();
    let two = scene.upload(b"two").await.unwrap();
    let moved = manifest(&[two], None);
    let refused = scene.put("v1", &moved).await;
    assert!(matches!(refused, Err(Error::TagImmutable(_))), "{refused:?}");
    assert_eq!(scene.get("v1").await.unwrap(), first);
    // The same again is no move.
    scene.put("v1", &manifest(&[sha(b"one")], None)).await.unwrap();
    scene.put("dev", &moved).await.unwrap();
    assert_eq!(scene.get("dev").await.unwrap(), sha(moved.as_bytes()));
    let much = scene.upload(&[7; 600]).await;
    assert!(matches!(much, Err(Error::Quota(600))), "{much:?}");
    scene.upload(b"one").await.unwrap();
}

#[tokio::test]
async fn referrers_are_listed_until_they_are_deleted() {
    let scene = Scene::new().await;
    let subject = sha(b"what is not here yet");
    let layer = scene.upload(b"signature").await.unwrap();
    let signature = manifest(&[layer], Some(&subject));
    let pushed = scene.put("sig", &signature).await.unwrap();
    assert_eq!(pushed.subject, Some(subject));
    scene.put("sig2", &signature).await.unwrap();
    let listed = scene.hosted.referrers(&scene.app, &subject).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].artifact_type.as_deref(), Some("a/signature"));
    scene
        .hosted
        .delete_manifest(&scene.app, &pushed.digest)
        .await
        .unwrap();
    assert!(
        scene
            .hosted
            .referrers(&scene.app, &subject)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(scene.hosted.tags(&scene.app, "", 9).await.unwrap().is_empty());
    let again = scene.hosted.delete_manifest(&scene.app, &pushed.digest).await;
    assert!(matches!(again, Err(Error::ManifestUnknown)));
}

#[tokio::test]
async fn what_nothing_names_is_collected_after_the_grace_period() {
    let scene = Scene::new().await;
    let kept = scene.image("v1", b"needed").await;
    let loose = scene.upload(b"not needed").await.unwrap();
    scene.age(&sha(b"needed"), 6).await;
    let young = scene.hosted.collect(&scene.app, false).await.unwrap();
    assert_eq!(young, Collected::default());
    scene.age(&loose, 10).await;
    let dry = scene.hosted.collect(&scene.app, true).await.unwrap();
    assert_eq!((dry.unlinked, dry.removed, dry.bytes), (1, 1, 4096));
    // Who hears that it is here may rely on that.
    scene.hosted.blob(&scene.app, &loose).await.unwrap();
    let leased = scene.hosted.collect(&scene.app, false).await.unwrap();
    assert_eq!(leased, Collected::default());
    scene.age(&loose, 10).await;
    assert_eq!(scene.hosted.collect(&scene.app, false).await.unwrap(), dry);
    let gone = scene.hosted.blob(&scene.app, &loose).await;
    assert!(matches!(gone.map(drop), Err(Error::BlobUnknown)));
    assert_eq!(scene.get("v1").await.unwrap(), kept);
    scene.hosted.blob(&scene.app, &sha(b"needed")).await.unwrap();
}

#[tokio::test]
async fn a_push_beside_collections_never_relies_on_what_goes() {
    let scene = Arc::new(Scene::new().await);
    let bytes: &[u8] = b"pushed and collected again and again";
    let digest = sha(bytes);
    let text = manifest(&[digest], None);
    for round in 0..40 {
        scene.upload(bytes).await.unwrap();
        scene.age(&digest, bytes.len()).await;
        let its = scene.clone();
        let collection = tokio::spawn(async move { its.hosted.collect(&its.app, false).await.unwrap() });
        // A client that looks whether it is here, and relies on it.
        if round % 3 == 0 {
            tokio::task::yield_now().await;
        }
        let told = scene.hosted.blob(&scene.app, &digest).await;
        let pushed = match told {
            Ok(_) => scene.put("v1", &text).await.map(|pushed| pushed.digest),
            Err(_) => Err(Error::BlobUnknown),
        };
        collection.await.unwrap();
        match pushed {
            Ok(manifest) => {
                let blob = scene.hosted.blob(&scene.app, &digest).await;
                assert!(blob.is_ok(), "round {round}: an image without its layer");
                scene.hosted.delete_manifest(&scene.app, &manifest).await.unwrap();
            }
            Err(Error::BlobUnknown) => {}
            Err(other) => panic!("round {round}: told that it is here, and then {other}"),
        }
    }
}

#[tokio::test]
async fn a_blob_that_an_image_needs_is_not_deleted_alone() {
    let scene = Scene::new().await;
    let manifest = scene.image("v1", b"layer").await;
    let layer = sha(b"layer");
    let refused = scene.hosted.delete_blob(&scene.app, &layer).await;
    assert!(matches!(refused, Err(Error::BlobNeeded)));
    scene
        .hosted
        .delete_tag(&scene.app, &"v1".parse().unwrap())
        .await
        .unwrap();
    assert!(matches!(scene.get("v1").await, Err(Error::ManifestUnknown)));
    assert_eq!(scene.get(&manifest.to_string()).await.unwrap(), manifest);
    scene.hosted.delete_manifest(&scene.app, &manifest).await.unwrap();
    scene.hosted.delete_blob(&scene.app, &layer).await.unwrap();
    let gone = scene.hosted.delete_blob(&scene.app, &layer).await;
    assert!(matches!(gone, Err(Error::BlobUnknown)));
    assert_eq!(scene.storage.blobs.space().usage().hosted, 0);
}

#[tokio::test]
async fn repositories_come_and_go_and_their_names_can_be_used_again() {
    let scene = Scene::new().await;
    scene.image("v1", b"layer").await;
    let (same, new) = scene
        .hosted
        .create(&scene.app.name, "bob", Settings::default())
        .await
        .unwrap();
    assert!(!new && &*same.created_by == "ann");
    let settings = Settings {
        description: "the app".to_owned(),
        ..Settings::default()
    };
    scene
        .hosted
        .change(&scene.app.name, settings.clone())
        .await
        .unwrap();
    let changed = scene.hosted.repository(&scene.app.name).await.unwrap().unwrap();
    assert_eq!((&changed.settings, &*changed.created_by), (&settings, "ann"));
    let refused = scene.hosted.remove(&scene.app.name, false).await;
    assert!(matches!(refused, Err(Error::NotEmpty)));
    scene.hosted.remove(&scene.app.name, true).await.unwrap();
    assert!(scene.hosted.repository(&scene.app.name).await.unwrap().is_none());
    let usage = scene.storage.blobs.space().usage();
    assert_eq!((usage.hosted, usage.used), (0, 0));
    scene
        .hosted
        .create(&scene.app.name, "ann", Settings::default())
        .await
        .unwrap();
    assert!(scene.hosted.tags(&scene.app, "", 9).await.unwrap().is_empty());
    assert!(matches!(scene.get("v1").await, Err(Error::ManifestUnknown)));
    let unknown = scene.hosted.remove(&name("acme/none"), true).await;
    assert!(matches!(unknown, Err(Error::NameUnknown)));
}

#[tokio::test]
async fn a_dry_run_counts_what_several_repositories_would_let_go_of() {
    let scene = Scene::new().await;
    let loose = scene.upload(b"in three of them").await.unwrap();
    scene.age(&loose, 16).await;
    let mut all = vec![scene.app.clone()];
    for other in ["acme/b", "acme/c"] {
        let made = scene
            .hosted
            .create(&name(other), "ann", Settings::default())
            .await;
        let (other, _) = made.unwrap();
        assert!(scene.hosted.mount(&other, &scene.app.key, &loose).await.unwrap());
        let row = LinkRow {
            size: 16,
            proof: Proof::Mounted,
            manifest: false,
            at: Some(Timestamp(0)),
        };
        let change = Change::put_link(&other.key, &loose, &row);
        scene.storage.index.commit(vec![change]).await.unwrap();
        all.push(other);
    }
    scene.hosted.shared.leases.invalidate_all();
    let mut told = Vec::new();
    for dry in [true, false] {
        let mut run = Collecting::new(dry);
        for one in &all {
            scene.hosted.collect_page(one, None, &mut run).await.unwrap();
        }
        told.push(run.collected);
    }
    let expected = Collected {
        unlinked: 3,
        removed: 1,
        bytes: 4096,
    };
    assert_eq!(told, [expected, expected]);
}

#[tokio::test]
async fn nothing_is_collected_in_the_first_grace_period_of_a_process() {
    let scene = Scene::new().await;
    let loose = scene.upload(b"not needed").await.unwrap();
    scene.age(&loose, 10).await;
    let young = Hosted::new(
        scene.hosted.shared.repositories.clone(),
        scene.storage.index.clone(),
        scene.storage.blobs.clone(),
        scene.storage.uploads.clone(),
        HOUR,
        Timestamp::now(),
    );
    assert!(!young.held_for(Timestamp::now()).is_zero());
    assert_eq!(
        young.collect(&scene.app, false).await.unwrap(),
        Collected::default()
    );
    assert!(scene.hosted.held_for(Timestamp::now()).is_zero());
    assert_eq!(scene.hosted.collect(&scene.app, false).await.unwrap().removed, 1);
}

#[tokio::test]
async fn what_a_removal_left_behind_is_nobodys() {
    let scene = Scene::new().await;
    let digest = scene.image("v1", b"layer").await;
    drop(
        scene
            .hosted
            .begin_upload(&scene.app, ann(), Algorithm::Sha256)
            .await
            .unwrap(),
    );
    // As a kill right after the first step leaves it.
    let change = Change::remove_repository(&scene.app.name);
    scene.storage.index.commit(vec![change]).await.unwrap();
    scene.hosted.shared.known.invalidate_all();
    let mut dry = Collecting::new(true);
    assert_eq!(scene.hosted.clear_abandoned(&mut dry).await.unwrap(), 1);
    let mut run = Collecting::new(false);
    assert_eq!(scene.hosted.clear_abandoned(&mut run).await.unwrap(), 1);
    assert_eq!(dry.collected, run.collected);
    assert_eq!((run.collected.unlinked, run.collected.removed), (1, 1));
    assert!(scene.hosted.resting_uploads().is_empty());
    assert_eq!(scene.hosted.clear_abandoned(&mut run).await.unwrap(), 0);
    assert_eq!(scene.storage.blobs.space().usage().hosted, 0);
    let gone = scene
        .storage
        .index
        .read(move |index| index.manifest(&digest))
        .await;
    assert!(gone.unwrap().is_none());
    // Its namespace stays ours.
    assert!(scene.hosted.is_namespace("acme").await.unwrap());
    assert!(!scene.hosted.is_namespace("other").await.unwrap());
}

#[tokio::test]
async fn a_push_beside_a_deletion_of_the_same_image_is_there_or_was_before_it() {
    let scene = Arc::new(Scene::new().await);
    let layer = scene.upload(b"layer").await.unwrap();
    let text = manifest(&[layer], None);
    let digest = sha(text.as_bytes());
    for round in 0..40 {
        scene.put("v1", &text).await.unwrap();
        let its = scene.clone();
        let deletion = tokio::spawn(async move { its.hosted.delete_manifest(&its.app, &digest).await });
        if round % 3 == 0 {
            tokio::task::yield_now().await;
        }
        scene.put("v2", &text).await.unwrap();
        deletion.await.unwrap().unwrap();
        // Both tags, or none of them: never one whose image is gone.
        for tag in scene.hosted.tags(&scene.app, "", 9).await.unwrap() {
            assert_eq!(scene.get(&tag).await.unwrap(), digest, "round {round}: {tag}");
        }
    }
}
