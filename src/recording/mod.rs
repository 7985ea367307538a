// SPDX-License-Identifier: MIT OR Apache-2.0
//! Recordings: what a record run leaves, so that it can be replayed and the replay can be proved to be the same run.
//!
//! ```text
//! STATE/recordings/GUEST/ID/
//!     manifest.toml   what ran, on what, how it ended (manifest)
//!     guest.toml      the guest's file, as used
//!     replay.log      the toolstack's log
//!     console.log     what the guest printed
//! ```

pub mod manifest;
