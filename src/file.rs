// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writing files so that nobody ever sees half of one.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::{fail_point, xattr};

/// Puts `content` in place of the file at `path` in one step: a temporary file beside it, fsync, rename.
/// A file that already has that content is not touched. `mode` is for a new file; an existing one keeps its own.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let old = fs::metadata(path);
    if old.is_ok() && fs::read(path)? == content {
        return Ok(());
    }
    put(path, content, mode, || Ok(()))
}

/// A file as it was read, for [`replace_seen`]; there may have been none.
#[derive(Debug)]
pub struct Seen(Option<(Metadata, Vec<u8>)>);

impl Seen {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self(None)),
            file => file?,
        };
        let metadata = file.metadata()?;
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        Ok(Self(Some((metadata, content))))
    }

    /// What was in it.
    pub fn content(&self) -> Option<&[u8]> {
        self.0.as_ref().map(|(_, content)| content.as_slice())
    }

    /// `Ok` if it still is the same file with the same content.
    pub fn check(&self, path: &Path) -> io::Result<()> {
        let key = |seen: &Self| {
            let (data, content) = seen.0.as_ref()?;
            Some((data.dev(), data.ino(), data.mtime(), data.mtime_nsec(), content.clone()))
        };
        match key(self) == key(&Self::read(path)?) {
            true => Ok(()),
            false => Err(io::Error::other("somebody else has changed it meanwhile")),
        }
    }
}

/// [`replace`] for a file that people write, too: not if it has changed since it was `seen`.
pub fn replace_seen(path: &Path, content: &[u8], mode: u32, seen: &Seen) -> io::Result<()> {
    match seen.content() == Some(content) {
        true => seen.check(path),
        false => put(path, content, mode, || seen.check(path)),
    }
}

/// Makes the file at `path`, whole from the first moment on; one that is there stays as it is, and that is an error
/// ([`io::ErrorKind::AlreadyExists`]).
pub fn create(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = beside(path)?;
    let written = (|| {
        let mut file = create_new(&temporary, mode)?;
        file.write_all(content)?;
        file.sync_all()?;
        // Unlike a rename, a second name never takes the place of another file.
        fs::hard_link(&temporary, path)
    })();
    let removed = fs::remove_file(&temporary);
    written?;
    removed?;
    sync_directory(path)
}

/// Does it. `check` has the last word before the new file takes the place of the old one.
fn put(path: &Path, content: &[u8], mode: u32, check: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let old = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        file => Some(file?),
    };
    let temporary = beside(path)?;
    let written = (|| {
        let mut file = create_new(&temporary, mode)?;
        if let Some(old) = old {
            let data = old.metadata()?;
            file.set_permissions(data.permissions())?;
            fchown(&file, Some(data.uid()), Some(data.gid()))?;
            xattr::copy(&old, &file)?;
        }
        file.write_all(content)?;
        file.sync_all()?;
        fail_point::reach("file.written");
        check()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
        return written;
    }
    sync_directory(path)
}

/// The name of a temporary file beside `path`, where there is none.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut temporary = name.to_os_string();
    temporary.push(format!(".new.{}", std::process::id()));
    let temporary = path.with_file_name(temporary);
    // Left by a process of the same number, before a power cut.
    drop(fs::remove_file(&temporary));
    Ok(temporary)
}

fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // Whatever the umask is.
    file.set_permissions(Permissions::from_mode(mode))?;
    Ok(file)
}

/// The name itself is only safe once its directory is.
fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}
