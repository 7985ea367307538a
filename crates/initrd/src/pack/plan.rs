// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an archive is made of: the files that are there now, in the order and with the numbers of the list they came from.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use nix::libc;
use nix::sys::stat::{FileStat, major, minor};
use nix::unistd::{Gid, getegid, getgroups};

use super::scan::{Found, scan};
use crate::error::Error;
use crate::kind::{Kind, TARGET_LIMIT};
use crate::manifest::{Archive, Entry, NAME, Owners, permissions};
use crate::names::{escape, parts, shorten};
use crate::newc::{Header, NAME_LIMIT, TRAILER};
use crate::tree::Tree;

/// A file to be written.
#[derive(Debug)]
pub(super) struct Item {
    /// As the archive will have it.
    pub header: Header,
    /// Its place in the directory.
    pub path: Vec<u8>,
    /// Where its data is.
    pub data: Data,
}

/// Where data is.
#[derive(Debug)]
pub(super) enum Data {
    /// There is none.
    None,
    /// It is where the symbolic link leads to, with a NUL after it or without.
    Target { terminated: bool },
    /// In the file, which was this one (device, number) when it was looked at.
    File(u64, u64),
}

/// The items of the archive whose files are in `directory`. Times are not later than `epoch`.
pub(super) fn plan(
    tree: Tree,
    directory: &Path,
    archive: &Archive,
    owners: Owners,
    epoch: Option<u32>,
) -> Result<Vec<Item>, Error> {
    let mut found = scan(tree, directory)?;
    if archive.directory.is_empty() {
        found.retain(|found| found.path != NAME.as_bytes());
        found
            .iter_mut()
            .take(1)
            .for_each(|root| as_listed(root, archive, owners));
    }
    Planner::new(&found, archive, owners, epoch).items(directory)
}

/// Gives the directory that has the files the mode, the owner and the time that the archive's own had: it got others, which are
/// safe, and a list was put into it.
fn as_listed(root: &mut Found, archive: &Archive, owners: Owners) {
    let of_root = |(name, _): &&(Vec<u8>, Entry)| parts(name).is_ok_and(|parts| parts.is_empty());
    let Some((_, entry)) = archive.entries.iter().rfind(of_root) else {
        return;
    };
    root.stat.st_mode = libc::S_IFDIR | permissions(entry.mode, owners);
    (root.stat.st_uid, root.stat.st_gid) = (entry.uid, entry.gid);
    root.stat.st_mtime = entry.mtime.into();
}

/// A name's number and device in an archive, with the type: what hard links have in common.
type Identity = (u32, (u32, u32), u32);

/// Numbers that no file has.
#[derive(Default)]
struct Fresh {
    /// Those that files in the list have.
    used: HashSet<u32>,
    last: u32,
}

impl Fresh {
    fn next(&mut self) -> u32 {
        loop {
            self.last = self.last.wrapping_add(1);
            if !self.used.contains(&self.last) {
                return self.last;
            }
        }
    }
}

struct Planner<'a> {
    found: &'a [Found],
    owners: Owners,
    epoch: Option<u32>,
    /// The files in their order: the name, what is there, what the list says.
    order: Vec<(Vec<u8>, &'a Found, Option<&'a Entry>)>,
    /// Names of hard links, as the list has them.
    listed: HashMap<Identity, HashSet<&'a [u8]>>,
    /// The same as they are there.
    linked: HashMap<(u64, u64), Vec<usize>>,
    /// Files whose names are all those that the list says they have.
    unchanged: HashSet<(u64, u64)>,
    fresh: Fresh,
    /// The groups that we are in.
    groups: HashSet<u32>,
}

/// Linux makes no hard links of symbolic links.
fn identity(entry: &Entry) -> Option<Identity> {
    let has_names = !matches!(entry.mode & libc::S_IFMT, libc::S_IFDIR | libc::S_IFLNK);
    (entry.nlink > 1 && has_names).then_some((entry.ino, entry.dev, entry.mode & libc::S_IFMT))
}

