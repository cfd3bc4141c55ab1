//! The ingest and its readers, on a real folder.

use std::fs;
use std::path::Path;

use bytes::Bytes;

use super::*;
use crate::oci::{Algorithm, Digest};

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
    let storage = Storage::open(root.path()).unwrap();
    for size in [1, 70_000, 1_000_000] {
        let (bytes, digest) = content(size);
        let mut ingest = storage.blobs.ingest(digest).unwrap();
        ingest.announce_size(size as u64);
        let mut early = BlobReader::Growing(ingest.tail());
        ingest
            .append(&[bytes.slice(..size / 2), bytes.slice(size / 2..)])
            .unwrap();

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

        ingest.publish().unwrap();
        storage.blobs.adopt(&digest, size as u64).await.unwrap();
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
    let storage = Storage::open(root.path()).unwrap();
    let (bytes, digest) = content(100_000);
    let mut wrong = bytes.to_vec();
    wrong[5] ^= 1;
    let mut ingest = storage.blobs.ingest(digest).unwrap();
    ingest.announce_size(100_000);
    let mut reader = BlobReader::Growing(ingest.tail());
    ingest.append(&[wrong.into()]).unwrap();
    assert!(matches!(ingest.verify(), Err(Error::WrongDigest { .. })));
    drop(ingest);
    assert!(read_all(&mut reader, true).await.is_err());
    assert_eq!(partials(root.path()), 0);
    assert!(storage.blobs.open(&digest).await.unwrap().is_none());

    let mut longer = storage.blobs.ingest(digest).unwrap();
    longer.announce_size(99_999);
    assert!(matches!(longer.append(&[bytes]), Err(Error::WrongSize { .. })));
}

#[tokio::test]
async fn a_short_or_missing_file_heals_into_a_miss() {
    let root = tempfile::tempdir().unwrap();
    let (bytes, digest) = content(5000);
    {
        let storage = Storage::open(root.path()).unwrap();
        let mut ingest = storage.blobs.ingest(digest).unwrap();
        ingest.append(std::slice::from_ref(&bytes)).unwrap();
        ingest.publish().unwrap();
        storage.blobs.adopt(&digest, 5000).await.unwrap();
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
    let storage = Storage::open(root.path()).unwrap();
    assert!(storage.blobs.open(&digest).await.unwrap().is_none());
    assert!(storage.index.blob(&digest).unwrap().is_none());
}
