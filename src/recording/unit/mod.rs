// SPDX-License-Identifier: MIT OR Apache-2.0
//! What systemd's units do with recordings: the main process of each, and what it was told to do.

pub mod order;
pub mod service;
pub mod toolstack;
