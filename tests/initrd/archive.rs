// SPDX-License-Identifier: MIT OR Apache-2.0
//! Archives byte by byte, right ones and wrong ones, without the code under test.

/// An archive that grows.
#[derive(Clone, Default)]
pub struct Archive(pub Vec<u8>);

/// An entry with everything that can be said of it.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    pub magic: &'a [u8; 6],
    pub name: &'a [u8],
    pub ino: u32,
    pub mode: u32,
    pub owner: (u32, u32),
    pub nlink: u32,
    pub mtime: u32,
    pub data: &'a [u8],
    pub size: Option<u32>,
    pub rdev: (u32, u32),
    pub sum: u32,
}

impl Default for Entry<'_> {
    fn default() -> Self {
        Self {
            magic: b"070701",
            name: b"a",
            ino: 1,
            mode: 0o100_644,
            owner: (0, 0),
            nlink: 1,
            mtime: 1_000_000_000,
            data: b"",
            size: None,
            rdev: (0, 0),
            sum: 0,
        }
    }
}

/// What ends an archive.
pub const TRAILER: Entry<'static> = Entry {
    magic: b"070701",
    name: b"TRAILER!!!",
    ino: 0,
    mode: 0,
    owner: (0, 0),
    nlink: 1,
    mtime: 0,
    data: b"",
    size: None,
    rdev: (0, 0),
    sum: 0,
};

impl Archive {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn entry(mut self, entry: &Entry<'_>) -> Self {
        let bytes = &mut self.0;
        bytes.extend(entry.magic);
        let size = entry.size.unwrap_or(entry.data.len() as u32);
        let name_size = entry.name.len() as u32 + 1;
        let (uid, gid) = entry.owner;
        for number in [
            entry.ino,
            entry.mode,
            uid,
            gid,
            entry.nlink,
            entry.mtime,
            size,
            0,
            0,
            entry.rdev.0,
            entry.rdev.1,
            name_size,
            entry.sum,
        ] {
            bytes.extend(format!("{number:08X}").bytes());
        }
        bytes.extend(entry.name);
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(entry.data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        self
    }

    pub fn file(self, name: &str, mode: u32, data: &[u8]) -> Self {
        self.entry(&Entry {
            name: name.as_bytes(),
            mode: 0o100_000 | mode,
            data,
            ..Entry::default()
        })
    }

    pub fn directory(self, name: &str, mode: u32) -> Self {
        self.entry(&Entry {
            name: name.as_bytes(),
            mode: 0o040_000 | mode,
            nlink: 2,
            ..Entry::default()
        })
    }

    pub fn link(self, name: &str, target: &str) -> Self {
        self.entry(&Entry {
            name: name.as_bytes(),
            mode: 0o120_777,
            data: target.as_bytes(),
            ..Entry::default()
        })
    }

    pub fn node(self, name: &str, mode: u32, rdev: (u32, u32)) -> Self {
        self.entry(&Entry {
            name: name.as_bytes(),
            mode,
            rdev,
            ..Entry::default()
        })
    }

    /// One of the names of a file.
    pub fn hard_link(self, name: &str, ino: u32, nlink: u32, data: &[u8]) -> Self {
        self.entry(&Entry {
            name: name.as_bytes(),
            ino,
            nlink,
            data,
            ..Entry::default()
        })
    }

    /// With its trailer, up to a multiple of `block`.
    pub fn end(self, block: usize) -> Vec<u8> {
        self.end_with(&TRAILER, block)
    }

    /// The same where headers have sums, as `cpio -H crc` ends it.
    pub fn end_with_sum(self, block: usize) -> Vec<u8> {
        let trailer = Entry {
            magic: b"070702",
            ..TRAILER
        };
        self.end_with(&trailer, block)
    }

    pub fn end_with(self, trailer: &Entry<'_>, block: usize) -> Vec<u8> {
        let mut bytes = self.entry(trailer).0;
        bytes.resize(bytes.len().next_multiple_of(block), 0);
        bytes
    }
}
