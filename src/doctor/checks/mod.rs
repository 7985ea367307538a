// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is looked at, a file for each subject.

pub(super) mod boot;
pub(super) mod guests;
pub(super) mod host;
pub(super) mod network;
pub(super) mod recordings;
pub(super) mod snapshots;
pub(super) mod xen;
