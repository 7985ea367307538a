// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands for one recorded run: making it, replaying it, asking it.

pub(super) mod ask;
pub(super) mod branch;
pub(super) mod branch_tries;
pub(super) mod foreground;
pub(super) mod record;
pub(super) mod replay;
pub(super) mod report;
pub(super) mod trace;
pub(super) mod unit;
pub(super) mod verify;
