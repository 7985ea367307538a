// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest's file of xm, its disks, and the guest that is made of it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ttvm::import::Dialect;
use ttvm_fuzz::import::carry_over;

fuzz_target!(|data: &[u8]| carry_over(data, Dialect::Xm));
