// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a file system is laid out: what mke2fs is told, what its superblock says then, and how much room that leaves.

use super::checksum::Checksum;
use super::error::Error;
use super::{BLOCK, FIRST_FREE, get16, get32};

/// Names that a file can have, and directories that are counted in one.
pub(super) const LINKS: u32 = 65_000;
pub(super) const LINKS_EXT3: u32 = 32_000;

/// The kind of file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// With extents and checksums: kernels since 4.x.
    Ext4,
    /// With a journal; the kernels of TT Xen know it.
    Ext3,
    /// Without.
    Ext2,
}

impl Kind {
    /// As `mount -t` and fstab(5) call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Ext3 => "ext3",
            Self::Ext2 => "ext2",
        }
    }

    /// The largest file, with its holes. Extents count blocks; without them an inode counts its sectors, also those of the blocks
    /// that say where the others are (`ext4_max_bitmap_size` in Linux).
    pub fn largest_file(self) -> u64 {
        const POINTERS: u64 = BLOCK as u64 / 4;
        let blocks = match self {
            Self::Ext4 => u64::from(u32::MAX),
            Self::Ext3 | Self::Ext2 => {
                let tree = 1 + (1 + POINTERS) + (1 + POINTERS + POINTERS * POINTERS);
                u64::from(u32::MAX) * 512 / BLOCK as u64 - tree
            }
        };
        blocks * BLOCK as u64
    }

    /// The largest file system that is made here: no number of a block has more than 32 bits, which is all that ext2 and ext3
    /// know, and the inode that lets it grow.
    pub fn largest(self) -> u64 {
        u64::from(u32::MAX) * BLOCK as u64
    }

    /// Names that a file can have. What each directory in another one has for that are names, too; ext4 does not count those.
    pub fn most_names(self) -> u32 {
        match self {
            Self::Ext4 => LINKS,
            Self::Ext3 | Self::Ext2 => LINKS_EXT3,
        }
    }

    /// Exactly these: what an mke2fs.conf adds could be something that is not known here.
    fn features(self) -> &'static str {
        match self {
            Self::Ext4 => {
                "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum"
            }
            Self::Ext3 => "none,has_journal,ext_attr,resize_inode,dir_index,filetype,sparse_super,large_file",
            Self::Ext2 => "none,ext_attr,resize_inode,dir_index,filetype,sparse_super,large_file",
        }
    }
}

/// What mke2fs is told, without the device. `zeroed` if all of the device reads as zeros.
pub fn mke2fs_arguments(kind: Kind, inodes: u64, zeroed: bool) -> Vec<String> {
    let extended = match zeroed {
        true => "nodiscard,lazy_itable_init=1,lazy_journal_init=1",
        false => "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
    };
    let block = BLOCK.to_string();
    let inodes = inodes.to_string();
    ["-q", "-F", "-t", kind.as_str(), "-O", kind.features(), "-b", &block]
        .into_iter()
        .chain(["-I", "256", "-N", &inodes, "-E", extended])
        .map(str::to_owned)
        .collect()
}

/// One inode for so many bytes, unless more are asked for: what mke2fs.conf says everywhere.
const INODE_RATIO: u64 = 16384;
const INODE_SIZE: u64 = 256;
const GROUP: u64 = 8 * BLOCK as u64;

/// What fits into a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Blocks for files, directories and the like.
    pub blocks: u64,
    /// Inodes it is made with.
    pub inodes: u64,
}

/// The room in a file system on `size` bytes, into which `inodes` files are to go, as mke2fs will lay it out; a little less
/// than there will be.
pub fn room(kind: Kind, size: u64, inodes: u64) -> Room {
    let blocks = size / BLOCK as u64;
    // What is asked for, and some for the guest.
    let inodes = (size / INODE_RATIO).max(inodes + inodes / 4 + 1024);
    // A group has no more inodes than bits in a block: of very many files, the groups become smaller.
    let mut group = GROUP;
    while inodes.div_ceil(blocks.div_ceil(group).max(1)) > GROUP && group >= 256 {
        group -= 8;
    }
    let groups = blocks.div_ceil(group).max(1);
    let per_group = inodes.div_ceil(groups).next_multiple_of(16);
    let descriptor = if kind == Kind::Ext4 { 64 } else { 32 };
    let table = (groups * descriptor).div_ceil(BLOCK as u64);
    let backups = superblocks(groups);
    // Room for the table to grow to a thousand times, one block of pointers at the most.
    let grown =
        (blocks.saturating_mul(1024).min(u64::from(u32::MAX)).div_ceil(group) * descriptor).div_ceil(BLOCK as u64);
    let reserved = grown.saturating_sub(table).min(BLOCK as u64 / 4);
    let journal = if kind == Kind::Ext2 { 0 } else { journal(blocks) };
    let metadata = groups * (2 + per_group * INODE_SIZE / BLOCK as u64)
        + backups * (1 + table + reserved)
        + journal
        + journal / 1024
        // The root, lost+found, the inode of the reserved blocks; and the rest of the last group, if it is too small.
        + 80;
    Room {
        blocks: blocks.saturating_sub(metadata),
        inodes: per_group * groups,
    }
}

