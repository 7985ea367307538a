// SPDX-License-Identifier: MIT OR Apache-2.0
//! What QEMU says of a processor's registers; behind a NUL, what it says of another's.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ttvm::qemu::registers::{Registers, differences};
use ttvm_fuzz::{PARSER, watch};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (a, b) = text.split_once('\0').unwrap_or((&text, ""));
    watch(data, PARSER, || {
        let registers = [a, b].map(Registers::parse);
        let found = differences(a, b);
        // What differs is written somewhere.
        assert!(registers[0] == registers[1] || !found.is_empty());
        assert!(differences(a, a).is_empty());
    });
});
