// SPDX-License-Identifier: MIT OR Apache-2.0
//! An initial RAM disk: archives, and whatever compressed segments are between them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ttvm_fuzz::{DECODER, initrd, watch};

fuzz_target!(|data: &[u8]| watch(data, DECODER, || initrd::read(data.to_vec())));
