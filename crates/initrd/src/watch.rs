// SPDX-License-Identifier: MIT OR Apache-2.0
//! What somebody sees of work that takes long, and what calls it off.

use std::io;
use std::ops::ControlFlow;

/// How far an image, or the files of one, have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A file of an archive was made.
    Entry,
    /// All files were made; their directory does not have its name yet.
    Unpacked,
    /// All of the image was written; it does not have its name yet.
    Packed,
}

/// Who watches work that takes long. A closure that takes the bytes done and the bytes there are is one.
pub trait Watch {
    /// So many bytes are done, of so many; [`ControlFlow::Break`] calls the work off.
    fn progress(&mut self, done: u64, total: u64) -> ControlFlow<()>;

    /// Whether to call the work off: asked more often than there is progress, before each file.
    fn interrupted(&mut self) -> bool {
        false
    }

    /// The work has come there.
    fn reached(&mut self, step: Step) {
        let _ = step;
    }
}

impl<F: FnMut(u64, u64) -> ControlFlow<()>> Watch for F {
    fn progress(&mut self, done: u64, total: u64) -> ControlFlow<()> {
        self(done, total)
    }
}

/// What an image's source fails with when it was called off, and the image itself is not to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

impl Interrupted {
    /// Whether that is why `error`.
    pub(super) fn is_in(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }
}

impl From<Interrupted> for io::Error {
    fn from(interrupted: Interrupted) -> Self {
        Self::other(interrupted)
    }
}
