// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest's memory, as a file without a name that QEMU and we have open at once: it can be looked at, and filled, without
//! asking QEMU.
//!
//! What the guest has never touched is a hole of that file, and takes nothing.

use std::fmt;
use std::fs::File;
use std::io;
use std::num::NonZero;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::thread;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Whence, lseek};

use crate::config::types::Size;
use crate::file::digest::{self, Digest, Hasher};

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// What is read at once.
const PIECE: usize = 1 << 20;

/// No more threads than this read a memory: what is read is memory, and two fill the bus of a small host.
const THREADS: usize = 4;

/// A guest's memory.
#[derive(Debug)]
pub struct Memory {
    file: File,
    size: u64,
}

/// The digests of a memory's pages, in order; `None` of a page of zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pages(pub Vec<Option<Digest>>);

/// Where two memories of one size are not the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// How many pages differ.
    pub pages: u64,
    /// How many bytes.
    pub bytes: u64,
    /// The first of these bytes, counted from the first of the memory.
    pub first: u64,
    /// What it is in the one, and in the other.
    pub values: (u8, u8),
}

impl Difference {
    /// Of two contents that begin at `at`.
    fn of(a: &[u8], b: &[u8], at: u64) -> Option<Self> {
        if a == b {
            return None;
        }
        let pages = a.chunks(PAGE).zip(b.chunks(PAGE)).filter(|(a, b)| a != b);
        let mut bytes = a.iter().zip(b).enumerate().filter(|(_, (a, b))| a != b);
        let (first, (is, other)) = bytes.next()?;
        Some(Self {
            pages: pages.count() as u64,
            bytes: 1 + bytes.count() as u64,
            first: at + first as u64,
            values: (*is, *other),
        })
    }

    /// This one and one that is behind it.
    fn and(self, next: Self) -> Self {
        Self {
            pages: self.pages + next.pages,
            bytes: self.bytes + next.bytes,
            ..self
        }
    }
}

/// `the byte at 0x1000 of the memory was 00, is 01 (1 byte differs, on 1 page)`.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (was, is) = self.values;
        write!(
            f,
            "the byte at {:#x} of the memory was {was:02x}, is {is:02x} (",
            self.first
        )?;
        match self.bytes {
            1 => f.write_str("no other byte differs)"),
            bytes => write!(
                f,
                "{bytes} bytes differ, on {} page{})",
                self.pages,
                if self.pages == 1 { "" } else { "s" }
            ),
        }
    }
}

impl Memory {
    /// `size` of zeros.
    ///
    /// # Errors
    ///
    /// If the kernel has no room for it.
    pub fn new(size: Size) -> io::Result<Self> {
        let file = File::from(memfd_create("guest", MFdFlags::MFD_CLOEXEC)?);
        file.set_len(size.bytes())?;
        Ok(Self {
            file,
            size: size.bytes(),
        })
    }

