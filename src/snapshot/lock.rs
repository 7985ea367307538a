// SPDX-License-Identifier: MIT OR Apache-2.0
//! One ttvm program at a time works on a volume group: LVM's own lock lasts for one command, and a reset is two.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::error::Error;
use crate::config::types::LvmName;
use crate::lock::{Attempt, Lock, take};

const DIRECTORY: &str = "/run/lock/ttvm";

/// Takes the lock of `vg`; waits for at most `limit`.
pub fn lock(vg: &LvmName, limit: Duration) -> Result<Lock, Error> {
    let path = Path::new(DIRECTORY).join(format!("{vg}.lock"));
    let failed = |source| Error::Lock {
        vg: vg.clone(),
        lock: path.clone(),
        source,
    };
    let waiting = match take(&path).map_err(failed)? {
        Attempt::Taken(lock) => return Ok(lock),
        Attempt::Busy(waiting) => waiting,
    };
    tracing::info!(ttvm_vg = %vg, "waiting for another ttvm program to finish with volume group {vg}");
    let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    let ready = poll(&mut [PollFd::new(waiting.as_fd(), PollFlags::POLLIN)], timeout);
    if ready.map_err(|errno| failed(errno.into()))? == 0 {
        return Err(Error::Locked {
            vg: vg.clone(),
            lock: path,
            waited: limit,
        });
    }
    waiting.take().map_err(failed)
}
