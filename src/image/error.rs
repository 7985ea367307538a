// SPDX-License-Identifier: MIT OR Apache-2.0
//! What stands against sealing an origin, each with what to do about it.

use std::io;
use std::path::PathBuf;

use super::Origin;
use crate::base::error::{Classify, Exit};
use crate::config::types::Volume;
use crate::file::digest;
use crate::snapshot;
use crate::snapshot::holders::{self, Holder};
use crate::{dm, lvm2_cmd};

/// Why an origin was not sealed, unsealed or looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such group.
    #[error("there is no volume group {}: see `vgs`, and that its disks are there", .0.vg)]
    NoGroup(Volume),
    /// No such file.
    #[error("there is no {}: see that it is there, or make it (`ttvm image create`)", .0.display())]
    NoFile(PathBuf),
    /// No such volume.
    #[error("there is no volume {0}: see `lvs {vg}`", vg = .0.vg)]
    NoVolume(Volume),
    /// It has no device.
    #[error("{0} is not active, so its content cannot be read: activate it first (`lvchange -ay -K {0}`)")]
    NotActive(Volume),
    /// `/dev/VG/LV` leads elsewhere.
    #[error("{} leads to something else than that volume: somebody put it there; remove that path", .0.device())]
    ForeignPath(Volume),
    /// A guest's disk.
    #[error(
        "{volume} is a snapshot of guest \"{guest}\", made anew before each of its runs: seal its origin (`ttvm guest show {guest}`)"
    )]
    Snapshot {
        /// The volume.
        volume: Volume,
        /// The guest.
        guest: String,
    },
    /// A volume LVM uses itself.
    #[error(
        "{volume} is one of LVM's own ({kind}) and has no content of its own: seal the volumes that are made from it"
    )]
    Private {
        /// The volume.
        volume: Volume,
        /// Its segment type.
        kind: String,
    },
    /// Somebody can write to it, whatever its permissions say from now on.
    #[error(
        "{origin} is in use by {}, and could be written while it is sealed: end that use and try again",
        holders::list(holders)
    )]
    InUse {
        /// The origin.
        origin: Origin,
        /// Who, as far as it can be known.
        holders: Vec<Holder>,
    },
    /// Made writable or changed while it was read.
    #[error("{0} was changed while it was read, so it was not sealed: see that nobody works on it and try again")]
    Changed(Origin),
    /// Not an ordinary file.
    #[error(
        "{} is not a file that can be sealed: it is no regular file; a volume is written VG/LV", .0.display()
    )]
    NotAFile(PathBuf),
    /// Its content is not all in it.
    #[error("{} is not all of its image, which needs {what}: seal that one, or make it one file (`qemu-img convert`)", path.display())]
    Layered {
        /// The file.
        path: PathBuf,
        /// What else it needs.
        what: &'static str,
    },
    /// A file or a device cannot be worked on.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// The file or device.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// There is no digest of it.
    #[error("the content of {origin} was not read to its end")]
    Digest {
        /// The origin.
        origin: Origin,
        /// Why.
        #[source]
        source: digest::Error,
    },
    /// LVM itself failed.
    #[error(transparent)]
    Lvm(#[from] lvm2_cmd::Failure),
    /// The volume group is locked, or its lock cannot be used.
    #[error(transparent)]
    Lock(#[from] snapshot::Error),
    /// The kernel could not be asked.
    #[error(transparent)]
    DeviceMapper(#[from] dm::Error),
}

impl Error {
    /// For `map_err` of what is done to a file or a device.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Snapshot { .. }
            | Self::Private { .. }
            | Self::InUse { .. }
            | Self::NotAFile(_)
            | Self::Layered { .. }
            | Self::ForeignPath(_) => Exit::Refused,
            Self::Lock(error) => error.exit(),
            _ => Exit::Failed,
        }
    }
}
