// SPDX-License-Identifier: MIT OR Apache-2.0
//! GRUB's environment block, `grubenv`: what GRUB remembers from one boot to the next.
//!
//! GRUB writes it in place, through a list of the blocks it lies in, and knows nothing of file systems when it does. So
//! it is always exactly 1024 bytes, and it is changed here in place as well: a new file would be another one for
//! whoever has the old one open, and no safer, because two sectors are written as one. (grub-editenv empties the file
//! before it writes it.)

use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::base::root::under;
use crate::file::{self, tree};

/// Its size in bytes, never more and never less (GRUB manual, "The GRUB environment block").
pub const SIZE: usize = 1024;

const HEADER: &str = "# GRUB Environment Block\n";

/// What is wrong with an environment block.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none.
    #[error("{} does not exist; `grub-editenv create` makes it", .0.display())]
    Missing(PathBuf),
    /// There is none behind a symbolic link (Fedora's to the EFI system partition). Whatever is made in the place of the link, GRUB
    /// may go on reading the other.
    #[error("{} is a link, and the file that it leads to does not exist: mount the file system that has it, or remove the link", .0.display())]
    Dangling(PathBuf),
    /// It cannot be read or written.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Its content is not one.
    #[error("{} is no environment block of GRUB ({why}); `grub-editenv {} create` makes a new one", path.display(), path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In what way.
        why: &'static str,
    },
    /// GRUB cannot write to it: the file has holes.
    #[error("GRUB cannot write to {}: it is a sparse file; make it anew with `grub-editenv create`", .0.display())]
    Sparse(PathBuf),
    /// There is no room for one more setting.
    #[error("{} is full: its {SIZE} bytes do not hold {name}; remove a variable with `grub-editenv - unset`", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// What was to be set.
        name: String,
    },
}

/// The block as it was read.
#[derive(Debug, Clone)]
pub struct GrubEnv {
    root: PathBuf,
    /// In the tree at `root`.
    inside: PathBuf,
    /// As messages call it.
    path: PathBuf,
    /// Its lines `NAME=VALUE` as they stand, in their order: what others keep here stays as it is.
    lines: Vec<String>,
}

impl GrubEnv {
    /// Reads the block at `inside`, of the system in the tree that begins at `root`.
    pub fn read(root: &Path, inside: &Path) -> Result<Self, Error> {
        let path = &under(root, inside);
        let io = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound if path.is_symlink() => Error::Dangling(path.to_owned()),
            io::ErrorKind::NotFound => Error::Missing(path.to_owned()),
            _ => Error::Io {
                path: path.to_owned(),
                source,
            },
        };
        let file = tree::open(root, inside).map_err(io)?;
        let mut data = Vec::new();
        // One byte more than it may have: enough to see that it is too large.
        file.take(SIZE as u64 + 1).read_to_end(&mut data).map_err(io)?;
        let damaged = |why| Error::Damaged {
            path: path.to_owned(),
            why,
        };
        if data.len() != SIZE {
            return Err(damaged("it has not 1024 bytes"));
        }
        let text = String::from_utf8(data).map_err(|_| damaged("it is not text"))?;
        let body = text
            .strip_prefix(HEADER)
            .ok_or_else(|| damaged("its header is not GRUB's"))?;
        let lines = lines(body).into_iter().filter(|line| !line.starts_with('#'));
        Ok(Self {
            root: root.to_owned(),
            inside: inside.to_owned(),
            path: path.to_owned(),
            lines: lines.collect(),
        })
    }

    /// The value of `name`; `None` if it is not set, or empty, which is the same to GRUB's scripts.
    pub fn get(&self, name: &str) -> Option<String> {
        let value = self
            .lines
            .iter()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        let mut text = String::new();
        let mut escaped = false;
        for c in value.chars() {
            escaped = c == '\\' && !escaped;
            if !escaped {
                text.push(c);
            }
        }
        Some(text).filter(|text| !text.is_empty())
    }

    /// Writes the block with `changes`: a value, or `None` for a variable that is to go. Nothing is written if nothing
    /// changes. The block is read anew for it: others write to it, too.
    pub fn change(&mut self, changes: &[(&str, Option<&str>)]) -> Result<(), Error> {
        *self = Self::read(&self.root, &self.inside)?;
        let mut lines = self.lines.clone();
        for (name, value) in changes {
            let is_it = |line: &String| line.strip_prefix(*name).is_some_and(|rest| rest.starts_with('='));
            let at = lines.iter().position(is_it);
            let line = value.map(|value| {
                let value = value.replace('\\', "\\\\").replace('\n', "\\\n");
                format!("{name}={value}")
            });
            match (at, line) {
                (Some(at), Some(line)) => lines[at] = line,
                (Some(at), None) => drop(lines.remove(at)),
                (None, Some(line)) => lines.push(line),
                (None, None) => {}
            }
        }
        if lines == self.lines {
            return Ok(());
        }
        let mut block = HEADER.to_owned();
        for line in &lines {
            block.push_str(line);
            block.push('\n');
        }
        if block.len() > SIZE {
            return Err(Error::Full {
                path: self.path.clone(),
                name: changes.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" and "),
            });
        }
        let mut block = block.into_bytes();
        block.resize(SIZE, b'#');
        let written = tree::open_to_write(&self.root, &self.inside).and_then(|file| {
            file.write_all_at(&block, 0)?;
            file.sync_all()
        });
        written.map_err(|source| Error::Io {
            path: self.path.clone(),
            source,
        })?;
        self.lines = lines;
        Ok(())
    }

    /// Makes an empty block, if there is no file yet.
    ///
    /// # Errors
    ///
    /// [`Error::Dangling`] if there is a link to nothing, which stays; [`Error::Io`] if it cannot be written.
    pub fn create(path: &Path) -> Result<(), Error> {
        if path.exists() {
            return Ok(());
        }
        if path.is_symlink() {
            return Err(Error::Dangling(path.to_owned()));
        }
        let mut block = HEADER.as_bytes().to_vec();
        block.resize(SIZE, b'#');
        file::replace(path, &block, 0o600).map_err(|source| Error::Io {
            path: path.to_owned(),
            source,
        })
    }

    /// `Ok` unless the file has holes, which GRUB's list of blocks cannot name.
    pub fn is_whole(&self) -> Result<(), Error> {
        let data = tree::open(&self.root, &self.inside).and_then(|file| file.metadata());
        let data = data.map_err(|source| Error::Io {
            path: self.path.clone(),
            source,
        })?;
        match data.blocks() * 512 >= SIZE as u64 {
            true => Ok(()),
            false => Err(Error::Sparse(self.path.clone())),
        }
    }
}

