// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands for guests: their files, their runs as units, how they are.

pub(super) mod console;
pub(super) mod guest;
pub(super) mod guest_new;
pub(super) mod import;
pub(super) mod lifecycle;
pub(super) mod list;
pub(super) mod logs;
pub(super) mod metrics;
pub(super) mod snapshot;
pub(super) mod status;
pub(super) mod watch;
