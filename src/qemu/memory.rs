// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest's memory, as a file without a name that QEMU and we have open at once: it can be looked at, and filled, without
//! asking QEMU.
//!
//! What the guest has never touched is a hole of that file, and takes nothing.

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
use crate::digest::{self, Digest, Hasher};

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

    /// The digests of all of its parts of so many bytes, which a piece has a whole number of.
    fn digests(&self, part: usize) -> io::Result<Vec<Option<Digest>>> {
        let pieces = usize::try_from(self.size.div_ceil(PIECE as u64)).map_err(io::Error::other)?;
        let parts = usize::try_from(self.size / part as u64).map_err(io::Error::other)?;
        let mut digests = vec![None; parts];
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS);
        let share = pieces.div_ceil(threads).max(1);
        thread::scope(|scope| {
            let shares = digests.chunks_mut(share * (PIECE / part)).enumerate();
            let readers: Vec<_> = shares
                .map(|(index, digests)| scope.spawn(move || self.look(index * share, part, digests)))
                .collect();
            readers
                .into_iter()
                .try_for_each(|reader| reader.join().map_err(|_| io::ErrorKind::Other)?)
        })?;
        Ok(digests)
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
