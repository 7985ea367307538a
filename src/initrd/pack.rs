// SPDX-License-Identifier: MIT OR Apache-2.0
//! An image of files: of a directory that was unpacked, with the same segments; of any other directory, with one.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::geteuid;

use super::compression::Compression;
use super::encode::Encoder;
use super::error::Error;
use super::manifest::{self, Archive, Manifest, Owners, Padding};
use super::names::{escape, parts};
use super::newc;
use super::output::{Draft, Output};
use super::plan::{Data, Item, plan, stray};
use super::tree::Tree;
use crate::image::digest::Progress;
use crate::{fail_point, signals};

/// How an image is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// What it is compressed with if it was not unpacked from one.
    pub compression: Option<Compression>,
    /// The level of all compressed segments.
    pub level: Option<i32>,
    /// No file is later than this: seconds since 1970.
    pub epoch: Option<u32>,
    /// Replace an image that is there.
    pub force: bool,
}

/// What an image is to be made of.
#[derive(Debug)]
pub struct Plan {
    segments: Vec<Segment>,
}

#[derive(Debug)]
struct Segment {
    compression: Compression,
    level: i32,
    archives: Vec<Planned>,
    padding: Padding,
}

/// An archive to be.
#[derive(Debug)]
struct Planned {
    directory: PathBuf,
    items: Vec<Item>,
    padding: Padding,
    uppercase: bool,
}

impl Planned {
    fn new(directory: PathBuf, archive: &Archive, owners: Owners, epoch: Option<u32>) -> Result<Self, Error> {
        Ok(Self {
            items: plan(&directory, archive, owners, epoch)?,
            directory,
            padding: archive.padding,
            uppercase: archive.uppercase,
        })
    }
}

/// What a segment will be, for those who want to know before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outline {
    /// What it is compressed with.
    pub compression: Compression,
    /// The level, if there are levels.
    pub level: Option<i32>,
    /// Files and directories in it.
    pub entries: usize,
    /// Bytes of their content.
    pub size: u64,
}

impl Plan {
    /// What `directory` makes.
    ///
    /// # Errors
    ///
    /// What is in it that an image can not have, or is in no segment; options that do not fit.
    pub fn of(directory: &Path, options: &Options) -> Result<Self, Error> {
        if !directory.is_dir() {
            let path = directory.to_owned();
            let wanted = "a directory";
            return match directory.try_exists() {
                Ok(true) => Err(Error::NotA { path, wanted }),
                _ => Err(Error::io("open", path)(io::Error::from_raw_os_error(nix::libc::ENOENT))),
            };
        }
        match Manifest::read(directory)? {
            Some(_) if options.compression.is_some() => Err(Error::Settled(directory.to_owned())),
            Some(manifest) => Self::again(directory, &manifest, options),
            None => Self::plain(directory, options),
        }
    }

    /// The same segments again.
    fn again(directory: &Path, manifest: &Manifest, options: &Options) -> Result<Self, Error> {
        let archives = || manifest.segments.iter().flat_map(|segment| &segment.archives);
        let known = |name: &[u8]| {
            name == manifest::NAME.as_bytes() || archives().any(|archive| archive.directory.as_bytes() == name)
        };
        if let Some(path) = stray(directory, &known)? {
            return Err(Error::Stray(path));
        }
        let mut segments = Vec::new();
        for segment in &manifest.segments {
            let mut archives = Vec::new();
            for archive in &segment.archives {
                let path = directory.join(&archive.directory);
                archives.push(Planned::new(path, archive, manifest.owners, options.epoch)?);
            }
            segments.push(Segment {
                compression: segment.compression,
                level: level(segment.compression, options.level, segment.level)?,
                archives,
                padding: segment.padding,
            });
        }
        Ok(Self { segments })
    }

    /// One archive of all that is there.
    fn plain(directory: &Path, options: &Options) -> Result<Self, Error> {
        let compression = options.compression.unwrap_or(Compression::Zstd);
        if compression == Compression::None
            && let Some(level) = options.level
        {
            return Err(Error::Level { compression, level });
        }
        // Whoever is not root can not make files of root, but means them.
        let owners = match geteuid().is_root() {
            true => Owners::Files,
            false => Owners::List,
        };
        let archive = Archive {
            directory: String::new(),
            entries: Vec::new(),
            implied: Vec::new(),
            padding: Padding::Align(512),
            uppercase: false,
        };
        Ok(Self {
            segments: vec![Segment {
                compression,
                level: level(compression, options.level, None)?,
                archives: vec![Planned::new(directory.to_owned(), &archive, owners, options.epoch)?],
                padding: Padding::Align(4),
            }],
        })
    }

