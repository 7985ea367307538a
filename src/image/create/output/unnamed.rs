// SPDX-License-Identifier: MIT OR Apache-2.0
//! An image file in the making. It has no name until it is whole, so that nothing is left of one that is not.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc;
use nix::sys::statvfs::fstatvfs;
use nix::unistd::linkat;

use crate::config::types::Size;
use crate::image::create::error::Error;

/// An image file without a name.
#[derive(Debug)]
pub(in crate::image::create) struct Unnamed {
    file: File,
    path: PathBuf,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Image { action, path, source }
}

/// Refuses what is there, and what no file can be.
pub(in crate::image::create) fn is_free(path: &Path) -> Result<(), Error> {
    if path.as_os_str().as_bytes().ends_with(b"/") || path.file_name().is_none() {
        return Err(Error::NoFileName(path.to_owned()));
    }
    match fs::symlink_metadata(path) {
        Ok(_) => Err(Error::Exists(path.display().to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("look at", path)(error)),
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Makes the directory that `path` is to be in.
pub(in crate::image::create) fn make_directory(path: &Path) -> Result<(), Error> {
    let directory = directory(path);
    fs::create_dir_all(directory).map_err(failed("make", directory))
}

impl Unnamed {
    /// One as [`new`](Self::new) makes it, only to see whether it can be; of a directory that is made then, in the one that
    /// that is in.
    pub(in crate::image::create) fn probe(path: &Path, makes_directory: bool, size: u64) -> Result<Self, Error> {
        let there = |path: &&Path| !makes_directory || directory(path).is_dir();
        let path = path.ancestors().find(there).unwrap_or(path);
        Self::new(path, size)
    }

    /// A sparse file of `size` bytes that is to be `path`. Only its owner can read it: it may have passwords in it.
    pub(in crate::image::create) fn new(path: &Path, size: u64) -> Result<Self, Error> {
        let directory = directory(path);
        let file = File::options()
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_TMPFILE)
            .open(directory);
        let file = file.map_err(|error| match error.raw_os_error() {
            Some(libc::EOPNOTSUPP | libc::EISDIR) => Error::NoTemporary(directory.to_owned()),
            _ => failed("make a file in", directory)(error),
        })?;
        file.set_len(size).map_err(|source| match source.raw_os_error() {
            Some(libc::EFBIG | libc::EINVAL) => Error::LargeImage {
                path: directory.to_owned(),
                size: Size::from_bytes(size),
                source,
            },
            _ => failed("make", path)(source),
        })?;
        let path = path.to_owned();
        Ok(Self { file, path })
    }

    /// Refuses if the disk has no room for so many bytes.
    pub(in crate::image::create) fn has_room(&self, bytes: u64) -> Result<(), Error> {
        let Ok(disk) = fstatvfs(&self.file) else { return Ok(()) };
        let free = disk.blocks_available() * disk.fragment_size();
        match bytes.checked_sub(free) {
            None | Some(0) => Ok(()),
            Some(missing) => Err(Error::NoSpace {
                path: directory(&self.path).to_owned(),
                missing,
            }),
        }
    }

    /// The open file.
    pub(in crate::image::create) fn file(&self) -> &File {
        &self.file
    }

    /// Where other programs find it.
    pub(in crate::image::create) fn device(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Gives it its name, if nobody has it; from then on it is there, after a power cut, too.
    pub(in crate::image::create) fn name(self) -> Result<(), Error> {
        let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let linked = linkat(AT_FDCWD, own.as_str(), AT_FDCWD, &self.path, AtFlags::AT_SYMLINK_FOLLOW);
        match linked {
            Err(Errno::EEXIST) => return Err(Error::Exists(self.path.display().to_string())),
            linked => linked.map_err(|errno| failed("name", &self.path)(errno.into()))?,
        }
        let directory = File::open(directory(&self.path)).and_then(|directory| directory.sync_all());
        directory.map_err(failed("name", &self.path))
    }
}
