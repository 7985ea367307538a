// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a kernel for a PC is all there: its header says how large it is (Documentation/arch/x86/boot.rst in Linux). A full /boot
//! cuts one off, and GRUB then boots nothing.

use std::io::{self, Read};
use std::path::Path;

use crate::file::tree;

/// Where the fields are that are read: `setup_sects` is the first, `version` the last.
const SETUP_SECTS: usize = 0x1f1;
const SYSSIZE: usize = 0x1f4;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
/// In older ones `syssize` cannot be trusted.
const OLDEST: u16 = 0x204;

/// How many bytes the kernel `path` lacks, of the system in the tree that begins at `root`; 0 for what is no bzImage.
///
/// # Errors
///
/// If it cannot be read.
pub fn lacks(root: &Path, path: &Path) -> io::Result<u64> {
    let file = tree::open(root, path)?;
    let size = file.metadata()?.len();
    let mut head = Vec::new();
    file.take(VERSION as u64 + 2).read_to_end(&mut head)?;
    Ok(expected(&head).map_or(0, |expected| expected.saturating_sub(size)))
}

/// How many bytes a kernel has that begins so, at the least.
fn expected(head: &[u8]) -> Option<u64> {
    let version = u16::from_le_bytes(head.get(VERSION..)?.first_chunk().copied()?);
    if head.get(MAGIC..VERSION)? != b"HdrS" || version < OLDEST {
        return None;
    }
    let setup = match *head.get(SETUP_SECTS)? {
        // Of a kernel that does not say.
        0 => 4,
        sectors => u64::from(sectors),
    };
    let paragraphs = u32::from_le_bytes(head.get(SYSSIZE..)?.first_chunk().copied()?);
    // The boot sector is one more. Linux 2.6 did not fill up its last paragraph.
    Some((setup + 1) * 512 + (u64::from(paragraphs) * 16).saturating_sub(15))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(setup: u8, paragraphs: u32, version: u16) -> Vec<u8> {
        let mut head = vec![0; VERSION + 2];
        head[SETUP_SECTS] = setup;
        head[SYSSIZE..][..4].copy_from_slice(&paragraphs.to_le_bytes());
        head[MAGIC..][..4].copy_from_slice(b"HdrS");
        head[VERSION..].copy_from_slice(&version.to_le_bytes());
        head
    }

    #[test]
    fn sizes() {
        for (setup, paragraphs, size) in [
            (39, 509_332, 40 * 512 + 8_149_312 - 15),
            (0, 1, 5 * 512 + 1),
            (1, 0, 1024),
        ] {
            assert_eq!(expected(&head(setup, paragraphs, 0x20f)), Some(size));
        }
        assert!(expected(&head(255, u32::MAX, 0x204)).is_some_and(|size| size > 1 << 35));
        assert_eq!(expected(&head(4, 100, 0x203)), None);
        let mut other = head(4, 100, 0x20f);
        other[MAGIC] = b'h';
        assert_eq!(expected(&other), None);
        assert_eq!(expected(&other[..VERSION]), None);
        assert_eq!(expected(b"\x7fELF"), None);
    }
}
