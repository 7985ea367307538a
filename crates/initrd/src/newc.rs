// SPDX-License-Identifier: MIT OR Apache-2.0
//! The archive format of initial RAM disks: "newc" of cpio
//! (<https://docs.kernel.org/driver-api/early-userspace/buffer-format.html>).

use std::io::{self, Read, Write};

/// How a header begins.
pub const MAGIC: &[u8; 6] = b"070701";
/// The same with a sum of the data's bytes.
pub const MAGIC_SUM: &[u8; 6] = b"070702";
/// The name of the entry that ends an archive.
pub const TRAILER: &[u8] = b"TRAILER!!!";
/// The size of a header, without the name that follows it.
pub const HEADER_SIZE: usize = 110;
/// The most that a name can have, with the NUL that ends it: Linux takes no more.
pub const NAME_LIMIT: u32 = 4096;

/// What of a file's data is written at once.
const PIECE: usize = 1 << 16;

/// What an archive says of one file; all numbers are as `stat(2)` has them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header {
    /// Relative, without a leading `./`; any bytes but NUL.
    pub name: Vec<u8>,
    /// Files with the same number (and device) are hard links of each other.
    pub ino: u32,
    /// Type and permissions.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// How many names the file has.
    pub nlink: u32,
    /// Seconds since 1970.
    pub mtime: u32,
    /// Bytes of data that follow.
    pub size: u32,
    /// Major and minor number of the device the file was on.
    pub dev: (u32, u32),
    /// Major and minor number of the device the file is.
    pub rdev: (u32, u32),
    /// The sum of the data's bytes, if the header has one.
    pub sum: Option<u32>,
    /// NULs that follow the one that ends the name, and count as part of it: by these some programs align the data.
    pub padded: u32,
}

impl Header {
    /// Reads a header, whose name is not known yet, and how long that is.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(bytes: &[u8; HEADER_SIZE]) -> Result<(Self, u32), &'static str> {
        let with_sum = match &bytes[..6] {
            magic if magic == MAGIC => false,
            magic if magic == MAGIC_SUM => true,
            b"070707" => return Err("it is in the old portable format of cpio (odc), which Linux does not read"),
            _ => return Err("there is no header of cpio's newc format"),
        };
        let mut numbers = [0; 13];
        for (number, digits) in numbers.iter_mut().zip(bytes[6..].chunks_exact(8)) {
            *number = hexadecimal(digits).ok_or("a number in its header is none")?;
        }
        let name_size = numbers[11];
        if !(1..=NAME_LIMIT).contains(&name_size) {
            return Err("the length of its name is not between 1 and 4096");
        }
        let header = Self {
            name: Vec::new(),
            ino: numbers[0],
            mode: numbers[1],
            uid: numbers[2],
            gid: numbers[3],
            nlink: numbers[4],
            mtime: numbers[5],
            size: numbers[6],
            dev: (numbers[7], numbers[8]),
            rdev: (numbers[9], numbers[10]),
            sum: with_sum.then_some(numbers[12]),
            padded: 0,
        };
        Ok((header, name_size))
    }

    /// The header as it is written, with its name and what aligns the data.
    fn bytes(&self, digits: &[u8; 16]) -> io::Result<Vec<u8>> {
        let padded = self.padded as usize;
        let name_size = u32::try_from(self.name.len() + 1 + padded).map_err(|_| io::ErrorKind::InvalidInput)?;
        let numbers = [
            self.ino,
            self.mode,
            self.uid,
            self.gid,
            self.nlink,
            self.mtime,
            self.size,
            self.dev.0,
            self.dev.1,
            self.rdev.0,
            self.rdev.1,
            name_size,
            self.sum.unwrap_or(0),
        ];
        let mut bytes = Vec::with_capacity(HEADER_SIZE + self.name.len() + padded + 4);
        bytes.extend(if self.sum.is_some() { MAGIC_SUM } else { MAGIC });
        for number in numbers {
            let digit = |shift: u32| digits[(number >> shift & 15) as usize];
            bytes.extend([28, 24, 20, 16, 12, 8, 4, 0].map(digit));
        }
        bytes.extend(&self.name);
        let end = bytes.len() + 1 + padded;
        bytes.resize(end.next_multiple_of(4), 0);
        Ok(bytes)
    }
}

/// Whether numbers of a header have capitals, as cpio itself writes them.
pub fn is_uppercase(bytes: &[u8; HEADER_SIZE]) -> bool {
    bytes.iter().any(u8::is_ascii_uppercase)
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    let digit = |number: u32, digit: &u8| Some(number << 4 | char::from(*digit).to_digit(16)?);
    digits.iter().try_fold(0, digit)
}

/// Bytes that follow data of `size` bytes.
pub fn padding(size: u64) -> u64 {
    size.next_multiple_of(4) - size
}

/// The sum that a header of "070702" has of the data.
pub fn sum(sum: u32, data: &[u8]) -> u32 {
    data.iter().fold(sum, |sum, byte| sum.wrapping_add(u32::from(*byte)))
}

/// Writes an archive.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    written: u64,
    buffer: Vec<u8>,
    digits: &'static [u8; 16],
    /// The last entry had a sum.
    with_sums: bool,
}

impl<W: Write> Writer<W> {
    /// An archive that goes to `out`.
    pub fn new(out: W) -> Self {
        Self {
            out,
            written: 0,
            buffer: Vec::new(),
            digits: b"0123456789abcdef",
            with_sums: false,
        }
    }

