// SPDX-License-Identifier: MIT OR Apache-2.0
//! The half of a copy that writes: what comes from a source, with the edits, goes into the file system.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::stat::FileStat;

use super::content::{piece, read_at};
use super::edits::{Edit, Edits};
use super::item::{Content, Item, Key, has_holes};
use super::reader::is_same;
use super::report::Report;
use super::tree::Problem;
use crate::ext4::{self, Attribute, BLOCK, Directory, FileType, Filesystem, Mapping, Meta, Time, Unlinked};

/// What is read of a file at once.
const PIECE: usize = 1 << 20;
/// How far the disk is asked ahead.
const AHEAD: i64 = 4 << 20;

/// Why it does not go on.
#[derive(Debug)]
pub(super) enum Stop {
    /// The file system said so, of the file at this path.
    Failed(Vec<u8>, ext4::Error),
    /// Whoever hears of the progress.
    CalledOff,
}

/// A directory that may still get names.
struct Open {
    directory: Directory,
    meta: Meta,
    attributes: Vec<Attribute>,
}

/// The file system with what has come so far.
pub(super) struct Filler<'a> {
    fs: Filesystem,
    edits: Edits,
    now: Time,
    /// Directories that may still get names, by their paths.
    open: HashMap<Vec<u8>, Open>,
    /// Files with further names to come, and how many.
    names: HashMap<Key, (Unlinked, u64)>,
    buffer: Vec<u8>,
    pub(super) report: Report,
    /// Hears of the bytes of content that have come; `false` calls it off.
    progress: &'a mut dyn FnMut(u64) -> bool,
}

impl<'a> Filler<'a> {
    pub(super) fn new(fs: Filesystem, edits: Edits, now: Time, progress: &'a mut dyn FnMut(u64) -> bool) -> Self {
        Self {
            fs,
            edits,
            now,
            open: HashMap::new(),
            names: HashMap::new(),
            buffer: Vec::new(),
            report: Report::default(),
            progress,
        }
    }

    /// Whether there is such a directory, and not left yet.
    pub(super) fn has_directory(&self, path: &[u8]) -> bool {
        self.open.contains_key(path)
    }

    /// A directory in one that is there; the root is the first. One that is there gets other owners and times.
    pub(super) fn enter(&mut self, mut item: Item) -> Result<(), Stop> {
        self.keep(&item.path, &mut item.attributes);
        if let Some(open) = self.open.get_mut(&item.path) {
            open.meta = item.meta;
            open.attributes = item.attributes;
            return Ok(());
        }
        self.report.files += 1;
        let directory = if item.path.is_empty() {
            self.fs.root()
        } else {
            // One that was to be there is.
            self.edits.take(&item.path);
            let (parent, name) = split(&item.path);
            let Some(parent) = self.open.get_mut(parent) else {
                return Ok(());
            };
            let made = self.fs.directory(&mut parent.directory, name);
            made.map_err(failed(&item.path))?
        };
        let open = Open {
            directory,
            meta: item.meta,
            attributes: item.attributes,
        };
        self.open.insert(item.path, open);
        Ok(())
    }

    /// The directory has all that the source has in it.
    pub(super) fn leave(&mut self, path: &[u8]) -> Result<(), Stop> {
        for (path, edit) in self.edits.take_in(path) {
            self.edited(path, edit, None)?;
        }
        let Some(open) = self.open.remove(path) else {
            return Ok(());
        };
        let finished = self.fs.finish_directory(&open.directory, &open.meta, &open.attributes);
        finished.map_err(failed(path))
    }

    /// Anything but a directory.
    pub(super) fn file(&mut self, mut item: Item) -> Result<(), Stop> {
        self.keep(&item.path, &mut item.attributes);
        match self.edits.take(&item.path) {
            // Something is there, if not what was to be.
            None | Some(Edit::Directory { .. } | Edit::Device { .. }) => {}
            Some(edit) => return self.edited(item.path.clone(), edit, Some(item)),
        }
        let made = self.make(&item)?;
        self.made(&item, made)
    }

