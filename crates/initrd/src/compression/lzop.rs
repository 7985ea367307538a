// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file format of lzop, around blocks of LZO1X. What is written has what Linux expects: blocks of at most 256 KiB, each
//! with one checksum, of its content
//! (<https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/lib/decompress_unlzo.c>).

use std::io::{self, Read, Write};

use lzokay::{compress, decompress};

use super::blocks::Pack;
use super::input::Input;

const MAGIC: &[u8; 9] = b"\x89LZO\0\r\n\x1a\n";
/// What is written.
const BLOCK: usize = 256 << 10;
/// What lzop itself would read.
const BLOCK_LIMIT: u32 = 64 << 20;

/// The version that writes this format, the library's, and the one that reads it.
const VERSIONS: [u16; 3] = [0x1040, 0x20a0, 0x0940];
/// LZO1X-1; those with other numbers differ in how they compress.
const METHOD: u8 = 1;
const LEVEL: u8 = 5;

/// Flags: checksums of a block's content and of its compressed form, of the header; an extra field; a filter.
const ADLER32_D: u32 = 0x1;
const ADLER32_C: u32 = 0x2;
const EXTRA_FIELD: u32 = 0x40;
const CRC32_D: u32 = 0x100;
const CRC32_C: u32 = 0x200;
const FILTER: u32 = 0x800;
const HEADER_CRC32: u32 = 0x1000;
/// Made on Unix.
const UNIX: u32 = 0x0300_0000;

/// Whether each block has one checksum, and that of its content, by what a file of lzop begins with.
pub(crate) fn has_one_checksum(head: &[u8]) -> bool {
    let Some(flags) = head_number(head, 8) else { return true };
    let of_content = (flags & (ADLER32_D | CRC32_D)).count_ones();
    of_content == 1 && flags & (ADLER32_C | CRC32_C) == 0
}

/// Whether the first block is larger than those that are written here, as far as the head shows it.
pub(crate) fn has_large_blocks(head: &[u8]) -> bool {
    // Behind the flags: mode, time, the name and the header's checksum.
    let name = usize::from(head.get(MAGIC.len() + 24).copied().unwrap_or(0));
    head_number(head, 29 + name).is_some_and(|size| size as usize > BLOCK)
}

/// The number at `at` behind the magic, in a version of the format that has a level.
fn head_number(head: &[u8], at: usize) -> Option<u32> {
    let rest = head.get(MAGIC.len()..)?;
    let version = u16::from_be_bytes(*rest.first_chunk()?);
    let bytes = rest.get(at..)?.first_chunk()?;
    (version >= 0x0940).then_some(u32::from_be_bytes(*bytes))
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads it, and stops where it ends.
pub(crate) struct Decoder<'a> {
    input: &'a mut Input,
    flags: u32,
    packed: Vec<u8>,
    block: Vec<u8>,
    at: usize,
    ended: bool,
}

impl<'a> Decoder<'a> {
    pub fn new(input: &'a mut Input) -> io::Result<Self> {
        let flags = Head::new(input).read()?;
        Ok(Self {
            input,
            flags,
            packed: Vec::new(),
            block: Vec::new(),
            at: 0,
            ended: false,
        })
    }

    fn number(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.input.read_exact(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }

    /// `false` if there are no more blocks.
    fn next(&mut self) -> io::Result<bool> {
        let size = self.number()?;
        if size == 0 {
            return Ok(false);
        }
        let packed = self.number()?;
        if size > BLOCK_LIMIT || packed > size || packed == 0 {
            return Err(damaged("a block of lzop has a size that cannot be"));
        }
        let mut sum = None;
        for (flag, is_adler) in [(ADLER32_D, true), (CRC32_D, false)] {
            if self.flags & flag != 0 {
                let number = self.number()?;
                sum = sum.or(is_adler.then_some(number));
            }
        }
        for flag in [ADLER32_C, CRC32_C] {
            if self.flags & flag != 0 && packed < size {
                self.number()?;
            }
        }
        self.packed.resize(packed as usize, 0);
        self.input.read_exact(&mut self.packed)?;
        self.at = 0;
        if packed == size {
            // As it is: it could not be compressed.
            std::mem::swap(&mut self.packed, &mut self.block);
        } else {
            self.block.resize(size as usize, 0);
            match decompress::decompress(&self.packed, &mut self.block) {
                Ok(length) if length == self.block.len() => {}
                _ => return Err(damaged("a block of lzop is damaged")),
            }
        }
        match sum {
            Some(sum) if adler2::adler32_slice(&self.block) != sum => {
                Err(damaged("a block of lzop has another checksum than it should have"))
            }
            _ => Ok(true),
        }
    }
}

/// The header while it is read; its checksum is of all of it.
struct Head<'a> {
    input: &'a mut Input,
    bytes: Vec<u8>,
}

