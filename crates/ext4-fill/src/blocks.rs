// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which blocks are taken. They are given out in their order and never come back.

use super::BLOCK;
use super::error::Error;
use super::geometry::{Geometry, has_superblock};
use super::output::Output;
use super::{get16, get32};

const BLOCK_UNINIT: u16 = 0x2;

#[derive(Debug)]
pub(super) struct Blocks {
    taken: Vec<u8>,
    next: u64,
    end: u64,
    free: u64,
    per_group: u64,
}

/// The places in a descriptor of a group, low and high half.
fn place(descriptor: &[u8], low: usize, high: usize) -> u64 {
    let above = if descriptor.len() >= 64 {
        get32(descriptor, high)
    } else {
        0
    };
    u64::from(get32(descriptor, low)) | u64::from(above) << 32
}

pub(super) fn block_bitmap(descriptor: &[u8]) -> u64 {
    place(descriptor, 0x0, 0x20)
}

pub(super) fn inode_bitmap(descriptor: &[u8]) -> u64 {
    place(descriptor, 0x4, 0x24)
}

pub(super) fn inode_table(descriptor: &[u8]) -> u64 {
    place(descriptor, 0x8, 0x28)
}

impl Blocks {
    pub(super) fn read(geometry: &Geometry, table: &[u8], output: &Output) -> Result<Self, Error> {
        let groups = usize::try_from(geometry.groups).map_err(|_| Error::Unfit("it is too large"))?;
        let mut blocks = Self {
            taken: vec![0; groups * (geometry.blocks_per_group / 8) as usize],
            next: 0,
            end: geometry.blocks,
            free: 0,
            per_group: geometry.blocks_per_group,
        };
        let inode_blocks = u64::from(geometry.inodes_per_group) * 256 / BLOCK as u64;
        for (group, descriptor) in table.chunks_exact(geometry.descriptor).take(groups).enumerate() {
            let first = group as u64 * geometry.blocks_per_group;
            if get16(descriptor, 0x12) & BLOCK_UNINIT == 0 {
                let mut bitmap = [0; BLOCK];
                output.read(block_bitmap(descriptor), &mut bitmap)?;
                let (at, bytes) = ((first / 8) as usize, (blocks.per_group / 8) as usize);
                // Others may have taken some of it already.
                for (own, read) in blocks.taken[at..at + bytes].iter_mut().zip(bitmap) {
                    *own |= read;
                }
            } else if has_superblock(group as u64) {
                blocks.take(first, 1 + geometry.table() + geometry.reserved_table);
            }
            blocks.take(block_bitmap(descriptor), 1);
            blocks.take(inode_bitmap(descriptor), 1);
            blocks.take(inode_table(descriptor), inode_blocks);
        }
        // There is nothing behind the end.
        blocks.take(
            geometry.blocks,
            geometry.groups * geometry.blocks_per_group - geometry.blocks,
        );
        blocks.free = blocks.taken.iter().map(|byte| u64::from(byte.count_zeros())).sum();
        Ok(blocks)
    }

    fn take(&mut self, first: u64, count: u64) {
        for block in first..first + count {
            self.taken[(block / 8) as usize] |= 1 << (block % 8);
        }
    }

    fn is_taken(&self, block: u64) -> bool {
        self.taken[(block / 8) as usize] & 1 << (block % 8) != 0
    }

    pub(super) fn free(&self) -> u64 {
        self.free
    }

    /// Up to `count` blocks that follow each other: the first, and how many.
    pub(super) fn allocate(&mut self, count: u64) -> Result<(u64, u64), Error> {
        while self.next < self.end && self.is_taken(self.next) {
            self.next += 1;
        }
        let first = self.next;
        while self.next < self.end && self.next - first < count && !self.is_taken(self.next) {
            self.taken[(self.next / 8) as usize] |= 1 << (self.next % 8);
            self.next += 1;
        }
        let length = self.next - first;
        self.free -= length;
        match length {
            0 => Err(Error::Full("blocks")),
            length => Ok((first, length)),
        }
    }

    /// The bitmap of a group, without what fills its block up, if blocks of the group were given out.
    pub(super) fn changed(&self, group: u64) -> Option<&[u8]> {
        let (first, bytes) = (group * self.per_group, (self.per_group / 8) as usize);
        let at = (first / 8) as usize;
        (first <= self.next).then(|| &self.taken[at..at + bytes])
    }
}
