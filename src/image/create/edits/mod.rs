// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is otherwise in the guest than in the source.

pub(super) mod resolve;

use std::collections::BTreeMap;

use ext4_fill::FileType;

/// One file that is otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Edit {
    /// A regular file with this content, with owner and permissions of the one there was, else with these.
    File { content: Vec<u8>, permissions: u32 },
    /// A symbolic link.
    Symlink(&'static str),
    /// A directory, if there is none.
    Directory { permissions: u32 },
    /// A character device of this major and minor number, if there is none: archives of containers have an empty file in its
    /// place, on which the engine mounts the device.
    Device { device: (u32, u32), permissions: u32 },
    /// None, whatever there was.
    Nothing,
}

/// All of them by their paths, which begin without `/`.
#[derive(Debug, Default)]
pub(super) struct Edits(BTreeMap<Vec<u8>, Edit>);

impl Edits {
    /// Adds one, with the directories it is in.
    pub(super) fn add(&mut self, path: &str, edit: Edit) {
        if let Some((parent, _)) = path.rsplit_once('/')
            && edit != Edit::Nothing
            && !self.0.contains_key(parent.as_bytes())
        {
            self.add(parent, Edit::Directory { permissions: 0o755 });
        }
        self.0.insert(path.into(), edit);
    }

    pub(super) fn file(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        let (content, permissions) = (content.into(), 0o644);
        self.add(path, Edit::File { content, permissions });
    }

    /// The permissions of the directory that is to be at `path`, if one is.
    pub(super) fn permissions(&self, path: &[u8]) -> Option<u32> {
        match self.0.get(path) {
            Some(Edit::Directory { permissions }) => Some(*permissions),
            _ => None,
        }
    }

    /// That of the file at `path`, which then is done.
    pub(super) fn take(&mut self, path: &[u8]) -> Option<Edit> {
        self.0.remove(path)
    }

    /// Whether a file at `path` gives way to another one, or to none; of what kind it is may not be known.
    pub(super) fn replaces(&self, path: &[u8], kind: Option<FileType>) -> bool {
        match self.0.get(path) {
            Some(Edit::File { .. } | Edit::Symlink(_) | Edit::Nothing) => true,
            Some(Edit::Device { .. }) => kind != Some(FileType::Character),
            Some(Edit::Directory { .. }) | None => false,
        }
    }

    /// That of the file at `path`, which then is done, if the file gives way to it. Where only something was to be, the file is
    /// that.
    pub(super) fn replacing(&mut self, path: &[u8], kind: Option<FileType>) -> Option<Edit> {
        let replaces = self.replaces(path, kind);
        self.take(path).filter(|_| replaces)
    }

    /// Those that are left in the directory at `path`, by their names; they then are done.
    pub(super) fn take_in(&mut self, path: &[u8]) -> Vec<(Vec<u8>, Edit)> {
        let mut start = path.to_vec();
        if !path.is_empty() {
            start.push(b'/');
        }
        let below = self
            .0
            .range(start.clone()..)
            .take_while(|(path, _)| path.starts_with(&start));
        let own = below.filter(|(path, _)| !path.is_empty() && !path[start.len()..].contains(&b'/'));
        let paths: Vec<Vec<u8>> = own.map(|(path, _)| path.clone()).collect();
        paths
            .into_iter()
            .filter_map(|path| self.0.remove_entry(&path))
            .collect()
    }

    /// Those that are left, by their paths.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &Edit)> {
        self.0.iter().map(|(path, edit)| (path.as_slice(), edit))
    }

    /// How many inodes they may need.
    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_with_what_is_in_them() {
        let mut edits = Edits::default();
        edits.file("etc/x/y", "1");
        edits.file("etc.conf", "2");
        edits.add("etc/z", Edit::Nothing);
        let names = |found: Vec<(Vec<u8>, Edit)>| {
            let names = found
                .into_iter()
                .map(|(path, _)| String::from_utf8(path).expect("a name"));
            names.collect::<Vec<_>>()
        };
        assert_eq!(names(edits.take_in(b"")), ["etc", "etc.conf"]);
        assert_eq!(names(edits.take_in(b"etc")), ["etc/x", "etc/z"]);
        assert_eq!(names(edits.take_in(b"etc/x")), ["etc/x/y"]);
        assert_eq!(edits.len(), 0);
    }
}
