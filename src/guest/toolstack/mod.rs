// SPDX-License-Identifier: MIT OR Apache-2.0
//! What starts guests.
//!
//! `xl` is Xen's own. TT Xen's `xm` is in [`tt_xen`], with all that only a guest of TT Xen needs while it runs.

pub(super) mod tools;
pub mod tt_xen;
pub(super) mod xl;
pub mod xl_config;
