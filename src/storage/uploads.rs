//! Upload sessions: blobs on their way in from clients that push, across requests and restarts. Called by `repository`.
//!
//! A session is a file and a small record beside it. One request has it at a time; the hash goes along with the bytes,
//! so that a closing request reads nothing again. The record is written when a request lets go of the session, and says
//! what was synced: after a power cut that is all that counts.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::oci::{Algorithm, Digest};

use super::error::Error;
use super::hasher::Hasher;
use super::layout::{Layout, sync_folder};
use super::partial::{self, beside, boot};
use super::space::{Account, Reservation, Space};
use super::steps;

/// Room that a session of unknown length reserves at a time.
const STEP: u64 = 16 * 1024 * 1024;

/// Bytes after which what is there is synced, so that the closing request waits for little.
const SYNC_EVERY: u64 = 64 * 1024 * 1024;

/// The name of a session: a random UUID, which nobody guesses.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct UploadId(Uuid);

impl UploadId {
    /// Reads what [`Display`](std::fmt::Display) writes, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let id = Self(Uuid::try_parse(text).ok()?);
        (id.to_string() == text).then_some(id)
    }
}

impl std::fmt::Display for UploadId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl std::fmt::Debug for UploadId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Whoever knows one can go on with it: not for logs.
        f.write_str("UploadId(..)")
    }
}

/// What is known of a session beside its bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    repository: String,
    owner: String,
    algorithm: String,
    /// Bytes, all of them hashed into `hash`.
    size: u64,
    hash: String,
    /// Of them, what was synced, and the hash of that.
    synced: u64,
    synced_hash: String,
    boot: String,
    began_at: Timestamp,
    at: Timestamp,
}

/// A session at rest.
struct Rest {
    record: Record,
    room: Reservation,
}

enum Slot {
    Resting(Box<Rest>),
    /// A request has it.
    Taken {
        repository: String,
        /// Ends with what it holds.
        until: watch::Receiver<()>,
    },
}

/// Why a session cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotHad {
    /// There is none of this name in this repository, or none any more.
    Unknown,
    /// Another request has it.
    Busy,
}

/// A session, for status and collection.
#[derive(Clone, Debug)]
pub struct UploadState {
    /// Its name.
    pub id: UploadId,
    /// The key of the repository that it is for.
    pub repository: String,
    /// Bytes that are here.
    pub size: u64,
    /// When it was last written to.
    pub at: Timestamp,
}

/// All upload sessions. Clones share them.
#[derive(Clone)]
pub struct Uploads {
    shared: Arc<Shared>,
}

struct Shared {
    layout: Arc<Layout>,
    space: Arc<Space>,
    known: Mutex<HashMap<UploadId, Slot>>,
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, HashMap<UploadId, Slot>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, id: UploadId) -> PathBuf {
        self.layout.uploads().join(id.to_string())
    }
}