    /// What the segments will be.
    pub fn outline(&self) -> Vec<Outline> {
        let outline = |segment: &Segment| {
            let items = || segment.archives.iter().flat_map(|archive| &archive.items);
            Outline {
                compression: segment.compression,
                level: segment.compression.levels().map(|_| segment.level),
                entries: items().count(),
                size: items().map(|item| u64::from(item.header.size)).sum(),
            }
        };
        self.segments.iter().map(outline).collect()
    }
}

/// The level of a segment: what was asked for, what is in the list, or the usual one.
fn level(compression: Compression, asked: Option<i32>, listed: Option<i32>) -> Result<i32, Error> {
    match (asked, compression.levels()) {
        (Some(level), Some(levels)) if !levels.contains(&level) => Err(Error::Level { compression, level }),
        (Some(level), None) if compression != Compression::None => Err(Error::Level { compression, level }),
        (Some(level), Some(_)) => Ok(level),
        _ => Ok(listed.unwrap_or_else(|| compression.default_level())),
    }
}

/// What was packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// Segments.
    pub segments: usize,
    /// Bytes of the image.
    pub size: u64,
}

/// Whether there may be an image at `to`.
///
/// # Errors
///
/// If there is one, and it is not to be replaced.
pub fn check(to: &Path, options: &Options) -> Result<(), Error> {
    match !options.force && to.symlink_metadata().is_ok() {
        true => Err(Error::Exists(to.to_owned())),
        false => Ok(()),
    }
}

/// Makes the image `to` of `directory`.
///
/// # Errors
///
/// As [`Plan::of`], and what can not be read or written. What was at `to` before is there then.
pub fn pack(directory: &Path, to: &Path, options: &Options, progress: &mut Progress<'_>) -> Result<Packed, Error> {
    // Before there are other threads: a signal would end the process in one of them.
    let _deferred = signals::defer();
    check(to, options)?;
    let plan = Plan::of(directory, options)?;
    let total = plan.outline().iter().map(|segment| segment.size).sum();
    let (draft, mut output) = Draft::new(to, options.force)?;
    let mut packing = Packing {
        to: draft.to(),
        done: 0,
        total,
        progress,
    };
    for (at, segment) in plan.segments.iter().enumerate() {
        let next = plan.segments.get(at + 1);
        output = packing.segment(segment, next, output)?;
    }
    fail_point::reach("initrd.packed");
    let packed = Packed {
        segments: plan.segments.len(),
        size: output.written,
    };
    draft.keep(output)?;
    Ok(packed)
}

struct Packing<'a, 'b> {
    to: &'a Path,
    done: u64,
    total: u64,
    progress: &'a mut Progress<'b>,
}

impl Packing<'_, '_> {
    fn segment(&mut self, segment: &Segment, next: Option<&Segment>, output: Output) -> Result<Output, Error> {
        let to = self.to.to_owned();
        let failed = || Error::io("write", &to);
        let encoder = Encoder::new(output, segment.compression, segment.level).map_err(failed())?;
        let mut archive = newc::Writer::new(encoder);
        for planned in &segment.archives {
            let directory = &planned.directory;
            archive.uppercase(planned.uppercase);
            let mut tree = Tree::open(directory).map_err(Error::io("open", directory))?;
            for item in &planned.items {
                self.item(directory, &mut tree, item, &mut archive)?;
            }
            archive.trailer().map_err(failed())?;
            archive
                .zeros(planned.padding.count(archive.written()))
                .map_err(failed())?;
        }
        let mut output = archive.into_inner().finish().map_err(failed())?;
        let mut padding = match (segment.padding, next) {
            // Nothing follows that would be aligned, and not all decompressors like zeros.
            (Padding::Align(4), None) => 0,
            (padding, _) => padding.count(output.written),
        };
        if let Some(next) = next {
            padding = padding.max(segment.compression.end_mark());
            if next.compression == Compression::None || segment.padding == Padding::Align(4) {
                // Linux looks for a bare archive only there.
                padding += newc::padding(output.written + padding);
            }
        }
        io::copy(&mut io::repeat(0).take(padding), &mut output).map_err(failed())?;
        Ok(output)
    }

