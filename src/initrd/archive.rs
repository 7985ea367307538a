// SPDX-License-Identifier: MIT OR Apache-2.0
//! An archive as far as it is unpacked.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::newc::Header;
use super::tree::Tree;

/// What hard links of one file have in common: number, device, type.
pub(super) type Identity = (u32, (u32, u32), u32);

/// The archive that is being unpacked.
pub(super) struct Archive {
    /// Of its directory.
    pub name: String,
    pub tree: Tree,
    /// Where files with several names are, for the next name.
    pub linked: HashMap<Identity, Vec<u8>>,
    /// Directories get their modes and times when nothing is put into them any more.
    pub directories: Vec<Option<Directory>>,
    known: HashMap<Vec<u8>, usize>,
}

pub(super) struct Directory {
    pub path: Vec<u8>,
    /// What the archive says; nothing if it does not have it.
    pub header: Option<Header>,
}

/// The parts of a name as one way.
pub(super) fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.join(&b'/')
}

impl Archive {
    /// The archive of that name, in a new directory in `root`.
    pub fn new(root: BorrowedFd<'_>, directory: &str) -> Result<Self, Errno> {
        mkdirat(root, directory, Mode::S_IRWXU)?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = openat(root, directory, flags, Mode::empty())?;
        let mut archive = Self {
            name: directory.to_owned(),
            tree: Tree::new(opened),
            linked: HashMap::new(),
            directories: Vec::new(),
            known: HashMap::new(),
        };
        archive.directory(&[], None);
        Ok(archive)
    }

    /// Remembers a directory.
    pub fn directory(&mut self, parts: &[&[u8]], header: Option<Header>) {
        let path = joined(parts);
        match self.known.get(&path) {
            Some(at) => {
                if let Some(known) = &mut self.directories[*at] {
                    known.header = header.or_else(|| known.header.take());
                }
            }
            None => {
                self.known.insert(path.clone(), self.directories.len());
                self.directories.push(Some(Directory { path, header }));
            }
        }
    }

    /// Whether that is a directory of this archive.
    pub fn has_directory(&self, parts: &[&[u8]]) -> bool {
        self.known.contains_key(&joined(parts))
    }

    /// Removes whatever has a name, as Linux does before it makes something else of that name.
    pub fn remove(&mut self, parts: &[&[u8]], name: &[u8]) -> Result<(), Errno> {
        let parent = self.tree.last();
        match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(Errno::EISDIR) => {
                unlinkat(parent, name, UnlinkatFlags::RemoveDir)?;
                if let Some(at) = self.known.remove(&joined(parts)) {
                    self.directories[at] = None;
                }
                self.tree.forget(parts);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
