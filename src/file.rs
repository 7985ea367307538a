// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writing files so that nobody ever sees half of one.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Puts `content` in place of the file at `path` in one step: a temporary file beside it, fsync, rename.
/// A file that already has that content is not touched. `mode` is for a new file; an existing one keeps its own.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let old = fs::metadata(path);
    if old.is_ok() && fs::read(path)? == content {
        return Ok(());
    }
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut temporary = name.to_os_string();
    temporary.push(format!(".new.{}", std::process::id()));
    let temporary = path.with_file_name(temporary);
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        // Whatever the umask is.
        file.set_permissions(Permissions::from_mode(mode))?;
        if let Ok(old) = old {
            use std::os::unix::fs::{MetadataExt, fchown};
            file.set_permissions(old.permissions())?;
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
        return written;
    }
    // The name itself is only safe once its directory is.
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}
