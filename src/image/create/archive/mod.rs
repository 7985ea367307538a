// SPDX-License-Identifier: MIT OR Apache-2.0
//! A tar archive as a source. It may have been made by anybody: each name is one below the root, and goes through directories
//! only. It is read twice, so that all of that is known before anything is made; and once more before that if a file that says
//! what system it is has its content under a name that came earlier.

pub(super) mod copying;
mod incremental;
mod lists;
pub(super) mod member;
mod packed;
pub(super) mod pax;
pub(super) mod seen;
mod sparse;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ext4_fill::FileType;
use tar::EntryType;

use self::incremental::DUMP;
use self::lists::Names;
use self::member::{Judge, Member, is_label_inside, member};
use self::packed::{Packed, Unopened, instead, is_label};
use self::pax::{Listener, global};
use self::seen::Seen;
use self::sparse::Whole;
use super::error::Error;
use super::exclude::{Exclusions, is_swap_page};
use super::survey::bounds::Bounds;
use super::survey::{Found, LARGEST, Survey};
use crate::base::progress::Progress;
use crate::base::{signals, text};
use crate::file::open_content;

/// Of memory, at whose end a swap file has its signature.
const PAGE: usize = 4096;

/// A tar archive as a source.
#[derive(Debug)]
pub(super) struct Archive {
    path: PathBuf,
    file: File,
    packed: Packed,
    size: u64,
    changed: Change,
}

/// When a file was changed last, whatever times somebody has given it since.
type Change = (i64, i64);

fn change(file: &File) -> io::Result<Change> {
    let data = file.metadata()?;
    Ok((data.ctime(), data.ctime_nsec()))
}