    /// The same file once more, for QEMU.
    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }

    /// Its bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads the page `number` into `page`.
    ///
    /// # Errors
    ///
    /// If there is no such page.
    pub fn read(&self, number: usize, page: &mut [u8; PAGE]) -> io::Result<()> {
        self.file.read_exact_at(page, number as u64 * PAGE as u64)
    }

    /// Writes `pages` from the page `number` on.
    ///
    /// # Errors
    ///
    /// If the kernel has no room for it.
    pub fn write(&self, number: usize, pages: &[u8]) -> io::Result<()> {
        self.file.write_all_at(pages, number as u64 * PAGE as u64)
    }

    /// Turns over the lowest bit of the byte at `address`, as a fault of the host's memory would.
    ///
    /// # Errors
    ///
    /// If there is no such byte.
    pub fn flip_bit(&self, address: u64) -> io::Result<()> {
        let mut byte = [0];
        self.file.read_exact_at(&mut byte, address)?;
        self.file.write_all_at(&[byte[0] ^ 1], address)
    }

    /// All of it as one number: the digest of the digests of its pieces of 1 MiB, in order, with 32 zero bytes for a piece of zeros.
    /// The guest has to stand still.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn digest(&self) -> io::Result<Digest> {
        let mut hasher = Hasher::default();
        for piece in self.digests(PIECE)? {
            hasher.update(piece.as_ref().map_or(&[0; 32], |piece| piece.as_bytes()));
        }
        Ok(hasher.digest())
    }

    /// What is on each page. The guest has to stand still. It takes longer than [`digest`](Self::digest): what is hashed in one
    /// piece is hashed faster.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn pages(&self) -> io::Result<Pages> {
        Ok(Pages(self.digests(PAGE)?))
    }

    /// Where it differs from `other`, which is of the same size; `None` if it does not. Both guests have to stand still.
    ///
    /// # Errors
    ///
    /// If one of them cannot be read.
    pub fn difference(&self, other: &Self) -> io::Result<Option<Difference>> {
        let differences = self.each_share(|pieces| {
            let mut found: Option<Difference> = None;
            self.beside(other, pieces, |at, a, b| {
                if let Some(next) = Difference::of(a, b, at) {
                    found = Some(found.map_or(next, |found| found.and(next)));
                }
                Ok(())
            })?;
            Ok(found)
        })?;
        Ok(differences.into_iter().flatten().reduce(Difference::and))
    }

    /// Takes over the content of `other`, which is of the same size. What is the same is not written.
    ///
    /// # Errors
    ///
    /// If one of them cannot be read, or the kernel has no room for it.
    pub fn become_like(&self, other: &Self) -> io::Result<()> {
        self.each_share(|pieces| {
            self.beside(other, pieces, |at, mine, theirs| {
                let pages = mine.chunks(PAGE).zip(theirs.chunks(PAGE)).zip((at..).step_by(PAGE));
                pages
                    .filter(|((mine, theirs), _)| mine != theirs)
                    .try_for_each(|((_, theirs), at)| self.file.write_all_at(theirs, at))
            })
        })
        .map(drop)
    }

    /// Hands on both contents of those `pieces` that one of the two has touched, with where they begin.
    fn beside(
        &self,
        other: &Self,
        pieces: Range<usize>,
        mut take: impl FnMut(u64, &[u8], &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let (mut a, mut b) = (vec![0; PIECE], vec![0; PIECE]);
        for number in pieces {
            let from = number as u64 * PIECE as u64;
            let length = PIECE.min(usize::try_from(self.size.saturating_sub(from)).map_err(io::Error::other)?);
            let (first, behind) = (number * (PIECE / PAGE), (number + 1) * (PIECE / PAGE));
            let has_data = |memory: &Self| Ok::<_, io::Error>(memory.data(first)?.is_some_and(|data| data < behind));
            if !has_data(self)? && !has_data(other)? {
                continue;
            }
            self.file.read_exact_at(&mut a[..length], from)?;
            other.file.read_exact_at(&mut b[..length], from)?;
            take(from, &a[..length], &b[..length])?;
        }
        Ok(())
    }

    /// Has threads look at a share of all pieces each, and returns what they found, in order.
    fn each_share<T: Send>(&self, look: impl Fn(Range<usize>) -> io::Result<T> + Sync) -> io::Result<Vec<T>> {
        let pieces = usize::try_from(self.size.div_ceil(PIECE as u64)).map_err(io::Error::other)?;
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS);
        let share = pieces.div_ceil(threads).max(1);
        thread::scope(|scope| {
            let look = &look;
            let shares = (0..pieces).step_by(share).map(|from| from..(from + share).min(pieces));
            let lookers: Vec<_> = shares.map(|share| scope.spawn(move || look(share))).collect();
            lookers
                .into_iter()
                .map(|looker| looker.join().map_err(|_| io::ErrorKind::Other)?)
                .collect()
        })
    }

    /// The digests of all of its parts of so many bytes, which a piece has a whole number of.
    fn digests(&self, part: usize) -> io::Result<Vec<Option<Digest>>> {
        let parts = usize::try_from(self.size / part as u64).map_err(io::Error::other)?;
        let each = PIECE / part;
        let shares = self.each_share(|pieces| {
            let mut digests = vec![None; (pieces.end * each).min(parts) - pieces.start * each];
            self.look(pieces.start, part, &mut digests)?;
            Ok(digests)
        })?;
        Ok(shares.concat())
    }

    /// Fills `digests`, which begin with the piece `first`.
    fn look(&self, first: usize, part: usize, digests: &mut [Option<Digest>]) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        for (number, digests) in digests.chunks_mut(PIECE / part).enumerate() {
            let from = (first + number) * PIECE;
            let piece = &mut piece[..digests.len() * part];
            // What the guest has never touched is not read. (The offset of a file is common to all: only where data is is asked.)
            let end = (from + piece.len()) / PAGE;
            if self.data(from / PAGE)?.is_none_or(|data| data >= end) {
                continue;
            }
            self.file.read_exact_at(piece, from as u64)?;
            for (digest, content) in digests.iter_mut().zip(piece.chunks_exact(part)) {
                *digest = (!is_zero(content)).then(|| digest::of_bytes(content));
            }
        }
        Ok(())
    }

    /// Hands on what is on those of `pages` that the guest has touched, in order, in pieces of whole pages: the number of the
    /// first and their content.
    pub(super) fn each_piece<E: From<io::Error>>(
        &self,
        pages: Range<usize>,
        mut take: impl FnMut(usize, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut buffer = vec![0; PIECE];
        let mut next = pages.start;
        while next < pages.end {
            // The offset of a file is common to all who read: only where data is is asked here.
            let Some(data) = self.data(next)?.filter(|data| *data < pages.end) else {
                break;
            };
            let hole = self.hole(data)?.min(pages.end);
            for from in (data..hole).step_by(PIECE / PAGE) {
                let count = (hole - from).min(PIECE / PAGE);
                let read = &mut buffer[..count * PAGE];
                self.file.read_exact_at(read, from as u64 * PAGE as u64)?;
                take(from, read)?;
            }
            next = hole;
        }
        Ok(())
    }

    /// The next page, from `number` on, that the guest has touched.
    fn data(&self, number: usize) -> io::Result<Option<usize>> {
        match lseek(&self.file, number as i64 * PAGE as i64, Whence::SeekData) {
            Ok(at) => Ok(Some(at as usize / PAGE)),
            Err(Errno::ENXIO) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The next page, from `number` on, that it has not.
    fn hole(&self, number: usize) -> io::Result<usize> {
        let at = lseek(&self.file, number as i64 * PAGE as i64, Whence::SeekHole)?;
        Ok((at as usize).div_ceil(PAGE))
    }
}

/// Whether there is nothing but zeros.
pub(super) fn is_zero(content: &[u8]) -> bool {
    // Compared with itself, a byte further on, by what the C library has for it: byte by byte it takes ten times as long.
    content
        .split_first()
        .is_none_or(|(first, rest)| *first == 0 && content[..rest.len()] == *rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_two_differ() {
        let (a, b) = (
            Memory::new(Size::mib(5)).expect("a memory"),
            Memory::new(Size::mib(5)).expect("a memory"),
        );
        assert_eq!(a.difference(&b).expect("both"), None);
        a.write(3, &[0; PAGE]).expect("zeros");
        b.write(1200, &[7; PAGE]).expect("a page");
        a.write(1200, &[7; PAGE]).expect("a page");
        assert_eq!(a.difference(&b).expect("both"), None, "zeros are zeros");
        let mut page = [7; PAGE];
        page[9] = 8;
        b.write(1200, &page).expect("a page");
        let one = Difference {
            pages: 1,
            bytes: 1,
            first: 1200 * PAGE as u64 + 9,
            values: (7, 8),
        };
        assert_eq!(a.difference(&b).expect("both"), Some(one));
        assert_eq!(
            one.to_string(),
            "the byte at 0x4b0009 of the memory was 07, is 08 (no other byte differs)"
        );
        a.write(2, &[1; 2 * PAGE]).expect("pages");
        let found = a.difference(&b).expect("both").expect("a difference");
        assert_eq!((found.pages, found.bytes, found.first), (3, 8193, 2 * PAGE as u64));
        b.become_like(&a).expect("both");
        assert_eq!(a.difference(&b).expect("both"), None);
    }

    #[test]
    fn what_is_on_its_pages() {
        let memory = Memory::new(Size::mib(16)).expect("a memory");
        let empty = memory.pages().expect("its pages");
        assert_eq!(empty.0, vec![None; 4096]);
        // One in the middle of zeros that are there, and the last one.
        memory.write(700, &[0; 3 * PAGE]).expect("zeros");
        memory.write(701, &[7; PAGE]).expect("a page");
        memory.write(4095, &[8; PAGE]).expect("a page");
        let pages = memory.pages().expect("its pages");
        let there: Vec<usize> = (0..4096).filter(|number| pages.0[*number].is_some()).collect();
        assert_eq!(there, [701, 4095]);
        assert_eq!(pages.0[701], Some(digest::of_bytes(&[7; PAGE])));
        let (zeros, changed) = (
            Memory::new(Size::mib(16)).expect("a memory"),
            memory.digest().expect("a digest"),
        );
        assert_ne!(changed, zeros.digest().expect("a digest"));
        // A page of zeros is one, whoever has touched it.
        memory.write(701, &[0; PAGE]).expect("zeros");
        memory.write(4095, &[0; PAGE]).expect("zeros");
        assert_eq!(memory.pages().expect("its pages"), empty);
        assert_eq!(memory.digest().expect("a digest"), zeros.digest().expect("a digest"));
        memory.write(4095, &[8; PAGE]).expect("a page");
        memory.write(701, &[7; PAGE]).expect("a page");
        assert_eq!(memory.digest().expect("a digest"), changed);
        // One bit, anywhere in a piece.
        for at in [0, 255, 256, 2000, 4095] {
            let mut page = [0; PAGE];
            memory.read(at, &mut page).expect("a page");
            page[4095] ^= 0x80;
            memory.write(at, &page).expect("a page");
            assert_ne!(memory.digest().expect("a digest"), changed, "{at}");
            page[4095] ^= 0x80;
            memory.write(at, &page).expect("a page");
        }
    }
}
