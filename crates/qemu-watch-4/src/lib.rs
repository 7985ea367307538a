// SPDX-License-Identifier: MIT OR Apache-2.0
//! qemu-watch for version 4 of QEMU's plugin interface: QEMU 9.2 and 10.0.

use std::ffi::c_void;

use qemu_watch::watcher::{Instruction, Version};

unsafe extern "C" {
    /// Copies as many bytes of the instruction as there is room for, and says how many it copied.
    fn qemu_plugin_insn_data(instruction: *const Instruction, to: *mut c_void, room: usize) -> usize;
}

struct Four;

impl Version for Four {
    unsafe fn beginning(&self, instruction: *const Instruction) -> [u8; 2] {
        let mut bytes = [0; 2];
        // SAFETY: there is room for as many as it says.
        unsafe { qemu_plugin_insn_data(instruction, bytes.as_mut_ptr().cast(), bytes.len()) };
        bytes
    }

    /// It says itself how many there are.
    unsafe fn is_left_out(&self, _first: *const Instruction, _last: *const Instruction) -> bool {
        false
    }
}

qemu_watch::plugin!(4, crate::Four);
