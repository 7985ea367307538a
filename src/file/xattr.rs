// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a file has besides its content, owner and mode: its SELinux label, its access list.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;

/// What the kernel makes from a file's content: a copy would not fit another content.
const OF_CONTENT: [&CStr; 2] = [c"security.ima", c"security.evm"];

/// Gives `to` the attributes of `from`.
pub(crate) fn copy(from: &File, to: &File) -> io::Result<()> {
    // SAFETY: `buffer` is null or has as many bytes as are said, and the descriptor is open.
    let names = read(|buffer, size| unsafe { libc::flistxattr(from.as_raw_fd(), buffer.cast(), size) });
    let names = match names {
        Err(Errno::EOPNOTSUPP) => return Ok(()),
        names => names?,
    };
    for name in names.split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        if OF_CONTENT.contains(&name) {
            continue;
        }
        let get = |file: &File| {
            // SAFETY: as above; `name` ends with a NUL.
            read(|buffer, size| unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), buffer.cast(), size) })
        };
        let value = get(from)?;
        // To set a label may be forbidden, even if it is the one that a new file gets by itself.
        if get(to).is_ok_and(|own| own == value) {
            continue;
        }
        // SAFETY: `value` has that many bytes.
        let set = unsafe { libc::fsetxattr(to.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
        Errno::result(set)?;
    }
    Ok(())
}

/// Names and values.
pub(crate) type All = Vec<(Vec<u8>, Vec<u8>)>;

/// All attributes of an open file that may be read.
pub(crate) fn of_file(file: &impl AsFd) -> io::Result<All> {
    let fd = file.as_fd().as_raw_fd();
    all(
        // SAFETY: `buffer` is null or has as many bytes as are said, and the descriptor is open.
        |buffer, size| unsafe { libc::flistxattr(fd, buffer.cast(), size) },
        // SAFETY: as above; `name` ends with a NUL.
        |name, buffer, size| unsafe { libc::fgetxattr(fd, name.as_ptr(), buffer.cast(), size) },
    )
}

/// The same of the file at `path`; if it is a symbolic link, of that.
pub(crate) fn of_name(path: &CStr) -> io::Result<All> {
    all(
        // SAFETY: `buffer` is null or has as many bytes as are said; `path` ends with a NUL.
        |buffer, size| unsafe { libc::llistxattr(path.as_ptr(), buffer.cast(), size) },
        // SAFETY: as above, and so does `name`.
        |name, buffer, size| unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer.cast(), size) },
    )
}

/// Binds a file to its number and its file system: a copy would not fit.
const OF_INODE: &CStr = c"security.evm";

fn all(
    list: impl Fn(*mut u8, usize) -> libc::ssize_t,
    get: impl Fn(&CStr, *mut u8, usize) -> libc::ssize_t,
) -> io::Result<All> {
    // Most files have none: one call says so.
    let mut buffer = [0; 256];
    let names = match Errno::result(list(buffer.as_mut_ptr(), buffer.len())) {
        Ok(0) | Err(Errno::EOPNOTSUPP) => return Ok(Vec::new()),
        Ok(length) => buffer[..length as usize].to_vec(),
        Err(Errno::ERANGE) => read(&list)?,
        Err(errno) => return Err(errno.into()),
    };
    let mut all = Vec::new();
    for name in names.split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        match read(|buffer, size| get(name, buffer, size)) {
            // Gone since.
            Err(Errno::ENODATA) => {}
            Ok(value) if name != OF_INODE => all.push((name.to_bytes().to_vec(), value)),
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(all)
}

/// Asks for the size, then for the bytes; again if they have become more in between.
fn read(call: impl Fn(*mut u8, usize) -> libc::ssize_t) -> Result<Vec<u8>, Errno> {
    loop {
        let size = Errno::result(call(std::ptr::null_mut(), 0))?;
        let mut buffer = vec![0; size as usize];
        if buffer.is_empty() {
            return Ok(buffer);
        }
        match Errno::result(call(buffer.as_mut_ptr(), buffer.len())) {
            Err(Errno::ERANGE) => {}
            size => {
                buffer.truncate(size? as usize);
                return Ok(buffer);
            }
        }
    }
}
