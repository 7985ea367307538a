// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why something could not be done with a recording.

use std::io;
use std::path::{Path, PathBuf};

use super::library::id::Id;
use crate::base::error::{Classify, Exit};
use crate::base::text::line;
use crate::config::types::{GuestName, Size, Target};
use crate::file::digest::{self, Digest};
use crate::qemu::capsule;

/// Why something could not be done with a recording.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory.
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
    /// Its content.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: digest::Error,
    },
    /// The caller called it off.
    #[error("interrupted: nothing is left of it")]
    Interrupted,
    /// A manifest cannot be written as TOML.
    #[error("cannot write the manifest of this run")]
    Manifest(#[from] toml::ser::Error),
    /// A run that is said to be complete has no result.
    #[error("the recording {id} of guest \"{guest}\" has no result: it stays incomplete")]
    NoResult {
        /// The guest.
        guest: GuestName,
        /// The recording.
        id: Id,
    },
    /// There is none at all.
    #[error(
        "guest \"{guest}\" has no recording: `ttvm recordings list` shows what is there, `ttvm record {guest}` makes one"
    )]
    None {
        /// The guest.
        guest: GuestName,
    },
    /// None of those that are there is complete.
    #[error(
        "guest \"{guest}\" has no complete recording: see `ttvm recordings list {guest}`; `ttvm recordings salvage {guest}` makes a whole one of what is incomplete"
    )]
    NoneComplete {
        /// The guest.
        guest: GuestName,
    },
    /// None has that name.
    #[error("guest \"{guest}\" has no recording {wanted:?}; there is {}", list(there))]
    NoSuch {
        /// The guest.
        guest: GuestName,
        /// What was asked for.
        wanted: String,
        /// What is there.
        there: Vec<Id>,
    },
    /// More than one has a name that begins so.
    #[error("{wanted:?} is the beginning of more than one recording: {}", list(there))]
    Ambiguous {
        /// What was asked for.
        wanted: String,
        /// Those.
        there: Vec<Id>,
    },
    /// It is being recorded.
    #[error("the recording {id} of guest \"{guest}\" is being made: wait for its end")]
    BeingMade {
        /// The guest.
        guest: GuestName,
        /// The recording.
        id: Id,
    },
    /// It did not come to its end.
    #[error(
        "the recording {id} of guest \"{guest}\" is incomplete: {why}; `ttvm recordings salvage {guest} {id}` makes a whole one of what there is of it"
    )]
    Incomplete {
        /// The guest.
        guest: GuestName,
        /// The recording.
        id: Id,
        /// Why.
        why: String,
    },
    /// There is nothing of it.
    #[error(
        "nothing of the recording {id} of guest \"{guest}\" can be salvaged; remove it with `ttvm recordings rm {guest} {id}`"
    )]
    NothingToSalvage {
        /// The guest.
        guest: GuestName,
        /// The recording.
        id: Id,
        /// What is wrong with its log.
        #[source]
        source: replay_log::Error,
    },
    /// Nobody here reads its log.
    #[error(
        "the recording {id} of guest \"{guest}\" cannot be salvaged: only QEMU's can; remove it with `ttvm recordings rm {guest} {id}`"
    )]
    NotEmulated {
        /// The guest.
        guest: GuestName,
        /// The recording.
        id: Id,
    },
    /// Its manifest cannot be relied on.
    #[error("the recording {id} of guest \"{guest}\" is damaged: {why}")]
    Damaged {
        /// The guest.
        guest: GuestName,
        /// The recording.
        id: Id,
        /// Why.
        why: String,
    },
    /// Somebody uses it.
    #[error(
        "the recording {id} of guest \"{guest}\" is in use: it is being recorded, replayed, exported or removed; wait for the end of that"
    )]
    InUse {
        /// The guest.
        guest: GuestName,
        /// The recording.
        id: Id,
    },
    /// It is not to be removed.
    #[error(
        "the recording {id} of guest \"{guest}\" is pinned: `ttvm recordings unpin {guest} {id}` lets it be removed"
    )]
    Pinned {
        /// The guest.
        guest: GuestName,
        /// The recording.
        id: Id,
    },
    /// Nothing is overwritten unasked.
    #[error("{} is there already: choose another name with -o, or --force to replace it", .0.display())]
    Exists(PathBuf),
    /// What belongs to the recording is not what was recorded.
    #[error("{what} is not what was recorded: {} has {found}, the recording {expected}; bring the old content back", line(&path.to_string_lossy()))]
    Differs {
        /// What it is.
        what: String,
        /// Where it was looked for.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What it was.
        expected: String,
    },
    /// What a disk was made from did not come with an imported recording.
    #[error(
        "what disk {target} was made from did not come with the recording: export it without --with-disks, or import it once more with --disk FILE"
    )]
    NoDisk {
        /// The disk.
        target: Target,
    },
    /// No disk of it was made from this.
    #[error("no disk of the recording was made from {}, which has {found}: `ttvm recordings show` says from what", path.display())]
    NotItsDisk {
        /// What was named.
        path: PathBuf,
        /// Its content.
        found: Digest,
    },
    /// It has no engine of its own.
    #[error(
        "no engine came with the recording {id} of guest \"{guest}\": export it with --with-engine where it was recorded, and import it once more"
    )]
    NoCapsule {
        /// The guest.
        guest: GuestName,
        /// The recording.
        id: Id,
    },
    /// It has one that nobody here has said to be trusted.
    #[error(
        "the engine that came with the recording {id} of guest \"{guest}\" is not run unasked: it is a program of whoever exported it, and says that it is QEMU {}. If `ttvm recordings show` has the same digest where you know who made it: `ttvm recordings trust-engine {capsule}`",
        crate::base::text::line(version)
    )]
    Untrusted {
        /// The guest.
        guest: GuestName,
        /// The recording.
        id: Id,
        /// What it says of itself.
        version: String,
        /// The capsule.
        capsule: Digest,
    },
    /// No recording has that one.
    #[error("no recording here has the engine {0}: `ttvm recordings show` says which one it has")]
    NoSuchCapsule(Digest),
    /// It is not what it was.
    #[error("the engine {capsule} is damaged: {why}; remove the recordings that have it, and import them once more")]
    CapsuleDamaged {
        /// The capsule.
        capsule: Digest,
        /// What is wrong.
        why: String,
    },
    /// The one that is here is not the one that recorded.
    #[error(
        "the engine that is here is not exported with the recording {id} of guest \"{guest}\": {why}. Export it where it was recorded, or without --with-engine"
    )]
    OtherEngine {
        /// The guest.
        guest: GuestName,
        /// The recording.
        id: Id,
        /// What is different.
        why: String,
    },
    /// The engine that is here cannot be packed.
    #[error(transparent)]
    Capsule(#[from] capsule::Error),
    /// A file that is to be imported.
    #[error("{archive} is not imported: {why}")]
    Archive {
        /// The file, as it was named.
        archive: String,
        /// A sentence.
        why: String,
    },
    /// There is not enough room.
    #[error("there is no room for it at {}: it takes {}, {} are free and {} of them are left alone; see `ttvm recordings rm`", path.display(), Size::from_bytes(*needed), Size::from_bytes(*free), Size::from_bytes(super::library::import::RESERVE))]
    NoRoom {
        /// The directory.
        path: PathBuf,
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
    },
}

