// SPDX-License-Identifier: MIT OR Apache-2.0
//! An image of files: of a directory that was unpacked, with the same segments; of any other directory, with one.

mod output;
mod packing;
mod plan;
mod scan;

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::geteuid;

use self::output::Draft;
use self::packing::Packing;
use self::plan::{Data, Item, plan};
use self::scan::stray;
use super::compression::Compression;
use super::error::Error;
use super::manifest::{self, Archive, Manifest, Owners, Padding};
use super::tree::Tree;
use super::umask::umask;
use super::watch::{Step, Watch};

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
    boot_config: Vec<u8>,
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
    /// The list names it, and not the caller.
    is_listed: bool,
    items: Vec<Item>,
    padding: Padding,
    uppercase: bool,
}

impl Planned {
    fn new(directory: PathBuf, archive: &Archive, owners: Owners, epoch: Option<u32>) -> Result<Self, Error> {
        // One that the list names is in the directory, and nowhere else, whoever made the list.
        let is_listed = !archive.directory.is_empty();
        Ok(Self {
            items: plan(open(&directory, is_listed)?, &directory, archive, owners, epoch)?,
            directory,
            is_listed,
            padding: archive.padding,
            uppercase: archive.uppercase,
        })
    }
}

/// The tree of an archive.
fn open(directory: &Path, is_listed: bool) -> Result<Tree, Error> {
    let tree = match is_listed {
        true => Tree::open_own(directory),
        false => Tree::open(directory),
    };
    tree.map_err(|error| match error {
        Errno::ELOOP | Errno::ENOTDIR if is_listed => Error::NotA {
            path: directory.to_owned(),
            wanted: "a directory, as the list beside it says; a link is not followed out of the directory that is packed",
        },
        error => Error::io("open", directory)(error),
    })
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
    /// What `directory` makes, for an image `to`.
    ///
    /// # Errors
    ///
    /// An image that is there, if it is not to be replaced, or is in the directory itself; what is in that which an image can
    /// not have, or is in no segment; options that do not fit.
    pub fn of(directory: &Path, to: &Path, options: &Options) -> Result<Self, Error> {
        check(to, options)?;
        if !directory.is_dir() {
            let path = directory.to_owned();
            let wanted = "a directory";
            return match directory.try_exists() {
                Ok(true) => Err(Error::NotA { path, wanted }),
                _ => Err(Error::io("open", path)(io::Error::from_raw_os_error(libc::ENOENT))),
            };
        }
        let plan = match Manifest::read(directory)? {
            Some(_) if options.compression.is_some() => return Err(Error::Settled(directory.to_owned())),
            Some(manifest) => Self::again(directory, &manifest, options)?,
            None => Self::plain(directory, options)?,
        };
        match to.metadata() {
            Ok(there) if plan.has(there.dev(), there.ino()) => Err(Error::Unfit {
                path: to.to_owned(),
                why: "this image would be in itself: name one outside of the directory, or remove it",
            }),
            _ => Ok(plan),
        }
    }

    /// The same segments again.
    fn again(directory: &Path, manifest: &Manifest, options: &Options) -> Result<Self, Error> {
        let compression = Compression::None;
        if let Some(level) = options.level
            && manifest
                .segments
                .iter()
                .all(|segment| segment.compression == compression)
        {
            return Err(Error::Level { compression, level });
        }
        let archives = || manifest.segments.iter().flat_map(|segment| &segment.archives);
        let known = |name: &[u8]| {
            name == manifest::NAME.as_bytes() || archives().any(|archive| archive.directory.as_bytes() == name)
        };
        if !manifest.is_here()
            && let Some(path) = stray(directory, &known)?
        {
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
        let boot_config = manifest.boot_config.clone();
        Ok(Self { segments, boot_config })
    }

    /// One archive of all that is there.
    fn plain(directory: &Path, options: &Options) -> Result<Self, Error> {
        let compression = options.compression.unwrap_or(Compression::Zstd);
        if compression == Compression::None
            && let Some(level) = options.level
        {
            return Err(Error::Level { compression, level });
        }
        // Whoever is not root cannot make files of root, but means them.
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
            boot_config: Vec::new(),
        })
    }

    fn items(&self) -> impl Iterator<Item = &Item> {
        let archives = self.segments.iter().flat_map(|segment| &segment.archives);
        archives.flat_map(|archive| &archive.items)
    }

    /// Whether everybody may read all that is in it.
    fn is_public(&self) -> bool {
        let may_others = |item: &Item| match item.header.mode & libc::S_IFMT {
            libc::S_IFREG => item.header.mode & 0o004 != 0,
            libc::S_IFDIR => item.header.mode & 0o001 != 0,
            _ => true,
        };
        self.items().all(may_others)
    }

    /// Whether that file is in it.
    fn has(&self, device: u64, number: u64) -> bool {
        self.items()
            .any(|item| matches!(item.data, Data::File(its, own) if (its, own) == (device, number)))
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

/// Whether there may be an image at `to`: not if there is one that is not to be replaced.
fn check(to: &Path, options: &Options) -> Result<(), Error> {
    if to == Path::new("-") {
        return Err(Error::NotA {
            path: to.to_owned(),
            wanted: "the name of an image, which is whole before it has one: the standard output cannot have it (./- is a file)",
        });
    }
    match !options.force && to.symlink_metadata().is_ok() {
        true => Err(Error::Exists(to.to_owned())),
        false => Ok(()),
    }
}

/// Makes the image `to` of `directory`.
///
/// # Errors
///
/// As [`Plan::of`], and what cannot be read or written. What was at `to` before is there then.
pub fn pack(directory: &Path, to: &Path, options: &Options, watch: &mut dyn Watch) -> Result<Packed, Error> {
    check(to, options)?;
    output::clean_up(to, options.force)?;
    let plan = Plan::of(directory, to, options)?;
    let total = plan.outline().iter().map(|segment| segment.size).sum();
    let mode = match plan.is_public() {
        true => 0o600 | 0o666 & !umask(),
        false => 0o600,
    };
    let (draft, mut output) = Draft::new(to, options.force, mode)?;
    let mut packing = Packing {
        to: draft.to(),
        done: 0,
        total,
        watch: &mut *watch,
    };
    for (at, segment) in plan.segments.iter().enumerate() {
        let next = plan.segments.get(at + 1);
        output = packing.segment(segment, next, output)?;
    }
    output.write_all(&plan.boot_config).map_err(Error::io("write", to))?;
    watch.reached(Step::Packed);
    let packed = Packed {
        segments: plan.segments.len(),
        size: output.written,
    };
    draft.keep(output)?;
    Ok(packed)
}