impl Uploads {
    /// Takes in what an earlier process left: sessions with a sound record; the others are removed.
    pub(super) fn recover(layout: Arc<Layout>, space: Arc<Space>) -> Result<Self, Error> {
        let mut known = HashMap::new();
        let folder = layout.uploads();
        for entry in fs::read_dir(&folder).map_err(Error::at(&folder))? {
            let path = entry.map_err(Error::at(&folder))?.path();
            match path.extension().and_then(|ending| ending.to_str()) {
                // Judged with its file.
                Some("json") if path.with_extension("").exists() => continue,
                Some(_) => {
                    let _ = fs::remove_file(&path);
                    continue;
                }
                None => {}
            }
            let id = path.file_name().and_then(|name| UploadId::parse(name.to_str()?));
            let (blocks, length) =
                fs::metadata(&path).map_or((0, 0), |file| (file.blocks() * 512, file.len()));
            match id.zip(Record::read(&path, length)) {
                Some((id, record)) => {
                    let room = space.adopt(Account::Hosted, blocks);
                    known.insert(id, Slot::Resting(Box::new(Rest { record, room })));
                }
                None => partial::remove(&path),
            }
        }
        let shared = Shared {
            layout,
            space,
            known: Mutex::new(known),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Begins a session of `owner` for `repository`, whose blob is to be named by `algorithm`. Blocking.
    ///
    /// # Errors
    /// `NoRoom` when `size`, if the client said it, does not fit.
    pub fn begin(
        &self,
        repository: &str,
        owner: &str,
        algorithm: Algorithm,
        size: Option<u64>,
    ) -> Result<Upload, Error> {
        let shared = self.shared.clone();
        let room = shared.space.reserve(Account::Hosted, size.unwrap_or(0));
        let room = room.map_err(Error::NoRoom)?;
        let id = UploadId(Uuid::new_v4());
        let path = shared.path(id);
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(Error::at(&path))?;
        let now = Timestamp::now();
        let record = Record {
            repository: repository.to_owned(),
            owner: owner.to_owned(),
            algorithm: algorithm.name().to_owned(),
            size: 0,
            hash: String::new(),
            synced: 0,
            synced_hash: String::new(),
            boot: boot().to_owned(),
            began_at: now,
            at: now,
        };
        let (holds, until) = watch::channel(());
        let taken = Slot::Taken {
            repository: repository.to_owned(),
            until,
        };
        shared.known().insert(id, taken);
        Ok(Upload {
            shared,
            id,
            path,
            file: Arc::new(file),
            record,
            hasher: Hasher::new(algorithm),
            unsynced: 0,
            room: Some(room),
            end: End::Rests,
            _holds: holds,
        })
    }

    /// Takes a session of `repository` up, until what is returned is dropped. Blocking.
    ///
    /// # Errors
    /// When there is none, another request has it, or its file cannot be opened.
    pub fn take(&self, repository: &str, id: UploadId) -> Result<Result<Upload, NotHad>, Error> {
        let shared = self.shared.clone();
        let (holds, until) = watch::channel(());
        let rest = {
            let mut known = shared.known();
            match known.get(&id) {
                Some(Slot::Resting(rest)) if rest.record.repository == repository => {}
                Some(Slot::Taken { repository: its, .. }) if its == repository => {
                    return Ok(Err(NotHad::Busy));
                }
                _ => return Ok(Err(NotHad::Unknown)),
            }
            let taken = Slot::Taken {
                repository: repository.to_owned(),
                until,
            };
            match known.insert(id, taken) {
                Some(Slot::Resting(rest)) => *rest,
                _ => return Ok(Err(NotHad::Unknown)),
            }
        };
        let path = shared.path(id);
        let opened = File::options().read(true).write(true).open(&path);
        let algorithm = rest.record.algorithm();
        let hasher = match rest.record.size {
            0 => Some(Hasher::new(algorithm)),
            _ => Hasher::restore(algorithm, &rest.record.hash),
        };
        let Some((file, hasher)) = opened.ok().zip(hasher) else {
            shared.known().remove(&id);
            partial::remove(&path);
            return Ok(Err(NotHad::Unknown));
        };
        let unsynced = rest.record.size - rest.record.synced.min(rest.record.size);
        Ok(Ok(Upload {
            shared,
            id,
            path,
            file: Arc::new(file),
            record: rest.record,
            hasher,
            unsynced,
            room: Some(rest.room),
            end: End::Rests,
            _holds: holds,
        }))
    }

    /// What ends when the request that has the session lets go of it; `None` when none has it.
    pub fn until_released(&self, id: UploadId) -> Option<watch::Receiver<()>> {
        match self.shared.known().get(&id) {
            Some(Slot::Taken { until, .. }) => Some(until.clone()),
            _ => None,
        }
    }

    /// All sessions that no request has.
    pub fn resting(&self) -> Vec<UploadState> {
        let known = self.shared.known();
        let resting = known.iter().filter_map(|(id, slot)| match slot {
            Slot::Resting(rest) => Some(UploadState {
                id: *id,
                repository: rest.record.repository.clone(),
                size: rest.record.size,
                at: rest.record.at,
            }),
            Slot::Taken { .. } => None,
        });
        resting.collect()
    }

    /// Removes a session that no request has, and that nobody wrote to after `since`: its bytes, if it was such a one.
    /// Blocking.
    pub fn discard(&self, id: UploadId, since: Timestamp) -> Option<u64> {
        let mut known = self.shared.known();
        let size = match known.get(&id)? {
            Slot::Resting(rest) if rest.record.at <= since => rest.record.size,
            Slot::Resting(_) | Slot::Taken { .. } => return None,
        };
        known.remove(&id);
        drop(known);
        partial::remove(&self.shared.path(id));
        Some(size)
    }
}

impl Record {
    fn algorithm(&self) -> Algorithm {
        match self.algorithm.as_str() {
            "sha512" => Algorithm::Sha512,
            _ => Algorithm::Sha256,
        }
    }

    /// The record beside a session's file, brought to what the disk has for certain; `None` when that is nothing.
    fn read(path: &std::path::Path, length: u64) -> Option<Self> {
        let text = fs::read(beside(path, "json")).ok()?;
        let mut record: Self = serde_json::from_slice(&text).ok()?;
        if record.boot != boot() || record.boot.is_empty() {
            record.size = record.synced;
            record.hash.clone_from(&record.synced_hash);
            boot().clone_into(&mut record.boot);
        }
        (record.size <= length).then_some(record)
    }

    /// Not synced itself: a torn one is as good as none.
    fn save(&self, path: &std::path::Path) -> Result<(), Error> {
        let (target, draft) = (beside(path, "json"), beside(path, "draft"));
        let text = serde_json::to_vec(self).unwrap_or_default();
        File::create(&draft)
            .and_then(|mut file| file.write_all(&text))
            .and_then(|()| fs::rename(&draft, &target))
            .map_err(Error::at(&target))
    }
}

/// What becomes of a session when its request lets go of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// It waits for the next request.
    Rests,
    /// Its file is a blob now, or gone.
    Ended,
}

/// A session in the hands of one request. Dropped, it waits for the next one.
pub struct Upload {
    shared: Arc<Shared>,
    id: UploadId,
    path: PathBuf,
    file: Arc<File>,
    record: Record,
    hasher: Hasher,
    unsynced: u64,
    room: Option<Reservation>,
    end: End,
    /// Dropped last, it tells those who wait for the session.
    _holds: watch::Sender<()>,
}

impl Upload {
    /// Its name.
    pub fn id(&self) -> UploadId {
        self.id
    }

