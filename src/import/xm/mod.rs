// SPDX-License-Identifier: MIT OR Apache-2.0
//! xm's files: Python, and disks as TT Xen takes them. Of use where there are guests of TT Xen's, or of Xen before 4.1.

pub(super) mod disk;
pub(super) mod python;
