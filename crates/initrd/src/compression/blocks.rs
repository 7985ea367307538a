// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compressing in blocks of one size, each by itself.

use std::io::{self, Write};

/// What writes a block.
pub(crate) trait Pack {
    /// What a block holds.
    const BLOCK: usize;

    /// Writes one: the last may be shorter, and none is empty.
    fn pack(&mut self, block: &[u8]) -> io::Result<()>;
}

/// Makes blocks of what is written to it.
pub(crate) struct Blocks<P> {
    packer: P,
    block: Vec<u8>,
}

impl<P: Pack> Blocks<P> {
    pub fn new(packer: P) -> Self {
        let block = Vec::with_capacity(P::BLOCK);
        Self { packer, block }
    }

    fn pass_on(&mut self) -> io::Result<()> {
        self.packer.pack(&self.block)?;
        self.block.clear();
        Ok(())
    }

    /// Writes what is left.
    pub fn finish(mut self) -> io::Result<P> {
        if !self.block.is_empty() {
            self.pass_on()?;
        }
        Ok(self.packer)
    }
}

impl<P: Pack> Write for Blocks<P> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(P::BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..length]);
        if self.block.len() == P::BLOCK {
            self.pass_on()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
