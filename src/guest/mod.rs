// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running guests: the xl file, the domain, its supervisor, and what is remembered of a run.

pub mod domain;
mod error;
pub mod record;
pub mod supervisor;
mod xl;
pub mod xl_config;

pub use error::Error;
