//! The index over a disk that fails: it stops at a sync, or is full at a write. What was told to be durable is there, and
//! the index goes on by itself when there is room again.

use std::io;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

use super::super::backend::Opener;
use super::super::tables::{BLOBS, LINKS, MANIFESTS, TAGS};
use super::audit::{all, audit};
use super::*;

/// What a disk does with its operations from a number on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Syncs from this number on fail, and so does all that follows: the power is gone.
    Dead(usize),
    /// This write (or growth) fails for want of room.
    FullOnce(usize),
    /// All writes from this number on do, until there is room.
    Full(usize),
}

/// What is left of writes that were never synced.
#[derive(Clone, Copy, Debug)]
enum Unsynced {
    Lost,
    Kept,
    /// Every other one.
    Half,
}

#[derive(Debug)]
struct State {
    live: Vec<u8>,
    /// As of the last sync, and what was done since.
    durable: Vec<u8>,
    since: Vec<Op>,
    fault: Fault,
    syncs: usize,
    writes: usize,
    dead: bool,
}

#[derive(Clone, Debug)]
enum Op {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Op {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Write(offset, data) => {
                let end = offset + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(data);
            }
        }
    }
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug)]
struct Disk(Arc<Mutex<State>>);

impl Disk {
    fn new(bytes: Vec<u8>, fault: Fault) -> Self {
        Self(Arc::new(Mutex::new(State {
            durable: bytes.clone(),
            live: bytes,
            since: Vec::new(),
            fault,
            syncs: 0,
            writes: 0,
            dead: false,
        })))
    }

    fn opener(&self) -> Opener {
        let disk = self.clone();
        Arc::new(move |_| {
            let disk = disk.clone();
            if disk.0.lock().unwrap().dead {
                return Err(io::Error::other("no disk"));
            }
            Ok(Box::new(disk))
        })
    }

    /// What the next process finds.
    fn after_crash(&self, unsynced: Unsynced) -> Vec<u8> {
        let state = self.0.lock().unwrap();
        let mut bytes = state.durable.clone();
        for (number, op) in state.since.iter().enumerate() {
            let arrived = match unsynced {
                Unsynced::Lost => false,
                Unsynced::Kept => true,
                Unsynced::Half => number % 2 == 0,
            };
            if arrived {
                op.apply(&mut bytes);
            }
        }
        bytes
    }

    fn has_room_again(&self) {
        self.0.lock().unwrap().fault = Fault::None;
    }

    fn change(&self, op: Op) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        if state.dead {
            return Err(io::Error::other("no disk"));
        }
        let number = state.writes;
        state.writes += 1;
        let full = match state.fault {
            Fault::FullOnce(at) => number == at,
            Fault::Full(from) => number >= from,
            Fault::None | Fault::Dead(_) => false,
        };
        if full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        op.apply(&mut state.live);
        state.since.push(op);
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.lock().unwrap();
        if state.dead {
            return Err(io::Error::other("no disk"));
        }
        let start = usize::try_from(offset).unwrap();
        let found = state.live.get(start..start + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Op::Length(usize::try_from(length).unwrap()))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let number = state.syncs;
        state.syncs += 1;
        state.dead |= matches!(state.fault, Fault::Dead(at) if number >= at);
        if state.dead {
            return Err(io::Error::other("no disk"));
        }
        state.durable = state.live.clone();
        state.since.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Op::Write(usize::try_from(offset).unwrap(), data.to_vec()))
    }
}

/// Commits, one after the other.
fn load() -> Vec<Vec<Change>> {
    let big: &'static str = Box::leak("x".repeat(70_000).into_boxed_str());
    let mut load = Vec::new();
    for round in 0..4_u8 {
        let (one, two) = (10 + round, 20 + round);
        let at = u64::from(round);
        load.push(vec![
            Change::put_blob(&digest(one), &blob(5000, at)),
            Change::put_link("hub/a", &digest(one), &link(5000)),
        ]);
        load.push(vec![
            image(two, &[one, 1], at),
            Change::put_tag("hub/a", &tag("latest"), &tag_row(two)),
        ]);
        load.push(vec![
            Change::put_blob(&digest(1), &blob(9, at)),
            Change::touch(&digest(two), Timestamp(90)),
        ]);
        let needs = outline(UnitKind::Image, &[]);
        load.push(vec![Change::put_manifest(
            &digest(50 + round),
            &manifest(big),
            &needs,
            Timestamp(at),
        )]);
        if round > 0 {
            load.push(vec![
                Change::remove_manifest(&digest(two - 1)),
                Change::remove_blob(&digest(one - 1)),
            ]);
        }
    }
    load
}

