// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a program that should be QEMU with our plugin says of a run, in pieces.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qemu_watch::{Decoder, Foreign};
use ttvm::recording::symbols::Symbols;
use ttvm::recording::trace::{Calls, Write};
use ttvm_fuzz::{PARSER, watch};

/// What comes at once.
const PIECE: usize = 100;

fuzz_target!(|data: &[u8]| {
    watch(data, PARSER, || {
        let symbols = Symbols::default();
        let (mut decoder, mut calls) = (Decoder::default(), Calls::default());
        let mut read = |bytes| {
            decoder.feed(bytes, |record| {
                drop(Write::of(&record).map(|write| write.json(&symbols)));
                drop(calls.take(record).map(|call| call.to_string()));
                Ok::<(), Foreign>(())
            })
        };
        if data.chunks(PIECE).try_for_each(&mut read).is_ok() {
            calls.rest().iter().for_each(|call| drop(call.name()));
        }
    });
});
