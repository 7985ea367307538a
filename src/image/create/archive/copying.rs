// SPDX-License-Identifier: MIT OR Apache-2.0
//! An archive on its way into an image.

use std::collections::{HashMap, HashSet};
use std::io::Read;

use ext4_fill::{FileType, Meta, Time};
use tar::EntryType;

use super::Archive;
use super::lists::Names;
use super::member::{Judge, Member, parents};
use super::pax::Map;
use super::seen::Seen;
use crate::image::create::exclude::{Exclusions, Reason};
use crate::image::create::filler::item::{Content, Item, Key};
use crate::image::create::filler::{Filler, Stop};
use crate::image::create::survey::Found;
use crate::image::create::tree::Problem;

/// Puts all of `archive`, in which all that was `seen` is, into an image; what was `found` has the names of its access lists.
pub(in crate::image::create) fn copy(
    archive: &Archive,
    seen: &Seen,
    found: &Found,
    exclusions: &Exclusions,
    filler: &mut Filler<'_>,
) -> Result<(), Stop> {
    archive.unchanged()?;
    let mut copying = Copying {
        judge: Judge::new(exclusions),
        filler,
        seen,
        names: Names::of(found),
        keys: HashMap::new(),
        elected: HashSet::new(),
    };
    copying.filler.enter(directory(Vec::new(), 0o755))?;
    let copied = archive.members(&mut |member, content| copying.member(member, content));
    // Before what else is said of it: it may be why.
    archive.unchanged()?;
    copied
}

struct Copying<'a, 'b> {
    judge: Judge<'a>,
    filler: &'a mut Filler<'b>,
    /// All of it.
    seen: &'a Seen,
    /// Of the guest's users and groups.
    names: Names,
    /// Of files with several names, by the first one.
    keys: HashMap<Vec<u8>, Key>,
    /// Further names that their files have got already.
    elected: HashSet<Vec<u8>>,
}

impl Copying<'_, '_> {
    fn member(&mut self, mut member: Member, content: &mut dyn Read) -> Result<(), Stop> {
        let is_directory = member.kind == EntryType::Directory;
        let reason = self.judge.excluded(&member.path, is_directory);
        if let Some(reason) = reason {
            self.filler.report.left_out(&member.path, reason);
        }
        let is_left_out = reason.is_some();
        // Of those, other names are left out, too.
        if self.seen.is_swap(&member.path) {
            if !is_left_out {
                self.filler.report.left_out(&member.path, Reason::Swap);
            }
            return self.enter_parents(&member.path);
        }
        if !self.access_lists(&mut member) && !is_left_out {
            self.filler.report.problem(&member.path, Problem::AccessLists);
        }
        self.enter_parents(&member.path)?;
        match member.kind {
            EntryType::Directory | EntryType::Link if is_left_out => Ok(()),
            EntryType::Directory => {
                let (item, ..) = item(member);
                self.filler.enter(item)
            }
            EntryType::Link if self.elected.contains(&member.path) => Ok(()),
            EntryType::Link => {
                // Without a key, all its names are replaced by edits, as this one.
                let key = self.keys.get(self.seen.first(&member.path));
                self.filler.again(&member.path, key.copied().unwrap_or_default())
            }
            _ => self.data(member, is_left_out, content),
        }
    }

    /// Makes attributes of a member's access lists. `false` if one cannot be had; then nobody has more rights than with it.
    fn access_lists(&self, member: &mut Member) -> bool {
        let mut is_whole = true;
        for list in std::mem::take(&mut member.lists) {
            match list.attribute(&self.names) {
                Some(attribute) => member.attributes.push(attribute),
                None => {
                    is_whole = false;
                    member.meta.permissions = list.permissions_without(member.meta.permissions);
                }
            }
        }
        is_whole
    }

    /// A file with its data, which is here and nowhere else: if its first name is left out, or an edit gives that to another
    /// file, it gets the next of its names already now.
    fn data(&mut self, member: Member, is_left_out: bool, content: &mut dyn Read) -> Result<(), Stop> {
        let first = member.path.clone();
        let mut names: Vec<Vec<u8>> = (!is_left_out).then(|| first.clone()).into_iter().collect();
        for name in self.seen.others(&first) {
            if self.judge.excluded(name, false).is_none() {
                names.push(name.clone());
            }
        }
        let own = names.iter().find(|name| !self.filler.replaces(name, member.meta.kind));
        let is_edited = !is_left_out && own != Some(&first);
        let (mut item, size, map) = item(member);
        let Some(own) = own else {
            if is_edited {
                self.filler.file(item)?;
            }
            return Ok(());
        };
        self.enter_parents(own)?;
        item.path.clone_from(own);
        if names.len() > 1 {
            // No device has this number.
            let key = (u64::MAX, self.keys.len() as u64);
            item.names = Some((key, names.len() as u64));
            self.keys.insert(first.clone(), key);
        }
        if *own != first {
            self.elected.insert(own.clone());
        }
        let key = item.names.map(|(key, _)| key);
        match item.meta.kind {
            FileType::Regular => self.filler.stream(item, size, map.as_ref(), content)?,
            _ => self.filler.file(item)?,
        }
        match key {
            Some(key) if is_edited => self.filler.again(&first, key),
            _ => Ok(()),
        }
    }

    /// The directories that a member is in, if they have not come: they may come later. As in a tree, they are there if the
    /// member itself is left out, too.
    fn enter_parents(&mut self, path: &[u8]) -> Result<(), Stop> {
        // They come from the root on: where the last one is, all are.
        let last = path.iter().rposition(|byte| *byte == b'/');
        if last.is_none_or(|end| self.filler.has_directory(&path[..end])) {
            return Ok(());
        }
        for parent in parents(path) {
            if !self.filler.has_directory(parent) {
                if self.judge.excluded(parent, true).is_some() {
                    break;
                }
                let permissions = self.filler.permissions(parent).unwrap_or(0o755);
                self.filler.enter(directory(parent.to_vec(), permissions))?;
            }
        }
        Ok(())
    }
}

/// A directory of which the archive says nothing.
fn directory(path: Vec<u8>, permissions: u32) -> Item {
    Item {
        path,
        meta: Meta {
            kind: FileType::Directory,
            permissions,
            uid: 0,
            gid: 0,
            accessed: Time::default(),
            modified: Time::default(),
            device: (0, 0),
        },
        attributes: Vec::new(),
        names: None,
        content: Content::Nothing,
    }
}

/// A member without its data; the size of that, and where it is if there are holes.
fn item(member: Member) -> (Item, u64, Option<Map>) {
    let map = (member.kind == EntryType::GNUSparse).then_some(member.map);
    let content = match member.kind {
        EntryType::Symlink => Content::Target(member.target),
        _ => Content::Nothing,
    };
    let item = Item {
        path: member.path,
        meta: member.meta,
        attributes: member.attributes,
        names: None,
        content,
    };
    (item, member.size, map)
}
