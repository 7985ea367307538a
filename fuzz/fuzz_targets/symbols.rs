// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of addresses: a kernel as the linker made it, or a list.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ttvm::recording::symbols::Symbols;
use ttvm_fuzz::place::Sheet;
use ttvm_fuzz::{PARSER, watch};

static SHEET: LazyLock<Sheet> = LazyLock::new(|| Sheet::new().expect("a file"));

fuzz_target!(|data: &[u8]| {
    SHEET.write(data).expect("a file");
    watch(data, PARSER, || match Symbols::load(SHEET.path()) {
        Ok(symbols) => drop((symbols.name(u64::MAX), symbols.address("do_exit"))),
        Err(error) => drop(error.to_string()),
    });
});
