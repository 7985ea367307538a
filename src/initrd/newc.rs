// SPDX-License-Identifier: MIT OR Apache-2.0
//! The archive format of initial RAM disks: "newc" of cpio
//! (<https://docs.kernel.org/driver-api/early-userspace/buffer-format.html>).

use std::io::{self, Read, Write};

/// How a header begins; "070702" is the same with a sum of the data's bytes.
pub const MAGIC: &[u8; 6] = b"070701";
/// The name of the entry that ends an archive.
pub const TRAILER: &[u8] = b"TRAILER!!!";
/// The size of a header, without the name that follows it.
pub const HEADER_SIZE: usize = 110;

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
}

/// Writes an archive.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    written: u64,
}

impl<W: Write> Writer<W> {
    /// An archive that goes to `out`.
    pub fn new(out: W) -> Self {
        Self { out, written: 0 }
    }

    /// Adds a file with `header.size` bytes of `data`.
    ///
    /// # Errors
    ///
    /// Those of both sides; [`io::ErrorKind::UnexpectedEof`] if `data` is shorter than its header says.
    pub fn entry(&mut self, header: &Header, data: &mut dyn Read) -> io::Result<()> {
        let name_size = u32::try_from(header.name.len() + 1).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.out.write_all(MAGIC)?;
        let numbers = [
            header.ino,
            header.mode,
            header.uid,
            header.gid,
            header.nlink,
            header.mtime,
            header.size,
            header.dev.0,
            header.dev.1,
            header.rdev.0,
            header.rdev.1,
            name_size,
            0,
        ];
        for number in numbers {
            write!(self.out, "{number:08x}")?;
        }
        self.out.write_all(&header.name)?;
        self.out.write_all(&[0])?;
        self.written += HEADER_SIZE as u64 + u64::from(name_size);
        self.align(4)?;
        let size = u64::from(header.size);
        if io::copy(&mut data.take(size), &mut self.out)? != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.written += size;
        self.align(4)
    }

    /// Ends the archive; what follows begins at a multiple of `block` bytes (cpio's own is 512).
    ///
    /// # Errors
    ///
    /// Those of the other side.
    pub fn finish(mut self, block: u64) -> io::Result<W> {
        let trailer = Header {
            name: TRAILER.to_vec(),
            nlink: 1,
            ..Header::default()
        };
        self.entry(&trailer, &mut io::empty())?;
        self.align(block)?;
        Ok(self.out)
    }

    fn align(&mut self, to: u64) -> io::Result<()> {
        let padding = self.written.next_multiple_of(to) - self.written;
        io::copy(&mut io::repeat(0).take(padding), &mut self.out)?;
        self.written += padding;
        Ok(())
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
}
