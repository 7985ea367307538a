// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory for the files of one machine, which goes away with it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Error;
use crate::file;

/// A directory of ours alone. Dropped, it is removed with all that is in it.
pub(in crate::recording) struct Scratch(PathBuf);

impl Scratch {
    /// Makes it, empty. A lock of the caller's has to say that nobody else uses the name.
    pub(in crate::recording) fn make(path: PathBuf) -> Result<Self, Error> {
        // Left by one that was killed.
        let made = match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => file::private_directory(&path),
        };
        match made {
            Ok(()) => Ok(Self(path)),
            Err(source) => Err(Error::Write { path, source }),
        }
    }

    /// Where it is.
    pub(in crate::recording) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}
