// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether the size that is asked for is enough, and which one would be.

use ext4_fill::BLOCK;

use super::{Creation, Error, Request};
use crate::config::types::Size;

impl Creation {
    /// Files there will be.
    pub(super) fn files(&self) -> u64 {
        self.survey.files + self.identity(String::new()).edits().len()
    }

    /// Refuses a size that is too small.
    pub(super) fn fits(&self) -> Result<(), Error> {
        match self.fits_into(self.request.size.bytes()) {
            true => Ok(()),
            false => Err(self.too_small()),
        }
    }

    /// Bytes that are written, with the file system's own.
    pub(super) fn written(&self) -> u64 {
        let Request { kind, size, .. } = self.request;
        let room = ext4_fill::room(kind, size.bytes(), self.files()).blocks * BLOCK as u64;
        size.bytes().saturating_sub(room) + self.survey.blocks(kind) * BLOCK as u64
    }

    fn fits_into(&self, size: u64) -> bool {
        ext4_fill::room(self.request.kind, size, self.files()).blocks >= self.survey.blocks(self.request.kind)
    }

    /// What size would do.
    pub(super) fn too_small(&self) -> Error {
        let smallest = self.survey.blocks(self.request.kind) * BLOCK as u64;
        let step = if smallest < 32 << 20 { 8 << 20 } else { 64 << 20 };
        let first = smallest.max(self.request.size.bytes()).next_multiple_of(step);
        // With some room for the guest.
        let fits = (0..)
            .map(|steps| first + steps * step)
            .find(|size| self.fits_into(size - size / 20));
        Error::TooSmall {
            size: self.request.size,
            need: Size::from_bytes(smallest.next_multiple_of(1 << 20)),
            files: self.survey.files,
            fits: Size::from_bytes(fits.unwrap_or(first)),
        }
    }
}
