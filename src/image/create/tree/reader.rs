// SPDX-License-Identifier: MIT OR Apache-2.0
//! The half of a copy that goes ahead: a thread of its own opens files and asks the disk for them, so that many are on their
//! way while one is laid down.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::mpsc::SyncSender;

use ext4_fill::{Attribute, FileType};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::libc;
use nix::sys::stat::{FileStat, fstat};

use super::statx::Mark;
use super::walk::walk;
use super::{At, Problem, Tree, Visitor};
use crate::file::xattr;
use crate::image::create::exclude::{Exclusions, Reason, is_swap};
use crate::image::create::filler::item::{Content, Item, Key, meta};

/// How many files it is ahead, at the most.
pub(in crate::image::create) const AHEAD: usize = 128;
/// The disk is asked for this much of a file before it is its turn.
const BEGINNING: i64 = 1 << 20;

/// What the reader has come to.
#[derive(Debug)]
pub(in crate::image::create) enum Event {
    Enter(Item),
    Leave(Vec<u8>),
    File(Item),
    /// Another name of a file that was there before.
    Again(Vec<u8>, Key),
    LeftOut(Vec<u8>, Reason),
    Problem(Vec<u8>, Problem),
}

/// Reads all of `tree`; ends early if nobody listens any more.
pub(in crate::image::create) fn read(tree: &Tree, exclusions: &Exclusions, events: SyncSender<Event>) {
    let mut reader = Reader {
        events,
        exclusions,
        names: HashMap::new(),
    };
    // Nobody listens any more.
    drop(walk(tree, exclusions, &mut reader));
}

struct Reader<'a> {
    events: SyncSender<Event>,
    exclusions: &'a Exclusions,
    /// Files with further names to come, and how many.
    names: HashMap<Key, (Mark, u64)>,
}

/// Nobody listens.
struct Unheard;

impl Reader<'_> {
    fn send(&self, event: Event) -> Result<(), Unheard> {
        self.events.send(event).map_err(|_| Unheard)
    }

    fn attributes(&self, path: &[u8], read: std::io::Result<xattr::All>) -> Result<Vec<Attribute>, Unheard> {
        match read {
            Ok(found) => Ok(found
                .into_iter()
                .map(|(name, value)| Attribute { name, value })
                .collect()),
            Err(_) => {
                self.send(Event::Problem(path.to_vec(), Problem::Attributes))?;
                Ok(Vec::new())
            }
        }
    }

    fn regular(&mut self, at: &At<'_>) -> Result<Option<Item>, Unheard> {
        let opened = at.read().and_then(|file| Ok((fstat(&file)?, file)));
        let (stat, file) = match opened {
            Ok(opened) => opened,
            Err(errno) => {
                self.send(Event::Problem(at.path.to_vec(), Problem::of(errno)))?;
                return Ok(None);
            }
        };
        let Some(meta) = meta(&stat).filter(|meta| meta.kind == FileType::Regular) else {
            // Something else has taken its place since.
            self.send(Event::Problem(at.path.to_vec(), Problem::Vanished))?;
            return Ok(None);
        };
        let size = stat.st_size as u64;
        if self.exclusions.may_be_swap(size) && is_swap(&file) {
            self.send(Event::LeftOut(at.path.to_vec(), Reason::Swap))?;
            return Ok(None);
        }
        let attributes = self.attributes(at.path, xattr::of_file(&file))?;
        if size > 0 {
            // The disk begins, and nobody waits for it. Of use but not needed.
            let beginning = stat.st_size.min(BEGINNING);
            let _ = posix_fadvise(&file, 0, beginning, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
        }
        let content = Content::File(file, Box::new(stat));
        Ok(Some(Item {
            path: at.path.to_vec(),
            meta,
            attributes,
            names: names(&stat),
            content,
        }))
    }

    fn other(&mut self, at: &At<'_>) -> Result<Option<Item>, Unheard> {
        let Some(meta) = meta(at.stat) else { return Ok(None) };
        let content = match meta.kind {
            FileType::Symlink => match at.target() {
                Ok(target) => Content::Target(target),
                Err(errno) => {
                    self.send(Event::Problem(at.path.to_vec(), Problem::of(errno)))?;
                    return Ok(None);
                }
            },
            _ => Content::Nothing,
        };
        let attributes = self.attributes(at.path, xattr::of_name(&at.proc_path()))?;
        Ok(Some(Item {
            path: at.path.to_vec(),
            meta,
            attributes,
            names: names(at.stat),
            content,
        }))
    }
}

fn names(stat: &FileStat) -> Option<(Key, u64)> {
    (stat.st_nlink > 1).then_some(((stat.st_dev, stat.st_ino), stat.st_nlink))
}

impl Visitor for Reader<'_> {
    type Stop = Unheard;

    fn enter(&mut self, at: &At<'_>) -> Result<(), Unheard> {
        let Some(meta) = meta(at.stat) else { return Ok(()) };
        let attributes = match at.open {
            Some(open) => xattr::of_file(&open),
            None => xattr::of_name(&at.proc_path()),
        };
        let attributes = self.attributes(at.path, attributes)?;
        self.send(Event::Enter(Item {
            path: at.path.to_vec(),
            meta,
            attributes,
            names: None,
            content: Content::Nothing,
        }))
    }

    fn leave(&mut self, path: &[u8]) -> Result<(), Unheard> {
        self.send(Event::Leave(path.to_vec()))
    }

    fn file(&mut self, at: &At<'_>) -> Result<(), Unheard> {
        let key = (at.stat.st_dev, at.stat.st_ino);
        if let Some((mark, left)) = self.names.get_mut(&key) {
            let found = Mark::of(at.parent, at.name);
            if found.is_some_and(|(found, now)| found == key && now.is_of_the_same(mark)) {
                *left -= 1;
                if *left == 0 {
                    self.names.remove(&key);
                }
                return self.send(Event::Again(at.path.to_vec(), key));
            }
            // The file is gone, and another one has got its number.
            self.names.remove(&key);
        }
        let item = match at.stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => self.regular(at)?,
            _ => self.other(at)?,
        };
        let Some(item) = item else { return Ok(()) };
        if let Some((key, names)) = item.names {
            let found = match &item.content {
                Content::File(file, _) => Mark::of(file.as_fd(), c""),
                _ => Mark::of(at.parent, at.name),
            };
            if let Some((_, mark)) = found.filter(|(found, _)| *found == key) {
                self.names.insert(key, (mark, names - 1));
            }
        }
        self.send(Event::File(item))
    }

    fn left_out(&mut self, path: &[u8], reason: Reason) -> Result<(), Unheard> {
        self.send(Event::LeftOut(path.to_vec(), reason))
    }

    fn problem(&mut self, path: &[u8], problem: Problem) -> Result<(), Unheard> {
        self.send(Event::Problem(path.to_vec(), problem))
    }
}

/// Whether a file still is what it was.
pub(in crate::image::create) fn is_same(file: &File, before: &FileStat) -> bool {
    let key = |stat: &FileStat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
    fstat(file).is_ok_and(|now| key(&now) == key(before))
}
