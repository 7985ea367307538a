// SPDX-License-Identifier: MIT OR Apache-2.0
//! What people take for an initial RAM disk, by its beginning.

/// What it is, and what makes one of it; `None` if it is nothing that is known here.
pub(super) fn instead(bytes: &[u8]) -> Option<&'static str> {
    let tar = bytes.get(257..262) == Some(b"ustar");
    // Zeros are passed over, so these begin with their superblock: of ext2, the first bytes of how many inodes there are may be
    // zeros, too.
    let ext = (0x35..=0x38).any(|at| bytes.get(at..at + 2) == Some(&[0x53, 0xef]));
    Some(match bytes {
        [0xc7, 0x71, ..] | [0x71, 0xc7, ..] => {
            "it is in the old binary format of cpio, which Linux does not read (cpio -H newc)"
        }
        [0x27, 0x05, 0x19, 0x56, ..] => {
            "it has U-Boot's header (64 bytes): what is behind that may be one (dd bs=64 skip=1)"
        }
        [0xd0, 0x0d, 0xfe, 0xed, ..] => "it is a device tree, or an image of U-Boot that has others in it (dumpimage)",
        [b'A', b'N', b'D', b'R', b'O', b'I', b'D', b'!', ..] => {
            "it is Android's image of kernel and RAM disk (unpack_bootimg)"
        }
        [b'h', b's', b'q', b's', ..] => "it is a squashfs, and no archive (unsquashfs, then `ttvm initrd pack`)",
        [b'E', b'=', 0xcd, 0x28, ..] | [0x28, 0xcd, b'=', b'E', ..] => "it is a cramfs, and no archive",
        [b'-', b'r', b'o', b'm', b'1', b'f', b's', b'-', ..] => "it is a romfs, and no archive",
        [0xe2, 0xe1, 0xf5, 0xe0, ..] => "it is an erofs, and no archive",
        [1, b'C', b'D', b'0', b'0', b'1', ..] => "it is an image of a CD (ISO 9660): what is wanted may be in it",
        [b'7', b'z', 0xbc, 0xaf, ..] => "it is a 7z archive",
        [0x7f, b'E', b'L', b'F', ..] => "it is a program or a kernel (ELF)",
        [b'M', b'Z', ..] => "it is a kernel, or another program of UEFI",
        [b'P', b'K', 3 | 5, 4 | 6, ..] => "it is a zip archive",
        [0x1f, 0x9d, ..] => "it is compressed with compress, which Linux does not know",
        [b'L', b'Z', b'I', b'P', ..] => "it is compressed with lzip, which Linux does not know",
        [b'!', b'<', b'a', b'r', b'c', b'h', b'>', ..] => "it is a package of Debian, or another ar archive",
        [0xed, 0xab, 0xee, 0xdb, ..] => "it is a package (rpm)",
        _ if tar => "it is an archive of tar, which Linux does not read (cpio -H newc, or `ttvm initrd pack`)",
        _ if ext => "it is a file system (ext2, ext3 or ext4), and no archive (mount it, then `ttvm initrd pack`)",
        _ if bytes.get(0x202..0x206) == Some(b"HdrS") => "it is a kernel",
        _ => return None,
    })
}
