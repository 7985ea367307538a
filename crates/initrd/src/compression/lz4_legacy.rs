// SPDX-License-Identifier: MIT OR Apache-2.0
//! The format of lz4 that Linux reads: blocks of 8 MiB, each with its compressed size before it. Nothing says where it ends
//! (<https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md#legacy-frame>).

use std::io::{self, BufRead, Read, Write};

use lz4::block::{self, CompressionMode};

use super::LZ4_LEGACY;
use super::blocks::Pack;
use super::input::Input;

/// What a block holds.
const BLOCK: usize = 8 << 20;
/// Below this level lz4 is the fast one.
const HIGH_COMPRESSION: i32 = 3;

/// What cannot be compressed gets no larger than this.
const fn bound(size: usize) -> usize {
    size + size / 255 + 16
}

/// Reads it, and stops where it ends.
pub(crate) struct Decoder<'a> {
    input: &'a mut Input,
    packed: Vec<u8>,
    block: Vec<u8>,
    length: usize,
    at: usize,
    ended: bool,
}

impl<'a> Decoder<'a> {
    /// What `input` has next, which begins with [`LZ4_LEGACY`].
    pub fn new(input: &'a mut Input) -> Self {
        input.consume(LZ4_LEGACY.len());
        Self {
            input,
            packed: Vec::new(),
            block: Vec::new(),
            length: 0,
            at: 0,
            ended: false,
        }
    }

    /// Decodes the next block. `false` if there is none: what comes is the end, padding, or can be no size of a block.
    fn next(&mut self) -> io::Result<bool> {
        let head = self.input.peek(12)?;
        if head.starts_with(&LZ4_LEGACY) {
            self.input.consume(LZ4_LEGACY.len());
            return Ok(true);
        }
        let Some(size) = head.first_chunk::<4>() else {
            return Ok(false);
        };
        let size = u32::from_le_bytes(*size) as usize;
        if size == 0 || size > bound(BLOCK) || is_gzip(head) {
            return Ok(false);
        }
        self.input.consume(4);
        self.packed.resize(size, 0);
        self.input.read_exact(&mut self.packed)?;
        if self.block.is_empty() {
            // Unlike a resize, it costs nothing before it is written.
            self.block = vec![0; BLOCK];
        }
        self.length = block::decompress_to_buffer(&self.packed, Some(BLOCK as i32), &mut self.block)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a block of lz4 is damaged"))?;
        self.at = 0;
        Ok(true)
    }
}

/// The only beginning of another segment that is also a likely size of a block.
fn is_gzip(head: &[u8]) -> bool {
    matches!(head, [0x1f, 0x8b, 0x08, 0, _, _, _, _, 0 | 2 | 4, 0..=13 | 255, ..])
}

impl Read for Decoder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.length && !self.ended {
            self.ended = !self.next()?;
        }
        let length = buffer.len().min(self.length - self.at);
        buffer[..length].copy_from_slice(&self.block[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

/// Writes it.
pub(crate) struct Packer<W> {
    out: W,
    level: i32,
    packed: Vec<u8>,
}

impl<W: Write> Packer<W> {
    pub fn new(mut out: W, level: i32) -> io::Result<Self> {
        out.write_all(&LZ4_LEGACY)?;
        let packed = vec![0; bound(BLOCK)];
        Ok(Self { out, level, packed })
    }

    /// Nothing says that it ends here.
    pub fn finish(self) -> W {
        self.out
    }
}

impl<W: Write> Pack for Packer<W> {
    const BLOCK: usize = BLOCK;

    fn pack(&mut self, block: &[u8]) -> io::Result<()> {
        let mode = match self.level {
            level if level < HIGH_COMPRESSION => CompressionMode::FAST(1),
            level => CompressionMode::HIGHCOMPRESSION(level),
        };
        let size = block::compress_to_buffer(block, Some(mode), false, &mut self.packed)?;
        let length = u32::try_from(size).map_err(|_| io::ErrorKind::InvalidData)?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&self.packed[..size])
    }
}
