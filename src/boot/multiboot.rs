// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether an image can be started as multiboot 2: a header of that kind in its first 32 KiB (Multiboot2 Specification,
//! 3.1.1). `grub-file` knows that as well, but running it is a third of the time that the generator takes.

use std::io::{self, Read};
use std::path::Path;

use flate2::read::GzDecoder;

use crate::file::tree;

/// Where the header must be, in bytes.
const HEAD: u64 = 32_768;
const MAGIC: u32 = 0xE852_50D6;
/// The header's field for a 32-bit start on a PC.
const I386: u32 = 0;

/// Whether `image`, of the system in the tree that begins at `root`, has a valid header. `false` also for what only GRUB can unpack.
pub fn has_multiboot2(root: &Path, image: &Path) -> io::Result<bool> {
    let mut file = tree::open(root, image)?;
    let mut head = Vec::new();
    file.by_ref().take(HEAD).read_to_end(&mut head)?;
    if head.starts_with(&[0x1f, 0x8b]) {
        let mut unpacked = Vec::new();
        // As far as it goes: a damaged image is found out by what is in it.
        let packed = head.chain(file);
        drop(GzDecoder::new(packed).take(HEAD).read_to_end(&mut unpacked));
        return Ok(find(&unpacked));
    }
    Ok(find(&head))
}

fn find(head: &[u8]) -> bool {
    // On a boundary of eight bytes: magic, architecture, length, and what makes their sum zero.
    head.chunks_exact(8)
        .zip(head.chunks_exact(8).skip(1))
        .any(|(first, second)| {
            let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let words = [&first[..4], &first[4..], &second[..4], &second[4..]].map(word);
            words[..2] == [MAGIC, I386] && words.iter().fold(0u32, |sum, word| sum.wrapping_add(*word)) == 0
        })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn image(at: usize, arch: u32, sum: u32) -> Vec<u8> {
        let mut image = vec![7; 40_000];
        let checksum = 0u32
            .wrapping_sub(MAGIC)
            .wrapping_sub(arch)
            .wrapping_sub(24)
            .wrapping_add(sum);
        for (index, word) in [MAGIC, arch, 24, checksum].iter().enumerate() {
            image[at + 4 * index..][..4].copy_from_slice(&word.to_le_bytes());
        }
        image
    }

    #[test]
    fn headers() {
        assert!(find(&image(4096, I386, 0)[..HEAD as usize]));
        for wrong in [
            image(4100, I386, 0),
            image(4096, 4, 0),
            image(4096, I386, 1),
            image(32_760, I386, 0),
        ] {
            assert!(!find(&wrong[..HEAD as usize]));
        }
        assert!(!find(&[]));
    }

    #[test]
    fn packed_or_not() {
        let plain = std::env::temp_dir().join(format!("ttvm-multiboot-{}", std::process::id()));
        let content = image(8192, I386, 0);
        std::fs::write(&plain, &content).expect("a file");
        assert!(has_multiboot2(Path::new("/"), &plain).expect("read"));
        let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
        gz.write_all(&content).expect("packed");
        let packed = gz.finish().expect("packed");
        std::fs::write(&plain, &packed).expect("a file");
        assert!(has_multiboot2(Path::new("/"), &plain).expect("read"));
        std::fs::write(&plain, &packed[..20]).expect("a file");
        assert!(!has_multiboot2(Path::new("/"), &plain).expect("read"));
        std::fs::remove_file(plain).expect("the file");
    }
}