impl<'a> Planner<'a> {
    fn new(found: &'a [Found], archive: &'a Archive, owners: Owners, epoch: Option<u32>) -> Self {
        let there: HashMap<&[u8], &Found> = found.iter().map(|found| (found.path.as_slice(), found)).collect();
        let mut order: Vec<(Vec<u8>, &Found, Option<&Entry>)> = Vec::with_capacity(found.len());
        let mut placed: HashMap<&[u8], usize> = HashMap::new();
        let mut listed: HashMap<Identity, HashSet<&[u8]>> = HashMap::new();
        for (name, entry) in &archive.entries {
            let way = parts(name).map(|parts| parts.join(&b'/')).unwrap_or_default();
            let Some(found) = there.get(way.as_slice()).copied() else {
                // Its links are not what they were.
                if let Some(identity) = identity(entry) {
                    listed.entry(identity).or_default().insert(name);
                }
                continue;
            };
            if let Some(identity) = identity(entry) {
                listed.entry(identity).or_default().insert(&found.path);
            }
            match placed.get(found.path.as_slice()) {
                // The later one is what was unpacked.
                Some(at) => order[*at].2 = Some(entry),
                None => {
                    placed.insert(&found.path, order.len());
                    order.push((name.clone(), found, Some(entry)));
                }
            }
        }
        let implied: HashSet<&[u8]> = archive.implied.iter().map(Vec::as_slice).collect();
        for found in found {
            let is_implied = found.is_directory() && implied.contains(found.path.as_slice());
            if !found.path.is_empty() && !is_implied && !placed.contains_key(found.path.as_slice()) {
                order.push((found.path.clone(), found, None));
            }
        }
        let mut linked: HashMap<(u64, u64), Vec<usize>> = HashMap::new();
        for (at, (_, found, _)) in order.iter().enumerate() {
            let is_link = found.stat.st_mode & libc::S_IFMT == libc::S_IFLNK;
            if !found.is_directory() && !is_link && found.stat.st_nlink > 1 {
                linked.entry(found.identity()).or_default().push(at);
            }
        }
        let used: HashSet<u32> = archive.entries.iter().map(|(_, entry)| entry.ino).collect();
        let mut planner = Self {
            found,
            owners,
            epoch,
            order,
            listed,
            linked,
            unchanged: HashSet::new(),
            fresh: Fresh {
                last: used.iter().copied().max().unwrap_or(0),
                used,
            },
            groups: getgroups()
                .unwrap_or_default()
                .into_iter()
                .chain([getegid()])
                .map(Gid::as_raw)
                .collect(),
        };
        let as_listed = |(_, names): &(&(u64, u64), &Vec<usize>)| planner.are_as_listed(names);
        planner.unchanged = planner.linked.iter().filter(as_listed).map(|(file, _)| *file).collect();
        planner
    }

    fn items(mut self, directory: &Path) -> Result<Vec<Item>, Error> {
        let mut items = Vec::with_capacity(self.order.len());
        // Numbers of files with several names, and who has them.
        let mut numbers: HashMap<(u64, u64), (u32, (u32, u32))> = HashMap::new();
        let mut taken: HashSet<Identity> = HashSet::new();
        let mut fresh = std::mem::take(&mut self.fresh);
        debug_assert!(self.order.len() <= self.found.len());
        for at in 0..self.order.len() {
            let (name, found, entry) = &self.order[at];
            let (name, found, entry) = (name.clone(), *found, *entry);
            let path = || directory.join(escape(&found.path));
            if name == TRAILER {
                return Err(Error::Unfit {
                    path: path(),
                    why: "a file of this name ends an archive, for Linux and for everybody: rename it, or remove it",
                });
            }
            let padded = entry.map_or(0, |entry| entry.padded as usize);
            if name.len().saturating_add(padded) >= NAME_LIMIT as usize {
                return Err(Error::Unfit {
                    path: directory.join(shorten(&found.path)),
                    why: "its name has more than 4095 bytes, and Linux passes over such files: move it up, or remove it",
                });
            }
            let stat = &found.stat;
            let real = Kind::of_mode(stat.st_mode);
            let kind = real.ok_or_else(|| Error::Unfit {
                path: path(),
                why: "it is of a kind that an archive cannot have",
            })?;
            let same = same(entry, found);
            let device = same.filter(|entry| entry.placeholder && kind == Kind::File);
            let names = self.linked.get(&found.identity()).map_or(&[][..], Vec::as_slice);
            let unchanged = self.is_unchanged(same, found, names);
            let kind_bits = device.map_or(stat.st_mode, |entry| entry.mode) & libc::S_IFMT;
            let nlink = match (same, kind) {
                (Some(entry), Kind::Directory | Kind::Link) => entry.nlink,
                (None, Kind::Directory) => 2,
                (Some(entry), _) if unchanged => entry.nlink,
                _ => u32::try_from(names.len()).unwrap_or(u32::MAX).max(1),
            };
            let (ino, dev) = match numbers.get(&found.identity()) {
                Some(number) if names.len() > 1 => *number,
                _ => {
                    let number = entry.map(|entry| (entry.ino, entry.dev));
                    let is_shared = nlink > 1 && !matches!(kind, Kind::Directory | Kind::Link);
                    let free = |(ino, dev): &(u32, (u32, u32))| !is_shared || !taken.contains(&(*ino, *dev, kind_bits));
                    let number = number.filter(free);
                    let (ino, dev) = number.unwrap_or_else(|| (fresh.next(), (0, 0)));
                    if is_shared {
                        taken.insert((ino, dev, kind_bits));
                        numbers.insert(found.identity(), (ino, dev));
                    }
                    (ino, dev)
                }
            };
            let (size, data) = match kind {
                Kind::Link => {
                    if !(1..=TARGET_LIMIT).contains(&found.target) {
                        return Err(Error::Unfit {
                            path: path(),
                            why: "it is a symbolic link that an archive cannot have",
                        });
                    }
                    let terminated = same.is_some_and(|entry| entry.terminated);
                    let size = found.target as u64 + u64::from(terminated);
                    (size, Data::Target { terminated })
                }
                Kind::File if device.is_none() && stat.st_size > 0 && self.has_data(at, names, unchanged) => {
                    (stat.st_size as u64, Data::File(stat.st_dev, stat.st_ino))
                }
                _ => (0, Data::None),
            };
            let size = u32::try_from(size).map_err(|_| Error::Unfit {
                path: path(),
                why: "it has 4 GiB or more, which an archive cannot have",
            })?;
            let rdev = match (device, kind) {
                (Some(entry), _) => entry.rdev,
                (None, Kind::Node(_)) => (major(stat.st_rdev) as u32, minor(stat.st_rdev) as u32),
                _ => same.map_or((0, 0), |entry| entry.rdev),
            };
            let (uid, gid) = match (self.owners, entry) {
                (Owners::Files, _) => (stat.st_uid, stat.st_gid),
                (Owners::List, Some(entry)) => (entry.uid, entry.gid),
                (Owners::List, None) => (0, 0),
            };
            let mtime = u32::try_from(stat.st_mtime.max(0)).unwrap_or(u32::MAX);
            let header = Header {
                name,
                ino,
                mode: self.mode(same, stat, kind, kind_bits),
                uid,
                gid,
                nlink,
                mtime: self.epoch.map_or(mtime, |epoch| mtime.min(epoch)),
                size,
                dev,
                rdev,
                // Whoever writes it reckons it.
                sum: entry.filter(|entry| entry.sum).map(|_| 0),
                padded: padded as u32,
            };
            items.push(Item {
                header,
                path: found.path.clone(),
                data,
            });
        }
        Ok(items)
    }

