// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is in a regular file, without its holes.

use std::fs::File;
use std::os::unix::fs::FileExt;

use ext4_fill::BLOCK;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// The next data of a file with holes: from where to where; whole blocks, since only whole ones can be holes.
pub(in crate::image::create) fn piece(file: &File, at: u64, size: u64) -> Result<Option<(u64, u64)>, Errno> {
    let block = BLOCK as u64;
    let data = match lseek(file, at as i64, Whence::SeekData) {
        Ok(data) => data,
        Err(Errno::ENXIO) => return Ok(None),
        // A file system that knows of no holes.
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok(Some((at, size))),
        Err(errno) => return Err(errno),
    };
    // Asked from where the data is, not from where our block begins: the source's blocks may be smaller, and that a hole.
    let end = lseek(file, data, Whence::SeekHole)? as u64;
    let end = end.next_multiple_of(block).min(size);
    let start = (data as u64 / block * block).max(at);
    Ok((start < size).then_some((start, end)))
}

/// Fills `buffer`, unless the file ends before.
pub(in crate::image::create) fn read_at(file: &File, buffer: &mut [u8], at: u64) -> std::io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], at + done as u64) {
            Ok(0) => break,
            Ok(length) => done += length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
