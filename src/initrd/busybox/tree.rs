// SPDX-License-Identifier: MIT OR Apache-2.0
//! A tree of files in memory, on its way into an archive. The same tree gives the same bytes: entries are sorted by their
//! names, inodes are numbered in that order, and nothing of the host gets in: no owner, no time, no umask.

use std::collections::BTreeMap;
use std::io::{self, Write};

use initrd::newc::{Header, Writer};

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// A tree.
#[derive(Debug, Default)]
pub(super) struct Tree(BTreeMap<String, Node>);

#[derive(Debug)]
struct Node {
    mode: u32,
    device: (u32, u32),
    data: Vec<u8>,
}

impl Tree {
    /// Adds a directory.
    pub(super) fn directory(&mut self, path: &str, permissions: u32) {
        self.add(path, DIRECTORY | permissions, (0, 0), Vec::new());
    }

    /// Adds a file.
    pub(super) fn file(&mut self, path: &str, permissions: u32, data: impl Into<Vec<u8>>) {
        self.add(path, FILE | permissions, (0, 0), data.into());
    }

    /// Adds a symbolic link to `target`.
    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.add(path, LINK | 0o777, (0, 0), target.into());
    }

    /// Adds a character device.
    pub(super) fn device(&mut self, path: &str, permissions: u32, numbers: (u32, u32)) {
        self.add(path, CHARACTER_DEVICE | permissions, numbers, Vec::new());
    }

    fn add(&mut self, path: &str, mode: u32, device: (u32, u32), data: Vec<u8>) {
        for (end, _) in path.match_indices('/') {
            self.0.entry(path[..end].to_owned()).or_insert_with(|| Node {
                mode: DIRECTORY | 0o755,
                device: (0, 0),
                data: Vec::new(),
            });
        }
        self.0.insert(path.to_owned(), Node { mode, device, data });
    }

    /// Paths, modes and sizes, for people.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, u32, &[u8])> {
        self.0
            .iter()
            .map(|(path, node)| (path.as_str(), node.mode, node.data.as_slice()))
    }

    /// Writes all entries, whose time is `mtime`, to an archive.
    pub(super) fn write<W: Write>(&self, archive: &mut Writer<W>, mtime: u32) -> io::Result<()> {
        for (number, (path, node)) in (1..).zip(&self.0) {
            let header = Header {
                name: path.as_bytes().to_vec(),
                ino: number,
                mode: node.mode,
                nlink: 1,
                mtime,
                size: u32::try_from(node.data.len()).map_err(|_| io::ErrorKind::FileTooLarge)?,
                rdev: node.device,
                ..Header::default()
            };
            archive.entry(&header, &mut node.data.as_slice())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(tree: &Tree) -> Vec<u8> {
        let mut archive = Writer::new(Vec::new());
        tree.write(&mut archive, 7).expect("an archive");
        archive.finish(4).expect("an archive")
    }

    #[test]
    fn whatever_the_order_it_is_the_same() {
        let (mut one, mut other) = (Tree::default(), Tree::default());
        one.file("a/b/c", 0o644, "text");
        one.link("a-b", "a");
        other.link("a-b", "a");
        other.directory("a", 0o755);
        other.file("a/b/c", 0o644, "text");
        assert_eq!(bytes(&one), bytes(&other));
        let names: Vec<&str> = one.entries().map(|(path, ..)| path).collect();
        assert_eq!(names, ["a", "a-b", "a/b", "a/b/c"], "a directory before what is in it");
    }

    #[test]
    fn a_directory_keeps_its_permissions() {
        let mut tree = Tree::default();
        tree.directory("root", 0o700);
        tree.file("root/x", 0o600, "");
        let root = tree.entries().next().expect("an entry");
        assert_eq!(root.1, 0o040_700);
    }
}
