// SPDX-License-Identifier: MIT OR Apache-2.0
//! QEMU's emulated machine: deterministic, recorded and replayed on any host, without Xen and without root.

pub mod cage;
pub mod capsule;
pub mod content;
pub mod core;
pub mod engine;
pub mod log_position;
pub mod machine;
pub mod memory;
pub mod process;
pub mod qmp;
pub mod registers;
pub mod watch;
