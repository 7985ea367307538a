// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a file system cannot have of one file: known before anything is made, not when it is half full.

use std::collections::HashMap;

use ext4_fill::Kind;

use crate::image::create::error::Error;
use crate::image::create::report::shown;

/// What there is of each file, as far as it can be too much.
pub(in crate::image::create) struct Bounds {
    kind: Kind,
    /// In directories, where they are counted.
    directories: HashMap<Vec<u8>, u32>,
}

impl Bounds {
    pub(in crate::image::create) fn of(kind: Kind) -> Self {
        let directories = HashMap::new();
        Self { kind, directories }
    }

    /// That of the file system.
    pub(in crate::image::create) fn kind(&self) -> Kind {
        self.kind
    }

    /// A file of so many bytes, with its holes.
    pub(in crate::image::create) fn size(&self, path: &[u8], bytes: u64) -> Result<(), Error> {
        let (path, kind) = (shown(path), self.kind);
        match bytes > kind.largest_file() {
            true => Err(Error::LargeFile { path, kind }),
            false => Ok(()),
        }
    }

    /// A file that has so many names, up to this one.
    pub(in crate::image::create) fn names(&self, path: &[u8], names: u32) -> Result<(), Error> {
        let (path, kind) = (shown(path), self.kind);
        match names > kind.most_names() {
            true => Err(Error::ManyNames { path, kind }),
            false => Ok(()),
        }
    }

    /// A directory in another one: its name for that is one of the other's names, and so is `.`, and its own.
    pub(in crate::image::create) fn directory(&mut self, path: &[u8]) -> Result<(), Error> {
        if path.is_empty() || self.kind == Kind::Ext4 {
            return Ok(());
        }
        let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let parent = &path[..end];
        let names = match self.directories.get_mut(parent) {
            Some(names) => {
                *names += 1;
                *names
            }
            None => {
                self.directories.insert(parent.to_vec(), 3);
                3
            }
        };
        self.names(parent, names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much() {
        let said = |result: Result<(), Error>| result.map_err(|error| error.to_string()).err().unwrap_or_default();
        let ext4 = Bounds::of(Kind::Ext4);
        assert_eq!(said(ext4.size(b"a", (16 << 40) - 4096)), "");
        assert_eq!(
            said(ext4.size(b"srv/a", 16 << 40)),
            "/srv/a is larger than a file of ext4 can be (nearly 16T): leave it out with --exclude"
        );
        assert_eq!(said(ext4.names(b"a", 65_000)), "");
        assert!(!said(ext4.names(b"a", 65_001)).is_empty());
        let mut ext3 = Bounds::of(Kind::Ext3);
        assert_eq!(
            said(ext3.size(b"a", 2 << 40)),
            "/a is larger than a file of ext3 can be (nearly 2T): leave it out with --exclude, or take --fs ext4"
        );
        for number in 0..31_998 {
            assert_eq!(said(ext3.directory(format!("b/{number}").as_bytes())), "");
            assert_eq!(said(ext3.directory(format!("b/{number}/c").as_bytes())), "");
        }
        assert_eq!(
            said(ext3.directory(b"b/more")),
            "/b has more than the 32000 names that ext3 can count (a directory has one in each of its own): leave some out with --exclude, or take --fs ext4"
        );
    }
}
