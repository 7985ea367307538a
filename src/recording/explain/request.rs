// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a machine that is compared asks its disks for.

use std::fmt;

use super::side::Side;
use crate::qemu::qmp::Queue;
use crate::recording::session::Error;
use crate::recording::watch::virtio::{self, Action};

/// A request of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    disk: String,
    action: Action,
    sector: u64,
    /// How many of that disk had begun with it, in 16 bits.
    begun: u16,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.action {
            Action::Read => write!(f, "disk {} is to read sector {}", self.disk, self.sector),
            Action::Write => write!(f, "disk {} is to write sector {}", self.disk, self.sector),
            Action::Zeros => write!(f, "disk {} is to make zeros from sector {} on", self.disk, self.sector),
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
            found.extend(read(side, disk, &queue));
        }
    }
    Ok((found, all))
}

/// `None` if the queue is not as the specification has it: it is the guest's.
fn read(side: &Side<'_, '_>, disk: String, queue: &Queue) -> Option<Request> {
    let found = virtio::Request::read(side.memory(), queue, queue.begun.wrapping_sub(1))?;
    Some(Request {
        disk,
        action: found.action,
        sector: found.sector,
        begun: queue.begun,
    })
}
