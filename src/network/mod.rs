// SPDX-License-Identifier: MIT OR Apache-2.0
//! How guests reach the world.

pub mod conflicts;
pub mod firewalld;
