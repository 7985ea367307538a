// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a person sees and types: tables, progress, times, passwords, keys.

pub(super) mod clock;
pub(super) mod guard;
pub(super) mod keyboard;
pub(super) mod password;
pub(super) mod progress;
pub(super) mod table;
