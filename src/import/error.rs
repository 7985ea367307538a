// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a file could not be made a guest.

use std::io;
use std::path::PathBuf;

use super::text::Place;
use crate::base::error::{Classify, Exit};
use crate::config;
use crate::config::types::Invalid;

/// A mistake that leaves nothing of the file to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where.
    pub place: Place,
    /// What is wrong there.
    pub why: String,
}

/// Why a file could not be made a guest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file, or the guest's.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was to be done.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// More than anybody writes.
    #[error("{} is larger than {} KB, and no guest's file of xm or xl: nothing was read of it", path.display(), super::LIMIT >> 10)]
    Large {
        /// The file.
        path: PathBuf,
    },
    /// It is not written in the language of xm or xl.
    #[error("{}:{}:{}: {}; so {program} read this file, and nothing was made of it", path.display(), mistake.place.line, mistake.place.column, crate::base::text::line(&mistake.why))]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        mistake: Mistake,
        /// Which program would not, as the message has it.
        program: &'static str,
    },
    /// It is another program's.
    #[error("{} is {what}, which neither xl nor xm reads: {remedy}", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// What makes a file of xl of it.
        remedy: &'static str,
    },
    /// xl would not read it, and it is no file of xm's either.
    #[error("{}:{}:{}: {}; so xl would not read this file, and \"{key}\" in line {line} means nothing to xm: mend that, or say --dialect xm; nothing was made of it", path.display(), mistake.place.line, mistake.place.column, crate::base::text::line(&mistake.why))]
    ForXl {
        /// The file.
        path: PathBuf,
        /// What is wrong for xl.
        mistake: Mistake,
        /// What is for xl alone.
        key: String,
        /// The line of that.
        line: usize,
    },
    /// The guest has no name.
    #[error("{} names no guest: say --name NAME", path.display())]
    Nameless {
        /// The file.
        path: PathBuf,
    },
    /// The guest's name is what a line makes it that cannot be followed.
    #[error("{}:{line}: what the guest's name is cannot be followed: say --name NAME", path.display())]
    UnknownName {
        /// The file.
        path: PathBuf,
        /// The line that sets it, or may.
        line: usize,
    },
    /// The guest cannot have that name.
    #[error("{}:{line}: the guest cannot keep its name: say --name NAME", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// The line that names it.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: Invalid,
    },
    /// `--origin` for a disk that the file does not have.
    #[error("--origin {target}=…: {} has no disk of that name that could be carried over; there is {there}", path.display())]
    NoSuchDisk {
        /// The file.
        path: PathBuf,
        /// The disk that was named.
        target: String,
        /// Those that are there.
        there: String,
    },
    /// It says twice what the guest is, and differently.
    #[error("{}:{line}: type says what the guest is, and builder in line {builder} something else: xl would not take this file; remove one of the two", path.display())]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// The line of `type`.
        line: usize,
        /// The line of `builder`.
        builder: usize,
    },
    /// More disks or interfaces than any guest has.
    #[error("{}:{line}: {key} has more than {most} entries, which no guest has: nothing was made of it; take out what is not needed", path.display())]
    TooMany {
        /// The file.
        path: PathBuf,
        /// The line of the list.
        line: usize,
        /// Which list.
        key: String,
        /// How many are taken.
        most: usize,
    },
    /// Hardly anything of it could be carried over.
    #[error("{count} things in {} could not be carried over, so that nothing was made of it: is it a guest's file?", path.display())]
    TooMuch {
        /// The file.
        path: PathBuf,
        /// How many notes there would be.
        count: usize,
    },
    /// Two origins for one disk.
    #[error("--origin {target}=… says twice what the disk {target} is made from: say it once")]
    TwoOrigins {
        /// The disk's name in the file.
        target: String,
    },
    /// The toolstack has no guests of this kind.
    #[error("{}:{line}: toolstack \"xm\" is for paravirtual guests, which TT Xen records and replays: say --toolstack xl", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// The line that says what it is.
        line: usize,
    },
    /// There is such a guest.
    #[error("{} exists, and is not replaced: choose another name (--name NAME), or look at what it would be (--dry-run)", path.display())]
    Exists {
        /// Its file.
        path: PathBuf,
    },
    /// The result does not go with the host's other guests, or is none.
    #[error("the guest that {} describes cannot be taken as it is; nothing was written (--dry-run prints it, for you to change)", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What the configuration says of it.
        #[source]
        source: config::Error,
    },
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::File { .. } => Exit::Failed,
            Self::NoSuchDisk { .. } | Self::TwoOrigins { .. } => Exit::Usage,
            Self::Exists { .. } => Exit::Refused,
            Self::Large { .. }
            | Self::Syntax { .. }
            | Self::Other { .. }
            | Self::ForXl { .. }
            | Self::Nameless { .. }
            | Self::UnknownName { .. }
            | Self::Name { .. }
            | Self::Contradiction { .. }
            | Self::TooMany { .. }
            | Self::TooMuch { .. }
            | Self::Kind { .. }
            | Self::Refused { .. } => Exit::Config,
        }
    }
}
