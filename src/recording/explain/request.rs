// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest asks its disks for, read from the queue in its memory (virtio specification, 2.7 "Split Virtqueues" and 5.2
//! "Block Device").

use std::fmt;

use super::side::Side;
use crate::qemu::qmp::Queue;
use crate::recording::session::Error;

/// The flag of a descriptor that stands for a table of others.
const INDIRECT: u16 = 4;

/// A request of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    disk: String,
    action: Action,
    sector: u64,
    /// How many of that disk had begun with it, in 16 bits.
    begun: u16,
}

/// What is wanted of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Read,
    Write,
    /// By its number in the specification.
    Other(u32),
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.action {
            Action::Read => write!(f, "disk {} is to read sector {}", self.disk, self.sector),
            Action::Write => write!(f, "disk {} is to write sector {}", self.disk, self.sector),
            Action::Other(kind) => write!(f, "disk {} gets a request of kind {kind}", self.disk),
        }
    }
}

/// The newest request of each disk that has one, and how many there are of all.
pub(super) fn newest(side: &mut Side<'_, '_>) -> Result<(Vec<Request>, u64), Error> {
    let (mut found, mut all) = (Vec::new(), 0);
    for (number, disk) in side.disks().into_iter().enumerate() {
        let queue = side.qmp().queue(number)?;
        all += queue.in_use;
        if queue.in_use > 0 {
            found.extend(read(side, disk, queue));
        }
    }
    Ok((found, all))
}

/// `None` if the queue is not as the specification has it: it is the guest's.
fn read(side: &Side<'_, '_>, disk: String, queue: Queue) -> Option<Request> {
    let last = u64::from(queue.begun.wrapping_sub(1)).checked_rem(queue.size)?;
    let entry = queue.available.checked_add(4 + 2 * last)?;
    let head = u64::from(u16::from_le_bytes(side.bytes(entry)?));
    let mut descriptor = Descriptor::read(side, queue.descriptors.checked_add(16 * head)?)?;
    if descriptor.flags & INDIRECT != 0 {
        descriptor = Descriptor::read(side, descriptor.address)?;
    }
    let action = match u32::from_le_bytes(side.bytes(descriptor.address)?) {
        0 => Action::Read,
        1 => Action::Write,
        other => Action::Other(other),
    };
    Some(Request {
        disk,
        action,
        sector: u64::from_le_bytes(side.bytes(descriptor.address.checked_add(8)?)?),
        begun: queue.begun,
    })
}

struct Descriptor {
    address: u64,
    flags: u16,
}

impl Descriptor {
    fn read(side: &Side<'_, '_>, at: u64) -> Option<Self> {
        Some(Self {
            address: u64::from_le_bytes(side.bytes(at)?),
            flags: u16::from_le_bytes(side.bytes(at.checked_add(12)?)?),
        })
    }
}
