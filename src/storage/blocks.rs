//! Writing what arrives so that the page cache takes it cheaply. Called by the growing file.
//!
//! Linux keeps a file in folios as large as a write's length and place allow. Pieces from the network begin anywhere, the
//! first of them behind a response's head: written as they come they would be in many small folios, each allocated,
//! synced and sent by itself (a third more CPU for writing and syncing, measured).

use std::fs::File;
use std::io::{self, IoSlice};

use bytes::Bytes;

/// Where writes are cut, and so the largest folio. Of larger ones a virtual machine may have given the memory back to its
/// host: getting it again costs more than the write (a quarter of a cold pull's CPU, measured).
const BLOCK: u64 = 64 * 1024;

/// Pieces that one write takes; below the system's IOV_MAX.
const MOST_PIECES: usize = 64;

/// Writes consecutive pieces at `position`, cut where blocks of the file begin; gives where they end. Blocking.
pub(super) fn write(file: &File, position: u64, pieces: &[Bytes]) -> io::Result<u64> {
    let mut at = position;
    let mut pieces = pieces.iter();
    let mut rest: &[u8] = &[];
    let mut slices = Vec::with_capacity(MOST_PIECES.min(pieces.len() + 1));
    loop {
        let end = (at + 1).next_multiple_of(BLOCK);
        let mut reached = at;
        slices.clear();
        while reached < end && slices.len() < MOST_PIECES {
            if rest.is_empty() {
                let Some(piece) = pieces.next() else { break };
                rest = piece;
            }
            let most = usize::try_from(end - reached).unwrap_or(usize::MAX);
            let (part, behind) = rest.split_at(most.min(rest.len()));
            slices.push(IoSlice::new(part));
            reached += part.len() as u64;
            rest = behind;
        }
        if reached == at {
            return Ok(at);
        }
        write_all(file, at, &mut slices)?;
        at = reached;
    }
}

fn write_all(file: &File, mut at: u64, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !slices.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::pwritev(file, slices, at))?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut slices, written);
        at += written as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn all_bytes_arrive_wherever_they_begin() {
        let file = tempfile::tempfile().unwrap();
        let whole: Bytes = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        let block = BLOCK as usize;
        for position in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 1_000_000] {
            for (length, piece) in [
                (0, 1),
                (1, 1),
                (5_000, 7),
                (block, 64),
                (300_000, 50_000),
                (300_000, 300_000),
            ] {
                let mut pieces: Vec<Bytes> = whole[..length]
                    .chunks(piece)
                    .map(Bytes::copy_from_slice)
                    .collect();
                pieces.insert(pieces.len() / 2, Bytes::new());
                let end = write(&file, position, &pieces).unwrap();
                assert_eq!(end, position + length as u64);
                let mut read = vec![0; length];
                file.read_exact_at(&mut read, position).unwrap();
                assert!(
                    read == whole[..length],
                    "{length} bytes in pieces of {piece} at {position}"
                );
            }
        }
    }
}
