// SPDX-License-Identifier: MIT OR Apache-2.0
//! When something happened: the time, and in which boot of the host.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

/// The id of this boot of the host (random(4)); empty where the kernel does not say.
pub fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}
