// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every room uses and what knows nothing of guests: exit codes, the journal, systemd, signals, text, time.

pub mod catalogue;
pub mod clock;
pub mod error;
pub mod fail_point;
pub mod log;
pub mod notify;
pub mod progress;
pub mod root;
pub mod signals;
pub mod text;
pub(crate) mod version;
