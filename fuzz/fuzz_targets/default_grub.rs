// SPDX-License-Identifier: MIT OR Apache-2.0
//! /etc/default/grub of another tree.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use ttvm::boot::grub::assignments;
use ttvm_fuzz::{PARSER, watch};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    watch(data, PARSER, || {
        assignments::read(&text, "/etc/default/grub", &mut BTreeMap::new(), &mut Vec::new());
    });
});
