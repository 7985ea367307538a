// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running guests: the xl file, the domain, its supervisor, and what is remembered of a run.

pub mod domain;
mod error;
pub mod record;
pub mod supervisor;
pub mod token;
mod xl;
pub mod xl_config;

pub use error::Error;

/// Where a guest's generated xl file and its token are while it runs.
const DIRECTORY: &str = "/run/ttvm";
