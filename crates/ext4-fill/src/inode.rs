// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is known of a file besides its content and its names.

use nix::libc;

use super::checksum::Checksum;
use super::{get16, put};

/// Bytes of an inode.
pub(super) const SIZE: usize = 256;
/// Where an inode's attributes begin: behind the fields it had at first (128), and 32 bytes of later ones.
pub(super) const ATTRIBUTES: usize = 160;
const EXTENTS_FLAG: u32 = 0x8_0000;

/// A point in time since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    /// Seconds.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanoseconds: u32,
}

/// The type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl FileType {
    /// That of a mode as `stat(2)` has it.
    pub fn of_mode(mode: u32) -> Option<Self> {
        Some(match mode & libc::S_IFMT {
            libc::S_IFREG => Self::Regular,
            libc::S_IFDIR => Self::Directory,
            libc::S_IFLNK => Self::Symlink,
            libc::S_IFCHR => Self::Character,
            libc::S_IFBLK => Self::Block,
            libc::S_IFIFO => Self::Fifo,
            libc::S_IFSOCK => Self::Socket,
            _ => return None,
        })
    }

    fn bits(self) -> u32 {
        match self {
            Self::Regular => libc::S_IFREG,
            Self::Directory => libc::S_IFDIR,
            Self::Symlink => libc::S_IFLNK,
            Self::Character => libc::S_IFCHR,
            Self::Block => libc::S_IFBLK,
            Self::Fifo => libc::S_IFIFO,
            Self::Socket => libc::S_IFSOCK,
        }
    }

    /// The number a directory has for it.
    pub(super) fn in_directory(self) -> u8 {
        match self {
            Self::Regular => 1,
            Self::Directory => 2,
            Self::Character => 3,
            Self::Block => 4,
            Self::Fifo => 5,
            Self::Socket => 6,
            Self::Symlink => 7,
        }
    }
}

/// What is known of a file besides its content and its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Its type.
    pub kind: FileType,
    /// Its permissions, and the set-user-id, set-group-id and sticky bits.
    pub permissions: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// When it was read.
    pub accessed: Time,
    /// When it was written.
    pub modified: Time,
    /// Major and minor number, of a device.
    pub device: (u32, u32),
}

/// An inode, as far as it is not [`Meta`].
#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) meta: Meta,
    pub(super) changed: Time,
    pub(super) size: u64,
    pub(super) links: u32,
    /// Blocks it takes, with those of its mapping and attributes.
    pub(super) blocks: u64,
    /// `i_block`.
    pub(super) map: [u8; 60],
    /// Whether that is a tree of extents.
    pub(super) extents: bool,
    pub(super) attribute_block: u64,
    pub(super) attributes: [u8; SIZE - ATTRIBUTES],
}

/// The numbers of a device as an inode has them: as of old if they fit.
pub(super) fn device((major, minor): (u32, u32)) -> [u8; 60] {
    let mut map = [0; 60];
    if major < 256 && minor < 256 {
        put(&mut map, 0, (major << 8 | minor).to_le_bytes());
    } else {
        let new = minor & 0xff | major << 8 | (minor & !0xff) << 12;
        put(&mut map, 4, new.to_le_bytes());
    }
    map
}

impl Inode {
    pub(super) fn encode(&self, number: u32, checksum: Option<Checksum>) -> [u8; SIZE] {
        let mut raw = [0; SIZE];
        let meta = &self.meta;
        let mode = meta.kind.bits() | meta.permissions & 0o7777;
        put(&mut raw, 0x00, (mode as u16).to_le_bytes());
        put(&mut raw, 0x02, (meta.uid as u16).to_le_bytes());
        put(&mut raw, 0x04, (self.size as u32).to_le_bytes());
        put(&mut raw, 0x18, (meta.gid as u16).to_le_bytes());
        put(&mut raw, 0x1A, (self.links as u16).to_le_bytes());
        let sectors = self.blocks * 8;
        put(&mut raw, 0x1C, (sectors as u32).to_le_bytes());
        put(
            &mut raw,
            0x20,
            (if self.extents { EXTENTS_FLAG } else { 0 }).to_le_bytes(),
        );
        raw[0x28..0x28 + 60].copy_from_slice(&self.map);
        put(&mut raw, 0x68, (self.attribute_block as u32).to_le_bytes());
        put(&mut raw, 0x6C, ((self.size >> 32) as u32).to_le_bytes());
        put(&mut raw, 0x74, ((sectors >> 32) as u16).to_le_bytes());
        put(&mut raw, 0x76, ((self.attribute_block >> 32) as u16).to_le_bytes());
        put(&mut raw, 0x78, ((meta.uid >> 16) as u16).to_le_bytes());
        put(&mut raw, 0x7A, ((meta.gid >> 16) as u16).to_le_bytes());
        put(&mut raw, 0x80, 32_u16.to_le_bytes());
        // Each with the place of its nanoseconds.
        for (time, at, more) in [
            (meta.accessed, 0x08, 0x8C),
            (self.changed, 0x0C, 0x84),
            (meta.modified, 0x10, 0x88),
            (self.changed, 0x90, 0x94),
        ] {
            // From 1901 to 2446.
            let seconds = time.seconds.clamp(i64::from(i32::MIN), 0x3_7FFF_FFFF);
            let low = seconds as i32;
            // Two more bits of the seconds.
            let epoch = ((seconds - i64::from(low)) >> 32) as u32 & 3;
            put(&mut raw, at, low.to_le_bytes());
            put(&mut raw, more, (epoch | time.nanoseconds << 2).to_le_bytes());
        }
        raw[ATTRIBUTES..].copy_from_slice(&self.attributes);
        seal(&mut raw, number, checksum);
        raw
    }
}

/// Puts the checksum into an inode.
fn seal(raw: &mut [u8; SIZE], number: u32, checksum: Option<Checksum>) {
    let Some(checksum) = checksum else { return };
    let sum = checksum.of_inode(number).and(raw).value();
    debug_assert_eq!(
        (get16(raw, 0x7C), get16(raw, 0x82)),
        (0, 0),
        "it is taken without itself"
    );
    put(raw, 0x7C, (sum as u16).to_le_bytes());
    put(raw, 0x82, ((sum >> 16) as u16).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_small_and_large() {
        assert_eq!(device((1, 3))[..8], [3, 1, 0, 0, 0, 0, 0, 0]);
        // 259:70000 is 0x103:0x11170.
        assert_eq!(device((259, 70_000))[..8], [0, 0, 0, 0, 0x70, 0x03, 0x11, 0x11]);
    }
}
