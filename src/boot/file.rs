// SPDX-License-Identifier: MIT OR Apache-2.0
//! One file that GRUB is to load: found, looked at, and known by a path that GRUB can follow.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::base::root::under;
use crate::base::text::is_plain;

/// Why a file cannot be put into a boot entry.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// No such file, or a link to nothing.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// Not a regular file.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// A file without content: something was interrupted while it wrote.
    #[error("{} is empty", .0.display())]
    Empty(PathBuf),
    /// A kernel that is not all there: /boot was full.
    #[error("{} is cut off: by its own header it lacks {lacks} bytes", path.display())]
    CutOff {
        /// The file.
        path: PathBuf,
        /// How many.
        lacks: u64,
    },
    /// GRUB searches the boot file system only.
    #[error("{} is not on the file system of /boot, where GRUB looks", .0.display())]
    Elsewhere(PathBuf),
    /// A name that no line of a configuration file can hold.
    #[error("{:?} has a name that GRUB's menu cannot hold", .0)]
    Name(PathBuf),
    /// The system did not let us look.
    #[error("{} cannot be read ({source})", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason; part of the message, which must be one line.
        source: io::Error,
    },
}

/// A file under /boot that can be loaded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BootFile {
    path: PathBuf,
}

impl BootFile {
    /// Looks at `path` in the tree that begins at `root`. Links are followed here, because GRUB follows them
    /// from the top of the boot file system, which need not be the top of the tree.
    pub fn find(root: &Path, path: &Path) -> Result<Self, Unusable> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => Unusable::Missing(path.to_owned()),
            _ => Unusable::Unreadable {
                path: path.to_owned(),
                source: error,
            },
        };
        let top = root.canonicalize().map_err(failed)?;
        let real = under(root, path).canonicalize().map_err(failed)?;
        let metadata = fs::metadata(&real).map_err(failed)?;
        if !metadata.is_file() {
            return Err(Unusable::NotAFile(path.to_owned()));
        }
        if metadata.len() == 0 {
            return Err(Unusable::Empty(path.to_owned()));
        }
        let boot = fs::metadata(under(root, Path::new("/boot"))).map_err(failed)?;
        let inside = real.strip_prefix(&top).ok().filter(|_| metadata.dev() == boot.dev());
        let Some(inside) = inside else {
            return Err(Unusable::Elsewhere(path.to_owned()));
        };
        if !inside.to_str().is_some_and(|text| text.chars().all(is_plain)) {
            return Err(Unusable::Name(path.to_owned()));
        }
        Ok(Self {
            path: Path::new("/").join(inside),
        })
    }

    /// Its absolute path, without links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory it is in.
    pub fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// Its name in that directory.
    pub fn name(&self) -> &str {
        // `find` has let no other names through.
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }
}
