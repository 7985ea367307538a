// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest of TT Xen while it runs: the commands of xm, its file, ttd-deviced beside it, and what others write of it.

pub mod deviced;
pub mod tail;
pub mod xm;
pub mod xm_config;
