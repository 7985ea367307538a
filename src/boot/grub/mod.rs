// SPDX-License-Identifier: MIT OR Apache-2.0
//! GRUB as it is on this system: its files, its settings, its language, and what only its own programs know.

pub mod assignments;
pub(super) mod environment;
pub mod grub_cfg;
pub mod grubenv;
pub(super) mod layout;
pub(super) mod place;
pub(super) mod probe;
pub(super) mod quote;
pub mod settings;