    /// Whether a file has the names that the list says, and no others.
    fn is_unchanged(&self, entry: Option<&Entry>, found: &Found, names: &[usize]) -> bool {
        if !names.is_empty() {
            return self.unchanged.contains(&found.identity());
        }
        let listed = entry.and_then(identity).and_then(|identity| self.listed.get(&identity));
        listed.is_none_or(|listed| listed.len() == 1 && listed.contains(found.path.as_slice()))
    }

    /// The same of a file with several names: all of them are of one file in the list.
    fn are_as_listed(&self, names: &[usize]) -> bool {
        let of = |at: &usize| {
            let (_, found, entry) = &self.order[*at];
            same(*entry, found).and_then(identity)
        };
        let Some(first) = names.first().and_then(of) else {
            return names.len() < 2;
        };
        self.listed.get(&first).is_some_and(|listed| {
            let is_listed = |at: &usize| of(at) == Some(first) && listed.contains(self.order[*at].1.path.as_slice());
            names.len() == listed.len() && names.iter().all(is_listed)
        })
    }

    /// Whether the data of a file is to be with this name: where it was, else with the last.
    fn has_data(&self, at: usize, names: &[usize], unchanged: bool) -> bool {
        if names.len() < 2 {
            return true;
        }
        let had = |at: &usize| unchanged && self.order[*at].2.is_some_and(|entry| entry.data);
        match names.iter().any(had) {
            true => had(&at),
            false => names.last() == Some(&at),
        }
    }

    /// The mode of a file: what is there, unless that is what the one in the list becomes there.
    fn mode(&self, entry: Option<&Entry>, stat: &FileStat, kind: Kind, kind_bits: u32) -> u32 {
        let there = stat.st_mode & 0o7777;
        match entry {
            // A file system has no modes of links.
            Some(entry) if kind == Kind::Link => entry.mode,
            Some(entry) => {
                let wanted = permissions(entry.mode, self.owners);
                // Only members of a group can make files that run as that group.
                let is_member = self.groups.contains(&stat.st_gid);
                let without_group = self.owners == Owners::List && !is_member && there == wanted & !libc::S_ISGID;
                match there == wanted || without_group {
                    true => entry.mode,
                    false => kind_bits | there,
                }
            }
            None => kind_bits | there,
        }
    }
}

/// What the list says of a file, unless that is something else now.
fn same<'a>(entry: Option<&'a Entry>, found: &Found) -> Option<&'a Entry> {
    let stat = &found.stat;
    let is_empty_file = stat.st_mode & libc::S_IFMT == libc::S_IFREG && stat.st_size == 0;
    entry.filter(|entry| (entry.mode ^ stat.st_mode) & libc::S_IFMT == 0 || entry.placeholder && is_empty_file)
}
