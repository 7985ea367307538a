// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest that QEMU emulates. Its machine is in [`crate::qemu`], its runs are in `recording`: what only runs a guest of Xen's
//! has neither in memory.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::config::types::GuestName;
use crate::guest::Error;

/// The program of the command line, which records, replays and emulates as well.
const TTVM: &str = "/usr/bin/ttvm";

/// The name it is started by in order to be the main process of a unit.
pub const RUNNER: &str = "ttvm-run";

/// Becomes the program that runs an emulated guest. Returns only if it cannot.
pub fn emulate(guest: &GuestName) -> Error {
    let source = Command::new(TTVM)
        .arg0(RUNNER)
        .args(["run", "--", guest.as_str()])
        .exec();
    Error::Program {
        path: TTVM.into(),
        source,
    }
}
