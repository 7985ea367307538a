// SPDX-License-Identifier: MIT OR Apache-2.0
//! The checksums of metadata: CRC-32C as the kernel takes it, without turning its bits over at the beginning and the end.

/// A checksum in the making; of a file system without them, `None`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checksum(u32);

impl Checksum {
    /// Before anything.
    pub(super) const START: Self = Self(!0);

    /// That of a file system, which all others begin with.
    pub(super) fn of_uuid(uuid: &[u8]) -> Self {
        Self::START.and(uuid)
    }

    /// With these bytes after what was before.
    #[must_use]
    pub(super) fn and(self, bytes: &[u8]) -> Self {
        Self(!crc32c::crc32c_append(!self.0, bytes))
    }

    /// That of an inode, which those of its blocks begin with.
    #[must_use]
    pub(super) fn of_inode(self, inode: u32) -> Self {
        // Its generation is 0.
        self.and(&inode.to_le_bytes()).and(&[0; 4])
    }

    pub(super) fn value(self) -> u32 {
        self.0
    }
}
