// SPDX-License-Identifier: MIT OR Apache-2.0
//! The checkpoint that a replay begins with, in place of the first instruction.

use std::path::{Path, PathBuf};

use super::moment::Moment;
use crate::config::types::GuestName;
use crate::qemu::memory::Memory;
use crate::qemu::qmp::Qmp;
use crate::recording::checkpoints::{Checkpoint, Checkpoints};
use crate::recording::session::disks::Disks;
use crate::recording::session::{Error, Removed};

/// A machine that is put together from a checkpoint.
pub(in crate::recording) struct Start<'a> {
    checkpoints: &'a Checkpoints,
    checkpoint: &'a Checkpoint,
    memory: &'a Memory,
    /// A copy of the machines' states, which QEMU may write to.
    state: PathBuf,
    _copy: Removed,
    /// Bytes that the guest had printed.
    pub(in crate::recording) printed: u64,
}

impl<'a> Start<'a> {
    /// Fills `memory`, which is all zeros, and `disks`, which are all overlays; what else is needed is copied to `overlays`.
    pub(in crate::recording) fn prepare(
        guest: &GuestName,
        checkpoints: &'a Checkpoints,
        checkpoint: &'a Checkpoint,
        (memory, disks): (&'a Memory, &Disks<'_>),
        overlays: &Path,
        printed: u64,
    ) -> Result<Self, Error> {
        let state = overlays.join(format!("{guest}-states.qcow2"));
        // A guest without disks has had no overlay made there.
        crate::file::private_directory(overlays).map_err(|source| Error::Write {
            path: overlays.to_owned(),
            source,
        })?;
        let copy = Removed(vec![state.clone()]);
        checkpoints.copy_state(&state)?;
        for overlay in disks.overlays() {
            checkpoints.copy_disk(overlay)?;
        }
        checkpoints.fill(checkpoint, memory)?;
        Ok(Self {
            checkpoints,
            checkpoint,
            memory,
            state,
            _copy: copy,
            printed,
        })
    }

    /// The file that the machine's state is in.
    pub(in crate::recording) fn state(&self) -> &Path {
        &self.state
    }

    /// Instructions that the guest had executed.
    pub(in crate::recording) fn instructions(&self) -> u64 {
        self.checkpoint.moment.instructions
    }

    /// Has QEMU forget all of them: it goes back to those that have the memory in them, and takes no others.
    pub(in crate::recording) fn forget(&self, qmp: &mut Qmp) -> Result<(), Error> {
        qmp.leave_memory_out(false)?;
        for checkpoint in self.checkpoints.all() {
            qmp.monitor(&format!("delvm {}", checkpoint.name()))?;
        }
        Ok(())
    }

    /// Has QEMU load it, and makes sure that the machine is what it was.
    pub(in crate::recording) fn load(&self, qmp: &mut Qmp) -> Result<(), Error> {
        qmp.leave_memory_out(true)?;
        qmp.monitor(&format!("loadvm {}", self.checkpoint.name()))?;
        let moment = &self.checkpoint.moment;
        let is_there = qmp.instructions()? == moment.instructions;
        match is_there && Moment::of(moment.instructions, qmp, self.memory)? == *moment {
            true => Ok(()),
            false => Err(self.checkpoints.differs()),
        }
    }
}
