// SPDX-License-Identifier: MIT OR Apache-2.0
//! /etc/ttvm, or a user's own, as typed, validated values. Everything takes the places it reads in, so that tests run on a
//! tree of their own.
//!
//! ```text
//! guests guest               the directory of guests; one guest's file, key by key
//! host boot network          ttvm.toml, and its larger tables
//! places origin              where configuration and state are; what disks are made from
//! types                      names, sizes, addresses: validated once
//! reader                     TOML with places, and all mistakes at once
//! ```

pub mod boot;
pub mod guest;
pub mod guests;
pub mod host;
pub mod network;
pub mod origin;
pub mod places;
pub mod reader;
pub mod types;

use std::io;
use std::path::{Path, PathBuf};

use crate::base::error::{Classify, Exit};
use crate::file::tree;
use places::Places;
use reader::{Diagnostic, Source};
use types::Invalid;

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One or more mistakes in files, each with its place.
    #[error("{}", lines(.0))]
    Invalid(Vec<Diagnostic>),
    /// A file is there but cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// There is no file for this guest.
    #[error("there is no guest \"{name}\": {} does not exist{}", path.display(), did_you_mean(closest.as_deref()))]
    NoSuchGuest {
        /// The name asked for.
        name: String,
        /// The file that would describe it.
        path: PathBuf,
        /// A guest of a similar name.
        closest: Option<String>,
    },
    /// A directory that the command line names.
    #[error("cannot tell where {} is", path.display())]
    Place {
        /// As it was given.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A user without a home directory.
    #[error(
        "neither {name} nor HOME says where your {} is: set one, or use {option}",
        kept(option)
    )]
    NoHome {
        /// The variable that could say it.
        name: &'static str,
        /// The option that could say it.
        option: &'static str,
    },
    /// The name itself is impossible.
    #[error(transparent)]
    Name(#[from] Invalid),
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Name(_) | Self::Place { .. } | Self::NoHome { .. } => Exit::Usage,
            _ => Exit::Config,
        }
    }
}

fn lines(diagnostics: &[Diagnostic]) -> String {
    let lines: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

fn kept(option: &str) -> &'static str {
    if option == "--state-dir" {
        "state"
    } else {
        "configuration"
    }
}

fn did_you_mean(name: Option<&str>) -> String {
    match name {
        Some(name) => format!("; did you mean \"{name}\"?"),
        None => "; `ttvm guest list` names those that there are, `ttvm guest new` makes one".to_owned(),
    }
}

/// Reads the file `path` of the configuration; messages call it `path`. `None` if it does not exist.
fn source(places: &Places, path: &Path) -> Result<Option<Source>, Error> {
    match read(places, path) {
        Ok(text) => Ok(Some(Source::new(path, text))),
        Err(Error::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The text of the file `path` of the configuration.
pub fn read(places: &Places, path: &Path) -> Result<String, Error> {
    tree::text(places.tree(), path, tree::SETTINGS).map_err(|source| Error::Unreadable {
        path: path.to_owned(),
        source,
    })
}
