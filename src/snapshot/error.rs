// SPDX-License-Identifier: MIT OR Apache-2.0
//! What stands against a snapshot, each with what to do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::holders::Holder;
use crate::base::error::{Classify, Exit};
use crate::config::types::{GuestName, LvmName, Size, Volume};
use crate::{dm, lvm2_cmd};

/// Why a snapshot was not reset or discarded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A volume of the snapshot's name that ttvm cannot prove to be its own.
    #[error("{volume} was left alone: {why}")]
    Refused {
        /// The volume.
        volume: Volume,
        /// The proof that failed, with the remedy.
        why: Box<Refusal>,
    },
    /// Somebody has it open.
    #[error("{volume} is in use by {}; it was left alone after {} s: end that use and try again", super::holders::list(holders), waited.as_secs())]
    InUse {
        /// The volume.
        volume: Volume,
        /// Who, as far as it can be known.
        holders: Vec<Holder>,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Another ttvm program works on the group.
    #[error("another ttvm program has been working on volume group {vg} for over {} s (it holds {}): see `ps -ef | grep ttvm`", waited.as_secs(), lock.display())]
    Locked {
        /// The volume group.
        vg: LvmName,
        /// The lock file.
        lock: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The lock file cannot be used.
    #[error("cannot lock volume group {vg} with {}", lock.display())]
    Lock {
        /// The volume group.
        vg: LvmName,
        /// The lock file.
        lock: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// No such group.
    #[error(
        "there is no volume group {vg}: check \"origin\" in the guest's file against `vgs`, and that its disks are there"
    )]
    NoGroup {
        /// The volume group.
        vg: LvmName,
    },
    /// A group that other hosts use at the same time.
    #[error(
        "volume group {vg} is shared with other hosts (lock type {lock_type}): ttvm only works on local groups; make one with `vgcreate` for its guests"
    )]
    Shared {
        /// The volume group.
        vg: LvmName,
        /// `dlm` or `sanlock`.
        lock_type: String,
    },
    /// No such origin.
    #[error("there is no origin {origin}: create it (`lvcreate -n {} -L SIZE {}`) or correct \"origin\" in the guest's file", origin.lv, origin.vg)]
    NoOrigin {
        /// The origin.
        origin: Volume,
    },
    /// A thick origin, and no size in the guest's file.
    #[error(
        "{origin} is a thick volume, so its snapshot needs a size: snapshot = {{ size = \"1G\" }} in /etc/ttvm/guests/{guest}.toml"
    )]
    NoSize {
        /// The origin.
        origin: Volume,
        /// The guest.
        guest: GuestName,
    },
    /// The group is too full for the snapshot.
    #[error("volume group {} has {} free, and the snapshot {volume} needs {need}: make it smaller, or give the group room (`vgextend`, `lvremove`)", volume.vg, Size::from_bytes(*free))]
    NoSpace {
        /// The snapshot.
        volume: Volume,
        /// What it needs.
        need: Size,
        /// Bytes free.
        free: u64,
    },
    /// The thin pool is too full.
    #[error(
        "the thin pool of {origin} is {percent} % full ({what}), over the limit of {limit} %: extend it (`lvextend`), remove thin volumes, or raise thin_pool_limit in ttvm.toml"
    )]
    PoolFull {
        /// The origin.
        origin: Volume,
        /// `data` or `metadata`.
        what: &'static str,
        /// How full.
        percent: u8,
        /// The limit.
        limit: u8,
    },
    /// The thin pool takes no more writes.
    #[error("the thin pool of {origin} is out of space, read-only or failed: see `lvs -a {}` and repair or extend it", origin.vg)]
    PoolBroken {
        /// The origin.
        origin: Volume,
    },
    /// LVM reported success, but the device is not what it should be.
    #[error("LVM made {volume}, but {} is not that volume's device: check udev (`udevadm info {}`)", volume.device(), volume.device())]
    NotThere {
        /// The snapshot.
        volume: Volume,
    },
    /// LVM itself failed.
    #[error(transparent)]
    Lvm(#[from] lvm2_cmd::Failure),
    /// The kernel could not be asked.
    #[error(transparent)]
    DeviceMapper(#[from] dm::Error),
}

/// The proof that failed: why a volume cannot be removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A snapshot of the right origin, but without our tag.
    #[error("it is a foreign snapshot of {origin}, without the tag of guest \"{guest}\"; to hand it over to ttvm, which then removes it: lvchange --addtag ttvm.guest={guest} --addtag ttvm.origin={origin} {vg}/{lv}", vg = volume.vg, lv = volume.lv)]
    ForeignSnapshot {
        /// The volume.
        volume: Volume,
        /// Its origin.
        origin: LvmName,
        /// Who wants it.
        guest: GuestName,
    },
    /// Something else without our tag.
    #[error("it is a foreign volume ({kind}), not made by ttvm; give the snapshot another name in the guest's file, or, if its content is not needed, rename it out of the way: lvrename {vg} {lv} {lv}.old", vg = volume.vg, lv = volume.lv)]
    ForeignVolume {
        /// The volume.
        volume: Volume,
        /// Its segment type.
        kind: String,
    },
    /// It carries another guest's tag.
    #[error("it belongs to guest \"{0}\"; give the snapshots of the two guests different names")]
    OtherGuest(String),
    /// Tagged as ours, but of another origin.
    #[error(
        "it is a snapshot of {found}, and the guest's file says {wanted}; if it is not needed any more: lvremove {volume}"
    )]
    OtherOrigin {
        /// The volume.
        volume: Volume,
        /// Its origin.
        found: String,
        /// The configured origin.
        wanted: LvmName,
    },
    /// Snapshots hang on it; removing it would remove them.
    #[error("it is itself the origin of other snapshots, which would be lost with it; remove those first")]
    IsOrigin,
    /// Tagged as ours, but an ordinary volume that no interrupted start left.
    #[error(
        "it is an ordinary volume, not a snapshot of {0}; rename it out of the way, or remove it yourself if its content is not needed"
    )]
    NotASnapshot(LvmName),
    /// `/dev/VG/LV` leads elsewhere.
    #[error("{path} leads to something else than that volume; somebody put it there: remove that path")]
    ForeignPath {
        /// The path.
        path: String,
    },
    /// A device-mapper device of that name that is not LVM's.
    #[error("the device-mapper device {0} has its name, but is not a logical volume: see `dmsetup info {0}`")]
    NotLvm(String),
}

impl Error {
    /// Whether it may be over in a while without anybody doing something: others use the group's lock, or a program looks at the
    /// volume (udev's, blkid). A mount, another device or a domain stays.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Locked { .. } => true,
            Self::InUse { holders, .. } => holders.iter().all(|holder| matches!(holder, Holder::Process { .. })),
            _ => false,
        }
    }
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Refused { .. }
            | Self::InUse { .. }
            | Self::Locked { .. }
            | Self::Shared { .. }
            | Self::PoolFull { .. }
            | Self::PoolBroken { .. } => Exit::Refused,
            Self::NoSize { .. } => Exit::Config,
            _ => Exit::Failed,
        }
    }
}
