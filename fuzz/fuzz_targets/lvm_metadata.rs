// SPDX-License-Identifier: MIT OR Apache-2.0
//! The text that LVM keeps on disks.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ttvm::lvm2_cmd::metadata::parse;
use ttvm_fuzz::{PARSER, watch};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    watch(data, PARSER, || match parse(text, "xenvg") {
        Ok(group) => group.volumes.iter().for_each(|volume| {
            volume.is("snapshot");
        }),
        Err(error) => drop(error.to_string()),
    });
});
