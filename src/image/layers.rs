// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether an image file is all there is: a qcow2 image can take its content from other files.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// `QFI` and 0xfb (<https://www.qemu.org/docs/master/interop/qcow2.html>).
const MAGIC: [u8; 4] = *b"QFI\xfb";
/// "External data file" among the incompatible features.
const EXTERNAL_DATA: u8 = 1 << 2;

/// What else the image in `file` needs, if it does.
pub(super) fn needs(file: &File) -> io::Result<Option<&'static str>> {
    let mut header = [0; 80];
    match file.read_exact_at(&mut header, 0) {
        // Too small for a header.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    if header[..4] != MAGIC {
        return Ok(None);
    }
    if header[8..16] != [0; 8] {
        return Ok(Some("another image, on top of which it was made"));
    }
    // Version 2 has no features, and its header ends before them. Big-endian: the last byte has the lowest bits.
    let version = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    Ok((version >= 3 && header[79] & EXTERNAL_DATA != 0).then_some("a file with its data"))
}
