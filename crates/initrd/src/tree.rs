// SPDX-License-Identifier: MIT OR Apache-2.0
//! A tree of directories that is gone through by descriptors, part by part, so that no symbolic link leads out of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

/// How directories are opened.
const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// A tree below one directory. The way to where somebody was last stays open: who comes next is mostly near.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    way: Vec<(Vec<u8>, OwnedFd)>,
}

/// A directory that cannot be opened.
#[derive(Debug)]
pub(super) struct Blocked {
    /// How many parts of the way there are before it.
    pub depth: usize,
    pub error: Errno,
}

impl Tree {
    pub fn new(root: OwnedFd) -> Self {
        Self { root, way: Vec::new() }
    }

    /// The tree below `path`, which is followed if it is a link: the caller named it.
    pub fn open(path: &std::path::Path) -> Result<Self, Errno> {
        open(path, DIRECTORY.difference(OFlag::O_NOFOLLOW), Mode::empty()).map(Self::new)
    }

    /// The tree below `path`, whose last part somebody else named: if that is a link, it leads out.
    pub fn open_own(path: &std::path::Path) -> Result<Self, Errno> {
        open(path, DIRECTORY, Mode::empty()).map(Self::new)
    }

    /// How many of `parts`, from the first on, lead to directories that are open.
    fn shared(&self, parts: &[&[u8]]) -> usize {
        let both = self.way.iter().zip(parts);
        both.take_while(|((name, _), part)| name == *part).count()
    }

    /// The directory that `parts` lead to.
    pub fn directory(&mut self, parts: &[&[u8]]) -> Result<BorrowedFd<'_>, Blocked> {
        let same = self.shared(parts);
        self.way.truncate(same);
        for (depth, part) in parts.iter().enumerate().skip(same) {
            let opened = openat(self.last(), *part, DIRECTORY, Mode::empty());
            let opened = opened.map_err(|error| Blocked { depth, error })?;
            self.way.push((part.to_vec(), opened));
        }
        Ok(self.last())
    }

    /// The directory that was asked for last, or as far as there was one.
    pub fn last(&self) -> BorrowedFd<'_> {
        self.way
            .last()
            .map_or(self.root.as_fd(), |(_, directory)| directory.as_fd())
    }

    /// Something else may have the name of the directory that `parts` lead to from now on.
    pub fn forget(&mut self, parts: &[&[u8]]) {
        let same = self.shared(parts);
        if same == parts.len() {
            self.way.truncate(same.saturating_sub(1));
        }
    }
}
