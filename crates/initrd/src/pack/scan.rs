// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files that are there, below a directory.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::fcntl::{AtFlags, readlinkat};
use nix::libc;
use nix::sys::stat::{FileStat, fstat, fstatat};

use crate::error::Error;
use crate::names::{escape, parts};
use crate::tree::Tree;

/// A file that is there.
pub(super) struct Found {
    /// Below the directory.
    pub path: Vec<u8>,
    pub stat: FileStat,
    /// Bytes of where a symbolic link leads to: file systems need not have them as its size.
    pub target: usize,
}

impl Found {
    /// What its hard links have in common with it.
    pub fn identity(&self) -> (u64, u64) {
        (self.stat.st_dev, self.stat.st_ino)
    }

    pub fn is_directory(&self) -> bool {
        self.stat.st_mode & libc::S_IFMT == libc::S_IFDIR
    }
}

/// All files below `directory`, each directory before what is in it, in the order of their names.
pub(super) fn scan(mut tree: Tree, directory: &Path) -> Result<Vec<Found>, Error> {
    let stat = fstat(tree.last()).map_err(Error::io("look at", directory))?;
    let mut found = vec![Found {
        path: Vec::new(),
        stat,
        target: 0,
    }];
    // Directories whose content is still to be read, the next one last.
    let mut ahead: Vec<Found> = Vec::new();
    read(&mut tree, directory, b"", &mut ahead)?;
    while let Some(next) = ahead.pop() {
        if next.is_directory() {
            read(&mut tree, directory, &next.path, &mut ahead)?;
        }
        found.push(next);
    }
    Ok(found)
}

/// Adds what is in a directory to `ahead`, the first name last.
fn read(tree: &mut Tree, base: &Path, path: &[u8], ahead: &mut Vec<Found>) -> Result<(), Error> {
    let shown = || base.join(escape(path));
    let way = match path {
        b"" => Vec::new(),
        path => parts(path).map_err(|why| Error::Unfit { path: shown(), why })?,
    };
    let opened = tree.directory(&way);
    let opened = opened.map_err(|blocked| Error::io("read", shown())(blocked.error))?;
    let again: OwnedFd = opened.try_clone_to_owned().map_err(Error::io("read", shown()))?;
    let mut entries = Dir::from_fd(again).map_err(Error::io("read", shown()))?;
    let before = ahead.len();
    for entry in entries.iter() {
        let entry = entry.map_err(Error::io("read", shown()))?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let path = match path {
            b"" => name.to_vec(),
            path => [path, name].join(&b'/'),
        };
        let failed = |error| Error::io("look at", base.join(escape(&path)))(error);
        let stat = fstatat(opened, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed)?;
        let target = match stat.st_mode & libc::S_IFMT {
            libc::S_IFLNK => readlinkat(opened, name).map_err(failed)?.len(),
            _ => 0,
        };
        ahead.push(Found { path, stat, target });
    }
    ahead[before..].sort_unstable_by(|one, other| other.path.cmp(&one.path));
    Ok(())
}

/// What is in `directory` that belongs to none of `known`.
pub(super) fn stray(directory: &Path, known: &dyn Fn(&[u8]) -> bool) -> Result<Option<PathBuf>, Error> {
    let mut entries = std::fs::read_dir(directory).map_err(Error::io("read", directory))?;
    let stray = entries.find_map(|entry| match entry {
        Ok(entry) if known(entry.file_name().as_encoded_bytes()) => None,
        Ok(entry) => Some(Ok(entry.path())),
        Err(error) => Some(Err(error)),
    });
    stray.transpose().map_err(Error::io("read", directory))
}
