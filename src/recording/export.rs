// SPDX-License-Identifier: MIT OR Apache-2.0
//! A recording as one file that another host replays.

use std::fs;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::archive::{PIECE, Part, Passing, parts};
use super::draft::{CONSOLE, GUEST_FILE, LOG, new_file, sync};
use super::error::Error;
use super::sealed;
use super::stored::{INITRD, KERNEL, Recording};
use crate::file;
use crate::progress::Progress;

/// A replay log is mostly small numbers: a higher level takes longer and saves little.
const LEVEL: u32 = 3;

/// A file in the making; it goes away unless it is kept.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

/// Gives the file `from` a name that nothing has, not even since a moment ago.
fn name_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        // A file system that cannot: a further name never takes the place of another file either.
        Err(Errno::EINVAL | Errno::ENOSYS) => fs::hard_link(from, to),
        named => Ok(named?),
    }
}

impl Recording {
    /// Writes it to `output`, which is called `name` in messages; with `disks`, what its disks were made from as well.
    pub fn export(
        &self,
        output: &mut dyn Write,
        name: &Path,
        disks: bool,
        progress: &mut Progress<'_>,
    ) -> Result<(), Error> {
        let _in_use = self.use_shared()?;
        // Before anything is written.
        let manifest = self.manifest().to_text()?;
        let mut wanted = Vec::new();
        for part in parts(self.manifest()) {
            if !part.base || disks {
                wanted.push((self.source(&part)?, part));
            }
        }
        let total = wanted.iter().fold(0u64, |sum, (_, part)| sum.saturating_add(part.size));
        let mut archive = tar::Builder::new(GzEncoder::new(output, Compression::new(LEVEL)));
        let failed = |source| Error::file("write", name)(source);
        let head = self.header(sealed::NAME, manifest.len() as u64).map_err(failed)?;
        archive.append(&head, manifest.as_bytes()).map_err(failed)?;
        let mut before = 0;
        for (path, part) in &wanted {
            let head = self.header(&part.name, part.size).map_err(failed)?;
            let file = file::open_content(path).map_err(Error::file("open", path))?;
            // What has become longer is noticed by its digest, which then is taken of one byte more.
            let mut file = file.take(part.size.saturating_add(1));
            let mut passing = Passing::new(&mut file, before, total, progress);
            // The archive would be no archive any more with a byte more or less.
            let copied = archive.append(&head, passing.by_ref().take(part.size));
            if passing.interrupted {
                return Err(Error::Interrupted);
            }
            copied.map_err(failed)?;
            let mut more = [0];
            let longer = passing.read(&mut more).map_err(Error::file("read", path))? > 0;
            if longer || passing.done != part.size || passing.digest() != part.digest {
                return Err(Error::differs(&part.name, path, part.digest, passing.digest()));
            }
            before += part.size;
        }
        let finished = archive.into_inner().and_then(GzEncoder::finish);
        finished.and_then(|output| output.flush()).map_err(failed)
    }

    /// The same into a file, which has its name when it is whole. Returns its size.
    pub fn export_to(
        &self,
        path: &Path,
        disks: bool,
        replace: bool,
        progress: &mut Progress<'_>,
    ) -> Result<u64, Error> {
        if !replace && fs::symlink_metadata(path).is_ok() {
            return Err(Error::Exists(path.to_owned()));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}.new.{}", std::process::id()));
        let failed = |source| Error::file("write", path)(source);
        let file = new_file(&temporary).map_err(failed)?;
        let unfinished = Unfinished(temporary);
        let mut output = BufWriter::with_capacity(PIECE, &file);
        self.export(&mut output, path, disks, progress)?;
        drop(output);
        file.sync_all().map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let named = match replace {
            true => fs::rename(&unfinished.0, path),
            false => name_new(&unfinished.0, path),
        };
        match named {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(Error::Exists(path.to_owned())),
            named => named.map_err(failed)?,
        }
        match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => sync(Path::new("."))?,
            Some(parent) => sync(parent)?,
            None => {}
        }
        Ok(size)
    }

    /// Where a member's content is.
    fn source(&self, part: &Part) -> Result<PathBuf, Error> {
        let there = match part.name.as_str() {
            GUEST_FILE => Some(self.guest_file()),
            CONSOLE => Some(self.console()),
            LOG => Some(self.log()),
            KERNEL => self.kernel_path(),
            INITRD => self.initrd_path(),
            _ => {
                let disk = self.manifest().disks.iter().find(|disk| disk.digest == part.digest);
                let there = disk.and_then(|disk| self.base_path(disk, None));
                match disk {
                    Some(disk) if there.is_none() && self.is_imported() => {
                        return Err(Error::NoDisk {
                            target: disk.target.clone(),
                        });
                    }
                    disk => there.or_else(|| disk.map(|disk| disk.origin.path())),
                }
            }
        };
        let path = there.unwrap_or_default();
        // Also whether it may be read.
        file::open_content(&path).map_err(Error::file("open", &path))?;
        Ok(path)
    }

    fn header(&self, name: &str, size: u64) -> io::Result<tar::Header> {
        let mut header = tar::Header::new_gnu();
        header.set_path(name)?;
        header.set_size(size);
        header.set_mode(0o600);
        header.set_mtime(self.manifest().run.started);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        Ok(header)
    }
}
