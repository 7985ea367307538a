// SPDX-License-Identifier: MIT OR Apache-2.0
//! A recording as one file that another host replays.

use std::fs;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::archive::{Kind, PIECE, Part, Passing, engine_list, engine_parts, parts};
use super::capsules::other_engine;
use super::draft::{CONSOLE, GUEST_FILE, LOG, file_digest, new_file, sync};
use super::sealed;
use super::stored::{INITRD, KERNEL, Recording};
use crate::base::progress::Progress;
use crate::file;
use crate::qemu::capsule::{self, List, Member};
use crate::qemu::engine::Engine;
use crate::recording::error::Error;

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

/// Adds a file to the archive that is called `name`, after `before` bytes of `total`, if it is what the part says.
fn append(
    archive: &mut tar::Builder<impl Write>,
    head: &tar::Header,
    (path, part): (&Path, &Part),
    (before, total): (u64, u64),
    progress: &mut Progress<'_>,
    name: &Path,
) -> Result<(), Error> {
    let file = file::open_content(path).map_err(Error::file("open", path))?;
    // What has become longer is noticed by its digest, which then is taken of one byte more.
    let mut file = file.take(part.size.saturating_add(1));
    let mut passing = Passing::new(&mut file, before, total, progress);
    // The archive would be no archive any more with a byte more or less.
    let copied = archive.append(head, passing.by_ref().take(part.size));
    if passing.interrupted {
        return Err(Error::Interrupted);
    }
    copied.map_err(Error::file("write", name))?;
    let mut more = [0];
    let longer = passing.read(&mut more).map_err(Error::file("read", path))? > 0;
    match longer || passing.done != part.size || passing.digest() != part.digest {
        true => Err(Error::differs(&part.name, path, part.digest, passing.digest())),
        false => Ok(()),
    }
}

/// What goes with a recording.
#[derive(Debug, Clone, Copy, Default)]
pub struct With {
    /// What its disks were made from.
    pub disks: bool,
    /// The engine that recorded it.
    pub engine: bool,
}

/// An engine that goes with a recording: the text of its list, and where its files are.
struct Packed {
    list: String,
    files: Vec<(PathBuf, Part)>,
}

impl Recording {
    /// Writes it to `output`, which is called `name` in messages.
    pub fn export(
        &self,
        output: &mut dyn Write,
        name: &Path,
        with: With,
        progress: &mut Progress<'_>,
    ) -> Result<(), Error> {
        let _in_use = self.use_shared()?;
        // Before anything is written.
        let manifest = self.manifest().to_text()?;
        let mut wanted = Vec::new();
        for part in parts(self.manifest()) {
            if part.kind != Kind::Base || with.disks {
                wanted.push((self.source(&part)?, part));
            }
        }
        let engine = with.engine.then(|| self.engine_to_export(progress)).transpose()?;
        let files = engine.iter().flat_map(|engine| &engine.files);
        let total = wanted
            .iter()
            .chain(files.clone())
            .fold(0u64, |sum, (_, part)| sum.saturating_add(part.size));
        let mut archive = tar::Builder::new(GzEncoder::new(output, Compression::new(LEVEL)));
        let failed = |source| Error::file("write", name)(source);
        let mut texts = vec![(sealed::NAME.to_owned(), &manifest, &wanted)];
        texts.extend(engine.iter().map(|engine| (engine_list(), &engine.list, &engine.files)));
        let mut before = 0;
        for (text_name, text, members) in texts {
            let head = self.header(&text_name, text.len() as u64).map_err(failed)?;
            archive.append(&head, text.as_bytes()).map_err(failed)?;
            for (path, part) in members {
                let head = self.header(&part.name, part.size).map_err(failed)?;
                append(&mut archive, &head, (path, part), (before, total), progress, name)?;
                before += part.size;
            }
        }
        let finished = archive.into_inner().and_then(GzEncoder::finish);
        finished.and_then(|output| output.flush()).map_err(failed)
    }

    /// The engine that recorded it: the one that came with it, else the one that is installed.
    fn engine_to_export(&self, progress: &mut Progress<'_>) -> Result<Packed, Error> {
        // Of one that was recorded here, nobody else's.
        if let Some(capsule) = self.capsule()?.filter(|_| self.is_imported()) {
            let place = |part: Part| (capsule.files().join(part.file_name()), part);
            return Ok(Packed {
                list: capsule.text().to_owned(),
                files: engine_parts(capsule.list()).into_iter().map(place).collect(),
            });
        }
        let (list, places) = self.installed_engine(progress)?;
        Ok(Packed {
            list: list.to_text()?,
            files: places.into_iter().zip(engine_parts(&list)).collect(),
        })
    }

    /// The engine that is installed, if it is the one that recorded this.
    fn installed_engine(&self, progress: &mut Progress<'_>) -> Result<(List, Vec<PathBuf>), Error> {
        let other = |why| Error::OtherEngine {
            guest: self.guest().clone(),
            id: self.id().clone(),
            why,
        };
        if !self.manifest().engine.toolstack.is_emulated() {
            return Err(other("it was recorded on Xen".to_owned()));
        }
        let version = Engine::Installed.version().map_err(capsule::Error::from)?.text;
        let mut list = List {
            version,
            files: Vec::new(),
        };
        let files = capsule::installed()?;
        for (name, path) in &files {
            // It only reads them: how far the export is, is counted when they are written.
            let file = file_digest(path, Path::new(name), &mut |_, _| progress(0, 1))?;
            list.files.push(Member {
                name: name.clone(),
                size: file.size,
                digest: file.digest,
            });
        }
        match other_engine(&list, self.manifest()) {
            Some(why) => Err(other(why)),
            None => Ok((list, files.into_values().collect())),
        }
    }

    /// The same into a file, which has its name when it is whole. Returns its size.
    pub fn export_to(&self, path: &Path, with: With, replace: bool, progress: &mut Progress<'_>) -> Result<u64, Error> {
        if !replace && fs::symlink_metadata(path).is_ok() {
            return Err(Error::Exists(path.to_owned()));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}.new.{}", std::process::id()));
        let failed = |source| Error::file("write", path)(source);
        let file = new_file(&temporary).map_err(failed)?;
        let unfinished = Unfinished(temporary);
        let mut output = BufWriter::with_capacity(PIECE, &file);
        self.export(&mut output, path, with, progress)?;
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
