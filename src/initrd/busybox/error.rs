// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why there is no RAM-based guest, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use super::DEFAULT;
use crate::base::error::{Classify, Exit};
use crate::initrd::modules;
use crate::run;

/// Which packages have what is needed.
const PACKAGES: &str = "`apt-get install busybox-static`, or `dnf install busybox`";

/// Why no image was made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's modules cannot be had.
    #[error(transparent)]
    Modules(#[from] modules::Error),
    /// There is none.
    #[error("there is no busybox in {}: {PACKAGES}", .0.display())]
    NoBusybox(PathBuf),
    /// It needs libraries.
    #[error("{} needs libraries, which are not in the guest: {PACKAGES} for one that does not", .0.display())]
    DynamicBusybox(PathBuf),
    /// It is something else.
    #[error("{} is no program for 64-bit PCs: {PACKAGES}", .0.display())]
    ForeignBusybox(PathBuf),
    /// It can too little.
    #[error("{} lacks {}, which the guest needs: {PACKAGES}", path.display(), lacks.join(", "))]
    SmallBusybox {
        /// The program.
        path: PathBuf,
        /// The applets that are not in it.
        lacks: Vec<&'static str>,
    },
    /// It cannot be asked what it can.
    #[error("busybox cannot be asked for its applets")]
    Applets(#[from] run::Error),
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// `crypt` gave up.
    #[error("the hash of the password cannot be made: try another password")]
    Hash,
    /// Not what was made here.
    #[error(
        "{} was not made by `ttvm initrd busybox`, or somebody has changed it since, so it is not replaced: choose another file with -o, or say --force",
        .0.display()
    )]
    Foreign(PathBuf),
    /// A directory, a device, a link.
    #[error("{} is no ordinary file: choose another one with -o", .0.display())]
    NotAFile(PathBuf),
    /// It cannot be written.
    #[error("cannot write {}: {}", path.display(), remedy(path, source))]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The image cannot be put together in memory.
    #[error("the image cannot be put together: a file for it is too large")]
    Pack(#[source] io::Error),
    /// The caller called it off.
    #[error("it was interrupted; nothing was written")]
    Interrupted,
}

fn remedy(path: &Path, source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied if path.ends_with(&DEFAULT[1..]) => {
            "only root may; choose another file with -o"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room, or choose another file with -o",
        _ => "choose another file with -o",
    }
}

impl Error {
    pub(super) fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Unreadable { path, source }
    }

    pub(super) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Write { path, source }
    }
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Foreign(_) | Self::NotAFile(_) => Exit::Refused,
            _ => Exit::Failed,
        }
    }
}
