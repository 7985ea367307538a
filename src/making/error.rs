// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why there is no guest, and what to do about it.

use std::io;
use std::path::PathBuf;

use crate::base::error::{Classify, Exit};
use crate::config;
use crate::config::guest::Origin;
use crate::image::create;
use crate::initrd::{busybox, kernel};

/// Why no guest was made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is one of that name.
    #[error("{} exists, and is not replaced: choose another name, or remove it", path.display())]
    Exists {
        /// The guest's file.
        path: PathBuf,
    },
    /// A file has been changed that is known by its content.
    #[error("{} is not what its name says any more: somebody has changed it. Remove it, and try again; recordings that were made with it cannot be replayed", .0.display())]
    Changed(PathBuf),
    /// A file cannot be written.
    #[error("cannot write {}: make room, or see that you may write there; nothing is left of the guest", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Its volume is made, and the rest is not.
    #[error("{origin} is made, but the guest is not: remove that volume, and try again")]
    OnlyVolume {
        /// The volume.
        origin: Origin,
        /// Why.
        #[source]
        source: Box<Error>,
    },
    /// There is nothing in the source for it to boot.
    #[error(transparent)]
    NoBoots(#[from] create::NoBoots),
    /// There is no image for it.
    #[error(transparent)]
    Image(#[from] create::Error),
    /// There is no kernel for it.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// There is no initial RAM disk for it.
    #[error(transparent)]
    Busybox(#[from] busybox::Error),
    /// It would not be taken.
    #[error(transparent)]
    Config(#[from] config::Error),
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Exists { .. } | Self::Changed(_) => Exit::Refused,
            Self::Write { .. } => Exit::Failed,
            Self::OnlyVolume { source, .. } => source.exit(),
            Self::NoBoots(create::NoBoots::Source(error)) | Self::Image(error) => error.exit(),
            Self::NoBoots(_) => Exit::Failed,
            Self::Kernel(error) => error.exit(),
            Self::Busybox(error) => error.exit(),
            Self::Config(error) => error.exit(),
        }
    }
}
