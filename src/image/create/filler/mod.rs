// SPDX-License-Identifier: MIT OR Apache-2.0
//! The half of a copy that writes: what comes from a source, with the edits, goes into the file system.

pub(super) mod content;
mod data;
pub(super) mod item;

use std::collections::HashMap;
use std::io::Read;

use ext4_fill::{Attribute, Directory, FileType, Filesystem, Meta, Time, Unlinked};

use self::item::{Content, Item, Key};
use super::archive::pax::Map;
use super::edits::{Edit, Edits};
use super::error::Error;
use super::report::Report;
use super::tree::Problem;

/// What SELinux knows a file by.
pub(super) const LABEL: &[u8] = b"security.selinux";

/// Why it does not go on.
#[derive(Debug)]
pub(super) enum Stop {
    /// The file system said so, of the file at this path.
    Failed(Vec<u8>, ext4_fill::Error),
    /// What is wrong with the source.
    Source(Box<Error>),
    /// Whoever hears of the progress.
    CalledOff,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Source(Box::new(error))
    }
}

/// A directory that may still get names.
struct Open {
    directory: Directory,
    meta: Meta,
    attributes: Vec<Attribute>,
}

/// A file with several names.
enum Several {
    /// It is in the image, and so many names are to come.
    There {
        file: Unlinked,
        attributes: Vec<Attribute>,
        left: u64,
    },
    /// It has come with names only that an edit gives another file. It is laid down when another one comes: nobody knows
    /// whether one will, and an inode that is laid down cannot be taken back.
    Held(Item),
}

/// What an edited file keeps of the one there was.
struct Before {
    meta: Meta,
    attributes: Vec<Attribute>,
}

impl Several {
    fn kind(&self) -> FileType {
        match self {
            Self::There { file, .. } => file.kind(),
            Self::Held(item) => item.meta.kind,
        }
    }

    fn before(&self) -> Before {
        let (meta, attributes) = match self {
            Self::There { file, attributes, .. } => (file.meta(), attributes),
            Self::Held(item) => (item.meta, &item.attributes),
        };
        let attributes = attributes.clone();
        Before { meta, attributes }
    }
}

