// SPDX-License-Identifier: MIT OR Apache-2.0
//! The umask, of which there is one for all threads.

use std::fs;

/// The permissions that new files do not get; all if nobody says, and then each file gets its own.
pub(super) fn umask() -> u32 {
    // umask(2) can only tell it by changing it, for all threads.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let umask = umask.and_then(|umask| u32::from_str_radix(umask.trim(), 8).ok());
    umask.unwrap_or(0o777)
}
