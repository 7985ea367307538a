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

pub mod branch;
pub mod checkpoints;
pub mod error;
pub mod explain;
pub mod library;
pub mod log;
pub mod pieces;
pub mod record;
pub mod replay;
pub mod session;
pub mod tt_xen;
pub mod unit;
pub mod watch;

pub use error::Error;
pub use library::draft::Draft;
pub use library::id::Id;
pub use library::stored::Recording;
pub use library::{Entry, Library, State};
pub use replay::verdict::{Divergence, Verdict};
