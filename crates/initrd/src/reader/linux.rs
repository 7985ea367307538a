// SPDX-License-Identifier: MIT OR Apache-2.0
//! What Linux makes of an image: what it takes of each segment, and where it stops. By its source (init/initramfs.c,
//! lib/decompress*.c, lib/xz), and seen with 6.1. Other programs, this one too, can read more than Linux does.

use std::collections::HashSet;

use super::event::Event;
use crate::compression::{Compression, LZ4_FRAME, lzop};
use crate::kind::Kind;
use crate::names::{parts, shorten};

/// That Linux stops within a segment.
const STOPS: &str = "Linux stops here, and unpacks nothing of what follows";

/// Why Linux does not decompress what begins with `head`, although it can be decompressed.
pub(crate) fn refused(compression: Compression, head: &[u8]) -> Option<&'static str> {
    match (compression, head) {
        (Compression::Lz4, _) if head.starts_with(&LZ4_FRAME) => {
            Some("it is in the newer format of lz4, and Linux knows the old one only (lz4 -l)")
        }
        (Compression::Zstd, _) if !head.starts_with(&[0x28, 0xb5]) => Some(
            "it begins with a frame of zstd that is to be skipped, which Linux does not know (zstd, and not pzstd)",
        ),
        (Compression::Gzip, [0x1f, 0x9e, ..]) => Some("it is in gzip's oldest format, which Linux does not decompress"),
        (Compression::Gzip, [_, _, _, flags, ..]) if flags & !0x09 != 0 => {
            Some("its head has more than a name (a comment, an extra field), which Linux takes for data (gzip -n)")
        }
        (Compression::Xz, [_, _, _, _, _, _, _, check, ..]) if check & 15 > 1 => {
            Some("its check is not CRC32, and Linux knows no other (xz --check=crc32)")
        }
        (Compression::Xz, _)
            if xz_filters(head).is_some_and(|filters| filters.iter().any(|it| !XZ_FILTERS.contains(it))) =>
        {
            Some("it is made with a filter that Linux has not (xz without --delta, --arm64 and --riscv)")
        }
        (Compression::Lzo, _) if !lzop::has_one_checksum(head) => {
            Some("its blocks do not have one checksum each, which Linux goes by (lzop without -F)")
        }
        (Compression::Lzo, _) if lzop::has_large_blocks(head) => {
            Some("its blocks are larger than 256 KiB, and Linux takes no larger ones (lzop)")
        }
        _ => None,
    }
}

/// LZMA2 and the filters for programs of x86, PowerPC, IA-64, ARM, Thumb and SPARC (lib/xz).
const XZ_FILTERS: [u8; 7] = [0x21, 4, 5, 6, 7, 8, 9];

/// The filters of the first block of a file of xz, by its head (<https://tukaani.org/xz/xz-file-format.txt>).
fn xz_filters(head: &[u8]) -> Option<Vec<u8>> {
    let mut block = head.get(12..)?.iter().copied();
    // A file without a block has an index here, which begins with 0.
    block.next().filter(|size| *size > 0)?;
    let flags = block.next()?;
    for size in [0x40, 0x80] {
        if flags & size != 0 {
            // A number of several bytes, seven bits in each.
            block.by_ref().find(|byte| byte & 0x80 == 0)?;
        }
    }
    let mut filters = Vec::new();
    for _ in 0..=flags & 3 {
        filters.push(block.next()?);
        for _ in 0..block.next()? {
            block.next()?;
        }
    }
    Some(filters)
}

/// What is said of a segment that does not begin where Linux looks for it.
pub(crate) const UNALIGNED: &str = "what is not compressed must begin at a multiple of 4 bytes";
/// The same of anything that follows what is not compressed.
pub(crate) const UNALIGNED_AFTER: &str = "behind what is not compressed it must begin at a multiple of 4 bytes";
/// What is said of a header within a segment.
pub(crate) const PADDING: &str =
    "a header in it is behind so many zeros that it does not begin at a multiple of 4 bytes";
/// What is said of what Linux finds first.
pub(crate) const ZEROS_FIRST: &str = "there are zeros before its first header, where Linux takes zeros only behind an archive or where nothing is compressed";
/// What is said of what comes before it.
pub(crate) const NOTHING_FIRST: &str = "a compressed stream without an archive comes before it";
/// What is said of an archive that is cut into parts, each compressed by itself.
pub(crate) const CUT: &str = "an archive goes over several streams, each compressed by itself, and Linux takes the first one for all (one thread, or a program that makes one stream)";

