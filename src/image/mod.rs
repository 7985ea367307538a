// SPDX-License-Identifier: MIT OR Apache-2.0
//! The images that guests' disks are made from.
//!
//! A run is only the same run if it starts from the same disk. [`digest`] says what is on one, however long that takes;
//! [`seal`] makes an origin read-only and keeps its digest with it, so that "the same disk as recorded" is one look at
//! what LVM or the file system knows.

pub mod create;
mod error;
mod file;
mod layers;
pub mod seal;
mod volume;

use std::ops::ControlFlow;

use crate::base::progress::Progress;
use crate::base::signals;

pub use crate::config::origin::Origin;
pub use error::Error;

/// `progress`, called off when a signal to end the program is waiting: what was begun is undone first.
fn interruptible<'a>(progress: &'a mut Progress<'_>) -> impl FnMut(u64, u64) -> ControlFlow<()> + 'a {
    move |done, total| match progress(done, total) {
        ControlFlow::Continue(()) if signals::waiting() => ControlFlow::Break(()),
        verdict => verdict,
    }
}
