// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm-initrd.jsonl`, the list of what was unpacked of an initial RAM disk, which somebody may have edited.

#![no_main]

use std::sync::LazyLock;

use initrd::manifest::{Manifest, NAME};
use libfuzzer_sys::fuzz_target;
use ttvm_fuzz::place::Place;
use ttvm_fuzz::{PARSER, watch};

static PLACE: LazyLock<Place> = LazyLock::new(|| Place::new("initrd_list").expect("a directory"));

fuzz_target!(|data: &[u8]| {
    PLACE.write(NAME, data).expect("a file");
    watch(data, PARSER, || match Manifest::read(PLACE.path()) {
        Ok(list) => assert!(list.is_some()),
        Err(error) => drop(error.to_string()),
    });
});