/// What a name tells if the directory is missing that it is in.
struct Lost {
    count: u64,
    first: String,
}

/// Looks at an image as Linux unpacks it.
pub struct Linux {
    segment: usize,
    /// Of the segments before, too: all goes into one tree.
    directories: HashSet<Vec<u8>>,
    lost: Option<Lost>,
    passed_over: Option<(Lost, &'static str)>,
    sums: bool,
    remarks: Vec<(usize, String)>,
}

impl Default for Linux {
    /// Before the first segment, there is what Linux has of its own (usr/default_cpio_list).
    fn default() -> Self {
        Self {
            segment: 0,
            directories: ["", "dev", "root"].map(|name| name.as_bytes().to_vec()).into(),
            lost: None,
            passed_over: None,
            sums: false,
            remarks: Vec::new(),
        }
    }
}

impl Linux {
    /// Looks at what comes next.
    pub fn see(&mut self, event: &Event) {
        match event {
            Event::Segment(segment) => {
                self.ended();
                self.segment = segment.number;
                self.stops(segment.refused.into_iter());
            }
            Event::Entry(header) => {
                self.sums |= header.sum.is_some();
                if let Err(why) = Kind::of(header) {
                    let (lost, _) = self.passed_over.get_or_insert_with(|| (Lost::of(&header.name), why));
                    lost.count += 1;
                    return;
                }
                let Ok(way) = parts(&header.name) else { return };
                let Some((_, parents)) = way.split_last() else { return };
                // What the kernel itself looks for needs none.
                let is_early = matches!(way[..], [b"kernel", b"x86" | b"firmware", ..]);
                if !is_early && !self.directories.contains(&parents.join(&b'/')) {
                    self.lost.get_or_insert_with(|| Lost::of(&header.name)).count += 1;
                } else if matches!(Kind::of_mode(header.mode), Some(Kind::Directory | Kind::Link)) {
                    // Through a link, it comes to where that leads.
                    self.directories.insert(way.join(&b'/'));
                }
            }
            Event::SegmentEnd { odd, .. } => {
                self.stops(odd.iter().copied());
                self.ended();
            }
            _ => {}
        }
    }

    /// What there is to say, by segments: of those that have ended.
    pub fn remarks(&self) -> &[(usize, String)] {
        &self.remarks
    }

    fn stops(&mut self, why: impl Iterator<Item = &'static str>) {
        let segment = self.segment;
        self.remarks.extend(why.map(|why| (segment, format!("{why}: {STOPS}"))));
    }

    fn ended(&mut self) {
        let segment = self.segment;
        let files = |count| if count == 1 { "a file" } else { "files" };
        if std::mem::take(&mut self.sums) {
            let why = "its archive has sums (070702), which Linux before 5.19 does not read";
            self.remarks.push((segment, why.to_owned()));
        }
        if let Some(Lost { count, first }) = self.lost.take() {
            let why = format!(
                "Linux passes over {} that it has no directory for ({count}, the first is {first}): the directory must come before",
                files(count)
            );
            self.remarks.push((segment, why));
        }
        if let Some((Lost { count, first }, why)) = self.passed_over.take() {
            let why = format!(
                "Linux passes over {} ({count}, the first is {first}: {why})",
                files(count)
            );
            self.remarks.push((segment, why));
        }
    }
}

impl Lost {
    fn of(name: &[u8]) -> Self {
        Self {
            count: 0,
            first: shorten(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_its_head() {
        for (compression, head, is_refused) in [
            (Compression::Lz4, &b"\x04\x22\x4d\x18"[..], true),
            (Compression::Lz4, b"\x02\x21\x4c\x18", false),
            (Compression::Zstd, b"\x50\x2a\x4d\x18", true),
            (Compression::Zstd, b"\x28\xb5\x2f\xfd", false),
            (Compression::Gzip, b"\x1f\x8b\x08\x00", false),
            (Compression::Gzip, b"\x1f\x8b\x08\x08", false),
            (Compression::Gzip, b"\x1f\x8b\x08\x04", true),
            (Compression::Gzip, b"\x1f\x9e\x08\x00", true),
            (Compression::Xz, b"\xfd7zXZ\0\0\x04", true),
            (Compression::Xz, b"\xfd7zXZ\0\0\x01", false),
            (Compression::None, b"070701", false),
        ] {
            assert_eq!(refused(compression, head).is_some(), is_refused, "{head:?}");
        }
    }
}
