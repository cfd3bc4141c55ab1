//! The tar format as a stream: heads of entries written, and an archive read piece by piece, with bounds on all that it can
//! make us keep. Used by `export` and `read`.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use tar::{EntryType, Header};

use crate::transfer::Pieces;

/// Entries are padded to this.
const BLOCK: u64 = 512;

/// Two empty blocks end an archive.
pub(super) const END: u64 = 2 * BLOCK;

/// Bytes of a path, or of an extended header, that are read at the most: ours have less than 200.
const MOST_EXTENSION: u64 = 64 * 1024;

/// The longest path that a head holds by itself.
const SHORT: usize = 100;

/// The head of an entry of ours: of `size` bytes at `path`. The same for the same, whoever writes it when.
pub(super) fn head(path: &str, size: u64) -> Result<Vec<u8>, std::io::Error> {
    let mut blocks = Vec::new();
    if path.len() > SHORT {
        // GNU's way of long names, which every reader knows.
        let long = format!("{path}\0");
        blocks
            .extend_from_slice(plain("././@LongLink", long.len() as u64, EntryType::GNULongName)?.as_bytes());
        blocks.extend_from_slice(long.as_bytes());
        blocks.resize(blocks.len() + padding(long.len() as u64) as usize, 0);
    }
    let cut = path.get(..path.len().min(SHORT)).unwrap_or(path);
    blocks.extend_from_slice(plain(cut, size, EntryType::Regular)?.as_bytes());
    Ok(blocks)
}

fn plain(path: &str, size: u64, kind: EntryType) -> Result<Header, std::io::Error> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_path(path)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    Ok(header)
}

/// What an entry takes up in the archive.
pub(super) fn taken(path: &str, size: u64) -> u64 {
    let long = if path.len() > SHORT {
        let name = path.len() as u64 + 1;
        BLOCK + name + padding(name)
    } else {
        0
    };
    long + BLOCK + size + padding(size)
}

/// Empty bytes after `size`.
pub(super) fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK) - size
}

/// Why an archive cannot be read on. Told to the operator.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum ArchiveError {
    #[error("the archive ends in the middle, after {0} bytes")]
    Short(u64),
    #[error("the archive has no end: it was cut off after {0} bytes, or is none")]
    NoEnd(u64),
    #[error("it is compressed: decompress it first")]
    Compressed,
    #[error("it is no tar archive (at byte {0})")]
    Malformed(u64),
    #[error("an extended header of {0} bytes")]
    Giant(u64),
    #[error("an entry that is neither file nor folder: {0}")]
    Kind(String),
    #[error("a path that leads elsewhere: {0}")]
    Path(String),
    #[error("{0}")]
    Layout(String),
    #[error("it broke off: {0}")]
    Stream(String),
}

/// A file of an archive.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// As it is written, without `./`.
    pub(super) path: String,
    pub(super) size: u64,
}

/// An archive that is read from a stream.
pub(super) struct Archive {
    pieces: Pieces,
    ended: bool,
    ready: VecDeque<Bytes>,
    position: u64,
    /// Of the entry that is being read: what is left, and what follows it.
    left: u64,
    padding: u64,
}

