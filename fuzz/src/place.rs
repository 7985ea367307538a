// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where parsers read that take a file: in memory, or in a directory that nobody else has.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use nix::sys::memfd::{MFdFlags, memfd_create};

/// A file that is nowhere but in memory.
pub struct Sheet {
    file: File,
    path: PathBuf,
}

impl Sheet {
    /// An empty one.
    pub fn new() -> io::Result<Self> {
        let file = File::from(memfd_create(c"fuzz", MFdFlags::MFD_CLOEXEC)?);
        let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
        Ok(Self { file, path })
    }

    /// Its name for this process.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// It has just these bytes from now on.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all_at(bytes, 0)
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// The new directory `target/fuzz/place/NAME-PID`. `make fuzz` removes it.
pub struct Place(PathBuf);

impl Place {
    /// Makes it.
    pub fn new(name: &str) -> io::Result<Self> {
        let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/fuzz/place");
        fs::create_dir_all(&all)?;
        let path = all.canonicalize()?.join(format!("{name}-{}", std::process::id()));
        // Of a process that had the same number.
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes a file in it, and the directories on the way to that.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.0.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, bytes)
    }
}
