// SPDX-License-Identifier: MIT OR Apache-2.0
//! GRUB's environment block, and changing it: what was set is there, and what others set stays.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ttvm::boot::grub::grubenv::{Error, GrubEnv, SIZE};
use ttvm_fuzz::place::Sheet;
use ttvm_fuzz::{PARSER, watch};

static SHEET: LazyLock<Sheet> = LazyLock::new(|| Sheet::new().expect("a file"));

fuzz_target!(|data: &[u8]| {
    // What is short is filled as GRUB fills it: else hardly any would be one.
    let mut block = data.to_vec();
    if block.len() < SIZE {
        block.resize(SIZE, b'#');
    }
    SHEET.write(&block).expect("a file");
    watch(data, PARSER, || {
        let mut env = match GrubEnv::read(SHEET.path()) {
            Ok(env) => env,
            Err(error) => return drop(error.to_string()),
        };
        let saved = env.get("saved_entry");
        match env.change(&[("next_entry", Some("a\\b\nc")), ("prev_saved_entry", None)]) {
            Ok(()) => {
                let after = GrubEnv::read(SHEET.path()).expect("what was written can be read");
                assert_eq!(after.get("next_entry").as_deref(), Some("a\\b\nc"));
                assert_eq!(after.get("saved_entry"), saved);
            }
            Err(error) => assert!(matches!(error, Error::Full { .. })),
        }
    });
});
