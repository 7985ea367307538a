// SPDX-License-Identifier: MIT OR Apache-2.0
//! An archive as far as it is unpacked.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::newc::Header;
use crate::tree::Tree;

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
    known: HashMap<Rc<[u8]>, usize>,
}

pub(super) struct Directory {
    pub path: Rc<[u8]>,
    /// What the archive says; nothing if it does not have it.
    pub given: Option<Given>,
}

/// What a directory gets in the end.
#[derive(Clone, Copy)]
pub(super) struct Given {
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: u32,
}

impl Given {
    fn by(header: &Header) -> Self {
        Self {
            mode: header.mode,
            owner: (header.uid, header.gid),
            mtime: header.mtime,
        }
    }
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
    pub fn directory(&mut self, parts: &[&[u8]], header: Option<&Header>) {
        let path: Rc<[u8]> = joined(parts).into();
        let given = header.map(Given::by);
        match self.known.get(&path) {
            Some(at) => {
                if let Some(known) = &mut self.directories[*at] {
                    known.given = given.or(known.given);
                }
            }
            None => {
                self.known.insert(path.clone(), self.directories.len());
                self.directories.push(Some(Directory { path, given }));
            }
        }
    }

    /// Whether that is a directory of this archive.
    pub fn has_directory(&self, parts: &[&[u8]]) -> bool {
        self.known.contains_key(joined(parts).as_slice())
    }

    /// Removes whatever has the name that `parts` lead to, as Linux does before it makes something else of that name.
    pub fn remove(&mut self, parts: &[&[u8]]) -> Result<(), Errno> {
        let Some(name) = parts.last() else { return Ok(()) };
        let parent = self.tree.last();
        match unlinkat(parent, *name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(Errno::EISDIR) => {
                unlinkat(parent, *name, UnlinkatFlags::RemoveDir)?;
                if let Some(at) = self.known.remove(joined(parts).as_slice()) {
                    self.directories[at] = None;
                }
                self.tree.forget(parts);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
