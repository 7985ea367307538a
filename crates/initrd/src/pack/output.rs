// SPDX-License-Identifier: MIT OR Apache-2.0
//! An image in the making: a file that has another name until it is whole.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::libc;
use nix::unistd::geteuid;

use crate::beside::{Beside, parent};
use crate::error::Error;

/// What comes between the name to be and the number of the process.
const MARK: &str = ".packing-";
/// What is written at once.
const BUFFER: usize = 1 << 18;
/// How much waits in memory before the disk begins to write: who waits for all of it in the end waits less.
const AHEAD: u64 = 4 << 20;

/// The image; it goes away unless it is kept.
#[derive(Debug)]
pub(super) struct Draft {
    to: PathBuf,
    path: PathBuf,
    replace: bool,
    /// The mode it will have.
    mode: u32,
    kept: bool,
}

/// What writes to it, and counts.
#[derive(Debug)]
pub(super) struct Output {
    file: File,
    buffer: Vec<u8>,
    /// Bytes that were written, with those in the buffer.
    pub written: u64,
    begun: u64,
}

impl Draft {
    /// A file that is to be `to`, in place of what is there, whose mode it gets, if that is to be replaced. A new one has `mode`.
    pub fn new(to: &Path, replace: bool, mode: u32) -> Result<(Self, Output), Error> {
        let to = place(to, replace)?;
        let path = clean(&to)?.own();
        let failed = |error: io::Error| Error::io("make", &path)(error);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            // Nobody else sees what it is not known yet whether they may.
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let mut draft = Self {
            to,
            path: path.clone(),
            replace,
            mode,
            kept: false,
        };
        file.try_lock().map_err(|error| failed(error.into()))?;
        if let Ok(old) = fs::metadata(&draft.to) {
            // Whoever may read the old one may read the new one.
            draft.mode = old.mode() & 0o7777;
            if (old.uid(), old.gid()) != file.metadata().map(|new| (new.uid(), new.gid())).map_err(failed)? {
                fchown(&file, Some(old.uid()), Some(old.gid())).map_err(failed)?;
            }
        }
        let output = Output {
            file,
            buffer: Vec::with_capacity(BUFFER),
            written: 0,
            begun: 0,
        };
        Ok((draft, output))
    }

    /// Gives it its name once it is on the disk.
    pub fn keep(mut self, mut output: Output) -> Result<(), Error> {
        let failed = |error: io::Error| Error::io("write", &self.to)(error);
        output.write_out().map_err(failed)?;
        let mode = Permissions::from_mode(self.mode);
        output.file.set_permissions(mode).map_err(failed)?;
        output.file.sync_all().map_err(failed)?;
        match self.replace {
            true => fs::rename(&self.path, &self.to).map_err(failed)?,
            false => match renameat2(AT_FDCWD, &self.path, AT_FDCWD, &self.to, RenameFlags::RENAME_NOREPLACE) {
                Ok(()) => {}
                Err(Errno::EEXIST) => return Err(Error::Exists(self.to.clone())),
                // Not all file systems know that.
                Err(Errno::EINVAL | Errno::ENOSYS) if !self.to.exists() => {
                    fs::rename(&self.path, &self.to).map_err(failed)?;
                }
                Err(error) => return Err(failed(error.into())),
            },
        }
        self.kept = true;
        let parent = parent(&self.to);
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)
    }

    /// Where it will be.
    pub fn to(&self) -> &Path {
        &self.to
    }
}

/// Where an image `to` will be. If that is a link, what it leads to is the image.
fn place(to: &Path, replace: bool) -> Result<PathBuf, Error> {
    let there = match fs::symlink_metadata(to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(to.to_owned()),
        there => there.map_err(Error::io("look at", to))?,
    };
    if !replace {
        return Err(Error::Exists(to.to_owned()));
    }
    let place = match there.is_symlink() {
        true => fs::canonicalize(to).map_err(Error::io("find", to))?,
        false => to.to_owned(),
    };
    match place.metadata().map_err(Error::io("look at", to))?.is_file() {
        true => Ok(place),
        false => Err(Error::NotA {
            path: to.to_owned(),
            wanted: "a file that an image could replace",
        }),
    }
}

/// Removes what programs that were killed have left of an image `to`; returns the names that it may have before it is whole.
fn clean(to: &Path) -> Result<Beside<'_>, Error> {
    let beside = Beside::new(to, MARK).ok_or_else(|| Error::NotA {
        path: to.to_owned(),
        wanted: "a name that a file can have",
    })?;
    for left in beside.there()? {
        remove_left(&left)?;
    }
    Ok(beside)
}

/// That for an image that [`Draft::new`] will be asked for, so that it is no part of it.
pub(super) fn clean_up(to: &Path, replace: bool) -> Result<(), Error> {
    clean(&place(to, replace)?).map(drop)
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!("{} is left: {error}", self.path.display());
        }
    }
}

impl Output {
    fn write_out(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        if self.written - self.begun >= AHEAD {
            // SAFETY: it takes an open descriptor and numbers. It only begins what sync_all waits for, so it may fail.
            unsafe {
                let begin = self.begun as i64;
                let count = (self.written - self.begun) as i64;
                libc::sync_file_range(self.file.as_raw_fd(), begin, count, libc::SYNC_FILE_RANGE_WRITE);
            }
            self.begun = self.written;
        }
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(BUFFER - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..length]);
        self.written += length as u64;
        if self.buffer.len() == BUFFER {
            self.write_out()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Removes what a program that was killed has left: a file of ours that nobody has locked.
fn remove_left(path: &Path) -> Result<(), Error> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(path) else {
        return Ok(());
    };
    let is_ours = file
        .metadata()
        .is_ok_and(|data| data.is_file() && data.uid() == geteuid().as_raw());
    match is_ours && file.try_lock().is_ok() {
        true => fs::remove_file(path).map_err(Error::io("remove", path)),
        false => Ok(()),
    }
}