    /// A regular file whose content comes from `reader`; of a sparse one, blocks of zeros are holes.
    pub(super) fn stream(
        &mut self,
        mut item: Item,
        size: u64,
        sparse: bool,
        reader: &mut dyn Read,
    ) -> Result<(), Stop> {
        self.keep(&item.path, &mut item.attributes);
        match self.edits.take(&item.path) {
            None | Some(Edit::Directory { .. } | Edit::Device { .. }) => {}
            Some(edit) => return self.edited(item.path.clone(), edit, Some(item)),
        }
        let mut mapping = Mapping::default();
        let mut at = 0;
        let mut buffer = vec![0; PIECE.min((size as usize).next_multiple_of(BLOCK))];
        while at < size {
            let want = (size - at).min(PIECE as u64) as usize;
            let read = reader.read_exact(&mut buffer[..want]);
            let unread = |source| ext4::Error::Io {
                action: "read what goes into",
                source,
            };
            read.map_err(unread).map_err(failed(&item.path))?;
            for (index, block) in buffer[..want].chunks(if sparse { BLOCK } else { PIECE }).enumerate() {
                if !sparse || block.iter().any(|byte| *byte != 0) {
                    let appended = self.fs.append(&mut mapping, at / BLOCK as u64 + index as u64, block);
                    appended.map_err(failed(&item.path))?;
                }
            }
            at += want as u64;
            // Holes are not counted, since they were not before.
            self.count(if sparse { 0 } else { want as u64 })?;
        }
        let made = self
            .fs
            .file(&item.meta, size, &mapping, &item.attributes)
            .map_err(failed(&item.path))?;
        self.made(&item, made)
    }

    /// A file is there, and has its first name.
    fn made(&mut self, item: &Item, made: Unlinked) -> Result<(), Stop> {
        self.report.files += 1;
        self.name(&item.path, &made);
        match item.names {
            Some((key, names)) => {
                self.names.insert(key, (made, names - 1));
                Ok(())
            }
            None => self.fs.finish_file(&made).map_err(failed(&item.path)),
        }
    }

    /// Another name of a file.
    pub(super) fn again(&mut self, path: &[u8], key: Key) -> Result<(), Stop> {
        if let Some(edit) = self.edits.take(path) {
            return self.edited(path.to_vec(), edit, None);
        }
        let Some((mut file, left)) = self.names.remove(&key) else {
            self.report.problem(path, Problem::Vanished);
            return Ok(());
        };
        file.link();
        self.name(path, &file);
        match left {
            0 | 1 => self.fs.finish_file(&file).map_err(failed(path)),
            left => {
                self.names.insert(key, (file, left - 1));
                Ok(())
            }
        }
    }

    /// Drops the attributes that can not be stored.
    fn keep(&mut self, path: &[u8], attributes: &mut Vec<Attribute>) {
        if !ext4::keep_storable(attributes) {
            self.report.problem(path, Problem::Attributes);
        }
    }

    fn name(&mut self, path: &[u8], file: &Unlinked) {
        let (parent, name) = split(path);
        if let Some(open) = self.open.get_mut(parent) {
            open.directory.add(name, file.inode(), file.kind());
        }
    }

    /// All has come: the file system is completed.
    pub(super) fn finish(mut self) -> Result<Report, Stop> {
        let mut left: Vec<Vec<u8>> = self.open.keys().cloned().collect();
        // What is in others comes first.
        left.sort_by_key(|path| std::cmp::Reverse(path.len()));
        for path in left {
            self.leave(&path)?;
        }
        for (_, (file, _)) in std::mem::take(&mut self.names) {
            self.fs.finish_file(&file).map_err(failed(b""))?;
        }
        self.fs.finish().map_err(failed(b""))?;
        Ok(self.report)
    }