impl Error {
    /// That `action` failed with `path`.
    pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// That a content is not known.
    pub(super) fn read(path: &Path) -> impl FnOnce(digest::Error) -> Self {
        move |source| match source {
            digest::Error::Interrupted => Self::Interrupted,
            source => Self::Read {
                path: path.to_owned(),
                source,
            },
        }
    }

    /// That a content of `expected` was `found` to be another.
    pub(super) fn differs(what: &str, path: &Path, expected: Digest, found: Digest) -> Self {
        Self::Differs {
            what: what.to_owned(),
            path: path.to_owned(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Ambiguous { .. } => Exit::Usage,
            Self::BeingMade { .. }
            | Self::Incomplete { .. }
            | Self::InUse { .. }
            | Self::NothingToSalvage { .. }
            | Self::NotEmulated { .. }
            | Self::Pinned { .. }
            | Self::Exists(_)
            | Self::NoCapsule { .. }
            | Self::Untrusted { .. }
            | Self::OtherEngine { .. }
            | Self::NoRoom { .. } => Exit::Refused,
            Self::Capsule(error) => error.exit(),
            _ => Exit::Failed,
        }
    }
}

/// A few of many, the newest.
fn list(ids: &[Id]) -> String {
    const SHOWN: usize = 5;
    let shown = ids.iter().rev().take(SHOWN).map(Id::to_string).collect::<Vec<_>>();
    match ids.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
