// SPDX-License-Identifier: MIT OR Apache-2.0
//! One ttvm program at a time works on a volume group: LVM's own lock lasts for one command, and a reset is two.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use super::error::Error;
use crate::config::types::LvmName;

const DIRECTORY: &str = "/run/lock/ttvm";

/// The lock of one group, let go when dropped (also by the kernel, when the process dies).
#[derive(Debug)]
pub(super) struct VgLock {
    _file: File,
}

/// Takes the lock of `vg`; waits for at most `limit`.
pub(super) fn lock(vg: &LvmName, limit: Duration) -> Result<VgLock, Error> {
    let path = Path::new(DIRECTORY).join(format!("{vg}.lock"));
    let failed = |source| Error::Lock {
        vg: vg.clone(),
        lock: path.clone(),
        source,
    };
    fs::create_dir_all(DIRECTORY).map_err(failed)?;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        // /run/lock is writable for everybody on Debian; the directory below it is root's, and stays so.
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => return Ok(VgLock { _file: file }),
        Err(fs::TryLockError::Error(source)) => return Err(failed(source)),
        Err(fs::TryLockError::WouldBlock) => {
            tracing::info!(ttvm_vg = %vg, "waiting for another ttvm program to finish with volume group {vg}");
        }
    }
    match wait(file, limit) {
        Some(result) => result.map_err(failed),
        None => Err(Error::Locked {
            vg: vg.clone(),
            lock: PathBuf::from(&path),
            waited: limit,
        }),
    }
}

/// A lock can be waited for without a deadline or not at all; so a thread waits, and we wait for the thread.
fn wait(file: File, limit: Duration) -> Option<std::io::Result<VgLock>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let result = file.lock().map(|()| VgLock { _file: file });
        // Nobody may be listening any more: then the lock is dropped with the message.
        drop(sender.send(result));
    });
    receiver.recv_timeout(limit).ok()
}
