// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole guests, ready to be recorded: the kernel, the initial RAM disk, the disk if there is one, and the file that says so.
//!
//! What a guest is made of is kept under the digest of its content, and its own file is written last: whatever ends this program
//! before, there is no guest, and nothing that another attempt would trip over.

mod disk;
mod error;
mod kept;
mod ram;
mod text;

use std::fs;
use std::path::{Path, PathBuf};

use crate::base::fail_point;
use crate::config::guests;
use crate::config::host::HostConfig;
use crate::config::places::Places;
use crate::config::types::GuestName;
use crate::file;
use kept::Draft;

pub use disk::Disk;
pub use error::Error;
pub use kept::Kept;
pub use ram::{Ram, Request as RamRequest};

/// A guest that can be made.
#[derive(Debug)]
pub struct Plan {
    /// The guest.
    pub name: GuestName,
    /// Its file, as messages call it.
    pub path: PathBuf,
    /// What will be in it.
    pub text: String,
    /// The files that are kept for it.
    pub kept: Vec<Kept>,
}

impl Plan {
    /// Makes the guest. Its file is the last thing that is made, and what comes before it is gone if it is not.
    pub fn make(&self, places: &Places, host: &HostConfig) -> Result<(), Error> {
        let mut draft = Draft::default();
        for kept in &self.kept {
            draft.keep(kept)?;
        }
        fail_point::reach("making.kept");
        describe(places, host, &self.name, &self.text)?;
        draft.done();
        Ok(())
    }
}

/// Refuses the name of a guest that there is.
pub fn is_free(places: &Places, name: &GuestName) -> Result<(), Error> {
    let path = guests::path(places, name);
    match fs::symlink_metadata(places.real(&path)) {
        Ok(_) => Err(Error::Exists { path }),
        Err(_) => Ok(()),
    }
}

/// Where what guests are made of is kept.
fn directory(places: &Places) -> PathBuf {
    places.state_dir().join("images")
}

/// Writes the guest's file, if the guest would be taken so.
fn describe(places: &Places, host: &HostConfig, name: &GuestName, text: &str) -> Result<(), Error> {
    guests::check(places, host, name, text, true)?;
    let path = guests::path(places, name);
    let real = places.real(&path);
    let directory = real.parent().unwrap_or(Path::new("/"));
    let written = fs::create_dir_all(directory).and_then(|()| file::create(&real, text.as_bytes(), 0o644));
    written.map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => Error::Exists { path },
        _ => Error::Write { path, source },
    })
}