impl Archive {
    /// The archive at `path`.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let unreadable = |source| Error::Source {
            path: path.to_owned(),
            source,
        };
        let file = open_content(path).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        let changed = change(&file).map_err(unreadable)?;
        let mut head = [0; 512];
        let length = read_full(&file, &mut head).map_err(unreadable)?;
        let head = &head[..length];
        let path = path.to_owned();
        let Some(packed) = Packed::of(head) else {
            return Err(match instead(head) {
                Some((what, remedy)) => Error::OtherSource { path, what, remedy },
                None => Error::NoSource(path),
            });
        };
        Ok(Self {
            path,
            file,
            packed,
            size,
            changed,
        })
    }

    /// Refuses one that somebody has written to since it was opened: what was found out of it holds no longer.
    pub(super) fn unchanged(&self) -> Result<(), Error> {
        match change(&self.file) {
            Ok(changed) if changed == self.changed => Ok(()),
            _ => Err(self.wrong("it was changed while it was read: see that nobody works on it and try again")),
        }
    }

    pub(super) fn wrong(&self, why: impl Into<String>) -> Error {
        Error::Archive {
            path: self.path.clone(),
            why: why.into(),
        }
    }

    fn cut(&self, error: &io::Error) -> Error {
        // Ctrl-C is for the whole group of processes, with the one that unpacks.
        if signals::waiting() {
            return Error::Interrupted;
        }
        // It quotes what it has read.
        let why = error.to_string();
        self.wrong(format!(
            "it is damaged, cut off, or no tar archive ({})",
            text::line(&why)
        ))
    }

    /// Its members, from the first on, unpacked.
    fn reader(&self) -> Result<Box<dyn Read + '_>, Error> {
        let failed = |error| match error {
            Unopened::Io(source) => Error::Source {
                path: self.path.clone(),
                source,
            },
            Unopened::Program(name, error) => {
                self.wrong(format!("it is packed with {name}, which cannot be run: {error}"))
            }
        };
        self.packed.unpack(&self.file).map_err(failed)
    }

    /// Its members without the name of the archive itself (`tar --label`), whose head has nothing but that.
    fn without_label(&self) -> Result<impl Read, Error> {
        let mut reader = self.reader()?;
        let mut head = Vec::new();
        let read = reader.by_ref().take(512).read_to_end(&mut head);
        read.map_err(|error| self.cut(&error))?;
        if is_label(&head) {
            head.clear();
        }
        Ok(Cursor::new(head).chain(reader))
    }

    /// Looks through all of it. `progress` hears of bytes of the archive.
    pub(super) fn survey(
        &self,
        exclusions: &Exclusions,
        looked_at: &[&'static str],
        mut bounds: Bounds,
        progress: &mut Progress<'_>,
    ) -> Result<(Found, Survey, Seen), Error> {
        let looked_at = [looked_at, &Names::FILES].concat();
        let (mut found, mut survey, mut seen) = (Found::default(), Survey::default(), Seen::default());
        let mut judge = Judge::new(exclusions);
        // Size and content of files that are left out by their first names: the others may not be.
        let mut left_out = HashMap::new();
        // How many names of files with several have come, by the first one.
        let mut names: HashMap<Vec<u8>, u32> = HashMap::new();
        // Further names that are looked at, with the first ones.
        let mut linked = Vec::new();
        survey.directory();
        self.members(&mut |member, content| {
            let at = (&self.file).stream_position().unwrap_or(0);
            if progress(at.min(self.size), self.size) == ControlFlow::Break(()) {
                return Err(Error::Interrupted);
            }
            let new = seen.check(&member).map_err(|why| self.wrong(why))?;
            for parent in &new.implied {
                if judge.excluded(parent, true).is_none() {
                    survey.directory();
                    survey.name(parent);
                    bounds.directory(parent)?;
                }
            }
            let is_directory = member.kind == EntryType::Directory;
            let is_left_out = judge.excluded(&member.path, is_directory).is_some();
            if member.path.is_empty() {
                return Ok(());
            }
            let mut page = Vec::new();
            let is_looked_at = looked_at.iter().any(|path| path.as_bytes() == member.path);
            if is_data(member.kind) && !is_looked_at && exclusions.may_be_swap(member.size) {
                let read = content.take(PAGE as u64).read_to_end(&mut page);
                read.map_err(|error| self.cut(&error))?;
                if page.first_chunk().is_some_and(is_swap_page) {
                    seen.swap(member.path);
                    return Ok(());
                }
            }
            if seen.is_swap(&member.path) {
                return Ok(());
            }
            if !is_left_out {
                if new.itself {
                    survey.name(&member.path);
                }
                if let Some(path) = looked_at.iter().find(|path| path.as_bytes() == member.path) {
                    match member.kind {
                        EntryType::Link => linked.push((*path, seen.first(&member.path).to_vec())),
                        _ => found.add(path, self.text(&member, content)?),
                    }
                }
            }
            if member.kind != EntryType::Link && !is_left_out {
                survey.attributes(member.attributes.clone(), bounds.kind(), 1);
            }
            let (size, data, taken) = match member.kind {
                EntryType::Directory if new.itself && !is_left_out => {
                    survey.directory();
                    return bounds.directory(&member.path);
                }
                EntryType::Directory => return Ok(()),
                EntryType::Link if is_left_out => return Ok(()),
                EntryType::Link => {
                    let first = seen.first(&member.path);
                    let names = match names.get_mut(first) {
                        Some(names) => names,
                        None => {
                            let others = u32::from(!left_out.contains_key(first));
                            names.entry(first.to_vec()).or_insert(others)
                        }
                    };
                    *names += 1;
                    bounds.names(&member.path, *names)?;
                    match left_out.remove(first) {
                        Some(known) => known,
                        None => return Ok(()),
                    }
                }
                EntryType::GNUSparse => {
                    let data = member.without_holes();
                    (member.size, data, data)
                }
                EntryType::Symlink => (0, 0, if member.target.len() < 60 { 0 } else { 4096 }),
                _ => (member.size, member.size, member.size),
            };
            if is_left_out {
                left_out.insert(member.path, (size, data, taken));
                return Ok(());
            }
            bounds.size(&member.path, size)?;
            survey.content(data, taken);
            Ok(())
        })?;
        if !linked.is_empty() {
            self.members::<Error>(&mut |member, content| {
                let mut names = linked.iter().filter(|(_, first)| *first == member.path).peekable();
                if names.peek().is_some() {
                    let text = self.text(&member, content)?;
                    names.for_each(|(path, _)| found.add(path, text.clone()));
                }
                Ok(())
            })?;
        }
        Ok((found, survey, seen))
    }

    /// The beginning of a regular file.
    fn text(&self, member: &Member, content: &mut dyn Read) -> Result<Option<Vec<u8>>, Error> {
        if member.meta.kind != FileType::Regular {
            return Ok(None);
        }
        let mut text = Vec::new();
        let read = content.take(LARGEST + 1).read_to_end(&mut text);
        read.map_err(|error| self.cut(&error))?;
        Ok(Some(text))
    }

    /// Hands each member to `take`.
    pub(super) fn members<E: From<Error>>(
        &self,
        take: &mut dyn FnMut(Member, &mut dyn Read) -> Result<(), E>,
    ) -> Result<(), E> {
        let listener = Listener::default();
        let mut archive = tar::Archive::new(listener.hear(self.without_label()?));
        let entries = archive.entries().map_err(|error| self.cut(&error))?;
        listener.begin(0, 0);
        for entry in entries {
            let mut entry = entry.map_err(|error| self.cut(&error))?;
            let mut extended = listener.end().map_err(|why| self.wrong(why))?;
            let position = listener.position();
            let stored = match entry.header().entry_type() {
                // Without its holes, which nobody reads if nobody wants them.
                EntryType::GNUSparse => {
                    let stored = entry.header().entry_size().map_err(|error| self.cut(&error))?;
                    let pieces = extended.map.iter().map(|(start, end)| end - start);
                    if pieces.fold(0, u64::saturating_add) != stored {
                        return Err(self.wrong("what it says of the holes of a file cannot be").into());
                    }
                    stored
                }
                _ => entry.size(),
            };
            let kind = entry.header().entry_type();
            if kind.as_byte() == DUMP {
                incremental::is_full_list(&mut entry).map_err(|why| self.wrong(why))?;
            }
            if kind == EntryType::XGlobalHeader {
                self.global(&mut entry)?;
            } else if is_label_inside(kind) {
                // Of an archive that was put behind this one (tar -A).
            } else if let Some(sparse) = extended.sparse.take() {
                extended.map = sparse.map(&mut entry, stored).map_err(|why| self.wrong(why))?;
                let (map, size) = (extended.map.clone(), sparse.size);
                extended.sparse = Some(sparse);
                let member = member(&entry, extended).map_err(|why| self.wrong(why))?;
                take(member, &mut Whole::new(&mut entry, &map, size))?;
            } else {
                take(member(&entry, extended).map_err(|why| self.wrong(why))?, &mut entry)?;
            }
            listener.begin(stored, position);
        }
        if !listener.ended() {
            return Err(self
                .wrong("it is cut off: what says that it is whole is missing at its end")
                .into());
        }
        listener.stop();
        let mut rest = archive.into_inner();
        // Two blocks of zeros are the end, and whatever is behind them is nobody's. One alone is damage: tar stops there, too.
        let mut second = Vec::new();
        let read = rest.by_ref().take(512).read_to_end(&mut second);
        read.map_err(|error| self.cut(&error))?;
        if second.iter().any(|byte| *byte != 0) {
            return Err(self
                .wrong("it is damaged: a block of zeros stands alone in it, and more follows")
                .into());
        }
        if self.packed == Packed::Not {
            return Ok(());
        }
        // What says whether the content is what was packed comes last, behind all that tar has use for.
        self.read_out(&mut rest)?;
        Ok(())
    }

    /// What holds for all members; `git archive` has the name of the commit there.
    fn global(&self, content: &mut dyn Read) -> Result<(), Error> {
        let records = global(content).map_err(|why| self.wrong(why))?;
        let says = |key: &[u8]| !matches!(key, b"comment" | b"GNU.volume.label");
        match records.iter().find(|(key, _)| says(key)) {
            Some((key, _)) => Err(self.wrong(format!(
                "it has a global header with {:?} for all its files, which is not understood: unpack it and pack it anew",
                String::from_utf8_lossy(key)
            ))),
            None => Ok(()),
        }
    }

    /// Reads what nobody wants.
    fn read_out(&self, reader: &mut dyn Read) -> Result<(), Error> {
        let mut buffer = [0; 32 << 10];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.cut(&error)),
            }
        }
    }
}

fn is_data(kind: EntryType) -> bool {
    matches!(kind, EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse)
}

fn read_full(mut file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read(&mut buffer[done..])? {
            0 => break,
            length => done += length,
        }
    }
    Ok(done)
}
