//! The ingest and its readers, on a real folder.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use futures_util::future::join_all;

use super::*;
use crate::oci::{Algorithm, Digest, Span};

fn open(root: &Path) -> Result<Storage, Error> {
    Storage::open(&StorageConfig::in_folder(root.to_owned()))
}

fn capped(root: &Path, max_size: u64) -> Storage {
    let config = StorageConfig {
        max_size: Some(max_size),
        ..StorageConfig::in_folder(root.to_owned())
    };
    Storage::open(&config).unwrap()
}

/// An upstream that holds one blob.
struct Source(Bytes);

struct Rest(Bytes);

impl Refetch for Source {
    fn fetch(&self, start: u64, end: Option<u64>) -> Box<dyn Pieces> {
        let end = end.unwrap_or(self.0.len() as u64);
        Box::new(Rest(self.0.slice(start as usize..end as usize)))
    }
}

impl Pieces for Rest {
    fn next(&mut self) -> NextPiece<'_> {
        let most = self.0.len().min(10_000);
        let piece = self.0.split_to(most);
        Box::pin(async move { Ok(Some(piece).filter(|piece| !piece.is_empty())) })
    }
}

fn ingest(storage: &Storage, digest: Digest, size: Option<u64>) -> Ingest {
    let source = Arc::new(Source(Bytes::new()));
    storage.blobs.ingest(digest, size, "hub/a", source).unwrap()
}

fn content(size: usize) -> (Bytes, Digest) {
    let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
    let digest = Hasher::digest(Algorithm::Sha256, &bytes);
    (bytes.into(), digest)
}

fn partials(root: &Path) -> usize {
    fs::read_dir(root.join("partial")).unwrap().count()
}

