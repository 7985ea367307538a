// SPDX-License-Identifier: MIT OR Apache-2.0
//! Initial RAM disks, of which the crate `initrd` knows what they are: worked on as a program of ours does, and made for guests of
//! what this system has.
//!
//! ```text
//! images                     reading, unpacking, packing: signals, limits, what to do about an error
//! busybox                    the guest that is all in memory
//! kernel modules             what it has of this system
//! ```

pub mod busybox;
pub mod images;
pub mod kernel;
pub mod modules;
