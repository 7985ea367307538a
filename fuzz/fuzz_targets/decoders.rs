// SPDX-License-Identifier: MIT OR Apache-2.0
//! What initial RAM disks are compressed with: the first byte says what, and all else stands behind the word that each of them
//! begins with.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ttvm_fuzz::{DECODER, initrd, watch};

/// gzip, bzip2, lzma, xz, lzop, lz4 in the old and in the new format, zstd.
const BEGINNINGS: [&[u8]; 8] = [
    b"\x1f\x8b\x08",
    b"BZh",
    b"\x5d\0\0",
    b"\xfd7zXZ\0",
    b"\x89LZO\0\r\n\x1a\n",
    b"\x02\x21\x4c\x18",
    b"\x04\x22\x4d\x18",
    b"\x28\xb5\x2f\xfd",
];

fuzz_target!(|data: &[u8]| {
    let Some((which, rest)) = data.split_first() else {
        return;
    };
    let beginning = BEGINNINGS[usize::from(*which) % BEGINNINGS.len()];
    let image = [beginning, rest].concat();
    watch(data, DECODER, || initrd::read(image));
});