/// Blocks of the journal that mke2fs makes (`ext2fs_default_journal_size`).
fn journal(blocks: u64) -> u64 {
    let steps = [
        (2048, 0),
        (32 << 10, 1024),
        (256 << 10, 4096),
        (512 << 10, 8192),
        (4096 << 10, 16384),
        (8192 << 10, 32768),
        (16384 << 10, 65536),
        (32768 << 10, 131_072),
    ];
    let step = steps.into_iter().find(|(below, _)| blocks < *below);
    step.map_or(262_144, |(_, journal)| journal)
}

/// How many of so many groups have a copy of the superblock (`sparse_super`).
fn superblocks(groups: u64) -> u64 {
    let powers = |base: u64| {
        let powers = std::iter::successors(Some(base), move |power| power.checked_mul(base));
        powers.take_while(|power| *power < groups).count() as u64
    };
    groups.min(2) + powers(3) + powers(5) + powers(7)
}

/// Whether a copy of the superblock and of the table of groups is in this group (`sparse_super`).
pub(super) fn has_superblock(group: u64) -> bool {
    let power = |base: u64| {
        let mut number = base;
        while number < group {
            number *= base;
        }
        number == group
    };
    group <= 1 || [3, 5, 7].into_iter().any(power)
}

const HAS_JOURNAL: u32 = 0x04;
const COMPAT: u32 = HAS_JOURNAL | 0x08 | 0x10 | 0x20;
const RO_COMPAT: u32 = 0x01 | 0x02 | 0x08 | 0x20 | 0x40 | METADATA_CSUM;
const METADATA_CSUM: u32 = 0x400;
const FILETYPE: u32 = 0x02;
const EXTENTS: u32 = 0x40;
const BIT64: u32 = 0x80;
const INCOMPAT: u32 = FILETYPE | EXTENTS | BIT64 | 0x200;

/// What a superblock says.
#[derive(Debug, Clone)]
pub(super) struct Geometry {
    pub(super) blocks: u64,
    pub(super) blocks_per_group: u64,
    pub(super) inodes: u32,
    pub(super) inodes_per_group: u32,
    pub(super) groups: u64,
    pub(super) descriptor: usize,
    pub(super) reserved_table: u64,
    pub(super) kind: Kind,
    pub(super) checksum: Option<Checksum>,
    pub(super) uuid: [u8; 16],
}

impl Geometry {
    /// Of a superblock of 1024 bytes.
    pub(super) fn of(sb: &[u8]) -> Result<Self, Error> {
        let need = |holds: bool, what: &'static str| if holds { Ok(()) } else { Err(Error::Unfit(what)) };
        need(get16(sb, 0x38) == 0xEF53, "it has no superblock")?;
        let (compat, incompat, ro_compat) = (get32(sb, 0x5C), get32(sb, 0x60), get32(sb, 0x64));
        need(
            get32(sb, 0x18) == 2 && get32(sb, 0x14) == 0,
            "its blocks are not of 4096 bytes",
        )?;
        let known = compat & !COMPAT == 0 && incompat & !INCOMPAT == 0 && ro_compat & !RO_COMPAT == 0;
        need(
            known && incompat & FILETYPE != 0,
            "it has other features than those it was to be made with",
        )?;
        need(get16(sb, 0x58) == 256, "its inodes are not of 256 bytes")?;
        need(get32(sb, 0x54) == super::LOST_AND_FOUND, "its first inode is another")?;
        let wide = incompat & BIT64 != 0;
        let high = if wide { u64::from(get32(sb, 0x150)) << 32 } else { 0 };
        let blocks = u64::from(get32(sb, 0x04)) | high;
        let (per_group, inodes) = (u64::from(get32(sb, 0x20)), get32(sb, 0));
        let is_usual = per_group.is_multiple_of(8) && (1..=GROUP).contains(&per_group);
        need(is_usual && blocks > 0, "its groups are not of a usual size")?;
        need(get32(sb, 0x10) == inodes - (FIRST_FREE - 1), "there are files in it")?;
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&sb[0x68..0x78]);
        let checked = ro_compat & METADATA_CSUM != 0;
        Ok(Self {
            blocks,
            blocks_per_group: per_group,
            inodes,
            inodes_per_group: get32(sb, 0x28),
            groups: blocks.div_ceil(per_group),
            descriptor: if wide { usize::from(get16(sb, 0xFE)) } else { 32 },
            reserved_table: u64::from(get16(sb, 0xCE)),
            kind: match (incompat & EXTENTS != 0, compat & HAS_JOURNAL != 0) {
                (true, _) => Kind::Ext4,
                (false, true) => Kind::Ext3,
                (false, false) => Kind::Ext2,
            },
            checksum: checked.then(|| Checksum::of_uuid(&uuid)),
            uuid,
        })
    }

    /// Blocks of the table of groups.
    pub(super) fn table(&self) -> u64 {
        (self.groups * self.descriptor as u64).div_ceil(BLOCK as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_with_a_superblock() {
        let with: Vec<u64> = (0..130).filter(|group| has_superblock(*group)).collect();
        assert_eq!(with, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
        for groups in [0, 1, 2, 3, 4, 8, 130, 2402] {
            let counted = (0..groups).filter(|group| has_superblock(*group)).count() as u64;
            assert_eq!(superblocks(groups), counted, "{groups}");
        }
    }
}
