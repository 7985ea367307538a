// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory in the making: it has another name until it is whole, and what a program that was killed has left of one goes
//! away with the next.

use std::ffi::CStr;
use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{getegid, geteuid};

use crate::beside::Beside;
use crate::error::Error;
use crate::manifest::{self, Line};

/// What comes between the name to be and the number of the process.
const MARK: &str = ".unpacking-";
/// What the first line of a list is shorter than.
const LINE_LIMIT: u64 = 200;

/// The directory; it goes away unless it is kept.
#[derive(Debug)]
pub(super) struct Draft {
    to: PathBuf,
    path: PathBuf,
    /// Locked as long as this lives.
    root: File,
    /// The mode it will have.
    mode: u32,
    kept: bool,
}

impl Draft {
    /// A directory that is to be `to`, where nothing is yet, or an empty directory, whose mode it gets as far as it may.
    pub fn new(to: &Path, umask: u32) -> Result<Self, Error> {
        let wanted = "a name that a new directory can have";
        let beside = Beside::new(to, MARK).ok_or_else(|| Error::NotA {
            path: to.to_owned(),
            wanted,
        })?;
        let mode = check(to)?;
        for left in beside.there()?.into_iter().filter(|path| is_left(path)) {
            fs::remove_dir_all(&left).map_err(Error::io("remove", left))?;
        }
        let path = beside.own();
        let failed = |error: io::Error| Error::io("make", &path)(error);
        DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        match prepare(&path) {
            Ok(root) => Ok(Self {
                to: to.to_owned(),
                path,
                root,
                // Root's has real devices and programs with other rights in it, from whoever made the image: for root alone.
                mode: match geteuid().is_root() {
                    true => mode.unwrap_or(0o700) & 0o700,
                    false => mode.unwrap_or(0o700 | 0o777 & !umask),
                },
                kept: false,
            }),
            Err(error) => {
                drop(fs::remove_dir(&path));
                Err(failed(error))
            }
        }
    }

    /// Where it is now.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory itself.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Gives its name to the directory `name` in it, with the list; the rest goes away.
    pub fn keep_only(self, name: &str) -> Result<(), Error> {
        let inner = self.path.join(name);
        let failed = |error: io::Error| self.failed(error);
        let root = open(&inner).map_err(failed)?;
        // As of the outer one: it had the owner and the mode that the image says.
        fchown(&root, Some(geteuid().as_raw()), Some(getegid().as_raw())).map_err(failed)?;
        root.set_permissions(Permissions::from_mode(0o700)).map_err(failed)?;
        // In both, so that each is known for what it is.
        fs::hard_link(self.path.join(manifest::NAME), inner.join(manifest::NAME)).map_err(failed)?;
        fs::rename(&inner, &self.to).map_err(failed)?;
        root.set_permissions(Permissions::from_mode(self.mode)).map_err(failed)
    }

    fn failed(&self, error: io::Error) -> Error {
        match error.raw_os_error() {
            Some(libc::ENOTEMPTY | libc::EEXIST | libc::ENOTDIR) => Error::NotEmpty(self.to.clone()),
            _ => Error::io("make", &self.to)(error),
        }
    }

    /// Gives it its name.
    pub fn keep(mut self) -> Result<(), Error> {
        let failed = |error: io::Error| self.failed(error);
        let mode = Permissions::from_mode(self.mode);
        self.root.set_permissions(mode).map_err(failed)?;
        // A directory takes the place of an empty one, and of nothing else.
        fs::rename(&self.path, &self.to).map_err(failed)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!("{} is left: {error}", self.path.display());
        }
    }
}

/// Makes sure that there is nothing at `to`, or an empty directory, whose mode is returned.
pub(super) fn check(to: &Path) -> Result<Option<u32>, Error> {
    match fs::symlink_metadata(to) {
        Ok(data) if data.is_dir() && is_here(&data) => Err(Error::NotA {
            path: to.to_owned(),
            wanted: "a directory that another one can take the place of, as you are in it: go up, or name a new one in it",
        }),
        Ok(data) if data.is_dir() && is_empty(to)? => match fs::metadata(to.join("..")) {
            Ok(parent) if parent.dev() != data.dev() => Err(Error::NotA {
                path: to.to_owned(),
                wanted: "a directory that another one can take the place of, as something is mounted there: name a new one in it",
            }),
            _ => Ok(Some(data.mode() & 0o7777)),
        },
        Ok(_) => Err(Error::NotEmpty(to.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("look at", to)(error)),
    }
}

/// Whether that is the directory that whoever calls us is in.
fn is_here(data: &Metadata) -> bool {
    fs::metadata(".").is_ok_and(|here| (here.dev(), here.ino()) == (data.dev(), data.ino()))
}

fn prepare(path: &Path) -> io::Result<File> {
    let root = open(path)?;
    root.try_lock()?;
    // Nobody else, no other group, and no list of others: files in it would get them.
    fchown(&root, Some(geteuid().as_raw()), Some(getegid().as_raw()))?;
    root.set_permissions(Permissions::from_mode(0o700))?;
    take_away(&root, c"system.posix_acl_default")?;
    Ok(root)
}

/// Takes an attribute away; fine if it is not there, or cannot be.
fn take_away(from: &File, name: &CStr) -> io::Result<()> {
    // SAFETY: `name` ends with a NUL, and the descriptor is open.
    let removed = unsafe { libc::fremovexattr(from.as_raw_fd(), name.as_ptr()) };
    match Errno::result(removed) {
        Ok(_) | Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    fs::OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn is_empty(path: &Path) -> Result<bool, Error> {
    let mut entries = fs::read_dir(path).map_err(Error::io("read", path))?;
    Ok(entries.next().is_none())
}

/// Whether a directory is what a program that is not there any more has left: ours, not locked, and it begins as ours do.
fn is_left(path: &Path) -> bool {
    let Ok(root) = open(path) else { return false };
    let is_ours = root.metadata().is_ok_and(|data| data.uid() == geteuid().as_raw());
    if !is_ours || root.try_lock().is_err() {
        return false;
    }
    if is_empty(path).unwrap_or(false) {
        return true;
    }
    let list = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path.join(manifest::NAME));
    let Ok(list) = list else { return false };
    let mut line = String::new();
    let mut list = BufReader::new(io::Read::take(list, LINE_LIMIT));
    // Killed before there was a line.
    let alone = fs::read_dir(path).is_ok_and(|entries| entries.count() == 1);
    let length = list.read_line(&mut line).unwrap_or(0);
    length == 0 && alone || matches!(serde_json::from_str(&line), Ok(Line::Initrd { .. }))
}
