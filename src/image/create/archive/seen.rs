// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an archive has been seen to have, from its beginning on: whether a member can be taken, and which are names of one file.

use std::collections::{HashMap, HashSet};

use tar::EntryType;

use super::member::{Member, parents};
use crate::image::create::edits::resolve::Target;
use crate::image::create::report::shown;

/// What an archive has been seen to have, by paths.
#[derive(Debug, Default)]
pub(in crate::image::create) struct Seen {
    /// Whether it is a directory.
    paths: HashMap<Vec<u8>, bool>,
    /// What symbolic links lead to.
    links: HashMap<Vec<u8>, Vec<u8>>,
    /// The further names of files, by the first one, with which the data is.
    others: HashMap<Vec<u8>, Vec<Vec<u8>>>,
    /// The first name, by the others.
    first: HashMap<Vec<u8>, Vec<u8>>,
    /// Swap files, by their first names.
    swaps: HashSet<Vec<u8>>,
    /// Bytes of all names.
    names: u64,
}

/// What an archive may have: as an initial RAM disk (crate `initrd`), for the same reason. All of that stays in memory.
const ENTRIES: usize = 1_000_000;
const NAMES: u64 = 64 << 20;

/// What came with a member that had not come before.
pub(in crate::image::create) struct New {
    /// Directories that it is in.
    pub(in crate::image::create) implied: Vec<Vec<u8>>,
    /// It itself.
    pub(in crate::image::create) itself: bool,
}

impl Seen {
    /// Refuses a member that leads out of the root, or is there already; else says what is new.
    pub(in crate::image::create) fn check(&mut self, member: &Member) -> Result<New, String> {
        let path = shown(&member.path);
        let mut implied = Vec::new();
        // Of one that is there, all that it is in are there, and directories.
        let end = member.path.iter().rposition(|byte| *byte == b'/');
        let is_new = end.is_some_and(|end| self.paths.get(&member.path[..end]) != Some(&true));
        for parent in parents(&member.path).take_while(|_| is_new) {
            match self.paths.get(parent) {
                Some(false) => return Err(format!("{path} goes through {}, which is no directory", shown(parent))),
                Some(true) => {}
                None => {
                    self.count(parent)?;
                    self.paths.insert(parent.to_vec(), true);
                    implied.push(parent.to_vec());
                }
            }
        }
        self.count(&member.path)?;
        let is_directory = member.kind == EntryType::Directory;
        if member.path.is_empty() && !is_directory {
            return Err("its root is no directory".to_owned());
        }
        if member.kind == EntryType::Link {
            if self.paths.get(&member.target) != Some(&false) {
                return Err(format!(
                    "{path} is a link to {}, which is no file before it",
                    shown(&member.target)
                ));
            }
            let first = self.first(&member.target).to_vec();
            let others = self.others.entry(first.clone()).or_default();
            others.push(member.path.clone());
            self.first.insert(member.path.clone(), first);
        }
        if member.kind == EntryType::Symlink {
            self.links.insert(member.path.clone(), member.target.clone());
        }
        match self.paths.insert(member.path.clone(), is_directory) {
            None => Ok(New { implied, itself: true }),
            Some(true) if is_directory => Ok(New { implied, itself: false }),
            Some(_) => Err(format!("it has {path} twice: unpack it and pack it anew")),
        }
    }

    fn count(&mut self, path: &[u8]) -> Result<(), String> {
        self.names += path.len() as u64;
        let what = match (self.paths.len() >= ENTRIES, self.names > NAMES) {
            (false, false) => return Ok(()),
            (true, _) => "1000000 files",
            (_, true) => "64 MiB of names",
        };
        Err(format!(
            "it has more than {what}, for which there is no room here: unpack it, and take the directory"
        ))
    }

    /// The file whose first name is `path` is a swap file.
    pub(in crate::image::create) fn swap(&mut self, path: Vec<u8>) {
        self.swaps.insert(path);
    }

    /// Whether the file at `path` is a swap file.
    pub(in crate::image::create) fn is_swap(&self, path: &[u8]) -> bool {
        self.swaps.contains(self.first(path))
    }

    /// What is at `path`.
    pub(in crate::image::create) fn here(&self, path: &[u8]) -> Option<Target> {
        let is_directory = self.paths.get(path)?;
        let target = self.links.get(self.first(path));
        Some(match (is_directory, target) {
            (true, _) => Target::Directory,
            (false, Some(target)) => Target::Symlink(target.clone()),
            (false, None) => Target::Other,
        })
    }

    /// The names in the directory at `path`.
    pub(in crate::image::create) fn in_directory<'a>(&'a self, path: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let below = self.paths.keys();
        let below = below.filter_map(move |name| name.strip_prefix(path)?.strip_prefix(b"/"));
        below.filter(|name| !name.contains(&b'/'))
    }

    /// The first name of the file at `path`.
    pub(in crate::image::create) fn first<'a>(&'a self, path: &'a [u8]) -> &'a [u8] {
        self.first.get(path).map_or(path, Vec::as_slice)
    }

    /// The further names of the file whose first one is `path`.
    pub(in crate::image::create) fn others(&self, path: &[u8]) -> &[Vec<u8>] {
        self.others.get(path).map_or(&[], Vec::as_slice)
    }
}
