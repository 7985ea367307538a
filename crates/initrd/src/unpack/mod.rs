// SPDX-License-Identifier: MIT OR Apache-2.0
//! An image as files: a directory for each archive of each segment, or for the only one, and the list that says how to make the image of them again.
//!
//! The image may have been made by anybody. All is done in a directory that nobody else can enter, part by part of each name
//! and never through a symbolic link; it gets its name when all of it is there.

mod archive;
mod draft;
mod maker;

use std::fs::{self, File};
use std::io::BufWriter;
use std::os::fd::BorrowedFd;
use std::path::Path;

use nix::unistd::{getegid, geteuid};

use self::archive::Archive;
use self::draft::Draft;
use self::maker::Maker;
use super::error::Error;
use super::inspect::{Summary, inspect};
use super::kind::Kind;
use super::manifest::{self, Entry, Line, Owners, Padding};
use super::names::{escape, parts};
use super::newc::Header;
use super::reader::Reader;
use super::reader::event::Event;
use super::umask::umask;
use super::watch::{Step, Watch};

/// The directory of the archive that is the only one.
const ONLY: &str = "1";

/// What was unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Segments.
    pub segments: usize,
    /// Entries of all archives.
    pub entries: u64,
    /// Devices and owners are only in the list.
    pub in_list: bool,
}

/// Whether an image can be unpacked to `to`.
///
/// # Errors
///
/// If there is something.
pub fn check(to: &Path) -> Result<(), Error> {
    draft::check(to).map(drop)
}

/// What would be unpacked of an image.
///
/// # Errors
///
/// What is wrong with the image, and where, as far as names and kinds tell.
pub fn plan(reader: &mut Reader) -> Result<Vec<Summary>, Error> {
    let mut summaries = Vec::new();
    inspect(reader, &mut summaries, &mut |reader, header| {
        Kind::of(header).map_err(|why| reader.wrong(why))?;
        parts(&header.name).map(drop).map_err(|why| reader.wrong(why))
    })?;
    Ok(summaries)
}

/// Unpacks an image to the new directory `to`. Nothing of the image is read where there can be none ([`check`]).
///
/// # Errors
///
/// What is wrong with the image, and where; what cannot be written. There is nothing at `to` then.
pub fn unpack(reader: &mut Reader, to: &Path, watch: &mut dyn Watch) -> Result<Unpacked, Error> {
    let umask = umask();
    let draft = Draft::new(to, umask)?;
    let total = reader.size();
    let owners = match geteuid().is_root() && owns_all() {
        true => Owners::Files,
        false => Owners::List,
    };
    let list = File::create_new(draft.path().join(manifest::NAME)).map_err(Error::io("write", to))?;
    let mut unpacking = Unpacking {
        maker: Maker {
            to,
            owners,
            us: (geteuid(), getegid()),
            umask,
            watch,
        },
        list: manifest::Writer::new(BufWriter::with_capacity(1 << 16, list), owners).map_err(Error::io("write", to))?,
        archive: None,
        done: Unpacked::default(),
    };
    let (mut offset, mut end_mark) = (0, 0);
    let mut segment = 0;
    let mut archives = 0;
    let mut has_configuration = false;
    loop {
        let position = reader.position();
        let watch = &mut *unpacking.maker.watch;
        if watch.progress(position, total.max(position)).is_break() || watch.interrupted() {
            return Err(Error::Interrupted);
        }
        let Some(event) = reader.event()? else { break };
        match event {
            Event::Segment(it) => {
                (segment, archives, offset) = (it.number, 0, it.offset);
                end_mark = it.compression.end_mark();
                unpacking.done.segments += 1;
                let (compression, level) = (it.compression, it.level);
                unpacking.line(&Line::Segment { compression, level })?;
            }
            Event::Archive => {
                archives += 1;
                let directory = match archives {
                    1 => segment.to_string(),
                    archive => format!("{segment}.{archive}"),
                };
                unpacking.begin(draft.root(), directory)?;
            }
            Event::Entry(header) => {
                unpacking.done.entries += 1;
                unpacking.entry(&header, reader)?;
                unpacking.maker.watch.reached(Step::Entry);
            }
            Event::ArchiveEnd { at, padding, uppercase } => {
                unpacking.end()?;
                let padding = Padding::of(at, padding, 0);
                unpacking.line(&Line::ArchiveEnd { padding, uppercase })?;
            }
            Event::SegmentEnd { size, padding, .. } => {
                let padding = Padding::of(offset + size, padding, end_mark);
                unpacking.line(&Line::SegmentEnd { padding })?;
            }
            Event::BootConfig(bytes) => {
                has_configuration = true;
                let bytes = escape(&bytes);
                unpacking.line(&Line::BootConfig { bytes })?;
            }
        }
    }
    let is_one = archives == 1 && unpacking.done.segments == 1 && !has_configuration;
    let first = draft.path().join(ONLY);
    // The list is beside the files then, where one of that name would be.
    let is_here = is_one && fs::symlink_metadata(first.join(manifest::NAME)).is_err();
    if is_here {
        unpacking.line(&Line::Here {})?;
    }
    let mut done = unpacking.done;
    done.in_list |= owners == Owners::List;
    unpacking.list.finish().map_err(Error::io("write", to))?;
    unpacking.maker.watch.reached(Step::Unpacked);
    match is_here {
        true => draft.keep_only(ONLY)?,
        false => draft.keep()?,
    }
    Ok(done)
}

/// Whether root here may give files to anybody: not in a user namespace that does not have all owners (user_namespaces(7)).
fn owns_all() -> bool {
    let has_all = |map: &str| {
        let map = fs::read_to_string(map).unwrap_or_default();
        map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
    };
    has_all("/proc/self/uid_map") && has_all("/proc/self/gid_map")
}

struct Unpacking<'a> {
    maker: Maker<'a>,
    list: manifest::Writer<BufWriter<File>>,
    archive: Option<Archive>,
    done: Unpacked,
}

impl Unpacking<'_> {
    fn line(&mut self, line: &Line) -> Result<(), Error> {
        self.list
            .line(line)
            .map_err(Error::io("write", self.maker.to.join(manifest::NAME)))
    }

    /// An archive begins: its directory is made.
    fn begin(&mut self, root: BorrowedFd<'_>, directory: String) -> Result<(), Error> {
        let archive = Archive::new(root, &directory);
        self.archive = Some(archive.map_err(Error::io("make", self.maker.to.join(&directory)))?);
        self.line(&Line::Archive { directory })
    }

    fn entry(&mut self, header: &Header, reader: &mut Reader) -> Result<(), Error> {
        let Some(archive) = &mut self.archive else {
            return Ok(());
        };
        let mut entry = Entry::of(header);
        let made = self.maker.make(archive, header, reader)?;
        (entry.placeholder, entry.terminated) = (made.placeholder, made.terminated);
        self.done.in_list |= entry.placeholder;
        self.line(&Line::Entry(entry))
    }

    /// The archive has ended.
    fn end(&mut self) -> Result<(), Error> {
        let Some(mut archive) = self.archive.take() else {
            return Ok(());
        };
        self.maker.finish(&mut archive)?;
        for directory in archive.directories.iter().flatten() {
            if directory.given.is_none() && !directory.path.is_empty() {
                let name = escape(&directory.path);
                self.line(&Line::Implied { name })?;
            }
        }
        Ok(())
    }
}
