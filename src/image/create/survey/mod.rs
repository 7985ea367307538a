// SPDX-License-Identifier: MIT OR Apache-2.0
//! A look at a source before anything is made: how much there is, and what matters for the guest.

pub(super) mod bootable;
pub(super) mod boots;
pub(super) mod bounds;

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::ops::ControlFlow;

use ext4_fill::{Attribute, BLOCK, Kind};
use nix::fcntl::AtFlags;
use nix::libc;
use nix::unistd::{AccessFlags, faccessat, geteuid};

use self::bounds::Bounds;
use super::edits::resolve::{Target, follow};
use super::error::Error;
use super::exclude::{Exclusions, Reason, is_swap};
use super::filler::content::piece;
use super::filler::item::{Key, has_holes};
use super::tree::walk::walk;
use super::tree::{At, Problem, Tree, Visitor};
use crate::file::xattr;

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// Files of all kinds, each counted once.
    pub(super) files: u64,
    /// Bytes of content.
    pub(super) bytes: u64,
    blocks: u64,
    directories: u64,
    names: u64,
    /// Blocks that say where others are, without extents.
    pointers: u64,
    /// Files that may have many pieces.
    sparse: u64,
    /// Blocks of attributes, of the files that were asked for theirs, and how many those stand for.
    attributes: u64,
}

impl Survey {
    /// A directory.
    pub(super) fn directory(&mut self) {
        self.files += 1;
        self.directories += 1;
    }

    /// A name of anything.
    pub(super) fn name(&mut self, path: &[u8]) {
        let length = path.iter().rev().take_while(|byte| **byte != b'/').count();
        // With its head, rounded up.
        self.names += length as u64 + 11;
    }

    /// A file that has so many bytes, which take so many.
    pub(super) fn content(&mut self, bytes: u64, taken: u64) {
        self.files += 1;
        self.bytes += bytes;
        let blocks = taken.div_ceil(BLOCK as u64);
        self.blocks += blocks;
        self.pointers += ext4_fill::pointer_blocks(blocks, blocks);
    }

    /// A file of this size with so many bytes that are not holes.
    fn sparse(&mut self, size: u64, data: u64) {
        let block = BLOCK as u64;
        self.files += 1;
        self.bytes += data;
        self.blocks += data.div_ceil(block);
        self.pointers += ext4_fill::pointer_blocks(data.div_ceil(block), size.div_ceil(block));
        self.sparse += 1;
    }

    /// A file with these attributes, which stands for so many.
    pub(super) fn attributes(&mut self, mut attributes: Vec<Attribute>, kind: Kind, stands_for: u64) {
        if !attributes.is_empty() {
            ext4_fill::keep_storable(&mut attributes, kind);
            self.attributes += stands_for * u64::from(ext4_fill::need_a_block(&attributes, kind));
        }
    }

    /// The blocks that are needed in a file system of this kind, with some for lists of blocks and for attributes.
    pub(super) fn blocks(&self, kind: Kind) -> u64 {
        let block = BLOCK as u64;
        let lists = match kind {
            Kind::Ext4 => self.blocks / 300 + self.sparse,
            Kind::Ext3 | Kind::Ext2 => self.pointers,
        };
        self.blocks + self.directories + self.names / (block * 3 / 4) + lists + self.attributes + self.files / 100 + 64
    }
}

