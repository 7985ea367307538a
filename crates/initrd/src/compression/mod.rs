// SPDX-License-Identifier: MIT OR Apache-2.0
//! What segments of an image are compressed with.

pub(super) mod blocks;
pub(super) mod encode;
pub(super) mod input;
pub(super) mod lz4_legacy;
pub(crate) mod lzop;

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The compressions that Linux knows for initial RAM disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// A bare archive.
    None,
    /// `gzip`
    Gzip,
    /// `bzip2`
    Bzip2,
    /// `lzma`, the older format
    Lzma,
    /// `xz`
    Xz,
    /// `lzop`
    Lzo,
    /// `lz4`
    Lz4,
    /// `zstd`
    Zstd,
}

impl Compression {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::None,
        Self::Gzip,
        Self::Bzip2,
        Self::Lzma,
        Self::Xz,
        Self::Lzo,
        Self::Lz4,
        Self::Zstd,
    ];

    /// Bytes that [`detect`](Self::detect) wants to see.
    pub(super) const HEAD: usize = 64;

    /// What begins with `head`. An archive begins with the zero of its header.
    pub(super) fn detect(head: &[u8]) -> Option<Self> {
        let starts = |magic: &[u8]| head.starts_with(magic);
        Some(if starts(b"0707") {
            Self::None
        } else if starts(&[0x1f, 0x8b]) || starts(&[0x1f, 0x9e]) {
            Self::Gzip
        } else if starts(b"BZh") {
            Self::Bzip2
        } else if starts(&[0x5d, 0x00, 0x00]) {
            Self::Lzma
        } else if starts(b"\xfd7zXZ\0") {
            Self::Xz
        } else if starts(b"\x89LZO\0\r\n\x1a\n") {
            Self::Lzo
        } else if starts(&LZ4_LEGACY) || starts(&LZ4_FRAME) {
            Self::Lz4
        } else if starts(&[0x28, 0xb5, 0x2f, 0xfd]) || is_skippable_frame(head) {
            Self::Zstd
        } else {
            return None;
        })
    }

    /// Zeros that must follow before another segment: the size of a block of lz4 that ends it for Linux, which takes whatever
    /// else comes for the size of a block.
    pub(super) fn end_mark(self) -> u64 {
        match self {
            Self::Lz4 => 4,
            _ => 0,
        }
    }

    /// Levels that can be asked for; none if there is but one.
    pub fn levels(self) -> Option<RangeInclusive<i32>> {
        match self {
            Self::None | Self::Lzo => None,
            Self::Gzip | Self::Bzip2 => Some(1..=9),
            Self::Lzma | Self::Xz => Some(0..=9),
            Self::Lz4 => Some(1..=12),
            // Above, Linux would need more than 8 MiB for the window.
            Self::Zstd => Some(1..=19),
        }
    }

    /// The level if nobody asks for one.
    pub fn default_level(self) -> i32 {
        match self {
            Self::None | Self::Lzo => 0,
            Self::Gzip | Self::Lzma | Self::Xz => 6,
            Self::Bzip2 | Self::Lz4 => 9,
            Self::Zstd => 9,
        }
    }
}

/// The format of lz4 that Linux reads.
pub(super) const LZ4_LEGACY: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// The format that `lz4` writes if it is not told otherwise.
pub(super) const LZ4_FRAME: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];

/// What a decoder of zstd goes past; pzstd begins with one.
fn is_skippable_frame(head: &[u8]) -> bool {
    matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Lzma => "lzma",
            Self::Xz => "xz",
            Self::Lzo => "lzo",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

impl FromStr for Compression {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL
            .into_iter()
            .find(|compression| compression.to_string() == text);
        named.ok_or_else(|| {
            let names = Self::ALL.map(|compression| compression.to_string());
            format!("there is no such compression; there are {}", names.join(", "))
        })
    }
}
