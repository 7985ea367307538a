// SPDX-License-Identifier: MIT OR Apache-2.0
//! The manifest of a recording: everything that has to be the same for a replay, and everything a replay is compared with.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::id::Id;
use crate::config::guest::{Origin, Toolstack};
use crate::config::types::{GuestName, Mac, Target};
use crate::file::digest::Digest;
use crate::recording::replay::moment::Moment;

/// The version of the format that is written. Since 2, the guest's time of day is that of its instructions, its machine can be
/// saved and loaded at any moment, and firmware and moments are in it.
pub const FORMAT: u32 = 2;

/// The oldest one that is read.
pub const OLDEST: u32 = 1;

/// `manifest.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// From [`OLDEST`] to [`FORMAT`].
    pub format: u32,
    /// The guest that was recorded.
    pub guest: GuestName,
    /// The run.
    pub run: Run,
    /// What ran it.
    pub engine: Engine,
    /// The guest's file, as used.
    pub guest_file: FileDigest,
    /// Its kernel; none if it booted from its disk.
    pub kernel: Option<FileDigest>,
    /// Its initial RAM disk.
    pub initrd: Option<FileDigest>,
    /// Its disks, in the order of the guest's file.
    #[serde(default, rename = "disk")]
    pub disks: Vec<DiskDigest>,
    /// Its network interfaces.
    #[serde(default, rename = "vif")]
    pub vifs: Vec<Interface>,
    /// The recording that it is a branch of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// What it left; only of a run that came to its end.
    pub result: Option<Outcome>,
}

/// The run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The ttvm that recorded it.
    pub ttvm: String,
    /// When it began, in seconds since 1970.
    pub started: u64,
    /// The boot of the host it began in (/proc/sys/kernel/random/boot_id).
    pub boot: String,
    /// How the guest's network was connected: `user`, `nat`, `bridge` or `none`.
    pub network: String,
}

/// What ran the guest. A replay needs the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    /// The toolstack.
    pub toolstack: Toolstack,
    /// The engine's own version, as it says it: `7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b2)`.
    pub version: String,
    /// The versioned machine type.
    pub machine: String,
    /// The processor's model.
    pub cpu: String,
    /// The setting of the guest's clock (QEMU's `-icount shift=`).
    pub icount: String,
    /// The guest's time of day at its first instruction, in seconds since 1970; it goes on with the instructions. In format 1
    /// it is the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<u64>,
    /// Memory in bytes.
    pub memory: u64,
    /// The kernel's command line.
    pub cmdline: Option<String>,
    /// Whether the guest's own reset ended the run.
    pub reset_ends: bool,
    /// Whether the machine had a HPET: those of today have none.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub hpet: bool,
    /// The digest of the generated configuration: of the engine's command line, without what differs between record and replay.
    pub config: Digest,
    /// What the engine's machine begins with, of its own: the BIOS, and what loads the kernel. Not known in format 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub firmware: Vec<FileDigest>,
}

/// A file as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    /// Where it was.
    pub path: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// Its content.
    pub digest: Digest,
}

/// A disk as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskDigest {
    /// Its name in the guest.
    pub target: Target,
    /// What it was made from.
    pub origin: Origin,
    /// Its bytes.
    pub size: u64,
    /// The origin's content, which is the disk's at the start.
    pub digest: Digest,
    /// Whether the origin was sealed.
    pub sealed: bool,
    /// Whether the guest may write to it.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub writable: bool,
    /// The disk's content at the end of the run.
    pub end: Option<Digest>,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its address.
    pub mac: Mac,
}

/// The recording that a run has left, to go another way. Up to there it is the same run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The guest.
    pub guest: GuestName,
    /// The recording's name.
    pub id: Id,
    /// After so many instructions.
    pub instructions: u64,
}

/// How the run ended and what it left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// When it ended, in seconds since 1970.
    pub ended: u64,
    /// Why it ended.
    pub exit: RunExit,
    /// Instructions the guest had executed when it ended; none where nobody counts them. In format 1 some thousand more may be
    /// counted.
    pub instructions: Option<u64>,
    /// Whether `console.log` has all that was printed up to the end; of a run that was cut off some may be lost.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub console_complete: bool,
    /// `replay.log`.
    pub log: FileDigest,
    /// `console.log`.
    pub console: FileDigest,
    /// What the machine was like at a few moments.
    #[serde(default, rename = "moment", skip_serializing_if = "Vec::is_empty")]
    pub moments: Vec<Moment>,
}

impl Outcome {
    /// Whether the recording was salvaged.
    pub fn is_cut(&self) -> bool {
        self.exit == RunExit::Cut
    }
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_yes(value: &bool) -> bool {
    *value
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunExit {
    /// The guest powered itself off.
    PoweredOff,
    /// It reset itself, and its file says that this ends the run.
    Rebooted,
    /// It was told to stop.
    Stopped,
    /// Its kernel crashed; only of TT Xen: an emulated machine goes on.
    Panicked,
    /// It ended, and nobody says why.
    Ended,
    /// It ends before the guest did: what recorded it was killed, or the host lost power, and the recording was salvaged; a
    /// disk failed on the host; or it was to end at this instruction. Nobody knows what was on the disks.
    Cut,
}

impl fmt::Display for RunExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PoweredOff => "powered itself off",
            Self::Rebooted => "rebooted",
            Self::Stopped => "stopped",
            Self::Panicked => "crashed",
            Self::Ended => "ended",
            Self::Cut => "was cut off",
        })
    }
}
