// SPDX-License-Identifier: MIT OR Apache-2.0
//! The log of a recorded run. The first byte says how many devices the machine has.

#![no_main]

use libfuzzer_sys::fuzz_target;
use replay_log::{Devices, check};
use ttvm_fuzz::{PARSER, watch};

fuzz_target!(|data: &[u8]| {
    let Some((devices, log)) = data.split_first() else {
        return;
    };
    let devices = Devices {
        networks: usize::from(devices & 3),
        disks: usize::from(devices >> 2 & 3),
    };
    watch(data, PARSER, || {
        if let Err(error) = check(log, devices, &mut |_| true) {
            drop(error.to_string());
        }
    });
});
