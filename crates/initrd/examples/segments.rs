// SPDX-License-Identifier: MIT OR Apache-2.0
//! Says what an image is made of: its segments, the files in them, and what Linux does not take of them.
//!
//! `cargo run -p initrd --example segments -- /boot/initrd.img`

use std::error::Error;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use initrd::names::escape;
use initrd::{Event, Image, Linux, Reader, mode_text};

/// No image that is looked at has more in it.
const LIMIT: u64 = 8 << 30;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: segments IMAGE")?;
    show(path.as_ref(), &mut BufWriter::new(io::stdout().lock()))
}

/// Writes to `out` what the image at `path` is made of.
pub fn show(path: &Path, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let mut reader = Reader::new(Image::open(path)?, LIMIT);
    let mut linux = Linux::default();
    while let Some(event) = reader.event()? {
        linux.see(&event);
        match event {
            Event::Segment(segment) => {
                let (number, compression, offset) = (segment.number, segment.compression, segment.offset);
                writeln!(out, "segment {number}: {compression}, at byte {offset}")?;
            }
            Event::Entry(header) => {
                // Names are anybody's: a terminal would do what is in them.
                let name = escape(&header.name);
                writeln!(out, "  {} {:>9} {name}", mode_text(header.mode), header.size)?;
            }
            Event::BootConfig(bytes) => writeln!(out, "a boot configuration of {} bytes", bytes.len())?,
            Event::Archive | Event::ArchiveEnd { .. } | Event::SegmentEnd { .. } => {}
        }
    }
    for (segment, why) in linux.remarks() {
        writeln!(out, "segment {segment}: {why}")?;
    }
    out.flush()?;
    Ok(())
}
