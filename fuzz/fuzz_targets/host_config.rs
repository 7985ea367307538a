// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm.toml`.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ttvm::config::host;
use ttvm::config::places::Places;
use ttvm_fuzz::place::Place;
use ttvm_fuzz::{PARSER, watch};

static PLACE: LazyLock<Place> = LazyLock::new(|| Place::new("host_config").expect("a directory"));

fuzz_target!(|data: &[u8]| {
    PLACE.write("etc/ttvm/ttvm.toml", data).expect("a file");
    watch(data, PARSER, || {
        if let Err(error) = host::load(&Places::system(PLACE.path())) {
            drop(error.to_string());
        }
    });
});
