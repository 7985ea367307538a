// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bytes of a segment's content, piece by piece as the decoder gives them.

use super::{Piece, Reader, State};
use crate::compression::Compression;
use crate::error::Error;
use crate::reader::linux;

/// Where a symbolic link leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// As the link has it.
    pub path: Vec<u8>,
    /// The archive has a NUL after it, as gen_init_cpio writes it (Linux, usr/gen_init_cpio.c).
    pub terminated: bool,
}

impl Reader {
    /// Bytes of the segment's content that were used.
    pub(super) fn consumed(&self) -> u64 {
        self.unpacked - (self.chunk.len() - self.at) as u64
    }

    /// Makes sure that there is something in `chunk`. `false` at the end of the segment.
    pub(super) fn more(&mut self) -> Result<bool, Error> {
        while self.at == self.chunk.len() {
            if self.end.is_some() {
                return Ok(false);
            }
            match self.receive() {
                Piece::Data(data) => {
                    self.pieces.recycle(std::mem::replace(&mut self.chunk, data));
                    self.at = 0;
                    self.unpacked += self.chunk.len() as u64;
                    let counted = self.limits.content(self.chunk.len());
                    counted.map_err(|limit| self.exceeded(limit))?;
                }
                Piece::End { offset } => {
                    let next = self.receive();
                    // Compressed by several threads, or after a frame that holds nothing: it goes on.
                    let goes_on = matches!(self.state, State::Begun | State::Header | State::Data)
                        && matches!(next, Piece::Begin { offset: begin, compression, .. }
                            if begin == offset && compression == self.segment.compression && compression != Compression::None);
                    if !goes_on {
                        self.ahead = Some(next);
                        self.end = Some(offset);
                    } else if self.segment.compression != Compression::Lz4
                        && self.segment.refused.is_none()
                        && match self.state {
                            // After an archive, one that holds nothing changes nothing.
                            State::Begun => self.segment.number == 0,
                            _ => !self.between,
                        }
                    {
                        self.is_odd(linux::CUT);
                    }
                }
                Piece::Failed { offset, error } => return Err(self.failed(offset, &error)),
                Piece::Begin { .. } | Piece::BootConfig { .. } | Piece::Finished { .. } => {
                    return Err(self.wrong("it is cut off"));
                }
            }
        }
        Ok(true)
    }

    /// The same where the segment cannot end.
    pub(super) fn need(&mut self) -> Result<(), Error> {
        match self.more()? {
            true => Ok(()),
            false => Err(self.wrong("it is cut off")),
        }
    }

    /// Where the symbolic link leads of which [`event`](Self::event) told last.
    ///
    /// # Errors
    ///
    /// As [`event`](Self::event).
    pub fn target(&mut self) -> Result<Target, Error> {
        let mut path = Vec::new();
        while let Some(piece) = self.data()? {
            path.extend_from_slice(piece);
        }
        let length = path.len();
        // Linux takes what comes before the first one.
        path.truncate(path.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        let terminated = path.len() < length;
        Ok(Target { path, terminated })
    }

    /// Goes past zeros between archives. `false` at the end of the segment.
    pub(super) fn skip_zeros(&mut self) -> Result<bool, Error> {
        while self.more()? {
            let rest = &self.chunk[self.at..];
            match rest.iter().position(|byte| *byte != 0) {
                None => self.at = self.chunk.len(),
                Some(zeros) => {
                    self.at += zeros;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    pub(super) fn skip(&mut self, count: u64) -> Result<(), Error> {
        let mut left = count;
        while left > 0 {
            self.need()?;
            let length = left.min((self.chunk.len() - self.at) as u64);
            self.at += length as usize;
            left -= length;
        }
        Ok(())
    }

    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::with_capacity(count);
        while bytes.len() < count {
            self.need()?;
            let length = (count - bytes.len()).min(self.chunk.len() - self.at);
            bytes.extend_from_slice(&self.chunk[self.at..self.at + length]);
            self.at += length;
        }
        Ok(bytes)
    }
}
