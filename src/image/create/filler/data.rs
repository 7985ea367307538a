// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is in files, on its way from a source into the file system.

use std::fs::File;
use std::io::Read;

use ext4_fill::{BLOCK, Mapping, Unlinked};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::stat::FileStat;

use super::{Filler, Stop, failed};
use crate::image::create::archive::pax::Map;
use crate::image::create::filler::content::{piece, read_at};
use crate::image::create::filler::item::{Content, Item, has_holes};
use crate::image::create::tree::Problem;
use crate::image::create::tree::reader::is_same;

/// What is read of a file at once.
const PIECE: usize = 1 << 20;
/// How far the disk is asked ahead.
const AHEAD: i64 = 4 << 20;

impl Filler<'_> {
    pub(super) fn make(&mut self, item: &Item) -> Result<Unlinked, Stop> {
        let mut mapping = Mapping::default();
        let size = match &item.content {
            Content::Nothing => 0,
            Content::Target(target) => {
                let made = self.fs.symlink(&item.meta, target, &item.attributes);
                return made.map_err(failed(&item.path));
            }
            Content::Bytes(bytes) => {
                self.fs.append(&mut mapping, 0, bytes).map_err(failed(&item.path))?;
                self.count(bytes.len() as u64)?;
                bytes.len() as u64
            }
            Content::File(file, stat) => self.copy(&item.path, file, stat, &mut mapping)?,
        };
        let made = self.fs.file(&item.meta, size, &mapping, &item.attributes);
        made.map_err(failed(&item.path))
    }

    /// Lays down what comes from `reader`; of a sparse file only the blocks in which something of `map` is. Holes are read like
    /// the rest: only the last one, which may be by far the largest, need not be.
    pub(super) fn read(
        &mut self,
        path: &[u8],
        size: u64,
        map: Option<&Map>,
        reader: &mut dyn Read,
    ) -> Result<Mapping, Stop> {
        let mut mapping = Mapping::default();
        let size = map.map_or(size, |map| map.last().map_or(0, |(_, end)| *end).min(size));
        let mut pieces = map.map(|map| map.iter().peekable());
        let mut at = 0;
        let mut buffer = vec![0; PIECE.min((size as usize).next_multiple_of(BLOCK))];
        while at < size {
            let want = (size - at).min(PIECE as u64) as usize;
            let read = reader.read_exact(&mut buffer[..want]);
            let unread = |source| ext4_fill::Error::Io {
                action: "read what goes into",
                source,
            };
            read.map_err(unread).map_err(failed(path))?;
            let mut laid = 0;
            for block in buffer[..want].chunks(if map.is_some() { BLOCK } else { PIECE }) {
                let end = at + block.len() as u64;
                let is_data = pieces.as_mut().is_none_or(|pieces| {
                    while pieces.next_if(|(_, before)| *before <= at).is_some() {}
                    pieces.peek().is_some_and(|(start, _)| *start < end)
                });
                if is_data {
                    let appended = self.fs.append(&mut mapping, at / BLOCK as u64, block);
                    appended.map_err(failed(path))?;
                    laid += block.len() as u64;
                }
                at = end;
            }
            // Holes are not counted, since they were not before.
            self.count(laid)?;
        }
        Ok(mapping)
    }

    /// Copies what is in a file, but not its holes. Returns its size.
    fn copy(&mut self, path: &[u8], file: &File, stat: &FileStat, mapping: &mut Mapping) -> Result<u64, Stop> {
        let size = stat.st_size as u64;
        self.buffer.resize(PIECE, 0);
        let sparse = has_holes(stat);
        let (mut at, mut problem) = (0, None);
        while at < size && problem.is_none() {
            let (start, end) = match sparse {
                true => match piece(file, at, size) {
                    Ok(Some(piece)) => piece,
                    Ok(None) => break,
                    Err(errno) => {
                        problem = Some(Problem::of(errno));
                        break;
                    }
                },
                false => (at, size),
            };
            at = start;
            while at < end {
                let want = (end - at).min(PIECE as u64) as usize;
                if end - at > PIECE as u64 {
                    // Of use but not needed.
                    let next = (at as i64).saturating_add(PIECE as i64);
                    let _ = posix_fadvise(file, next, AHEAD, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
                }
                let length = match read_at(file, &mut self.buffer[..want], at) {
                    Ok(length) => length,
                    Err(error) => {
                        problem = Some(Problem::Unreadable(error.raw_os_error().unwrap_or(0)));
                        break;
                    }
                };
                let appended = self.fs.append(mapping, at / BLOCK as u64, &self.buffer[..length]);
                appended.map_err(failed(path))?;
                at += length as u64;
                self.count(length as u64)?;
                if length < want {
                    problem = Some(Problem::Changed);
                    break;
                }
            }
        }
        if problem.is_none() && !is_same(file, stat) {
            problem = Some(Problem::Changed);
        }
        if let Some(problem) = problem {
            self.report.problem(path, problem);
        }
        // What it lost, or what cannot be read, are zeros.
        Ok(size)
    }

    fn count(&mut self, bytes: u64) -> Result<(), Stop> {
        self.report.bytes += bytes;
        match (self.progress)(self.report.bytes) {
            true => Ok(()),
            false => Err(Stop::CalledOff),
        }
    }
}
