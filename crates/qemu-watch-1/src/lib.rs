// SPDX-License-Identifier: MIT OR Apache-2.0
//! qemu-watch for version 1 of QEMU's plugin interface: QEMU 7.2 to 8.2.

use std::ffi::{c_char, c_void};

use qemu_watch::watcher::{Instruction, Version};

unsafe extern "C" {
    /// The bytes of the instruction, as many as it has.
    fn qemu_plugin_insn_data(instruction: *const Instruction) -> *const u8;
    /// The instruction in words, as text that is ours.
    fn qemu_plugin_insn_disas(instruction: *const Instruction) -> *mut c_char;
    /// Of the C library, which GLib allocates with.
    fn free(memory: *mut c_void);
}

struct One;

impl Version for One {
    unsafe fn beginning(&self, instruction: *const Instruction) -> [u8; 2] {
        // SAFETY: it has two bytes.
        unsafe { *qemu_plugin_insn_data(instruction).cast() }
    }

    /// An instruction that goes on in the next page is left for the next block, after its bytes up to there were read; and it is counted.
    /// What is cut off has no words but `.byte`.
    unsafe fn is_left_out(&self, first: *const Instruction, last: *const Instruction) -> bool {
        // SAFETY: both are instructions of the block.
        unsafe { has_words(first) && !has_words(last) }
    }
}

/// Whether QEMU's disassembler has words for it.
///
/// # Safety
///
/// It is an instruction of the block that is being translated.
unsafe fn has_words(instruction: *const Instruction) -> bool {
    // SAFETY: QEMU gives a text of its own making away, with a zero at its end.
    unsafe {
        let text = qemu_plugin_insn_disas(instruction);
        let has = !text.is_null() && ![0, b'.' as c_char].contains(&*text);
        free(text.cast());
        has
    }
}

qemu_watch::plugin!(1, crate::One);
