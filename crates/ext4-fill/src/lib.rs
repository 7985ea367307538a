// SPDX-License-Identifier: MIT OR Apache-2.0
//! Filling a file system that `mke2fs` has just made, without mounting it: ext4, and ext3 and ext2 for kernels that are older.
//!
//! Nothing is mounted, so nothing can be left mounted; no privilege is needed but that to write the file; and owners, device
//! nodes and attributes are whatever they are to be. Only a fresh file system can be filled, one with the features of
//! [`mke2fs_arguments`], and only once: everything is laid down one after the other and never changed, so there is neither a
//! journal to write nor a block to free. What is on the disk then is described in
//! <https://docs.kernel.org/filesystems/ext4/>; `e2fsck -fn` is the judge of it.

#![warn(missing_docs)]

mod attributes;
mod blocks;
mod checksum;
mod directory;
mod error;
mod fill;
mod geometry;
mod groups;
mod inode;
mod mapping;
mod output;

pub use attributes::{ACCESS, Attribute, keep_storable, need_a_block, permissions_without};
pub use directory::Directory;
pub use error::Error;
pub use fill::{Filesystem, Unlinked};
pub use geometry::{Kind, Room, mke2fs_arguments, room};
pub use inode::{FileType, Meta, Time};
pub use mapping::{Mapping, pointer_blocks};

/// Bytes in a block: that of every file system made here.
pub const BLOCK: usize = 4096;
/// The root directory.
pub const ROOT: u32 = 2;
/// `lost+found`, which mke2fs has made.
const LOST_AND_FOUND: u32 = 11;
/// The first inode that is free in a fresh file system.
const FIRST_FREE: u32 = 12;

/// A number in an on-disk structure.
fn put<const N: usize>(block: &mut [u8], at: usize, bytes: [u8; N]) {
    block[at..at + N].copy_from_slice(&bytes);
}

fn get16(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

fn get32(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}
