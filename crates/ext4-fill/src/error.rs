// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a file system was not filled.

use std::io;

/// Why a file system was not filled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file or device that it is on.
    #[error("cannot {action} the file system")]
    Io {
        /// `read`, `write`.
        action: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// It is not what [`mke2fs_arguments`](crate::mke2fs_arguments) make.
    #[error("this is no fresh file system of a kind that can be filled: {0}")]
    Unfit(&'static str),
    /// No block or inode is left.
    #[error("the file system is full: it has no {0} left")]
    Full(&'static str),
    /// A file has more attributes than the file system can hold.
    #[error("its attributes take more than {} bytes", super::BLOCK)]
    Attributes,
    /// A file has more names than the file system can count.
    #[error("it has more than {0} names")]
    Links(u32),
    /// A symbolic link leads to what is no name.
    #[error("what it leads to is no name: it is empty, too long, or has a zero in it")]
    Target,
    /// A file is larger than the file system can map.
    #[error("it is larger than a file can be there")]
    TooLarge,
}

impl Error {
    /// For `map_err` of what is done to the file or device.
    pub(super) fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}
