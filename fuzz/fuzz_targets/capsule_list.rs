// SPDX-License-Identifier: MIT OR Apache-2.0
//! `capsule.toml`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ttvm::qemu::capsule::List;
use ttvm_fuzz::{PARSER, watch};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    watch(data, PARSER, || match List::parse(text) {
        Ok(list) => {
            let text = list.to_text().expect("what was read can be written");
            assert_eq!(List::parse(&text).expect("what was written can be read"), list);
        }
        Err(error) => drop(error.to_string()),
    });
});
