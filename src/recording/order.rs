// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the next start of `ttvm-record@NAME` or `ttvm-replay@NAME` is to do: `systemctl start` takes no arguments. Without an
//! order, a whole run is recorded, and the newest recording replayed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::types::GuestName;
use crate::file;

/// An order, used once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The recording to replay.
    pub recording: Option<String>,
    /// When to end the recorded run.
    pub limit: Option<Duration>,
    /// Whether to serve a debugger.
    pub gdb: bool,
    /// Whether to wait for it.
    pub paused: bool,
}

fn path(guest: &GuestName) -> PathBuf {
    PathBuf::from(format!("/run/ttvm/{guest}.order"))
}

/// Where the debugger of a replay by the unit connects.
pub fn socket(guest: &GuestName) -> PathBuf {
    PathBuf::from(format!("/run/ttvm/gdb/{guest}.gdb"))
}

impl Order {
    /// Leaves it for the unit.
    pub fn give(&self, guest: &GuestName) -> io::Result<()> {
        file::directory(Path::new("/run/ttvm"))?;
        file::replace(&path(guest), &serde_json::to_vec(self)?, 0o600)
    }

    /// Takes the one that was left.
    pub fn take(guest: &GuestName) -> Self {
        let text = fs::read(path(guest));
        Self::forget(guest);
        text.ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    /// Takes back what was left, for a unit that did not start.
    pub fn forget(guest: &GuestName) {
        drop(fs::remove_file(path(guest)));
    }
}
