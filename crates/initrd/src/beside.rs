// SPDX-License-Identifier: MIT OR Apache-2.0
//! The name that something has beside its own until it is whole, and what programs that were killed have left under such names.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::error::Error;

/// The directory that a path is in.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Names beside that of what is to be made: `.NAME` and a mark, then the number of a process.
#[derive(Debug)]
pub(super) struct Beside<'a> {
    to: &'a Path,
    prefix: OsString,
}

impl<'a> Beside<'a> {
    /// Those beside `to`; nothing if that cannot be the name of something new.
    pub fn new(to: &'a Path, mark: &str) -> Option<Self> {
        let mut prefix = OsString::from(".");
        prefix.push(to.file_name()?);
        prefix.push(mark);
        Some(Self { to, prefix })
    }

    /// That of this process.
    pub fn own(&self) -> PathBuf {
        let mut name = self.prefix.clone();
        name.push(std::process::id().to_string());
        self.to.with_file_name(name)
    }

    /// What has such a name.
    pub fn there(&self) -> Result<Vec<PathBuf>, Error> {
        let parent = parent(self.to);
        let mut there = Vec::new();
        for entry in fs::read_dir(parent).map_err(Error::io("read", parent))? {
            let entry = entry.map_err(Error::io("read", parent))?;
            let name = entry.file_name();
            let process = name.as_bytes().strip_prefix(self.prefix.as_bytes()).unwrap_or_default();
            if !process.is_empty() && process.iter().all(u8::is_ascii_digit) {
                there.push(entry.path());
            }
        }
        Ok(there)
    }
}