    fn item(
        &mut self,
        directory: &Path,
        tree: &mut Tree,
        item: &Item,
        archive: &mut newc::Writer<Encoder<Output>>,
    ) -> Result<(), Error> {
        let path = || directory.join(escape(&item.path));
        let written = |result: io::Result<()>, to: &Path| match result {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Error::Changed(path())),
            result => result.map_err(Error::io("write", to)),
        };
        match &item.data {
            Data::None => written(archive.entry(&item.header, &mut io::empty()), self.to)?,
            Data::Target => {
                let (parent, name) = place(tree, &item.path, &path)?;
                let target = readlinkat(parent, name).map_err(Error::io("read", path()))?;
                if target.len() != item.header.size as usize {
                    return Err(Error::Changed(path()));
                }
                let mut header = item.header.clone();
                header.sum = header.sum.map(|_| newc::sum(0, target.as_bytes()));
                written(archive.entry(&header, &mut target.as_bytes()), self.to)?;
            }
            Data::File(device, number) => {
                let mut file = open(tree, item, &path)?;
                let data = fstat(&file).map_err(Error::io("look at", path()))?;
                if (data.st_dev, data.st_ino, data.st_size) != (*device, *number, i64::from(item.header.size)) {
                    return Err(Error::Changed(path()));
                }
                let mut header = item.header.clone();
                if header.sum.is_some() {
                    header.sum = Some(sum(&mut file).map_err(Error::io("read", path()))?);
                }
                let mut reading = Reading {
                    file,
                    error: None,
                    packing: self,
                };
                let result = archive.entry(&header, &mut reading);
                match reading.error.take() {
                    Some(Stopped::Interrupted) => return Err(Error::Interrupted),
                    Some(Stopped::Failed(error)) => return Err(Error::io("read", path())(error)),
                    None => written(result, self.to)?,
                }
            }
        }
        match signals::waiting() {
            true => Err(Error::Interrupted),
            false => Ok(()),
        }
    }
}

/// Opens a file to be read, and only that file.
fn open(tree: &mut Tree, item: &Item, path: &dyn Fn() -> PathBuf) -> Result<File, Error> {
    let (parent, name) = place(tree, &item.path, path)?;
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = openat(parent, name, flags, Mode::empty()).map_err(Error::io("read", path()))?;
    Ok(File::from(file))
}

/// The directory that a file is in, and its name in that.
fn place<'a, 'b>(
    tree: &'a mut Tree,
    file: &'b [u8],
    path: &dyn Fn() -> PathBuf,
) -> Result<(BorrowedFd<'a>, &'b [u8]), Error> {
    let way = parts(file).map_err(|why| Error::Unfit { path: path(), why })?;
    let (name, parents) = way.split_last().ok_or_else(|| Error::Changed(path()))?;
    let parent = tree.directory(parents);
    let parent = parent.map_err(|blocked| Error::io("read", path())(blocked.error))?;
    Ok((parent, name))
}

/// The sum that the header of a file has.
fn sum(file: &mut File) -> io::Result<u32> {
    let mut buffer = vec![0; 1 << 16];
    let mut sum = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            length => sum = newc::sum(sum, &buffer[..length]),
        }
    }
    file.rewind()?;
    Ok(sum)
}

/// Why a file was not read to its end.
enum Stopped {
    Interrupted,
    Failed(io::Error),
}

/// A file that is read, with its progress. What fails on this side is told apart from what fails on the other.
struct Reading<'a, 'b, 'c> {
    file: File,
    error: Option<Stopped>,
    packing: &'a mut Packing<'b, 'c>,
}

impl Read for Reading<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Packing {
            done, total, progress, ..
        } = self.packing;
        if let ControlFlow::Break(()) = progress(*done, *total) {
            self.error = Some(Stopped::Interrupted);
            return Err(io::Error::other("interrupted"));
        }
        match self.file.read(buffer) {
            Ok(length) => {
                *done += length as u64;
                Ok(length)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                self.error = Some(Stopped::Failed(error));
                Err(io::Error::other("not read"))
            }
        }
    }
}