/// What extended headers said of the next entry.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Archive {
    pub(super) fn new(pieces: Pieces) -> Self {
        Self {
            pieces,
            ended: false,
            ready: VecDeque::new(),
            position: 0,
            left: 0,
            padding: 0,
        }
    }

    /// Bytes that were read.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The next file; what is left of the one before is passed over. `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Entry>, ArchiveError> {
        self.pass(self.left + self.padding).await?;
        (self.left, self.padding) = (0, 0);
        let mut extension = Extension::default();
        loop {
            let Some(header) = self.header().await? else {
                return Ok(None);
            };
            let kind = header.entry_type();
            let told = header
                .entry_size()
                .map_err(|_| ArchiveError::Malformed(self.position))?;
            match kind {
                EntryType::GNULongName | EntryType::XHeader => {
                    let text = self.extension(told).await?;
                    if kind == EntryType::XHeader {
                        extension
                            .read(&text)
                            .ok_or(ArchiveError::Malformed(self.position))?;
                    } else {
                        let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
                        extension.path = text.get(..end).map(<[u8]>::to_vec);
                    }
                }
                // Of links, which are refused where they are used, and of nothing in particular.
                EntryType::GNULongLink | EntryType::XGlobalHeader => {
                    self.extension(told).await?;
                }
                EntryType::Regular | EntryType::Continuous | EntryType::Directory => {
                    let path = extension
                        .path
                        .take()
                        .unwrap_or_else(|| header.path_bytes().into_owned());
                    let size = extension.size.take().unwrap_or(told);
                    extension = Extension::default();
                    let path = checked(&path)?;
                    if kind == EntryType::Directory {
                        self.pass(size + padding(size)).await?;
                        continue;
                    }
                    (self.left, self.padding) = (size, padding(size));
                    return Ok(Some(Entry { path, size }));
                }
                _ => {
                    let path = String::from_utf8_lossy(&header.path_bytes()).into_owned();
                    return Err(ArchiveError::Kind(shown(&path)));
                }
            }
        }
    }

    /// The next piece of the entry, never empty; `None` at its end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, ArchiveError> {
        if self.left == 0 {
            return Ok(None);
        }
        let Some(piece) = self.take(self.left).await? else {
            return Err(ArchiveError::Short(self.position));
        };
        self.left -= piece.len() as u64;
        Ok(Some(piece))
    }

    /// All of the entry, which the caller has found small.
    pub(super) async fn whole(&mut self) -> Result<Bytes, ArchiveError> {
        let mut whole = BytesMut::new();
        while let Some(piece) = self.piece().await? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// Reads the stream to its end, whatever comes: who sends it wants to be heard out.
    pub(super) async fn drain(&mut self) {
        self.ready.clear();
        while !self.ended {
            self.ended = !matches!(self.pieces.next().await, Some(Ok(_)));
        }
    }

    /// A header; `None` at the end of the archive.
    async fn header(&mut self) -> Result<Option<Header>, ArchiveError> {
        let start = self.position;
        let mut empty = 0;
        loop {
            let block = self.exactly(BLOCK).await?;
            let Some(block) = block else {
                return Err(ArchiveError::NoEnd(self.position));
            };
            if block.iter().all(|byte| *byte == 0) {
                empty += BLOCK;
                if empty == END {
                    return Ok(None);
                }
                continue;
            }
            if start == 0 && (block.starts_with(b"\x1f\x8b") || block.starts_with(b"\x28\xb5\x2f\xfd")) {
                return Err(ArchiveError::Compressed);
            }
            let malformed = || ArchiveError::Malformed(start);
            let mut header = Header::new_old();
            header.as_mut_bytes().copy_from_slice(&block);
            let summed = header.as_bytes().iter().enumerate().map(|(at, byte)| {
                // The field itself counts as spaces.
                u32::from(if (148..156).contains(&at) { b' ' } else { *byte })
            });
            if header.cksum().map_err(|_| malformed())? != summed.sum::<u32>() {
                return Err(malformed());
            }
            return Ok(Some(header));
        }
    }

    /// The text of an extended header.
    async fn extension(&mut self, size: u64) -> Result<Bytes, ArchiveError> {
        if size > MOST_EXTENSION {
            return Err(ArchiveError::Giant(size));
        }
        let text = self
            .exactly(size)
            .await?
            .ok_or(ArchiveError::Short(self.position))?;
        self.pass(padding(size)).await?;
        Ok(text)
    }

    /// Just so many bytes; `None` when the stream ends at the first.
    async fn exactly(&mut self, size: u64) -> Result<Option<Bytes>, ArchiveError> {
        let mut block = BytesMut::new();
        while (block.len() as u64) < size {
            match self.take(size - block.len() as u64).await? {
                Some(piece) => block.extend_from_slice(&piece),
                None if block.is_empty() => return Ok(None),
                None => return Err(ArchiveError::Short(self.position)),
            }
        }
        Ok(Some(block.freeze()))
    }

    async fn pass(&mut self, mut size: u64) -> Result<(), ArchiveError> {
        while size > 0 {
            let piece = self.take(size).await?.ok_or(ArchiveError::Short(self.position))?;
            size -= piece.len() as u64;
        }
        Ok(())
    }

    /// Some bytes, `most` at the most and never none; `None` at the end of the stream.
    async fn take(&mut self, most: u64) -> Result<Option<Bytes>, ArchiveError> {
        loop {
            if let Some(front) = self.ready.front_mut() {
                let length = front.len().min(usize::try_from(most).unwrap_or(usize::MAX));
                let piece = front.split_to(length);
                if front.is_empty() {
                    self.ready.pop_front();
                }
                if !piece.is_empty() {
                    self.position += piece.len() as u64;
                    return Ok(Some(piece));
                }
                continue;
            }
            if self.ended {
                return Ok(None);
            }
            match self.pieces.next().await {
                Some(Ok(piece)) => self.ready.push_back(piece),
                Some(Err(reason)) => {
                    self.ended = true;
                    return Err(ArchiveError::Stream(reason));
                }
                None => self.ended = true,
            }
        }
    }
}

