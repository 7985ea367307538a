// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where an image goes: a file, or a logical volume. Each has its name only when it is whole.

pub(super) mod unnamed;
pub(super) mod volume;
