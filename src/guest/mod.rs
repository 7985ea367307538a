// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running guests: the xl file, the domain, its supervisor, and what is remembered of a run.

pub mod domain;
mod error;
pub mod preparation;
pub mod record;
pub mod supervisor;
mod xl;
pub mod xl_config;

pub use error::Error;

use std::path::Path;

use crate::config::types::GuestName;
use crate::lock::{self, Attempt};

/// Where a guest's generated xl file, its preparation and its lock are while it runs.
const DIRECTORY: &str = "/run/ttvm";

/// The guest's lock: its supervisor holds it as long as the run lasts, whoever changes its snapshots by hand as long as
/// that takes.
pub fn claim(guest: &GuestName) -> Result<Attempt, Error> {
    let path = Path::new(DIRECTORY).join(format!("{guest}.lock"));
    lock::take(&path).map_err(|source| Error::Write { path, source })
}