impl Extension {
    /// Records `LENGTH KEY=VALUE\n` (POSIX pax); `None` when they are none.
    fn read(&mut self, mut text: &[u8]) -> Option<()> {
        while !text.is_empty() {
            let space = text.iter().position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(text.get(..space)?).ok()?.parse().ok()?;
            let record = text.get(space + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            let (key, value) = (record.get(..equals)?, record.get(equals + 1..)?);
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"size" => self.size = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
                _ => {}
            }
            text = text.get(length..)?;
        }
        Some(())
    }
}

/// A path that stays within the archive, without `./` and a final slash.
fn checked(path: &[u8]) -> Result<String, ArchiveError> {
    let text = String::from_utf8_lossy(path).into_owned();
    let is_bad = |part: &str| part == ".." || part.contains(['\\', '\0']);
    if text.starts_with('/') || std::str::from_utf8(path).is_err() || text.split('/').any(is_bad) {
        return Err(ArchiveError::Path(shown(&text)));
    }
    let parts: Vec<_> = text
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    Ok(parts.join("/"))
}

/// Text of an archive as a message shows it.
pub(super) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    fn archive(bytes: &[u8], piece: usize) -> Archive {
        let pieces: Vec<_> = bytes
            .chunks(piece)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        Archive::new(stream::iter(pieces).boxed())
    }

    fn entry(path: &str, bytes: &[u8]) -> Vec<u8> {
        let mut entry = head(path, bytes.len() as u64).unwrap();
        entry.extend_from_slice(bytes);
        entry.resize(entry.len() + padding(bytes.len() as u64) as usize, 0);
        assert_eq!(entry.len() as u64, taken(path, bytes.len() as u64));
        entry
    }

    async fn names(bytes: &[u8]) -> Result<Vec<(String, u64)>, ArchiveError> {
        let mut archive = archive(bytes, 1000);
        let mut names = Vec::new();
        while let Some(entry) = archive.next().await? {
            names.push((entry.path, entry.size));
        }
        Ok(names)
    }

    #[tokio::test]
    async fn what_is_written_is_read_by_us_and_by_others() {
        let long = format!("blobs/sha512/{}", "ab".repeat(64));
        let files = [
            ("oci-layout", b"{}".to_vec()),
            (long.as_str(), vec![7; 1500]),
            ("empty", Vec::new()),
        ];
        let mut bytes: Vec<u8> = files
            .iter()
            .flat_map(|(path, content)| entry(path, content))
            .collect();
        bytes.resize(bytes.len() + END as usize, 0);
        for piece in [1, 511, 4096] {
            let mut archive = archive(&bytes, piece);
            for (path, content) in &files {
                let entry = archive.next().await.unwrap().unwrap();
                assert_eq!((entry.path.as_str(), entry.size), (*path, content.len() as u64));
                assert_eq!(archive.whole().await.unwrap(), *content);
            }
            assert_eq!(archive.next().await.unwrap(), None);
            assert_eq!(archive.position(), bytes.len() as u64);
        }
        let mut theirs = tar::Archive::new(&bytes[..]);
        for (found, (path, content)) in theirs.entries().unwrap().zip(&files) {
            let found = found.unwrap();
            assert_eq!(found.path().unwrap().to_str(), Some(*path));
            assert_eq!(found.size(), content.len() as u64);
        }
    }

    proptest::proptest! {
        /// Whatever is done to an archive, it is read or refused, and nothing beyond it is waited for.
        #[test]
        fn spoilt_archives_are_read_or_refused(
            changes in proptest::collection::vec((0_usize..3000, 0_u8..=255), 0..8), cut in 0_usize..4000,
        ) {
            let long = "p/".repeat(80);
            let mut bytes = [entry(&long, &[1; 700]), entry("b", b"c"), vec![0; END as usize]].concat();
            for (at, byte) in changes {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            bytes.truncate(cut);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let read = runtime.block_on(names(&bytes));
            proptest::prop_assert!(read.is_err() || read.unwrap().len() <= 3);
        }
    }

    #[tokio::test]
    async fn what_others_write_is_read() {
        let mut builder = tar::Builder::new(Vec::new());
        let path = "p/".repeat(90) + "index.json";
        builder
            .append_pax_extensions([("comment", &b"x"[..]), ("path", b"./index.json")])
            .unwrap();
        builder
            .append(
                &plain("PaxHeaders/x", 3, EntryType::Regular).unwrap(),
                &b"abc"[..],
            )
            .unwrap();
        builder
            .append(&plain("blobs/", 0, EntryType::Directory).unwrap(), &b""[..])
            .unwrap();
        let mut header = Header::new_gnu();
        header.set_size(2);
        header.set_cksum();
        builder.append_data(&mut header, &path, &b"de"[..]).unwrap();
        let bytes = builder.into_inner().unwrap();
        assert_eq!(
            names(&bytes).await.unwrap(),
            [("index.json".to_owned(), 3), (path, 2)]
        );
    }

    #[tokio::test]
    async fn what_is_hostile_or_broken_is_refused() {
        let of = |kind, path: &str, size| {
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_size(size);
            header.set_cksum();
            header.as_bytes().to_vec()
        };
        let regular = EntryType::Regular;
        for path in ["../x", "/etc/passwd", "blobs/../../x", "a\\b"] {
            let refused = names(&of(regular, path, 0)).await;
            assert_eq!(refused, Err(ArchiveError::Path(path.to_owned())));
        }
        for kind in [
            EntryType::Symlink,
            EntryType::Link,
            EntryType::Char,
            EntryType::Fifo,
            EntryType::GNUSparse,
        ] {
            assert_eq!(
                names(&of(kind, "x", 0)).await,
                Err(ArchiveError::Kind("x".to_owned()))
            );
        }
        for kind in [
            EntryType::XHeader,
            EntryType::GNULongName,
            EntryType::XGlobalHeader,
        ] {
            assert_eq!(
                names(&of(kind, "x", 1 << 40)).await,
                Err(ArchiveError::Giant(1 << 40))
            );
        }
        let whole = entry("a", &[1; 600]);
        assert_eq!(names(&whole).await, Err(ArchiveError::NoEnd(whole.len() as u64)));
        assert_eq!(names(&whole[..700]).await, Err(ArchiveError::Short(700)));
        assert_eq!(names(&whole[..100]).await, Err(ArchiveError::Short(100)));
        assert_eq!(names(b"").await, Err(ArchiveError::NoEnd(0)));
        let mut wrong = whole.clone();
        wrong[3] ^= 1;
        assert_eq!(names(&wrong).await, Err(ArchiveError::Malformed(0)));
        let mut zipped = vec![0; 512];
        zipped[..2].copy_from_slice(b"\x1f\x8b");
        assert_eq!(names(&zipped).await, Err(ArchiveError::Compressed));
        for text in ["x", "5 a=b\n", "99 path=x\n", "9 size=x\n"] {
            let mut bytes = of(EntryType::XHeader, "x", text.len() as u64);
            bytes.extend_from_slice(text.as_bytes());
            bytes.resize(1024, 0);
            assert!(
                matches!(names(&bytes).await, Err(ArchiveError::Malformed(_))),
                "{text}"
            );
        }
    }
}