/// Files of a source that say what kind of system it is.
#[derive(Debug, Default)]
pub(super) struct Found(BTreeMap<&'static str, Option<Vec<u8>>>);

/// One that is larger, or no text, is left as it is.
pub(super) const LARGEST: u64 = 4 << 20;

impl Found {
    /// Whether it is there, whatever it is.
    pub(super) fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// What is in it, if it is a regular file.
    pub(super) fn content(&self, path: &str) -> Option<&[u8]> {
        self.0.get(path)?.as_deref()
    }

    /// That, if it is text.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        String::from_utf8(self.content(path)?.to_vec()).ok()
    }

    pub(super) fn add(&mut self, path: &'static str, content: Option<Vec<u8>>) {
        let content = content.filter(|content| content.len() as u64 <= LARGEST);
        self.0.insert(path, content);
    }

    /// Those of `paths` that are in `tree`.
    pub(super) fn in_tree(tree: &Tree, paths: &[&'static str]) -> Self {
        let mut found = Self::default();
        for path in paths {
            // Through /lib, for one, which mostly is a link.
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            let Some((mut there, _)) = follow(&|path| tree.here(path), parent.as_bytes()) else {
                continue;
            };
            there.push(b'/');
            there.extend_from_slice(name.as_bytes());
            let content = match tree.here(&there) {
                None => continue,
                Some(Target::Other) => tree.read(&there).and_then(|file| {
                    let mut content = Vec::new();
                    file.take(LARGEST + 1).read_to_end(&mut content).ok()?;
                    Some(content)
                }),
                Some(_) => None,
            };
            found.add(path, content);
        }
        found
    }
}

/// Surveys `tree`, unless `go_on` calls it off; what is out of `bounds` is refused.
pub(super) fn of_tree(
    tree: &Tree,
    exclusions: &Exclusions,
    bounds: Bounds,
    go_on: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Survey, Error> {
    let mut surveyor = Surveyor {
        survey: Survey::default(),
        exclusions,
        bounds,
        names: HashMap::new(),
        come: 0,
        is_root: geteuid().is_root(),
        go_on,
    };
    walk(tree, exclusions, &mut surveyor)?;
    Ok(surveyor.survey)
}

struct Surveyor<'a> {
    survey: Survey,
    exclusions: &'a Exclusions,
    bounds: Bounds,
    /// How many names of files with several have come. One that has got the number of another one is known by its time.
    names: HashMap<(Key, i64, i64), u32>,
    come: u64,
    is_root: bool,
    go_on: &'a mut dyn FnMut() -> ControlFlow<()>,
}

/// So many files are asked for their attributes; of the others, one for so many more. Most sources have them all alike, and to
/// ask costs as much as all else that is known of a file before.
const ALL_ASKED: u64 = 1024;
const ONE_OF: u64 = 16;
/// A smaller file with holes is taken as one without.
const SMALL: u64 = 64 << 10;

impl Surveyor<'_> {
    fn attributes(&mut self, at: &At<'_>) {
        self.come += 1;
        let stands_for = match self.come {
            come if come <= ALL_ASKED => 1,
            come if come.is_multiple_of(ONE_OF) => ONE_OF,
            _ => return,
        };
        let found = match at.open {
            Some(open) => xattr::of_file(&open),
            None => xattr::of_name(&at.proc_path()),
        };
        let found = found.unwrap_or_default().into_iter();
        let attributes = found.map(|(name, value)| Attribute { name, value });
        let attributes = attributes.collect();
        self.survey.attributes(attributes, self.bounds.kind(), stands_for);
    }

    /// Whether the content of a file can be had; of what cannot, only its name will be there.
    fn may_read(&self, at: &At<'_>) -> bool {
        let asked = || faccessat(at.parent, at.name, AccessFlags::R_OK, AtFlags::AT_EACCESS);
        self.is_root || at.stat.st_size == 0 || asked().is_ok()
    }
}

/// How much of a file is not holes. What its blocks take in the source tells little: they may be smaller there, or packed.
fn data(at: &At<'_>) -> u64 {
    let size = at.stat.st_size as u64;
    if size <= SMALL {
        return size;
    }
    let Ok(file) = at.read() else { return 0 };
    let (mut sum, mut from) = (0, 0);
    while let Ok(Some((start, end))) = piece(&file, from, size) {
        sum += end - start;
        from = end;
        if from >= size {
            break;
        }
    }
    sum
}

impl Visitor for Surveyor<'_> {
    type Stop = Error;

    fn enter(&mut self, at: &At<'_>) -> Result<(), Error> {
        self.survey.directory();
        self.survey.name(at.path);
        self.attributes(at);
        self.bounds.directory(at.path)?;
        match (self.go_on)() {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Interrupted),
        }
    }

    fn leave(&mut self, _: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    fn file(&mut self, at: &At<'_>) -> Result<(), Error> {
        let stat = at.stat;
        self.survey.name(at.path);
        if stat.st_nlink > 1 {
            let known = ((stat.st_dev, stat.st_ino), stat.st_mtime, stat.st_mtime_nsec);
            let names = self.names.entry(known).or_default();
            *names += 1;
            if *names > 1 {
                return self.bounds.names(at.path, *names);
            }
        }
        self.attributes(at);
        if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
            // A long link takes a block.
            let taken = if stat.st_size >= 60 { stat.st_size } else { 0 };
            self.survey.content(0, taken as u64);
            return Ok(());
        }
        let size = stat.st_size as u64;
        let swap = self.exclusions.may_be_swap(size) && at.read().is_ok_and(|file| is_swap(&file));
        if !swap && !self.may_read(at) {
            self.survey.content(0, 0);
        } else if !swap {
            self.bounds.size(at.path, size)?;
            match has_holes(stat) {
                true => self.survey.sparse(size, data(at)),
                false => self.survey.content(size, size),
            }
        }
        Ok(())
    }

    fn left_out(&mut self, _: &[u8], _: Reason) -> Result<(), Error> {
        Ok(())
    }

    fn problem(&mut self, _: &[u8], problem: Problem) -> Result<(), Error> {
        // To any other the copy will come, too.
        problem.is_bearable()
    }
}
