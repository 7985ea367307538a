// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory as a source: one mounted file system, walked by descriptors, so that nobody can lead us elsewhere meanwhile.

mod mounts;
pub(super) mod reader;
mod statx;
pub(super) mod walk;

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};

use super::error::Error;
use super::exclude::Reason;

use super::edits::resolve::Target;

/// A directory as a source.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    /// What is mounted in it, relative to it.
    mounts: BTreeMap<Vec<u8>, Reason>,
}

/// A file that is come to.
pub(super) struct At<'a> {
    /// Its directory.
    pub(super) parent: BorrowedFd<'a>,
    /// Its name in that.
    pub(super) name: &'a CStr,
    /// From the root, without `/` at the beginning.
    pub(super) path: &'a [u8],
    pub(super) stat: &'a FileStat,
    /// The directory itself, if it is one that can be read.
    pub(super) open: Option<BorrowedFd<'a>>,
}

/// Why something of the source is not in the image as it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// It was gone.
    Vanished,
    /// It was written while it was read.
    Changed,
    /// It could not be read.
    Unreadable(i32),
    /// Its attributes could not be read, or are of a kind that cannot be kept.
    Attributes,
    /// An archive has its access lists as text only, with names of users that the guest may not have.
    AccessLists,
    /// It was to be otherwise in the guest, and something else came in its way.
    Unmade,
}

/// Whoever is led through a tree. An error ends the walk.
pub(super) trait Visitor {
    type Stop;
    /// A directory, before what is in it.
    fn enter(&mut self, at: &At<'_>) -> Result<(), Self::Stop>;
    /// The same, after that.
    fn leave(&mut self, path: &[u8]) -> Result<(), Self::Stop>;
    /// Anything else.
    fn file(&mut self, at: &At<'_>) -> Result<(), Self::Stop>;
    /// What is left out.
    fn left_out(&mut self, path: &[u8], reason: Reason) -> Result<(), Self::Stop>;
    /// What is not as it should be.
    fn problem(&mut self, path: &[u8], problem: Problem) -> Result<(), Self::Stop>;
}

impl Problem {
    pub(super) fn of(errno: Errno) -> Self {
        match errno {
            Errno::ENOENT | Errno::ESTALE => Self::Vanished,
            errno => Self::Unreadable(errno as i32),
        }
    }

    /// Refuses what is no fault of the file at hand: so many more would be missing that it would be no copy.
    pub(super) fn is_bearable(self) -> Result<(), Error> {
        const LIMITS: [i32; 2] = [libc::EMFILE, libc::ENFILE];
        match self {
            Self::Unreadable(errno) if LIMITS.contains(&errno) => Err(Error::Descriptors),
            _ => Ok(()),
        }
    }
}

impl Tree {
    /// The directory at `path`.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let path = fs::canonicalize(path)?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        // Where it may be had: without what is mounted in it, so that the directories under that are seen.
        let own = open(&path, flags, Mode::empty())?;
        let mounts = mounts::below(own.as_fd(), &path);
        let root = match bare(&path) {
            Ok(bare) => nix::fcntl::openat(&bare, ".", flags, Mode::empty())?,
            Err(_) => own,
        };
        Ok(Self { root, mounts })
    }

    /// The descriptor of the root.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The directory that the file at `path` is in, and its name there, without going through any link.
    fn find(&self, path: &[u8]) -> Option<(OwnedFd, CString)> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut directory = self.root.try_clone().ok()?;
        let mut parts = path
            .split(|byte| *byte == b'/')
            .filter(|part| !part.is_empty())
            .peekable();
        while let Some(part) = parts.next() {
            let name = CString::new(part).ok()?;
            if parts.peek().is_none() {
                return Some((directory, name));
            }
            directory = nix::fcntl::openat(&directory, name.as_c_str(), flags, Mode::empty()).ok()?;
        }
        Some((directory, c".".to_owned()))
    }

    /// What is at `path`, of which no part may be a link but the last one.
    pub(super) fn here(&self, path: &[u8]) -> Option<Target> {
        let (directory, name) = self.find(path)?;
        let stat = fstatat(&directory, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
        Some(match stat.st_mode & libc::S_IFMT {
            libc::S_IFDIR => Target::Directory,
            libc::S_IFLNK => {
                let target = nix::fcntl::readlinkat(&directory, name.as_c_str()).ok()?;
                Target::Symlink(target.into_vec())
            }
            _ => Target::Other,
        })
    }

    /// The regular file at `path`, of which no part may be a link.
    pub(super) fn read(&self, path: &[u8]) -> Option<File> {
        let (directory, name) = self.find(path)?;
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = nix::fcntl::openat(&directory, name.as_c_str(), flags, Mode::empty()).ok()?;
        let is_regular = fstat(&file).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFREG);
        is_regular.then(|| File::from(file))
    }

    /// How many files its file system has.
    pub(super) fn files(&self) -> u64 {
        let disk = nix::sys::statvfs::fstatvfs(&self.root);
        disk.map_or(0, |disk| disk.files().saturating_sub(disk.files_free()))
    }

    /// What is mounted in it, by the paths.
    pub(super) fn mounts(&self) -> &BTreeMap<Vec<u8>, Reason> {
        &self.mounts
    }

    /// Why what is mounted on the directory at `path` is left out, if something is.
    pub(super) fn mounted(&self, path: &[u8]) -> Option<Reason> {
        self.mounts.get(path).copied()
    }

    /// The directory at `path`, of which no part may be a link.
    pub(super) fn directory(&self, path: &[u8], flags: OFlag) -> Option<Dir> {
        let (directory, name) = self.find(path)?;
        Dir::openat(&directory, name.as_c_str(), flags, Mode::empty()).ok()
    }
}

/// The file system at `path` without what is mounted in it, at no place: it is gone with its descriptor (open_tree(2)).
fn bare(path: &Path) -> io::Result<OwnedFd> {
    const OPEN_TREE_CLONE: libc::c_uint = 1;
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint;
    // SAFETY: the path ends with a NUL; the other arguments are integers.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    let fd = Errno::result(fd)?;
    // SAFETY: the descriptor was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

impl At<'_> {
    /// Opens the file to read it; its time of reading stays, where that is allowed.
    pub(super) fn read(&self) -> nix::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let open = |flags| nix::fcntl::openat(self.parent, self.name, flags, Mode::empty());
        match open(flags | OFlag::O_NOATIME) {
            Err(Errno::EPERM) => open(flags),
            file => file,
        }
        .map(File::from)
    }

    /// A path to it for calls that take no descriptor.
    pub(super) fn proc_path(&self) -> CString {
        let mut path = format!("/proc/self/fd/{}/", self.parent.as_raw_fd()).into_bytes();
        path.extend_from_slice(self.name.to_bytes());
        CString::new(path).unwrap_or_default()
    }

    /// What a symbolic link leads to.
    pub(super) fn target(&self) -> nix::Result<Vec<u8>> {
        let target = nix::fcntl::readlinkat(self.parent, OsStr::from_bytes(self.name.to_bytes()))?;
        Ok(target.into_vec())
    }
}
