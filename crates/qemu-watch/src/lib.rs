// SPDX-License-Identifier: MIT OR Apache-2.0
//! A plugin for QEMU that watches a replayed run: blocks and single instructions that are executed, what is written to some
//! addresses, system calls. Each is a [`Record`] with the number of instructions that the guest had executed before, counted as the
//! replay counts them.
//!
//! The plugin itself is built once for each version of QEMU's plugin interface (`qemu-watch-1`, `qemu-watch-4`): [`plugin!`] is all of
//! it, and what differs. Here is what they have in common:
//!
//! - [`Record`], [`Decoder`]: what it writes, and how that is read;
//! - [`Settings`]: what it is told, as QEMU's option `-plugin` takes it;
//! - [`watcher`]: what it does in QEMU.
//!
//! ```text
//! records = record…
//! record  = words of 8 bytes, the least first; the lowest byte of the first is its kind, the rest a small number
//!  1        block of instructions (how many): executed before, address
//!  2        instruction: executed before, address
//!  3        write (bytes): executed before, address of the instruction, of what is written, the value, space
//!  4        system call: executed before, address, space, stack, number, thread, six arguments
//!  5        its return: executed before, address, space, stack, result
//!  7        write to a device: the same as 3, without the value
//!  6        block for the first time (bytes): executed before, address
//! ```

mod inside;
mod record;
mod settings;
#[macro_use]
pub mod watcher;

pub use record::{Call, Decoder, Foreign, Record};
pub use settings::{Settings, Watch};
