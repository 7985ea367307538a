// SPDX-License-Identifier: MIT OR Apache-2.0
//! Recordings: what a record run leaves, so that it can be replayed and the replay can be proved to be the same run.
//!
//! ```text
//! STATE/recordings/GUEST/ID/
//!     manifest.toml   what ran, on what, how it ended (manifest, sealed)
//!     guest.toml      the guest's file, as used
//!     replay.log      the toolstack's log
//!     ttd.log         the same file, by the name that TT Xen's ttd-deviced gives it (tt_xen)
//!     console.log     what the guest printed
//!     kernel, initrd  of a recording that came from another host (import)
//!     checkpoints/    the whole machine at some moments (checkpoints)
//!     lock            held by whoever records (draft), replays (stored) or removes (removal)
//!     keeping         held by the replay that leaves checkpoints and a trail (stored)
//!     branch.log      QEMU's log of a branch that is being made; branch.json where it is left (branch_log)
//!     incomplete      why there is no more of it (draft)
//!     replay.json     what the newest replay came to (verdict)
//!     trail.json      what the machine was like at many moments, as its first replay found it (trail)
//!     executed        what its run executed, and since when (ask)
//!     pinned          it is not removed (library)
//!     capsule         which engine came with it (capsules)
//! STATE/bases/DIGEST.img   what disks were made from, of recordings that came from another host
//! STATE/engines/DIGEST/    engines that came with recordings from another host
//! ```
//!
//! A manifest without a result is the mark of a recording that did not come to its end: it is there from the first moment,
//! and replaced in one step when everything else is on the disk. What QEMU recorded up to then can be salvaged.

pub mod activity;
mod archive;
pub mod ask;
pub mod branch;
mod branch_log;
mod capsules;
pub mod check;
pub mod checkpoints;
mod compare;
pub mod console;
pub mod debugger;
mod difference;
pub mod disks;
pub mod draft;
pub mod error;
pub mod explain;
pub mod export;
pub mod id;
pub mod import;
mod joined;
pub mod library;
pub mod limit;
mod live;
mod log;
pub mod manifest;
pub mod moment;
pub mod order;
pub mod pieces;
pub mod plain;
pub mod point;
pub mod record;
pub mod removal;
pub mod replay;
mod rerun;
pub mod salvage;
mod scratch;
pub mod sealed;
pub mod service;
pub mod session;
mod setup;
mod start;
mod stillness;
pub mod stored;
pub mod symbols;
pub mod trace;
mod trail;
pub mod tries;
pub mod tt_xen;
pub mod verdict;
mod virtio;
pub mod watch;
#[cfg(test)]
mod written;

pub use draft::Draft;
pub use error::Error;
pub use id::Id;
pub use library::{Entry, Library, State};
pub use stored::Recording;
pub use verdict::{Divergence, Verdict};
