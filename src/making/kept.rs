// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files that guests boot, each under its name and the digest of its content: guests with the same kernel share one, and an
//! upgrade of the host takes none away.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Error;
use crate::file::{self, digest};

/// Digits of the digest in a name.
const DIGITS: usize = 12;

/// A file to be kept.
#[derive(Debug)]
pub struct Kept {
    /// Where.
    pub path: PathBuf,
    content: Vec<u8>,
    mode: u32,
}

impl Kept {
    /// A file in `directory` whose name begins so. Others may read it, unless it is `secret`.
    pub fn new(directory: &Path, name: &str, content: Vec<u8>, secret: bool) -> Self {
        let digest = digest::of_bytes(&content).hex();
        Self {
            path: directory.join(format!("{name}.{}", &digest[..DIGITS])),
            content,
            mode: if secret { 0o600 } else { 0o644 },
        }
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.content.len() as u64
    }

    /// What will be done, in words.
    pub fn plan(&self) -> String {
        format!("keep {} ({} KiB)", self.path.display(), self.size().div_ceil(1024))
    }

    /// Writes it, unless it is there. Whether it was.
    fn write(&self) -> Result<bool, Error> {
        let failed = |source| Error::Write {
            path: self.path.clone(),
            source,
        };
        fs::create_dir_all(file::parent(&self.path)).map_err(failed)?;
        match file::create(&self.path, &self.content, self.mode) {
            Ok(()) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.is_there().map(|()| true),
            Err(error) => Err(failed(error)),
        }
    }

    /// That the file of that name is this one.
    fn is_there(&self) -> Result<(), Error> {
        let there = fs::read(&self.path).map_err(|source| Error::Write {
            path: self.path.clone(),
            source,
        })?;
        match there == self.content {
            true => Ok(()),
            false => Err(Error::Changed(self.path.clone())),
        }
    }
}

/// Files of a guest that is being made. Dropped before it is there, those that were made for it are removed.
#[derive(Debug, Default)]
pub(super) struct Draft(Vec<PathBuf>);

impl Draft {
    pub(super) fn keep(&mut self, kept: &Kept) -> Result<(), Error> {
        if !kept.write()? {
            self.0.push(kept.path.clone());
        }
        Ok(())
    }

    /// Something else was made for it.
    pub(super) fn made(&mut self, path: PathBuf) {
        self.0.push(path);
    }

    /// The guest is there.
    pub(super) fn done(mut self) {
        self.0.clear();
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        for path in &self.0 {
            // It is in nobody's way.
            drop(fs::remove_file(path));
        }
    }
}
