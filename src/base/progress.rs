// SPDX-License-Identifier: MIT OR Apache-2.0
//! How far work has come that takes long.

use std::ops::ControlFlow;

/// Called after each piece with the bytes done and the bytes there are; [`ControlFlow::Break`] calls the work off.
pub type Progress<'a> = dyn FnMut(u64, u64) -> ControlFlow<()> + 'a;