/// The lines of a block: a line end that a backslash stands before is part of a value.
fn lines(body: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut escaped = false;
    for c in body.chars() {
        if c == '\n' && !escaped {
            lines.push(std::mem::take(&mut line));
            continue;
        }
        line.push(c);
        escaped = c == '\\' && !escaped;
    }
    // What follows the last line end is padding.
    lines
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(path: &Path) -> Result<GrubEnv, Error> {
        GrubEnv::read(Path::new("/"), path)
    }

    fn block(name: &str, text: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("ttvm-grubenv-{}-{name}", std::process::id()));
        fs::write(&path, text).expect("a file");
        path
    }

    fn padded(body: &str) -> String {
        format!("{:#<SIZE$}", format!("{HEADER}{body}"))
    }

    #[test]
    fn changes_keep_the_rest() {
        let path = block("keep", &padded("saved_entry=a>b\nnote=two\\\nlines \\\\\n"));
        let mut env = read(&path).expect("a block");
        assert_eq!(env.get("saved_entry").as_deref(), Some("a>b"));
        assert_eq!(env.get("note").as_deref(), Some("two\nlines \\"));
        assert_eq!(env.get("saved"), None);
        env.change(&[("next_entry", Some("x")), ("saved_entry", None)])
            .expect("room");
        let text = fs::read_to_string(&path).expect("text");
        assert_eq!(text, padded("note=two\\\nlines \\\\\nnext_entry=x\n"));
        env.change(&[("next_entry", Some(""))]).expect("room");
        assert_eq!(read(&path).expect("a block").get("next_entry"), None);
        fs::remove_file(path).expect("the file");
    }

    #[test]
    fn never_larger_than_a_block() {
        let path = block("full", &padded(&format!("x={}\n", "y".repeat(980))));
        let before = fs::read(&path).expect("bytes");
        let mut env = read(&path).expect("a block");
        let error = env.change(&[("next_entry", Some("ttvm-linux"))]).expect_err("no room");
        assert!(matches!(error, Error::Full { .. }), "{error}");
        assert_eq!(fs::read(&path).expect("bytes"), before);
        fs::remove_file(path).expect("the file");
    }

    #[test]
    fn a_link_to_nothing_stays() {
        let path = block("link", "");
        fs::remove_file(&path).expect("the file");
        let target = path.with_extension("target");
        std::os::unix::fs::symlink(&target, &path).expect("a link");
        let error = read(&path).expect_err("nothing");
        assert!(matches!(error, Error::Dangling(_)), "{error}");
        let error = GrubEnv::create(&path).expect_err("a link");
        assert!(matches!(error, Error::Dangling(_)), "{error}");
        assert!(path.is_symlink() && !target.exists());
        fs::remove_file(path).expect("the link");
    }

    #[test]
    fn damaged_blocks_are_left_alone() {
        for text in ["", "# GRUB Environment Block\n", &padded("")[1..], &(padded("") + "#")] {
            let path = block("damaged", text);
            let error = read(&path).expect_err("damaged");
            assert!(matches!(error, Error::Damaged { .. }), "{error}");
            assert_eq!(fs::read_to_string(&path).expect("text"), text);
            fs::remove_file(path).expect("the file");
        }
    }
}
