// SPDX-License-Identifier: MIT OR Apache-2.0
//! A moment of a run, bit by bit: the guest's memory and the processor's registers after so many instructions. Two runs that
//! are the same have the same at each.

use std::collections::BTreeSet;
use std::io::Read;

use replay_log::{Devices, Kind, Reader};
use serde::{Deserialize, Serialize};

use crate::file::digest::{self, Digest};
use crate::qemu::memory::Memory;
use crate::qemu::qmp::Qmp;
use crate::recording::session::Error;

/// What the machine was like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Instructions that the guest had executed.
    pub instructions: u64,
    /// The digest of its memory: of the digests of its pieces of 1 MiB.
    pub memory: Digest,
    /// The digest of the processor's registers, as QEMU writes them (`info registers`).
    pub registers: Digest,
}

impl Moment {
    /// That of a machine that stands still after `instructions`.
    pub(in crate::recording) fn of(instructions: u64, qmp: &mut Qmp, memory: &Memory) -> Result<Self, Error> {
        Ok(Self {
            instructions,
            memory: memory.digest().map_err(Error::Memory)?,
            registers: digest::of_bytes(qmp.registers()?.as_bytes()),
        })
    }
}

/// Leaves out those `moments` of a recording at which something came in, or the processor was interrupted. A recording that is
/// stopped there may have it behind it, and a replay that is stopped there has it before it, though both are the same run. QEMU
/// stops a recording only where a timer of the guest's is due, so most moments are of this kind. (The timers themselves do
/// nothing to memory and registers, but for a network card's: see [`Stops`](super::trail::Stops).)
pub(in crate::recording) fn retain_quiet(
    moments: &mut Vec<Moment>,
    log: impl Read,
    devices: Devices,
) -> Result<(), replay_log::Error> {
    if moments.is_empty() {
        return Ok(());
    }
    let at: BTreeSet<u64> = moments.iter().map(|moment| moment.instructions).collect();
    let mut busy = BTreeSet::new();
    let mut events = Reader::new(log, devices)?;
    while let Some(event) = events.next()? {
        let came_in = matches!(
            event.kind,
            Kind::Interrupt
                | Kind::Exception
                | Kind::BottomHalf(_)
                | Kind::Typed(_)
                | Kind::DiskDone(_)
                | Kind::Packet { .. }
        );
        if came_in && at.contains(&event.instructions) {
            busy.insert(event.instructions);
        }
    }
    moments.retain(|moment| !busy.contains(&moment.instructions));
    Ok(())
}