    /// Who began it.
    pub fn owner(&self) -> &str {
        &self.record.owner
    }

    /// Bytes that are here.
    pub fn size(&self) -> u64 {
        self.record.size
    }

    /// What its blob is to be named by.
    pub fn algorithm(&self) -> Algorithm {
        self.record.algorithm()
    }

    /// Takes more bytes. Blocking.
    ///
    /// # Errors
    /// `NoRoom`, when they do not fit; what came before stays.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let end = self.record.size + bytes.len() as u64;
        if let Some(room) = self.room.as_mut().filter(|room| room.bytes() < end) {
            // A whole step where there is one; at the end of the account, what is needed.
            let stepped = room.grow(end.next_multiple_of(STEP));
            stepped.or_else(|_| room.grow(end)).map_err(Error::NoRoom)?;
        }
        self.file
            .write_all_at(bytes, self.record.size)
            .map_err(Error::at(&self.path))?;
        self.hasher.update(bytes);
        self.record.size = end;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_EVERY {
            self.sync()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Error> {
        self.file.sync_data().map_err(Error::at(&self.path))?;
        self.unsynced = 0;
        self.record.synced = self.record.size;
        self.record.synced_hash = self.hasher.save();
        self.save()
    }

    fn save(&mut self) -> Result<(), Error> {
        self.record.hash = self.hasher.save();
        self.record.at = Timestamp::now();
        self.record.save(&self.path)
    }

    /// Hashes anew by `algorithm`, when the client names its blob by another than it said. Reads the file. Blocking.
    pub fn hash_by(&mut self, algorithm: Algorithm) -> Result<(), Error> {
        if algorithm == self.record.algorithm() {
            return Ok(());
        }
        let mut hasher = Hasher::new(algorithm);
        let (mut position, mut buffer) = (0, vec![0; 1 << 20]);
        while position < self.record.size {
            let length = (self.record.size - position).min(buffer.len() as u64) as usize;
            self.file
                .read_exact_at(&mut buffer[..length], position)
                .map_err(Error::at(&self.path))?;
            hasher.update(&buffer[..length]);
            position += length as u64;
        }
        self.hasher = hasher;
        algorithm.name().clone_into(&mut self.record.algorithm);
        Ok(())
    }

    /// The digest of what is here.
    pub fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// # Errors
    /// `WrongDigest`, when something else is here than `digest`.
    pub fn confirm(&self, digest: &Digest) -> Result<(), Error> {
        let actual = self.digest();
        if actual == *digest {
            return Ok(());
        }
        Err(Error::WrongDigest {
            expected: (*digest).into(),
            actual: actual.into(),
        })
    }

    /// The client gives it up, or it turned out to be here already. Blocking.
    pub fn cancel(mut self) {
        self.forget();
    }

    fn forget(&mut self) {
        self.end = End::Ended;
        partial::remove(&self.path);
        self.shared.known().remove(&self.id);
    }

    /// Puts the file in its place as the blob `digest`, durably, its room counted on the hosted account. Rows come after
    /// this. Blocking, and takes long.
    ///
    /// # Errors
    /// `WrongDigest`: then nothing was moved.
    pub(super) fn place(&mut self, digest: &Digest) -> Result<Arc<File>, Error> {
        self.confirm(digest)?;
        let folder = self.shared.layout.ready_blob_folder(digest)?;
        let target = self.shared.layout.blob(digest);
        steps::before("publish: sync");
        // A request that broke off may have written more than was counted.
        let cut = self
            .file
            .set_len(self.record.size)
            .and_then(|()| self.file.sync_all());
        cut.map_err(Error::at(&self.path))?;
        steps::before("publish: rename");
        fs::rename(&self.path, &target).map_err(Error::at(&target))?;
        self.forget();
        if let Some(mut room) = self.room.take() {
            room.settle(self.record.size);
            room.keep();
        }
        steps::before("publish: sync folder");
        sync_folder(&folder)?;
        Ok(self.file.clone())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.end == End::Ended {
            return;
        }
        let Some(room) = self.room.take() else { return };
        if let Err(error) = self.save() {
            tracing::warn!(%error, "what an upload holds could not be written down: it ends with this process");
        }
        let rest = Rest {
            record: self.record.clone(),
            room,
        };
        self.shared.known().insert(self.id, Slot::Resting(Box::new(rest)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    fn again(scene: &Scene) -> Uploads {
        Uploads::recover(scene.layout.clone(), scene.space.clone()).unwrap()
    }

    #[test]
    fn a_session_goes_on_in_another_request_and_another_process() {
        let scene = scene(None);
        let mut upload = scene.uploads.begin(REPO, "ann", Algorithm::Sha256, None).unwrap();
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
        let mut upload = scene.uploads.begin(REPO, "ann", Algorithm::Sha512, None).unwrap();
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
            let mut upload = scene.uploads.begin(REPO, "", Algorithm::Sha256, None).unwrap();
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
        let refused = scene.uploads.begin(REPO, "", Algorithm::Sha256, Some(40_000));
        assert!(matches!(refused.map(drop), Err(Error::NoRoom(_))));
        let mut upload = scene.uploads.begin(REPO, "", Algorithm::Sha256, None).unwrap();
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
            .begin(REPO, "", Algorithm::Sha256, Some(30_000))
            .unwrap();
        upload.cancel();
        assert_eq!(scene.space.usage().hosted, 0);
        assert_eq!(fs::read_dir(scene.layout.uploads()).unwrap().count(), 0);
    }

    #[test]
    fn names_are_read_back_and_nothing_else() {
        let id = UploadId(Uuid::new_v4());
        assert_eq!(UploadId::parse(&id.to_string()), Some(id));
        assert!(!format!("{id:?}").contains(&id.to_string()));
        let upper = id.to_string().to_ascii_uppercase();
        for nonsense in [
            "",
            "..",
            "../../index.redb",
            "zz",
            &"0".repeat(31),
            &"0".repeat(34),
        ] {
            assert_eq!(UploadId::parse(nonsense), None, "{nonsense}");
        }
        assert!(UploadId::parse(&upper).is_none() || upper == id.to_string());
    }
}