impl<'a> Head<'a> {
    fn new(input: &'a mut Input) -> Self {
        Self {
            input,
            bytes: Vec::new(),
        }
    }

    fn take<const SIZE: usize>(&mut self) -> io::Result<[u8; SIZE]> {
        let mut bytes = [0; SIZE];
        self.input.read_exact(&mut bytes)?;
        self.bytes.extend(bytes);
        Ok(bytes)
    }

    /// Returns the flags.
    fn read(mut self) -> io::Result<u32> {
        let magic: [u8; MAGIC.len()] = self.take()?;
        if magic != *MAGIC {
            return Err(damaged("it does not begin as lzop's files do"));
        }
        self.bytes.clear();
        let version = u16::from_be_bytes(self.take()?);
        let _library: [u8; 2] = self.take()?;
        let is_new = version >= 0x0940;
        if is_new {
            let _needed: [u8; 2] = self.take()?;
        }
        let [method] = self.take()?;
        if !(1..=3).contains(&method) {
            return Err(damaged("it is compressed with a method that is not LZO1X"));
        }
        if is_new {
            let _level: [u8; 1] = self.take()?;
        }
        let flags = u32::from_be_bytes(self.take()?);
        if flags & (FILTER | EXTRA_FIELD) != 0 {
            return Err(damaged("it has a filter or an extra field, which Linux does not know"));
        }
        let _mode_and_time: [u8; 8] = self.take()?;
        if is_new {
            let _time: [u8; 4] = self.take()?;
        }
        let [name] = self.take()?;
        for _ in 0..name {
            let _: [u8; 1] = self.take()?;
        }
        let sum = adler2::adler32_slice(&self.bytes);
        let expected = u32::from_be_bytes(self.take()?);
        match flags & HEADER_CRC32 == 0 && sum != expected {
            true => Err(damaged("the header of lzop has another checksum than it should have")),
            false => Ok(flags),
        }
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() && !self.ended {
            self.ended = !self.next()?;
            if self.ended {
                self.at = self.block.len();
            }
        }
        let length = buffer.len().min(self.block.len() - self.at);
        buffer[..length].copy_from_slice(&self.block[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

/// Writes it.
pub(crate) struct Packer<W> {
    out: W,
    packed: Vec<u8>,
    dictionary: Box<compress::Dict>,
}

impl<W: Write> Packer<W> {
    pub fn new(mut out: W) -> io::Result<Self> {
        let mut head = Vec::new();
        for version in VERSIONS {
            head.extend(version.to_be_bytes());
        }
        head.extend([METHOD, LEVEL]);
        head.extend((UNIX | ADLER32_D).to_be_bytes());
        // Mode, time, time, and the length of the name.
        head.extend([0; 13]);
        out.write_all(MAGIC)?;
        out.write_all(&head)?;
        out.write_all(&adler2::adler32_slice(&head).to_be_bytes())?;
        Ok(Self {
            out,
            packed: vec![0; compress::compress_worst_size(BLOCK)],
            dictionary: compress::Dict::new(),
        })
    }

    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 4])?;
        Ok(self.out)
    }
}

impl<W: Write> Pack for Packer<W> {
    const BLOCK: usize = BLOCK;

    fn pack(&mut self, block: &[u8]) -> io::Result<()> {
        let packed = compress::compress_no_alloc(block, &mut self.packed, &mut self.dictionary)
            .map_err(|error| io::Error::other(format!("LZO failed: {error:?}")))?;
        let data = match packed < block.len() {
            true => &self.packed[..packed],
            false => block,
        };
        for number in [block.len() as u32, data.len() as u32] {
            self.out.write_all(&number.to_be_bytes())?;
        }
        self.out.write_all(&adler2::adler32_slice(block).to_be_bytes())?;
        self.out.write_all(data)
    }
}