/// The file system with what has come so far.
pub(super) struct Filler<'a> {
    fs: Filesystem,
    edits: Edits,
    now: Time,
    /// Directories that may still get names, by their paths.
    open: HashMap<Vec<u8>, Open>,
    /// Files with further names to come.
    names: HashMap<Key, Several>,
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
        self.keep(&mut item);
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
            if !matches!(self.edits.take(&item.path), None | Some(Edit::Directory { .. })) {
                self.report.problem(&item.path, Problem::Unmade);
            }
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

    /// What an edit says of the permissions of a directory at `path`.
    pub(super) fn permissions(&self, path: &[u8]) -> Option<u32> {
        self.edits.permissions(path)
    }

    /// Whether an edit gives another file the name of the one at `path`, which is of this kind.
    pub(super) fn replaces(&self, path: &[u8], kind: FileType) -> bool {
        self.edits.replaces(path, Some(kind))
    }

    /// Anything but a directory.
    pub(super) fn file(&mut self, mut item: Item) -> Result<(), Stop> {
        self.keep(&mut item);
        if let Some(edit) = self.edits.replacing(&item.path, Some(item.meta.kind)) {
            let (meta, attributes) = (item.meta, item.attributes.clone());
            self.edited(item.path.clone(), edit, Some(Before { meta, attributes }))?;
            return match item.names {
                Some((key, _)) => self.expect(key, Several::Held(item)),
                None => Ok(()),
            };
        }
        let made = self.make(&item)?;
        self.made(item, made)
    }

    /// A regular file that no edit [replaces](Self::replaces), whose content comes from `reader`; of a sparse one only what is
    /// in `map`.
    pub(super) fn stream(
        &mut self,
        mut item: Item,
        size: u64,
        map: Option<&Map>,
        reader: &mut dyn Read,
    ) -> Result<(), Stop> {
        self.keep(&mut item);
        // Something is there, if not what was to be.
        self.edits.take(&item.path);
        let mapping = self.read(&item.path, size, map, reader)?;
        let made = self
            .fs
            .file(&item.meta, size, &mapping, &item.attributes)
            .map_err(failed(&item.path))?;
        self.made(item, made)
    }

    /// A file is there, and has its first name.
    fn made(&mut self, item: Item, file: Unlinked) -> Result<(), Stop> {
        self.report.files += 1;
        self.name(&item.path, &file);
        match item.names {
            Some((key, names)) => {
                let (attributes, left) = (item.attributes, names - 1);
                self.expect(key, Several::There { file, attributes, left })
            }
            None => self.fs.finish_file(&file).map_err(failed(&item.path)),
        }
    }

    /// Further names of a file are to come. If another one is known by that number, it is gone from the source: it has all the
    /// names it will have.
    fn expect(&mut self, key: Key, several: Several) -> Result<(), Stop> {
        match self.names.insert(key, several) {
            Some(Several::There { file, .. }) => self.fs.finish_file(&file).map_err(failed(b"")),
            Some(Several::Held(_)) | None => Ok(()),
        }
    }

    /// Another name of a file.
    pub(super) fn again(&mut self, path: &[u8], key: Key) -> Result<(), Stop> {
        let kind = self.names.get(&key).map(Several::kind);
        if let Some(edit) = self.edits.replacing(path, kind) {
            let before = self.names.get(&key).map(Several::before);
            return self.edited(path.to_vec(), edit, before);
        }
        match self.names.remove(&key) {
            Some(Several::There {
                mut file,
                attributes,
                left,
            }) => {
                file.link();
                self.name(path, &file);
                if left < 2 {
                    return self.fs.finish_file(&file).map_err(failed(path));
                }
                let left = left - 1;
                self.names.insert(key, Several::There { file, attributes, left });
            }
            Some(Several::Held(mut item)) => {
                item.path = path.to_vec();
                return self.file(item);
            }
            None => self.report.problem(path, Problem::Vanished),
        }
        Ok(())
    }

    /// Drops the attributes that cannot be stored. Nobody gains a right by that.
    fn keep(&mut self, item: &mut Item) {
        let list = |attributes: &[Attribute]| attributes.iter().position(|one| one.name == ext4_fill::ACCESS);
        let before = list(&item.attributes).map(|at| item.attributes[at].value.clone());
        if ext4_fill::keep_storable(&mut item.attributes, self.fs.kind()) {
            return;
        }
        self.report.problem(&item.path, Problem::Attributes);
        if let (Some(before), None) = (before, list(&item.attributes)) {
            item.meta.permissions = ext4_fill::permissions_without(&before, item.meta.permissions);
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
        for several in std::mem::take(&mut self.names).into_values() {
            if let Several::There { file, .. } = several {
                self.fs.finish_file(&file).map_err(failed(b""))?;
            }
        }
        for (path, edit) in self.edits.iter() {
            if *edit != Edit::Nothing {
                self.report.problem(path, Problem::Unmade);
            }
        }
        self.fs.finish().map_err(failed(b""))?;
        Ok(self.report)
    }

    /// What a new file has of SELinux: mostly, that is the label of its directory.
    fn label(&self, path: &[u8]) -> Vec<Attribute> {
        let parent = self.open.get(split(path).0);
        let attributes = parent.map_or(&[][..], |open| &open.attributes);
        let label = attributes.iter().find(|attribute| attribute.name == LABEL);
        label.cloned().into_iter().collect()
    }

    /// The file that an edit says. Of the one there was before, owner and permissions are kept.
    fn edited(&mut self, path: Vec<u8>, edit: Edit, before: Option<Before>) -> Result<(), Stop> {
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
                    attributes: self.label(&path),
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
            Some(mut before) => {
                let modified = self.now;
                // A sum of the content that was there.
                before.attributes.retain(|attribute| attribute.name != b"security.ima");
                (
                    Meta {
                        modified,
                        ..before.meta
                    },
                    before.attributes,
                )
            }
            None => (meta, self.label(&path)),
        };
        let item = Item {
            path,
            meta,
            attributes,
            names: None,
            content,
        };
        let made = self.make(&item)?;
        self.made(item, made)
    }
}

/// The directory that a file is in, and its name in that.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn failed(path: &[u8]) -> impl FnOnce(ext4_fill::Error) -> Stop {
    let path = path.to_vec();
    move |error| Stop::Failed(path, error)
}
