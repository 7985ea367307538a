// SPDX-License-Identifier: MIT OR Apache-2.0
//! The index of a recording's checkpoints; behind a NUL, the pages and the maps of its memories.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ttvm::config::types::Size;
use ttvm::qemu::memory::Memory;
use ttvm::recording::checkpoints::Checkpoints;
use ttvm_fuzz::place::Place;
use ttvm_fuzz::{PARSER, watch};

static RECORDING: LazyLock<Place> = LazyLock::new(|| Place::new("checkpoints").expect("a directory"));

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (index, store) = data.split_at(end);
    let store = store.get(1..).unwrap_or_default();
    for (name, content) in [("index.json", index), ("pages", store), ("maps", store)] {
        RECORDING
            .write(&format!("checkpoints/{name}"), content)
            .expect("a file");
    }
    watch(data, PARSER, || match Checkpoints::load(RECORDING.path()) {
        Ok(Some(checkpoints)) => {
            // Each is one more whole memory.
            for checkpoint in checkpoints.all().iter().take(4) {
                let memory = Memory::new(Size::mib(1)).expect("a memory");
                if let Err(error) = checkpoints.fill(checkpoint, &memory) {
                    drop(error.to_string());
                }
            }
        }
        Ok(None) => {}
        Err(error) => drop(error.to_string()),
    });
});
