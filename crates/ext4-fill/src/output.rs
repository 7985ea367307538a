// SPDX-License-Identifier: MIT OR Apache-2.0
//! Blocks on their way to the disk: what follows each other goes there in large pieces, and the disk begins to write them
//! while the next are made.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use nix::libc;

use super::BLOCK;
use super::error::Error;

/// What is written at once.
const PIECE: usize = 1 << 20;
/// After so many bytes, the disk is told to begin.
const BEGIN: u64 = 8 << 20;

#[derive(Debug)]
pub(super) struct Output {
    file: File,
    /// The block that `pending` begins with.
    start: u64,
    pending: Vec<u8>,
    /// Bytes that were written, but not told to the disk.
    since: u64,
}

impl Output {
    pub(super) fn new(file: File) -> Self {
        Self {
            file,
            start: 0,
            pending: Vec::with_capacity(PIECE + BLOCK),
            since: 0,
        }
    }

    pub(super) fn read(&self, block: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let at = block * BLOCK as u64;
        self.file.read_exact_at(buffer, at).map_err(Error::io("read"))
    }

    /// Writes at once.
    pub(super) fn write_now(&mut self, block: u64, bytes: &[u8]) -> Result<(), Error> {
        let at = block * BLOCK as u64;
        self.file.write_all_at(bytes, at).map_err(Error::io("write"))?;
        self.since += bytes.len() as u64;
        if self.since >= BEGIN {
            self.since = 0;
            // SAFETY: integers only. Of use but not needed: at the end everything is waited for.
            unsafe { libc::sync_file_range(self.file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
        }
        Ok(())
    }

    /// Writes, in time; the rest of the last block are zeros.
    pub(super) fn write(&mut self, block: u64, bytes: &[u8]) -> Result<(), Error> {
        let follows = self.start + (self.pending.len() / BLOCK) as u64 == block;
        if !follows || self.pending.len() + bytes.len() > PIECE {
            self.flush()?;
            self.start = block;
        }
        if bytes.len() >= PIECE && bytes.len().is_multiple_of(BLOCK) {
            self.write_now(block, bytes)?;
            self.start = block + (bytes.len() / BLOCK) as u64;
            return Ok(());
        }
        self.pending.extend_from_slice(bytes);
        self.pending.resize(self.pending.len().next_multiple_of(BLOCK), 0);
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<(), Error> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut pending = std::mem::take(&mut self.pending);
        let result = self.write_now(self.start, &pending);
        self.start += (pending.len() / BLOCK) as u64;
        pending.clear();
        self.pending = pending;
        result
    }

    /// Waits until everything is on the disk.
    pub(super) fn sync(&mut self) -> Result<(), Error> {
        self.flush()?;
        self.file.sync_all().map_err(Error::io("write"))
    }
}
