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

    /// What is on each page. The guest has to stand still.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn pages(&self) -> io::Result<Pages> {
        let count = usize::try_from(self.size / PAGE as u64).map_err(io::Error::other)?;
        let mut pages = vec![None; count];
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS);
        let share = count.div_ceil(threads).max(1);
        thread::scope(|scope| {
            let parts = pages.chunks_mut(share).enumerate();
            let readers: Vec<_> = parts
                .map(|(index, part)| scope.spawn(move || self.look(index * share, part)))
                .collect();
            readers
                .into_iter()
                .try_for_each(|reader| reader.join().map_err(|_| io::ErrorKind::Other)?)
        })?;
        Ok(Pages(pages))
    }

    /// Fills `pages`, which begin at the page `first`.
    fn look(&self, first: usize, pages: &mut [Option<Digest>]) -> io::Result<()> {
        self.each_piece(first..first + pages.len(), |from, piece| {
            for (page, content) in pages[from - first..].iter_mut().zip(piece.chunks_exact(PAGE)) {
                *page = digest_of(content);
            }
            Ok(())
        })
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

fn digest_of(page: &[u8]) -> Option<Digest> {
    (!is_zero(page)).then(|| digest::of_bytes(page))
}

/// Whether there is nothing on a page.
pub(super) fn is_zero(page: &[u8]) -> bool {
    page.iter().all(|byte| *byte == 0)
}

impl Pages {
    /// All of them as one number.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::default();
        for page in &self.0 {
            hasher.update(page.as_ref().map_or(&[0; 32], |page| page.as_bytes()));
        }
        hasher.digest()
    }
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
        assert_ne!(pages.digest(), empty.digest());
        // A page of zeros is one, whoever has touched it.
        memory.write(701, &[0; PAGE]).expect("zeros");
        memory.write(4095, &[0; PAGE]).expect("zeros");
        assert_eq!(memory.pages().expect("its pages"), empty);
    }
}
