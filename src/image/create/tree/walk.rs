// SPDX-License-Identifier: MIT OR Apache-2.0
//! The way through a tree. It is flat, since a tree may be deeper than a stack, and only the nearest directories are open,
//! since it may be deeper than a process may have files open.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};
use std::vec::IntoIter;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};

use super::statx::mount;
use super::{At, Problem, Tree, Visitor};
use crate::image::create::exclude::{Exclusions, Reason};

/// As many directories are open, at the most.
const OPEN: usize = 64;
const FLAGS: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// Leads `visitor` through all of `tree`.
pub(in crate::image::create) fn walk<V: Visitor>(
    tree: &Tree,
    exclusions: &Exclusions,
    visitor: &mut V,
) -> Result<(), V::Stop> {
    let stat = match fstat(tree.root()) {
        Ok(stat) => stat,
        Err(errno) => return visitor.problem(b"", Problem::of(errno)),
    };
    let mut walk = Walk {
        tree,
        exclusions,
        visitor,
        path: Vec::new(),
        levels: Vec::new(),
    };
    let opened = Dir::openat(tree.root(), ".", FLAGS, Mode::empty());
    walk.directory(tree.root(), c".", opened, &stat)?;
    while let Some(level) = walk.levels.last_mut() {
        match level.names.next() {
            Some((_, name)) => walk.next(&name)?,
            None => walk.leave()?,
        }
    }
    Ok(())
}

/// A directory that is walked through.
struct Level {
    /// Closed while the walk is far below.
    directory: Option<Dir>,
    device: u64,
    number: u64,
    /// Those that are left in it, as the disk has them: by their numbers.
    names: IntoIter<(u64, CString)>,
    /// How long its path is.
    length: usize,
}

struct Walk<'a, V> {
    tree: &'a Tree,
    exclusions: &'a Exclusions,
    visitor: &'a mut V,
    path: Vec<u8>,
    levels: Vec<Level>,
}

impl<V: Visitor> Walk<'_, V> {
    /// A directory, in which the walk goes on; one that cannot be read is empty.
    fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        opened: nix::Result<Dir>,
        stat: &FileStat,
    ) -> Result<(), V::Stop> {
        let mut at = At {
            parent,
            name,
            path: &self.path,
            stat,
            open: None,
        };
        let mut directory = match opened {
            Ok(directory) => directory,
            Err(errno) => {
                self.visitor.enter(&at)?;
                self.visitor.problem(&self.path, Problem::of(errno))?;
                return self.visitor.leave(&self.path);
            }
        };
        at.open = Some(directory.as_fd());
        self.visitor.enter(&at)?;
        let mut names = Vec::new();
        if let Err(errno) = list(&mut directory, &mut names) {
            self.visitor.problem(&self.path, Problem::of(errno))?;
        }
        // A name that another file gets meanwhile may be listed twice.
        names.sort_unstable_by(|one, other| one.1.cmp(&other.1));
        names.dedup_by(|one, other| one.1 == other.1);
        names.sort_unstable();
        self.levels.push(Level {
            directory: Some(directory),
            device: stat.st_dev,
            number: stat.st_ino,
            names: names.into_iter(),
            length: self.path.len(),
        });
        if let Some(far) = self.levels.len().checked_sub(OPEN + 1) {
            self.levels[far].directory = None;
        }
        Ok(())
    }

    /// The last directory has no more; back to the one it is in.
    fn leave(&mut self) -> Result<(), V::Stop> {
        let left = self.levels.pop();
        self.visitor.leave(&self.path)?;
        let Some(level) = self.levels.last_mut() else {
            return Ok(());
        };
        self.path.truncate(level.length);
        if level.directory.is_none() {
            let key = (level.device, level.number);
            let is_it = |found: &Dir| fstat(found).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == key);
            let below = left.and_then(|left| left.directory);
            let above = below.and_then(|below| Dir::openat(&below, "..", FLAGS, Mode::empty()).ok());
            // Somebody has moved the one below, or it may be listed only.
            let again = above
                .filter(is_it)
                .or_else(|| self.tree.directory(&self.path, FLAGS).filter(is_it));
            match again {
                Some(directory) => level.directory = Some(directory),
                None => {
                    level.names = Vec::new().into_iter();
                    self.visitor.problem(&self.path, Problem::Vanished)?;
                }
            }
        }
        Ok(())
    }

    /// What has this name in the last directory.
    fn next(&mut self, name: &CStr) -> Result<(), V::Stop> {
        let last = self.levels.len() - 1;
        let Some(directory) = self.levels[last].directory.take() else {
            return Ok(());
        };
        let (length, device) = (self.levels[last].length, self.levels[last].device);
        if length > 0 {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name.to_bytes());
        let done = self.entry(directory.as_fd(), name, device);
        self.levels[last].directory = Some(directory);
        if self.levels.len() == last + 1 {
            self.path.truncate(length);
        }
        done
    }

    /// What has this name in a directory on this device.
    fn entry(&mut self, parent: BorrowedFd<'_>, name: &CStr, device: u64) -> Result<(), V::Stop> {
        let stat = match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(errno) => return self.visitor.problem(&self.path, Problem::of(errno)),
        };
        let is_directory = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let reason = self
            .exclusions
            .judge(&self.path, is_directory, (stat.st_dev, stat.st_ino));
        if let Some(reason) = reason {
            return self.visitor.left_out(&self.path, reason);
        }
        let at = At {
            parent,
            name,
            path: &self.path,
            stat: &stat,
            open: None,
        };
        if !is_directory {
            return self.visitor.file(&at);
        }
        // The table has bind mounts, too, which are on the same device.
        let is_elsewhere = || stat.st_dev != device && are_different(mount(parent, c"."), mount(parent, name));
        if self.tree.mounted(&self.path).is_some() || is_elsewhere() {
            // A directory to mount on.
            self.visitor.enter(&at)?;
            self.visitor.leave(&self.path)?;
            let reason = self.tree.mounted(&self.path).unwrap_or(Reason::Mounted);
            return self.visitor.left_out(&self.path, reason);
        }
        let opened = Dir::openat(parent, name, FLAGS, Mode::empty());
        self.directory(parent, name, opened, &stat)
    }
}

/// The names in a directory, with their numbers.
fn list(directory: &mut Dir, names: &mut Vec<(u64, CString)>) -> Result<(), Errno> {
    for entry in directory.iter() {
        let entry = entry?;
        if ![c".", c".."].contains(&entry.file_name()) {
            names.push((entry.ino(), entry.file_name().to_owned()));
        }
    }
    Ok(())
}

/// Whether two directories on different devices are on different mounts, as far as those are known. A subvolume of btrfs has a
/// device of its own, but is mounted with what it is part of.
fn are_different(outer: Option<u64>, inner: Option<u64>) -> bool {
    outer.is_none() || outer != inner
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subvolume_is_no_mount() {
        assert!(!are_different(Some(7), Some(7)));
        for (outer, inner) in [(Some(7), Some(8)), (None, Some(7)), (Some(7), None), (None, None)] {
            assert!(are_different(outer, inner));
        }
    }
}
