// SPDX-License-Identifier: MIT OR Apache-2.0
//! What stands against reading or making an image, each with what to do about it on our command line.

use initrd::Place;

use crate::base::error::{Classify, Exit};
use crate::config::types::Size;

/// Why an image was not read, unpacked or made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is more in it than somebody expects.
    #[error(
        "{image}: {place}: there is more than {limit} in it; if that is right, say how much it may be: `--max-size`"
    )]
    TooLarge {
        /// The image.
        image: String,
        /// Where.
        place: Place,
        /// What was allowed.
        limit: Size,
    },
    /// The image to make is there.
    #[error("{0}; `--force` replaces it")]
    Exists(initrd::Error),
    /// The list says what each segment is compressed with.
    #[error("{0}: leave `--compression` out")]
    Settled(initrd::Error),
    /// Anything else, which says all there is to say.
    #[error(transparent)]
    Other(initrd::Error),
}

impl From<initrd::Error> for Error {
    fn from(error: initrd::Error) -> Self {
        match error {
            initrd::Error::TooLarge { image, place, limit } => Self::TooLarge {
                image,
                place,
                limit: Size::from_bytes(limit),
            },
            initrd::Error::Exists(_) => Self::Exists(error),
            initrd::Error::Settled(_) => Self::Settled(error),
            error => Self::Other(error),
        }
    }
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Exists(_) | Self::Other(initrd::Error::NotEmpty(_) | initrd::Error::Stray(_)) => Exit::Refused,
            Self::Settled(_) | Self::Other(initrd::Error::Level { .. }) => Exit::Usage,
            Self::TooLarge { .. } | Self::Other(_) => Exit::Failed,
        }
    }
}