    /// The file that an edit says. Of the one there was before, owner and permissions are kept.
    fn edited(&mut self, path: Vec<u8>, edit: Edit, before: Option<Item>) -> Result<(), Stop> {
        let fresh = |kind, permissions| Meta {
            kind,
            permissions,
            uid: 0,
            gid: 0,
            accessed: self.now,
            modified: self.now,
            device: (0, 0),
        };
        let (meta, content) = match edit {
            Edit::Nothing => return Ok(()),
            Edit::Directory { permissions } => {
                self.enter(Item {
                    path: path.clone(),
                    meta: fresh(FileType::Directory, permissions),
                    attributes: Vec::new(),
                    names: None,
                    content: Content::Nothing,
                })?;
                return self.leave(&path);
            }
            Edit::Symlink(target) => (fresh(FileType::Symlink, 0o777), Content::Target(target.into())),
            Edit::File { content, permissions } => (fresh(FileType::Regular, permissions), Content::Bytes(content)),
            Edit::Device { device, permissions } => {
                let meta = fresh(FileType::Character, permissions);
                (Meta { device, ..meta }, Content::Nothing)
            }
        };
        let before = before.filter(|before| before.meta.kind == meta.kind);
        let (meta, attributes) = match before {
            Some(before) => {
                let modified = self.now;
                (
                    Meta {
                        modified,
                        ..before.meta
                    },
                    before.attributes,
                )
            }
            None => (meta, Vec::new()),
        };
        let item = Item {
            path,
            meta,
            attributes,
            names: None,
            content,
        };
        let made = self.make(&item)?;
        self.made(&item, made)
    }

    fn make(&mut self, item: &Item) -> Result<Unlinked, Stop> {
        let mut mapping = Mapping::default();
        let size = match &item.content {
            Content::Nothing => 0,
            Content::Target(target) => {
                let made = self.fs.symlink(&item.meta, target, &item.attributes);
                return made.map_err(failed(&item.path));
            }
            Content::Bytes(bytes) => {
                self.fs.append(&mut mapping, 0, bytes).map_err(failed(&item.path))?;
                self.count(bytes.len() as u64)?;
                bytes.len() as u64
            }
            Content::File(file, stat) => self.copy(&item.path, file, stat, &mut mapping)?,
        };
        let made = self.fs.file(&item.meta, size, &mapping, &item.attributes);
        made.map_err(failed(&item.path))
    }

    /// Copies what is in a file, but not its holes. Returns its size.
    fn copy(&mut self, path: &[u8], file: &File, stat: &FileStat, mapping: &mut Mapping) -> Result<u64, Stop> {
        let size = stat.st_size as u64;
        self.buffer.resize(PIECE, 0);
        let sparse = has_holes(stat);
        let (mut at, mut problem) = (0, None);
        while at < size && problem.is_none() {
            let (start, end) = match sparse {
                true => match piece(file, at, size) {
                    Ok(Some(piece)) => piece,
                    Ok(None) => break,
                    Err(errno) => {
                        problem = Some(Problem::of(errno));
                        break;
                    }
                },
                false => (at, size),
            };
            at = start;
            while at < end {
                let want = (end - at).min(PIECE as u64) as usize;
                if end - at > PIECE as u64 {
                    // Of use but not needed.
                    let next = (at as i64).saturating_add(PIECE as i64);
                    let _ = posix_fadvise(file, next, AHEAD, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
                }
                let length = match read_at(file, &mut self.buffer[..want], at) {
                    Ok(length) => length,
                    Err(error) => {
                        problem = Some(Problem::Unreadable(error.raw_os_error().unwrap_or(0)));
                        break;
                    }
                };
                let appended = self.fs.append(mapping, at / BLOCK as u64, &self.buffer[..length]);
                appended.map_err(failed(path))?;
                at += length as u64;
                self.count(length as u64)?;
                if length < want {
                    problem = Some(Problem::Changed);
                    break;
                }
            }
        }
        if problem.is_none() && !is_same(file, stat) {
            problem = Some(Problem::Changed);
        }
        if let Some(problem) = problem {
            self.report.problem(path, problem);
        }
        // What it lost, or what can not be read, are zeros.
        Ok(size)
    }

    fn count(&mut self, bytes: u64) -> Result<(), Stop> {
        self.report.bytes += bytes;
        match (self.progress)(self.report.bytes) {
            true => Ok(()),
            false => Err(Stop::CalledOff),
        }
    }
}

/// The directory that a file is in, and its name in that.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn failed(path: &[u8]) -> impl FnOnce(ext4::Error) -> Stop {
    let path = path.to_vec();
    move |error| Stop::Failed(path, error)
}