type Rows = Vec<std::collections::BTreeMap<Vec<u8>, Vec<u8>>>;

/// The rows that are not derived.
fn rows(index: &Index) -> Rows {
    let dump = |transaction: &ReadTransaction| {
        Ok([BLOBS, MANIFESTS, TAGS, LINKS]
            .map(|table| all(transaction, table))
            .into())
    };
    index.query(dump).unwrap()
}

/// A disk with an empty index: a new one gets its name when it is whole.
fn disk_with_index(fault: Fault) -> Disk {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::new(Vec::new(), Fault::None);
    Index::over(disk.opener(), folder.path(), false, None)
        .unwrap()
        .close();
    let bytes = disk.0.lock().unwrap().live.clone();
    Disk::new(bytes, fault)
}

/// The rows after each commit of the load, and the disk that did it all.
async fn perfect() -> (Vec<Rows>, Disk) {
    let folder = tempfile::tempdir().unwrap();
    let disk = disk_with_index(Fault::None);
    let index = Index::over(disk.opener(), folder.path(), false, None).unwrap();
    let mut states = vec![rows(&index)];
    for changes in load() {
        index.commit(changes).await.unwrap();
        states.push(rows(&index));
    }
    index.close();
    (states, disk)
}

#[tokio::test]
async fn whatever_sync_is_the_last_one_what_was_durable_is_there() {
    let (states, disk) = perfect().await;
    let syncs = disk.0.lock().unwrap().syncs;
    assert!(syncs > 20, "{syncs}");
    for last in 0..syncs {
        let folder = tempfile::tempdir().unwrap();
        let disk = disk_with_index(Fault::Dead(last));
        let (mut durable, mut tried) = (0, 0);
        if let Ok(index) = Index::over(disk.opener(), folder.path(), false, None) {
            for changes in load() {
                tried += 1;
                if index.commit(changes).await.is_err() {
                    break;
                }
                durable += 1;
            }
            index.close();
        }
        for unsynced in [Unsynced::Lost, Unsynced::Kept, Unsynced::Half] {
            let left = Disk::new(disk.after_crash(unsynced), Fault::None);
            let index = Index::over(left.opener(), folder.path(), false, None);
            let index = index.unwrap_or_else(|error| panic!("sync {last}, {unsynced:?}: {error}"));
            audit(&index);
            let found = rows(&index);
            let known = states[durable..=tried].contains(&found);
            assert!(known, "sync {last}, {unsynced:?}: commits {durable} to {tried}");
            // It can be written.
            index.commit(load().remove(0)).await.unwrap();
            index.close();
        }
    }
}

#[tokio::test]
async fn whatever_write_finds_the_disk_full_nothing_is_lost() {
    let (states, disk) = perfect().await;
    let writes = disk.0.lock().unwrap().writes;
    assert!(writes > 50, "{writes}");
    for full in 0..writes {
        let folder = tempfile::tempdir().unwrap();
        let disk = disk_with_index(Fault::FullOnce(full));
        let Ok(index) = Index::over(disk.opener(), folder.path(), false, None) else {
            // A start that finds no room at all says so.
            assert!(full < 20, "write {full}");
            continue;
        };
        for changes in load() {
            index
                .commit(changes)
                .await
                .unwrap_or_else(|error| panic!("write {full}: {error}"));
        }
        audit(&index);
        assert_eq!(Some(&rows(&index)), states.last(), "write {full}");
        index.close();
    }
}

#[tokio::test]
async fn a_full_disk_fails_who_waits_and_keeps_the_rest_until_there_is_room() {
    let (states, disk) = perfect().await;
    let writes = disk.0.lock().unwrap().writes;
    for full in [writes / 3, writes / 2] {
        let folder = tempfile::tempdir().unwrap();
        let disk = disk_with_index(Fault::Full(full));
        let index = Index::over(disk.opener(), folder.path(), false, None).unwrap();
        let mut done = 0;
        for changes in load() {
            if index.commit(changes).await.is_err() {
                break;
            }
            done += 1;
        }
        // Nobody waits for the others.
        for changes in load().into_iter().skip(done) {
            index.submit(changes);
        }
        disk.has_room_again();
        // An answer comes after all that was submitted before, once it can be written.
        while index
            .commit(vec![Change::touch(&digest(1), Timestamp(1))])
            .await
            .is_err()
        {}
        audit(&index);
        assert_eq!(Some(&rows(&index)), states.last());
        index.close();
    }
}
