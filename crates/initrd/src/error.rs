// SPDX-License-Identifier: MIT OR Apache-2.0
//! What stands against reading or making an image.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::compression::Compression;

/// Where in an image something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The segment, counted from 1; 0 before the first.
    pub segment: usize,
    /// What it is compressed with.
    pub compression: Compression,
    /// Where in the image the segment begins, or where what is wrong is if it is in no segment.
    pub offset: u64,
    /// The entry of the archive, escaped.
    pub entry: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.segment, self.compression) {
            (0, _) => write!(f, "byte {}", self.offset)?,
            (segment, Compression::None) => write!(f, "segment {segment} (not compressed, at byte {})", self.offset)?,
            (segment, compression) => write!(f, "segment {segment} ({compression}, at byte {})", self.offset)?,
        }
        match &self.entry {
            Some(entry) => write!(f, ", entry \"{entry}\""),
            None => Ok(()),
        }
    }
}

/// Why an image was not read, unpacked or made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory cannot be worked on.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The image is damaged, or nothing that Linux would take.
    #[error("{image}: {place}: {why}")]
    Wrong {
        /// The image.
        image: String,
        /// Where.
        place: Place,
        /// What.
        why: String,
    },
    /// There is nothing in the image.
    #[error("{0}: there is no archive in it, so it is no initial RAM disk")]
    Nothing(String),
    /// There is more in it than somebody expects.
    #[error("{image}: {place}: there is more than {limit} bytes in it")]
    TooLarge {
        /// The image.
        image: String,
        /// Where.
        place: Place,
        /// The bytes that were allowed.
        limit: u64,
    },
    /// There is more of something in it than anybody makes.
    #[error(
        "{image}: {place}: there are more than {limit} in it, which is taken for an attack; if you trust who made it, decompress its segments one by one, and unpack each with cpio(1)"
    )]
    TooMany {
        /// The image.
        image: String,
        /// Where.
        place: Place,
        /// What is allowed.
        limit: &'static str,
    },
    /// The directory to unpack to has something in it.
    #[error("{} is there already, and is not an empty directory: name one that is not there, or remove it", .0.display())]
    NotEmpty(PathBuf),
    /// The image to make is there.
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// Not what can be worked on.
    #[error("{} is not {wanted}", path.display())]
    NotA {
        /// The path.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
    },
    /// The list beside the unpacked files cannot be used.
    #[error("{}:{line}: {why}; unpack the image again, or remove this file to pack {} as one archive", path.display(), path.parent().unwrap_or(path).display())]
    Manifest {
        /// The list.
        path: PathBuf,
        /// The line.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// Something that would be in no segment.
    #[error(
        "{} belongs to no segment: move it into one of the directories beside it, which are the segments",
        .0.display()
    )]
    Stray(PathBuf),
    /// The list says what each segment is compressed with.
    #[error("{} was unpacked from an image, and each of its segments stays compressed as it was", .0.display())]
    Settled(PathBuf),
    /// The compression has no such level.
    #[error("{compression} has no level {level}: {}", levels(*compression))]
    Level {
        /// The compression.
        compression: Compression,
        /// What was asked for.
        level: i32,
    },
    /// A file that an archive cannot have.
    #[error("{}: {why}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// Somebody changes the files.
    #[error("{} was changed while it was read: see that nobody works on it and try again", .0.display())]
    Changed(PathBuf),
    /// The caller, or a signal, called it off.
    #[error("interrupted")]
    Interrupted,
}

fn levels(compression: Compression) -> String {
    match compression.levels() {
        Some(levels) => format!("it has {} to {}", levels.start(), levels.end()),
        None => "it has but one".to_owned(),
    }
}

impl Error {
    /// For `map_err` of what is done to a file or a directory.
    pub(super) fn io<E: Into<io::Error>>(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source: source.into(),
        }
    }
}
