// SPDX-License-Identifier: MIT OR Apache-2.0
//! Initial RAM disks: what is in them, and making them.

pub mod busybox;
pub mod modules;
pub mod newc;
