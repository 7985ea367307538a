// SPDX-License-Identifier: MIT OR Apache-2.0
//! The manifest of a recording. Its digest is put behind it here, as whoever means harm would do.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ttvm::file::digest::of_bytes;
use ttvm::recording::library::manifest::Manifest;
use ttvm_fuzz::{PARSER, watch};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let sealed = format!("{text}# digest of the lines above: {}\n", of_bytes(data));
    watch(data, PARSER, || {
        drop(Manifest::from_text(text).map_err(|error| error.to_string()));
        match Manifest::from_text(&sealed) {
            Ok(manifest) => {
                let text = manifest.to_text().expect("what was read can be written");
                assert_eq!(
                    Manifest::from_text(&text).expect("what was written can be read"),
                    manifest
                );
            }
            Err(error) => drop(error.to_string()),
        }
    });
});
