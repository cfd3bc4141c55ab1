//! Files mapped read-only, and the table that finds the mapping behind a byte slice.
//!
//! A cached blob travels through hyper as [`Bytes`] that point into a mapping. The CPU never reads them: the
//! socket (`server::sendfile`) recognises such a slice by its address and sends the same bytes with
//! sendfile(2) from the file. This is the one file of the project with `unsafe`.
#![expect(unsafe_code, reason = "mmap, munmap, and slices of what they map")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};

use bytes::Bytes;
use rustix::io::{Errno, ReadWriteFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// Distance in bytes between the places that [`MappedFile::is_resident`] looks at: the kernel reads and drops
/// a blob in long runs, and a look at every page would cost more than an overlooked hole, which sendfile
/// waits for.
const SAMPLE: u64 = 256 * 1024;

/// Size in bytes of the scratch buffer of [`MappedFile::read_ahead`].
const SCRATCH: usize = 64 * 1024;

/// The live mappings: address of the first byte -> length, and the mapping.
static LIVE: RwLock<BTreeMap<usize, (usize, Weak<MappedFile>)>> = RwLock::new(BTreeMap::new());

/// A file mapped read-only from its first byte, possibly further than it reaches today.
///
/// Whoever maps a file owes it this: bytes that are in it are never changed, and it is never made shorter
/// while it is mapped (a blob's file is only appended to, and removed by unlinking). The kernel enforces
/// neither.
#[derive(Debug)]
pub struct MappedFile {
    base: NonNull<u8>,
    len: usize,
    file: Arc<File>,
    /// Length that the file is known to have reached, at most `len`: saves an fstat for each slice.
    reached: AtomicU64,
}

// SAFETY: `base` is a read-only mapping that belongs to this value until it is dropped; no method needs
// exclusive access to it, and munmap may be called on any thread.
unsafe impl Send for MappedFile {}
// SAFETY: as above: nothing is ever written through `base`, and the other fields are `Sync`.
unsafe impl Sync for MappedFile {}

impl MappedFile {
    /// Maps the first `len` bytes of `file`. `len` may be more than the file has at the moment: a file of
    /// known final length that still grows is mapped once.
    ///
    /// # Errors
    /// `InvalidInput` when `len` is zero or more than the address space holds; else what mmap(2) says.
    pub fn new(file: Arc<File>, len: u64) -> io::Result<Arc<Self>> {
        let size = usize::try_from(len).map_err(|_| invalid("longer than the address space"))?;
        if size == 0 {
            return Err(invalid("nothing to map"));
        }
        // SAFETY: the address is left to the kernel, so no existing memory is replaced; the arguments are
        // those of a plain read-only shared mapping.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                size,
                ProtFlags::READ,
                MapFlags::SHARED,
                &file,
                0,
            )?
        };
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| invalid("mapped at address zero"))?;
        let mapping = Arc::new(Self {
            base,
            len: size,
            file,
            reached: AtomicU64::new(0),
        });
        LIVE.write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(base.addr().get(), (size, Arc::downgrade(&mapping)));
        Ok(mapping)
    }

    /// Length of the mapping in bytes; never zero.
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// The file behind the mapping.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// The bytes of `range`, without reading or copying them.
    ///
    /// # Errors
    /// `InvalidInput` for a range beyond the mapping, `UnexpectedEof` for one beyond the file's present end
    /// (touching such a page is SIGBUS), or what fstat(2) says.
    pub fn slice(self: &Arc<Self>, range: Range<u64>) -> io::Result<Bytes> {
        if range.start > range.end || range.end > self.len() {
            return Err(invalid("range beyond the mapping"));
        }
        if range.start == range.end {
            return Ok(Bytes::new());
        }
        if range.end > self.reached()? {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "range beyond the end of the file",
            ));
        }
        // Neither is more than `self.len`, a usize.
        let (start, end) = (range.start as usize, range.end as usize);
        Ok(Bytes::from_owner(Slice {
            mapping: Arc::clone(self),
            start,
            len: end - start,
        }))
    }

    /// Whether the pages of `range` seem to be in the page cache, so that sendfile will not wait for the
    /// disk.
    ///
    /// Asks with preadv2(RWF_NOWAIT) for the last byte, and for one of every 256 KiB before it. `false` also
    /// where the file system cannot tell. Never blocks.
    pub fn is_resident(&self, range: Range<u64>) -> bool {
        let Some(last) = range.end.checked_sub(1).filter(|last| *last >= range.start) else {
            return true;
        };
        // From the end: the kernel's own reading ahead makes the first pages resident before the last ones.
        (range.start..=last).rev().step_by(SAMPLE as usize).all(|offset| {
            let mut byte = [0_u8];
            let got = rustix::io::retry_on_intr(|| {
                rustix::io::preadv2(
                    &self.file,
                    &mut [IoSliceMut::new(&mut byte)],
                    offset,
                    ReadWriteFlags::NOWAIT,
                )
            });
            got == Ok(1)
        })
    }

    /// Brings the pages of `range` into the page cache. Blocks on the disk: for blocking threads.
    ///
    /// # Errors
    /// What pread(2) says, and `UnexpectedEof` where the file has become shorter: told here instead of by a response
    /// that stops.
    pub fn read_ahead(&self, range: Range<u64>) -> io::Result<()> {
        let mut scratch = vec![0_u8; SCRATCH];
        let mut offset = range.start;
        while offset < range.end {
            let want = usize::try_from(range.end - offset)
                .unwrap_or(SCRATCH)
                .min(SCRATCH);
            match self.file.read_at(&mut scratch[..want], offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => offset += n as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// How far the file reaches within the mapping, asked anew until it reaches the end.
    fn reached(&self) -> io::Result<u64> {
        let known = self.reached.load(Ordering::Relaxed);
        if known == self.len() {
            return Ok(known);
        }
        let now = self.file.metadata()?.len().min(self.len());
        self.reached.fetch_max(now, Ordering::Relaxed);
        Ok(now)
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        // Out of the table first: from munmap on, the addresses may belong to somebody else.
        LIVE.write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.base.addr().get());
        // SAFETY: exactly what `new` mapped, and every slice of it holds an `Arc` of this value, so none is
        // left.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
        // EINVAL is the only error there is, and means that the arguments are not those of `new`.
        debug_assert_eq!(unmapped, Ok::<(), Errno>(()));
    }
}

/// Finds the mapping in which `slice` lies wholly, and the offset of its first byte in the file. Looks at the
/// address alone, never at the bytes.
pub fn locate(slice: &[u8]) -> Option<(Arc<MappedFile>, u64)> {
    let address = slice.as_ptr().addr();
    let live = LIVE.read().unwrap_or_else(PoisonError::into_inner);
    let (base, (len, mapping)) = live.range(..=address).next_back()?;
    let offset = address - base;
    // Decided before the upgrade: an `Arc` dropped here might be the last one, and would lock the table
    // again.
    if offset >= *len || slice.len() > len - offset {
        return None;
    }
    Some((mapping.upgrade()?, offset as u64))
}

/// What the [`Bytes`] of [`MappedFile::slice`] own.
struct Slice {
    mapping: Arc<MappedFile>,
    start: usize,
    len: usize,
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `slice` checked that the range lies in the mapping and that the file reaches that far; the
        // mapping lives as long as `self`; its bytes do not change (see `MappedFile`).
        unsafe { std::slice::from_raw_parts(self.mapping.base.as_ptr().add(self.start), self.len) }
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn mapped(content: &[u8], len: u64) -> (Arc<File>, Arc<MappedFile>) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        let file = Arc::new(file);
        let mapping = MappedFile::new(Arc::clone(&file), len).unwrap();
        (file, mapping)
    }

    #[test]
    fn slices_show_the_file() {
        let (_, mapping) = mapped(b"0123456789", 10);
        assert_eq!(mapping.slice(2..5).unwrap(), "234");
        assert_eq!(mapping.slice(0..10).unwrap(), "0123456789");
        assert!(mapping.slice(4..4).unwrap().is_empty());
    }

    #[test]
    fn slice_keeps_the_mapping_alive() {
        let (_, mapping) = mapped(b"0123456789", 10);
        let slice = mapping.slice(2..5).unwrap();
        drop(mapping);
        assert_eq!(slice.slice(1..), "34");
        assert!(locate(&slice).is_some());
    }

    #[test]
    fn refuses_what_the_file_does_not_reach_until_it_does() {
        let (file, mapping) = mapped(b"01234", 10_000);
        assert_eq!(mapping.len(), 10_000);
        assert_eq!(
            mapping.slice(3..6).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        assert_eq!(mapping.slice(0..5).unwrap(), "01234");
        file.write_all_at(&[b'x'; 9_995], 5).unwrap();
        assert_eq!(mapping.slice(4..10_000).unwrap().len(), 9_996);
        assert_eq!(
            mapping.slice(9_999..10_001).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        #[expect(clippy::reversed_empty_ranges, reason = "what is tested")]
        let reversed = mapping.slice(5..4);
        assert_eq!(reversed.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn nothing_to_map_is_an_error() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        assert_eq!(
            MappedFile::new(file, 0).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }

    #[test]
    fn locate_goes_by_address() {
        let (_, first) = mapped(&[1; 9_000], 9_000);
        let (_, second) = mapped(&[1; 9_000], 9_000);
        for mapping in [&first, &second] {
            let slice = mapping.slice(100..9_000).unwrap();
            let (found, offset) = locate(&slice[50..60]).unwrap();
            assert!(Arc::ptr_eq(&found, mapping));
            assert_eq!(offset, 150);
        }
        assert!(locate(&[1; 9_000]).is_none());
        assert!(locate(b"static").is_none());
        assert!(locate(&[]).is_none());
    }

    #[test]
    fn a_dropped_mapping_leaves_the_table() {
        let (_, mapping) = mapped(b"0123456789", 10);
        let address = mapping.base.addr().get();
        let slice = mapping.slice(0..10).unwrap();
        drop(mapping);
        assert!(LIVE.read().unwrap().contains_key(&address));
        let weak = Weak::clone(&LIVE.read().unwrap()[&address].1);
        drop(slice);
        assert!(weak.upgrade().is_none());
    }

    #[test]
    fn residency_and_read_ahead() {
        let (_, mapping) = mapped(&vec![7; 300_000], 1_000_000);
        mapping.read_ahead(0..300_000).unwrap();
        assert!(mapping.is_resident(0..300_000));
        assert!(mapping.is_resident(5..5));
        assert!(!mapping.is_resident(0..300_001), "beyond the end of the file");
        let short = mapping.read_ahead(200_000..1_000_000).unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
    }
}
