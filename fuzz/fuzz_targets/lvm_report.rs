// SPDX-License-Identifier: MIT OR Apache-2.0
//! LVM's reports.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ttvm::lvm2_cmd::report::{groups, volumes};
use ttvm_fuzz::{PARSER, watch};

fuzz_target!(|data: &[u8]| {
    // As what programs print is read.
    let text = String::from_utf8_lossy(data);
    watch(data, PARSER, || {
        for group in groups(&text).unwrap_or_default() {
            group.owns("LVM-abcdef-cow");
        }
        for volume in volumes(&text).unwrap_or_default() {
            volume.is("snapshot");
        }
    });
});
