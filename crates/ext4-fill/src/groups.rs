// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the groups of a file system say of their blocks and inodes.

use super::blocks::{block_bitmap, inode_bitmap};
use super::error::Error;
use super::fill::Filesystem;
use super::{BLOCK, get16, put};

const INODE_UNINIT: u16 = 0x1;
const BLOCK_UNINIT: u16 = 0x2;
const TABLE_ZEROED: u16 = 0x4;

impl Filesystem {
    /// Writes the bitmaps of a group that has changed, and what its descriptor says.
    pub(super) fn finish_group(&mut self, group: u64) -> Result<(), Error> {
        let index = group as usize;
        let per_group = self.geometry.inodes_per_group;
        let used = (self.next_inode - 1)
            .saturating_sub(group as u32 * per_group)
            .min(per_group);
        let mut descriptor = self.descriptor(index).to_vec();
        let mut flags = get16(&descriptor, 0x12);
        let wide = descriptor.len() >= 64;
        let number = |descriptor: &mut [u8], low: usize, high: usize, value: u32| {
            put(descriptor, low, (value as u16).to_le_bytes());
            if wide {
                put(descriptor, high, ((value >> 16) as u16).to_le_bytes());
            }
        };
        if let Some(bitmap) = self.blocks.changed(group) {
            let bitmap = bitmap.to_vec();
            let free = bitmap.iter().map(|byte| byte.count_zeros()).sum();
            number(&mut descriptor, 0x0C, 0x2C, free);
            if let Some(checksum) = self.geometry.checksum {
                number(&mut descriptor, 0x18, 0x38, checksum.and(&bitmap).value());
            }
            flags &= !BLOCK_UNINIT;
            let mut bitmap = bitmap;
            bitmap.resize(BLOCK, 0xff);
            self.output.write_now(block_bitmap(&descriptor), &bitmap)?;
        }
        if used > 0 {
            let mut bitmap = vec![0; BLOCK];
            // Those in use, and those there are not.
            for bit in (0..used).chain(per_group..8 * BLOCK as u32) {
                bitmap[bit as usize / 8] |= 1 << (bit % 8);
            }
            number(&mut descriptor, 0x0E, 0x2E, per_group - used);
            number(&mut descriptor, 0x10, 0x30, self.directories[index]);
            if let Some(checksum) = self.geometry.checksum {
                number(&mut descriptor, 0x1C, 0x32, per_group - used);
                let sum = checksum.and(&bitmap[..per_group as usize / 8]).value();
                number(&mut descriptor, 0x1A, 0x3A, sum);
            }
            flags &= !INODE_UNINIT;
            self.output.write_now(inode_bitmap(&descriptor), &bitmap)?;
        }
        if self.geometry.checksum.is_some() {
            if self.zeroed {
                // Else a kernel would write its zeros once more.
                flags |= TABLE_ZEROED;
            }
            put(&mut descriptor, 0x12, flags.to_le_bytes());
        }
        if let Some(checksum) = self.geometry.checksum {
            put(&mut descriptor, 0x1E, [0; 2]);
            let sum = checksum.and(&(group as u32).to_le_bytes()).and(&descriptor).value();
            put(&mut descriptor, 0x1E, (sum as u16).to_le_bytes());
        }
        let size = self.geometry.descriptor;
        self.table[index * size..(index + 1) * size].copy_from_slice(&descriptor);
        Ok(())
    }
}
