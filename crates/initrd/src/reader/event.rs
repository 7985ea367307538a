// SPDX-License-Identifier: MIT OR Apache-2.0
//! What there is in an image, in its order.

use crate::compression::Compression;
use crate::newc::Header;

/// What comes next in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A segment begins.
    Segment(Segment),
    /// An archive begins in it.
    Archive,
    /// A file in that; its content is what [`Reader::data`](crate::Reader::data) gives.
    Entry(Header),
    /// The archive has ended.
    ArchiveEnd {
        /// Where in the content of the segment.
        at: u64,
        /// Zeros that follow it there.
        padding: u64,
        /// Numbers were written as cpio itself does.
        uppercase: bool,
    },
    /// The segment has ended.
    SegmentEnd {
        /// Bytes of the image.
        size: u64,
        /// Bytes of what it holds.
        unpacked: u64,
        /// Zeros that follow it.
        padding: u64,
        /// Why Linux would stop in it.
        odd: Vec<&'static str>,
    },
    /// The image ends with a configuration for Linux, which is this, whole.
    BootConfig(Vec<u8>),
}

/// A run of an image that is compressed as one, or a bare archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Counted from 1.
    pub number: usize,
    /// Where it begins.
    pub offset: u64,
    /// What it is compressed with.
    pub compression: Compression,
    /// What its header says of the level.
    pub level: Option<i32>,
    /// Why Linux does not decompress it, if so.
    pub refused: Option<&'static str>,
}