async fn read_all(reader: &mut BlobReader, mapped: bool) -> Result<Vec<u8>, ReadError> {
    let mut all = Vec::new();
    while let Some(piece) = reader.read(all.len() as u64, None, mapped).await? {
        assert!(!piece.is_empty());
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

#[tokio::test]
async fn readers_follow_and_the_last_byte_waits_for_the_digest() {
    let root = tempfile::tempdir().unwrap();
    let storage = open(root.path()).unwrap();
    for size in [1, 70_000, 1_000_000] {
        let (bytes, digest) = content(size);
        let mut ingest = ingest(&storage, digest, Some(size as u64));
        let mut early = BlobReader::Growing(ingest.growing().tail());
        ingest.append(&[bytes.slice(..size / 2)]).unwrap();
        ingest.append(&[bytes.slice(size / 2..)]).unwrap();

        let mut received = 0;
        while received < size - 1 {
            received += early
                .read(received as u64, None, true)
                .await
                .unwrap()
                .unwrap()
                .len();
        }
        assert_eq!(received, size - 1, "all but the last byte");
        {
            let last = early.read(received as u64, None, true);
            tokio::pin!(last);
            assert!(futures_util::poll!(&mut last).is_pending());
            ingest.verify().unwrap();
            assert_eq!(last.await.unwrap().unwrap(), bytes.slice(size - 1..));
        }

        storage.blobs.publish(ingest, &digest, size as u64).await.unwrap();
        assert_eq!(partials(root.path()), 0);
        let stored = storage.blobs.open(&digest).await.unwrap().unwrap();
        for mapped in [true, false] {
            assert_eq!(
                read_all(&mut BlobReader::Stored(stored.clone()), mapped)
                    .await
                    .unwrap(),
                bytes
            );
        }
        // A reader that was there before the end still reads from its own file.
        assert_eq!(read_all(&mut early, false).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn wrong_content_is_broken_off_and_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let storage = open(root.path()).unwrap();
    let (bytes, digest) = content(100_000);
    let mut wrong = bytes.to_vec();
    wrong[5] ^= 1;
    let mut first = ingest(&storage, digest, Some(100_000));
    let mut reader = BlobReader::Growing(first.growing().tail());
    first.append(&[wrong.into()]).unwrap();
    assert!(matches!(first.verify(), Err(Error::WrongDigest { .. })));
    first.discard("wrong");
    drop(first);
    assert!(read_all(&mut reader, true).await.is_err());
    assert_eq!(partials(root.path()), 0);
    assert!(storage.blobs.open(&digest).await.unwrap().is_none());
    drop(reader);
    assert_eq!(storage.blobs.space().usage().used, 0);

    let mut longer = ingest(&storage, digest, Some(99_999));
    assert!(matches!(
        longer.append(std::slice::from_ref(&bytes)),
        Err(Error::WrongSize { .. })
    ));
}

#[tokio::test]
async fn a_short_or_missing_file_heals_into_a_miss() {
    let root = tempfile::tempdir().unwrap();
    let (bytes, digest) = content(5000);
    {
        let storage = open(root.path()).unwrap();
        let mut ingest = ingest(&storage, digest, None);
        ingest.append(std::slice::from_ref(&bytes)).unwrap();
        ingest.verify().unwrap();
        storage.blobs.publish(ingest, &digest, 5000).await.unwrap();
        assert_eq!(storage.blobs.space().usage().used, 8192);
        storage.close();
    }
    let file = root
        .path()
        .join("blobs/sha256")
        .join(&digest.hex()[..2])
        .join(digest.hex());
    fs::OpenOptions::new()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(4999)
        .unwrap();
    let storage = open(root.path()).unwrap();
    assert!(storage.blobs.open(&digest).await.unwrap().is_none());
    assert!(storage.index.blob(&digest).unwrap().is_none());
    assert_eq!(storage.blobs.space().usage().used, 0);
}

#[tokio::test]
async fn a_partial_file_goes_on_in_another_process() {
    let root = tempfile::tempdir().unwrap();
    let (bytes, digest) = content(3_000_000);
    {
        let storage = open(root.path()).unwrap();
        let mut first = ingest(&storage, digest, Some(3_000_000));
        first.append(&[bytes.slice(..1_000_000)]).unwrap();
        first
            .growing()
            .write(2_000_000, &[bytes.slice(2_000_000..2_500_000)])
            .unwrap();
        drop(first);
        storage.close();
    }
    let storage = open(root.path()).unwrap();
    let rest = &storage.blobs.interrupted()[0];
    assert_eq!((rest.digest, rest.present), (digest, 1_500_000));
    assert_eq!(storage.blobs.space().usage().used, allocated(3_000_000));
    let source = Arc::new(Source(Bytes::new()));
    let mut second = storage.blobs.resume(digest, source.clone()).unwrap();
    assert!(storage.blobs.resume(digest, source).is_none(), "it is taken");
    assert_eq!(
        (second.front(), second.growing().next_start(second.front())),
        (1_000_000, Some(2_000_000))
    );
    second.append(&[bytes.slice(1_000_000..2_000_000)]).unwrap();
    assert_eq!(second.front(), 2_000_000);
    while second.catch_up().unwrap() {}
    assert_eq!(second.front(), 2_500_000);
    second.append(&[bytes.slice(2_500_000..)]).unwrap();
    second.verify().unwrap();
    storage.blobs.publish(second, &digest, 3_000_000).await.unwrap();
    assert_eq!(partials(root.path()), 0);
    assert!(storage.blobs.interrupted().is_empty());
}

#[tokio::test]
async fn a_bounded_part_ahead_is_given_with_its_last_byte_and_the_rest_waits() {
    let root = tempfile::tempdir().unwrap();
    let storage = open(root.path()).unwrap();
    let (bytes, digest) = content(4_000_000);
    let mut ingest = ingest(&storage, digest, Some(4_000_000));
    let end = Span {
        start: 3_999_000,
        end: 4_000_000,
    };
    let mut footer = BlobReader::Growing(ingest.growing().tail());
    assert!(footer.want(end, true), "unverified");
    assert_eq!(
        ingest.growing().wants(),
        [Want {
            position: end.start,
            end: end.end
        }]
    );
    let mut waits = BlobReader::Growing(ingest.growing().tail());
    assert!(!waits.want(end, false));
    ingest
        .growing()
        .write(3_999_000, &[bytes.slice(3_999_000..)])
        .unwrap();
    assert_eq!(
        footer
            .read(end.start, Some(end.end), true)
            .await
            .unwrap()
            .unwrap(),
        bytes.slice(3_999_000..)
    );
    let most = waits.read(end.start, Some(end.end), true).await.unwrap().unwrap();
    assert_eq!(most.len(), 999);
    let last = waits.read(3_999_999, Some(end.end), true);
    tokio::pin!(last);
    assert!(futures_util::poll!(&mut last).is_pending());
    ingest.append(&[bytes.slice(..3_999_000)]).unwrap();
    while ingest.catch_up().unwrap() {}
    ingest.verify().unwrap();
    assert_eq!(last.await.unwrap().unwrap(), bytes.slice(3_999_999..));
}

#[tokio::test]
async fn without_room_readers_share_a_window_and_the_slow_go_alone() {
    let root = tempfile::tempdir().unwrap();
    let storage = capped(root.path(), 16 << 20);
    let (bytes, digest) = content(20_000_000);
    let source = Arc::new(Source(bytes.clone()));
    let refused = storage
        .blobs
        .ingest(digest, Some(20_000_000), "hub/a", source.clone());
    assert!(matches!(refused, Err(Error::NoRoom(NoRoom { missing: 0 }))));
    let mut ingest = storage.blobs.pass_through(digest, Some(20_000_000), source);
    let (mut quick, mut slow) = (
        BlobReader::Growing(ingest.growing().tail()),
        BlobReader::Growing(ingest.growing().tail()),
    );
    assert!(!quick.is_kept());
    let (mut sent, mut received) = (0, Vec::new());
    assert!(futures_util::poll!(Box::pin(slow.read(0, None, false))).is_pending());
    while sent < bytes.len() {
        let piece = bytes.slice(sent..(sent + 100_000).min(bytes.len()));
        while ingest.window_takes(piece.len() as u64) != Some(true) {
            ingest.growing().leave_slowest_behind();
        }
        sent += piece.len();
        ingest.append(std::slice::from_ref(&piece)).unwrap();
        let held = usize::from(sent == bytes.len());
        while received.len() < sent - held {
            received.extend_from_slice(
                &quick
                    .read(received.len() as u64, None, false)
                    .await
                    .unwrap()
                    .unwrap(),
            );
        }
    }
    ingest.verify().unwrap();
    while let Some(piece) = quick.read(received.len() as u64, None, false).await.unwrap() {
        received.extend_from_slice(&piece);
    }
    assert!(received == bytes);
    assert!(read_all(&mut slow, false).await.unwrap() == bytes);
    assert_eq!(partials(root.path()), 0);
}

#[tokio::test]
async fn who_goes_alone_gets_no_last_byte_of_wrong_content() {
    let root = tempfile::tempdir().unwrap();
    let storage = open(root.path()).unwrap();
    let (bytes, digest) = content(200_000);
    let mut wrong = bytes.to_vec();
    wrong[150_000] ^= 1;
    let mut ingest = storage
        .blobs
        .pass_through(digest, Some(200_000), Arc::new(Source(wrong.into())));
    let mut reader = BlobReader::Growing(ingest.growing().tail());
    ingest.append(&[bytes.slice(..100_000)]).unwrap();
    ingest.growing().leave_slowest_behind();
    let mut received = 0;
    let ending = loop {
        match reader.read(received, None, false).await {
            Ok(Some(piece)) => received += piece.len() as u64,
            ending => break ending,
        }
    };
    assert!(ending.is_err());
    assert!(received < 200_000, "{received}");
}

#[tokio::test]
async fn a_removed_blob_gives_its_room_back_when_its_last_reader_has_gone() {
    let root = tempfile::tempdir().unwrap();
    let storage = open(root.path()).unwrap();
    let (bytes, digest) = content(5000);
    let mut ingest = ingest(&storage, digest, Some(5000));
    ingest.append(std::slice::from_ref(&bytes)).unwrap();
    ingest.verify().unwrap();
    storage.blobs.publish(ingest, &digest, 5000).await.unwrap();
    let mut reader = BlobReader::Stored(storage.blobs.open(&digest).await.unwrap().unwrap());
    assert!(storage.blobs.is_read(&digest));
    assert_eq!(storage.blobs.remove(&digest).await.unwrap(), Some(8192));
    assert_eq!(storage.blobs.remove(&digest).await.unwrap(), None);
    assert!(storage.blobs.open(&digest).await.unwrap().is_none());
    assert_eq!(storage.blobs.space().usage().used, 8192);
    assert_eq!(read_all(&mut reader, true).await.unwrap(), bytes);
    drop(reader);
    assert_eq!(storage.blobs.space().usage().used, 0);
}

#[tokio::test]
async fn without_its_row_no_file_stays() {
    let root = tempfile::tempdir().unwrap();
    let storage = open(root.path()).unwrap();
    let (bytes, digest) = content(5000);
    let mut ingest = ingest(&storage, digest, Some(5000));
    ingest.append(std::slice::from_ref(&bytes)).unwrap();
    ingest.verify().unwrap();
    let mut reader = BlobReader::Growing(ingest.growing().tail());
    // From here on nothing can be committed.
    storage.index.close();
    assert!(storage.blobs.publish(ingest, &digest, 5000).await.is_err());
    let file = storage.blobs.yard.layout.blob(&digest);
    assert!(!file.exists());
    assert_eq!(partials(root.path()), 0);
    assert_eq!(
        read_all(&mut reader, true).await.unwrap(),
        bytes,
        "who was there reads on"
    );
    drop(reader);
    assert_eq!(storage.blobs.space().usage().used, 0);
}

/// Publishes `bytes`, and gives what reads them from the moment before.
async fn publish(storage: &Storage, bytes: &Bytes, digest: Digest) -> BlobReader {
    let size = bytes.len() as u64;
    let mut ingest = ingest(storage, digest, Some(size));
    let reader = BlobReader::Growing(ingest.growing().tail());
    ingest.append(std::slice::from_ref(bytes)).unwrap();
    ingest.verify().unwrap();
    storage.blobs.publish(ingest, &digest, size).await.unwrap();
    reader
}

#[tokio::test]
async fn who_came_while_it_arrived_reads_it_still() {
    let root = tempfile::tempdir().unwrap();
    let storage = open(root.path()).unwrap();
    let (bytes, digest) = content(5000);
    let mut reader = publish(&storage, &bytes, digest).await;
    assert!(storage.blobs.is_read(&digest));
    assert_eq!(storage.blobs.remove(&digest).await.unwrap(), Some(8192));
    assert_eq!(
        storage.blobs.space().usage().used,
        8192,
        "its blocks are not free"
    );
    // It comes back meanwhile: nobody reads that one.
    drop(publish(&storage, &bytes, digest).await);
    assert!(!storage.blobs.is_read(&digest));
    assert_eq!(read_all(&mut reader, true).await.unwrap(), bytes);
    drop(reader);
    assert_eq!(storage.blobs.space().usage().used, 8192);
}

#[tokio::test]
async fn who_reads_for_long_is_not_forgotten() {
    let root = tempfile::tempdir().unwrap();
    let storage = open(root.path()).unwrap();
    let (bytes, digest) = content(5000);
    drop(publish(&storage, &bytes, digest).await);
    assert!(!storage.blobs.is_read(&digest));
    let mut reader = BlobReader::Stored(storage.blobs.open(&digest).await.unwrap().unwrap());
    // As after a minute in which nobody else asks for it.
    storage.blobs.open.invalidate(&digest);
    storage.blobs.open.run_pending_tasks();
    assert!(storage.blobs.is_read(&digest));
    assert_eq!(storage.blobs.remove(&digest).await.unwrap(), Some(8192));
    assert_eq!(storage.blobs.space().usage().used, 8192);
    assert_eq!(read_all(&mut reader, true).await.unwrap(), bytes);
    drop(reader);
    assert_eq!(storage.blobs.space().usage().used, 0);
}

#[tokio::test]
async fn who_opened_it_at_once_keeps_no_room_of_what_is_removed() {
    let root = tempfile::tempdir().unwrap();
    let storage = open(root.path()).unwrap();
    let (bytes, digest) = content(5000);
    drop(publish(&storage, &bytes, digest).await);
    // Each finds it closed.
    let opened = join_all((0..8).map(|_| storage.blobs.open(&digest))).await;
    assert!(opened.iter().all(|blob| matches!(blob, Ok(Some(_)))));
    drop(opened);
    assert!(!storage.blobs.is_read(&digest));
    // One is forgotten for lack of use, and is still in the cache's hands.
    storage.blobs.open.invalidate(&digest);
    drop(storage.blobs.open(&digest).await);
    assert_eq!(storage.blobs.remove(&digest).await.unwrap(), Some(8192));
    assert_eq!(storage.blobs.space().usage().used, 0);
}

#[tokio::test]
async fn a_removal_that_nobody_waits_for_any_more_is_finished() {
    let root = tempfile::tempdir().unwrap();
    let storage = open(root.path()).unwrap();
    let (bytes, digest) = content(5000);
    drop(publish(&storage, &bytes, digest).await);
    let mut removal = Box::pin(storage.blobs.remove(&digest));
    while storage.index.blob(&digest).unwrap().is_some() {
        assert!(futures_util::poll!(&mut removal).is_pending());
        tokio::task::yield_now().await;
    }
    drop(removal);
    // Waits for the claim on the digest.
    assert_eq!(storage.blobs.remove(&digest).await.unwrap(), None);
    assert!(!storage.blobs.yard.layout.blob(&digest).exists());
    assert_eq!(storage.blobs.space().usage().used, 0);
}

#[tokio::test]
async fn what_cannot_be_looked_at_is_not_rotten() {
    let root = tempfile::tempdir().unwrap();
    let storage = open(root.path()).unwrap();
    let (bytes, digest) = content(5000);
    drop(publish(&storage, &bytes, digest).await);
    let file = storage.blobs.yard.layout.blob(&digest);
    // A failure that says nothing of the bytes, like a lack of descriptors.
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(&file, &file).unwrap();
    assert!(storage.blobs.inspect(&digest).await.is_err());
    fs::remove_file(&file).unwrap();

    // A volume that is no longer there.
    let marker = root.path().join(layout::MARKER);
    fs::remove_file(&marker).unwrap();
    assert!(matches!(
        storage.blobs.put_aside(&digest).await,
        Err(Error::Foreign { .. })
    ));
    assert!(storage.index.blob(&digest).unwrap().is_some(), "its row stays");
    fs::write(marker, "{}").unwrap();
    assert!(storage.blobs.put_aside(&digest).await.unwrap());
}

#[tokio::test]
async fn a_partial_file_with_holes_takes_its_room_before_it_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let (bytes, digest) = content(3_000_000);
    let path = {
        let storage = open(root.path()).unwrap();
        let mut first = ingest(&storage, digest, Some(3_000_000));
        first.append(&[bytes.slice(..1_000_000)]).unwrap();
        drop(first);
        storage.close();
        storage.blobs.yard.layout.partial(&digest)
    };
    // What a file system that cannot allocate ahead, or a copy of the folder, makes of it.
    fs::write(&path, &bytes[..1_000_000]).unwrap();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(3_000_000)
        .unwrap();
    let source = Arc::new(Source(Bytes::new()));
    {
        let storage = open(root.path()).unwrap();
        assert!(storage.blobs.space().usage().used < allocated(3_000_000));
        let second = storage.blobs.resume(digest, source.clone()).unwrap();
        assert_eq!(second.front(), 1_000_000);
        assert_eq!(storage.blobs.space().usage().used, allocated(3_000_000));
        drop(second);
        storage.close();
    }
    // Cut short, it is of no use.
    fs::write(&path, &bytes[..999_999]).unwrap();
    let storage = open(root.path()).unwrap();
    assert!(storage.blobs.resume(digest, source).is_none());
    assert_eq!(storage.blobs.space().usage().used, 0);
    assert_eq!(partials(root.path()), 0);
}

#[tokio::test]
async fn parts_of_what_passes_through_are_read_in_any_order() {
    let root = tempfile::tempdir().unwrap();
    let storage = open(root.path()).unwrap();
    let (bytes, digest) = content(20_000_000);
    let source = Arc::new(Source(bytes.clone()));
    let ingest = storage.blobs.pass_through(digest, Some(20_000_000), source);
    let mut reader = BlobReader::Growing(ingest.growing().tail());
    for (start, end) in [
        (15_000_000, 15_020_000),
        (9_000_000, 9_000_100),
        (19_000_000, 19_000_100),
    ] {
        reader.want(Span { start, end }, true);
        let (mut at, mut part) = (start, Vec::new());
        while let Some(piece) = reader.read(at, Some(end), false).await.unwrap() {
            at += piece.len() as u64;
            part.extend_from_slice(&piece);
        }
        assert!(part == bytes[start as usize..end as usize]);
    }
}
