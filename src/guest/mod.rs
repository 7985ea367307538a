// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running guests: the file for xl or xm, the domain, its supervisor, and what is remembered of a run.

pub mod deviced;
pub mod domain;
mod error;
pub mod mode;
pub mod obstacles;
pub mod preparation;
pub mod record;
mod restarts;
pub mod supervisor;
pub mod tail;
mod tools;
pub mod unit;
pub mod watch;
mod xl;
pub mod xl_config;
pub mod xm;
pub mod xm_config;

pub use error::Error;

use std::path::{Path, PathBuf};

use crate::config::types::GuestName;
use crate::file;
use crate::lock::{self, Attempt};
use crate::root::under;

/// Where a guest's generated file for xl or xm, its preparation and its lock are while it runs.
const DIRECTORY: &str = "/run/ttvm";

/// The file for xl or xm of a guest that runs on the system in the tree that begins at `root`.
pub fn config_file(root: &Path, guest: &GuestName) -> PathBuf {
    under(root, Path::new(DIRECTORY)).join(format!("{guest}.cfg"))
}

/// Writes it, for root's eyes alone.
pub fn write_config(path: &Path, text: &str) -> Result<(), Error> {
    path.parent()
        .map_or(Ok(()), file::directory)
        .and_then(|()| file::replace(path, text.as_bytes(), 0o600))
        .map_err(|source| Error::Write {
            path: path.to_owned(),
            source,
        })
}

/// The lock of whoever builds a domain, or must not be disturbed by one. dom0 has one CPU: domains built side by side are
/// not up earlier, but each takes so long that xl gives up on its hotplug scripts (40 s, LIBXL_HOTPLUG_TIMEOUT in
/// libxl_internal.h).
pub fn building(root: &Path) -> Result<Attempt, Error> {
    // No guest's name begins with a dot: a guest "xl" has a lock of its own beside it.
    let path = under(root, Path::new(DIRECTORY)).join(".xl.lock");
    lock::take(&path).map_err(|source| Error::Write { path, source })
}

/// The guest's lock: its supervisor holds it as long as the run lasts, whoever changes its snapshots by hand as long as
/// that takes.
pub fn claim(guest: &GuestName) -> Result<Attempt, Error> {
    claim_below(Path::new(DIRECTORY), guest)
}

/// The same for a guest of an ordinary user, whose locks are in `directory`.
pub fn claim_below(directory: &Path, guest: &GuestName) -> Result<Attempt, Error> {
    let path = directory.join(format!("{guest}.lock"));
    lock::take(&path).map_err(|source| Error::Write { path, source })
}
