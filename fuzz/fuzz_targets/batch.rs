// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tasks of a batch; behind each NUL, what one of them came to.

#![no_main]

use std::fs;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ttvm::batch::Batch;
use ttvm::batch::summary::answers;
use ttvm_fuzz::place::Place;
use ttvm_fuzz::{PARSER, watch};

/// Results that are looked at: each is a file.
const MOST: usize = 8;

static STATE: LazyLock<Place> = LazyLock::new(|| Place::new("batch").expect("a directory"));

fuzz_target!(|data: &[u8]| {
    let id = "20260101-000000";
    let all = STATE.path().join("batches");
    if all.is_dir() {
        fs::remove_dir_all(&all).expect("what is one's own can be removed");
    }
    let mut parts = data.split(|byte| *byte == 0);
    let list = parts.next().unwrap_or_default();
    STATE.write(&format!("batches/{id}/batch.json"), list).expect("a file");
    for (number, result) in parts.take(MOST).enumerate() {
        let name = format!("batches/{id}/results/{number}.json");
        STATE.write(&name, result).expect("a file");
    }
    watch(data, PARSER, || match Batch::open(STATE.path(), Some(id)) {
        Ok(batch) => {
            batch.tasks().iter().for_each(|task| drop(task.work.to_string()));
            drop(answers(&batch).map_err(|error| error.to_string()));
        }
        Err(error) => drop(error.to_string()),
    });
});