    /// Whether numbers are written with capitals from now on, as cpio itself does.
    pub fn uppercase(&mut self, uppercase: bool) {
        self.digits = match uppercase {
            true => b"0123456789ABCDEF",
            false => b"0123456789abcdef",
        };
    }

    /// Adds a file with `header.size` bytes of `data`.
    ///
    /// # Errors
    ///
    /// Those of both sides; [`io::ErrorKind::UnexpectedEof`] if `data` is shorter than its header says.
    pub fn entry(&mut self, header: &Header, data: &mut dyn Read) -> io::Result<()> {
        let bytes = header.bytes(self.digits)?;
        self.with_sums = header.sum.is_some();
        self.out.write_all(&bytes)?;
        self.written += bytes.len() as u64;
        let mut left = header.size as usize;
        while left > 0 {
            self.buffer.resize(PIECE, 0);
            let wanted = left.min(PIECE);
            match data.read(&mut self.buffer[..wanted]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    self.out.write_all(&self.buffer[..length])?;
                    left -= length;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.written += u64::from(header.size);
        self.align(4)
    }

    /// Writes the entry that ends an archive, which has a sum if those before it have; another archive may follow.
    ///
    /// # Errors
    ///
    /// Those of the other side.
    pub fn trailer(&mut self) -> io::Result<()> {
        let trailer = Header {
            name: TRAILER.to_vec(),
            nlink: 1,
            sum: self.with_sums.then_some(0),
            ..Header::default()
        };
        self.entry(&trailer, &mut io::empty())
    }

    /// Ends the archive; what follows begins at a multiple of `block` bytes (cpio's own is 512).
    ///
    /// # Errors
    ///
    /// Those of the other side.
    pub fn finish(mut self, block: u64) -> io::Result<W> {
        self.trailer()?;
        self.align(block)?;
        Ok(self.out)
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Writes `count` zeros.
    ///
    /// # Errors
    ///
    /// Those of the other side.
    pub fn zeros(&mut self, count: u64) -> io::Result<()> {
        let mut left = count;
        while left > 0 {
            let piece = left.min(512) as usize;
            self.out.write_all(&[0; 512][..piece])?;
            left -= piece as u64;
        }
        self.written += count;
        Ok(())
    }

    /// Where it goes.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn align(&mut self, to: u64) -> io::Result<()> {
        self.zeros(self.written.next_multiple_of(to) - self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_made_of_aligned_entries() {
        let mut archive = Writer::new(Vec::new());
        let header = Header {
            name: b"a\nb".to_vec(),
            ino: 1,
            mode: 0o100_644,
            uid: 0xffff_fffe,
            nlink: 1,
            size: 5,
            ..Header::default()
        };
        archive.entry(&header, &mut &b"hello, world"[..]).unwrap();
        let bytes = archive.finish(512).unwrap();
        assert_eq!(bytes.len(), 512);
        assert!(bytes.starts_with(b"07070100000001000081a4fffffffe00000000000000010000000000000005"));
        assert_eq!(&bytes[110..124], b"a\nb\0\0\0hello\0\0\0");
        assert_eq!(&bytes[124..130], MAGIC);
        assert!(bytes[124..].windows(11).any(|bytes| bytes == b"TRAILER!!!\0"));
        let (read, name_size) = Header::parse(bytes[..HEADER_SIZE].try_into().unwrap()).unwrap();
        let name = header.name.clone();
        assert_eq!((Header { name, ..read }, name_size), (header, 4));
    }

    #[test]
    fn too_little_data_is_an_error() {
        let header = Header {
            size: 5,
            ..Header::default()
        };
        let error = Writer::new(Vec::new()).entry(&header, &mut &b"four"[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_header_with_a_sum() {
        let header = Header {
            sum: Some(sum(0, b"\xff\xff\x01")),
            ..Header::default()
        };
        let bytes = header.bytes(b"0123456789ABCDEF").unwrap();
        assert!(is_uppercase(bytes[..HEADER_SIZE].try_into().unwrap()));
        assert!(bytes.starts_with(MAGIC_SUM));
        assert_eq!(&bytes[102..110], b"000001FF");
        let (read, _) = Header::parse(bytes[..HEADER_SIZE].try_into().unwrap()).unwrap();
        assert_eq!(read.sum, Some(0x1ff));
    }

    #[test]
    fn what_is_no_header() {
        let mut archive = Writer::new(Vec::new());
        archive.entry(&Header::default(), &mut io::empty()).unwrap();
        let bytes: [u8; HEADER_SIZE] = archive.into_inner()[..HEADER_SIZE].try_into().unwrap();
        let parsed = |at: usize, with: &[u8]| {
            let mut bytes = bytes;
            bytes[at..at + with.len()].copy_from_slice(with);
            Header::parse(&bytes).map(drop)
        };
        assert_eq!(parsed(0, b"070701"), Ok(()));
        assert!(parsed(0, b"070707").unwrap_err().contains("odc"));
        assert!(parsed(0, b"070703").unwrap_err().contains("no header"));
        for wrong in [b"0000000g", b"-0000001", b" 0000001", b"0x000001", b"+0000001"] {
            assert!(parsed(54, wrong).unwrap_err().contains("a number"), "{wrong:?}");
        }
        for wrong in [b"00000000", b"00001001", b"ffffffff"] {
            assert!(
                parsed(94, wrong).unwrap_err().contains("length of its name"),
                "{wrong:?}"
            );
        }
    }
}
