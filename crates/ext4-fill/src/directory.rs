// SPDX-License-Identifier: MIT OR Apache-2.0
//! Directories: names in blocks. Without an index; a kernel that adds a name to a large one then looks through all of it.

use super::checksum::Checksum;
use super::inode::FileType;
use super::{BLOCK, put};

/// The checksum of a block of names looks like a name of this type.
const TAIL_TYPE: u8 = 0xDE;
const TAIL: usize = 12;

/// A directory in the making.
#[derive(Debug)]
pub struct Directory {
    pub(super) inode: u32,
    pub(super) parent: u32,
    names: Vec<Name>,
    directories: u32,
}

#[derive(Debug)]
struct Name {
    name: Box<[u8]>,
    inode: u32,
    kind: FileType,
}

impl Directory {
    pub(super) fn new(inode: u32, parent: u32) -> Self {
        Self {
            inode,
            parent,
            names: Vec::new(),
            directories: 0,
        }
    }

    /// Its inode.
    pub fn inode(&self) -> u32 {
        self.inode
    }

    /// Gives a file in it a name, of 1 to 255 bytes without NUL and `/`; it must not have that name already.
    pub fn add(&mut self, name: &[u8], inode: u32, kind: FileType) {
        self.directories += u32::from(kind == FileType::Directory);
        self.names.push(Name {
            name: name.into(),
            inode,
            kind,
        });
    }

    /// Its own name, that of itself, and those of the directories in it.
    pub(super) fn links(&self) -> u32 {
        self.directories + 2
    }

    /// Its blocks.
    pub(super) fn blocks(&self, checksum: Option<Checksum>) -> Vec<u8> {
        let checksum = checksum.map(|checksum| checksum.of_inode(self.inode));
        let room = if checksum.is_some() { BLOCK - TAIL } else { BLOCK };
        let mut blocks = Vec::new();
        let mut block = Vec::with_capacity(BLOCK);
        let mut last = 0;
        let dots: [(&[u8], u32); 2] = [(b".", self.inode), (b"..", self.parent)];
        let dots = dots.into_iter().map(|(name, inode)| (name, inode, FileType::Directory));
        let names = self.names.iter().map(|name| (&*name.name, name.inode, name.kind));
        for (name, inode, kind) in dots.chain(names) {
            let length = (8 + name.len()).next_multiple_of(4);
            if block.len() + length > room {
                close(&mut blocks, &mut block, last, room, checksum);
            }
            last = block.len();
            block.extend_from_slice(&inode.to_le_bytes());
            block.extend_from_slice(&(length as u16).to_le_bytes());
            block.extend_from_slice(&[name.len() as u8, kind.in_directory()]);
            block.extend_from_slice(name);
            block.resize(last + length, 0);
        }
        close(&mut blocks, &mut block, last, room, checksum);
        blocks
    }
}

/// Ends a block: the entry at `last` reaches to the end of what may be used.
fn close(blocks: &mut Vec<u8>, block: &mut Vec<u8>, last: usize, room: usize, checksum: Option<Checksum>) {
    block.resize(BLOCK, 0);
    put(block, last + 4, ((room - last) as u16).to_le_bytes());
    if let Some(checksum) = checksum {
        put(block, room + 4, (TAIL as u16).to_le_bytes());
        block[room + 7] = TAIL_TYPE;
        let sum = checksum.and(&block[..room]).value();
        put(block, BLOCK - 4, sum.to_le_bytes());
    }
    blocks.append(block);
}
