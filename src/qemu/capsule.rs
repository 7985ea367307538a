// SPDX-License-Identifier: MIT OR Apache-2.0
//! A capsule: a QEMU with all that it needs to run anywhere, as a directory of files and the list of them.
//!
//! ```text
//! DIRECTORY/
//!     capsule.toml    the QEMU's version, and each file by its name, size and digest; the digest of this text is the capsule's
//!     files/          the program, the loader that runs it, libraries, modules and firmware: one directory for all of them
//! ```
//!
//! Whoever made it may be anybody. It runs in the cage of every QEMU, and is shut in from outside as well ([`Confinement`]).

mod installed;

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::text::line;
use crate::file::digest::{self, Digest};
use crate::run::child::Start;
use crate::run::child::confinement::{self, Confinement};

pub use installed::{Error, installed};

/// The list.
pub const LIST: &str = "capsule.toml";
/// The directory of the files.
pub const FILES: &str = "files";
/// The program.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// What loads it (ld.so(8)).
pub const LOADER: &str = "loader";

/// No list is larger.
pub const LIST_LIMIT: u64 = 1 << 16;
/// No capsule has more files: Debian's have some 55.
const MOST_FILES: usize = 256;
/// Nor more bytes, in all: Debian's have some 60 MB.
const MOST_BYTES: u64 = 1 << 29;

/// A file of a capsule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// Its content.
    pub digest: Digest,
}

/// What a capsule has: `capsule.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// The QEMU's version, as it says it.
    pub version: String,
    /// The files.
    #[serde(rename = "file")]
    pub files: Vec<Member>,
}

/// Why a text is no list of a capsule.
#[derive(Debug, thiserror::Error)]
pub enum NotAList {
    /// It is not what ttvm writes.
    #[error("{LIST} is not understood: {0}")]
    Strange(String),
    /// There is too much.
    #[error("{LIST} has more than {MOST_FILES} files or {} MiB: that is no QEMU", MOST_BYTES >> 20)]
    Large,
    /// A name that no file of a capsule has.
    #[error("{LIST}: {0:?} is no name of a file in it, or is there twice")]
    Name(String),
    /// What nothing runs without.
    #[error("{LIST} has no file {0:?}")]
    Missing(&'static str),
}

impl List {
    /// The list that a text is.
    ///
    /// # Errors
    ///
    /// If it is none, or one that could do harm.
    pub fn parse(text: &str) -> Result<Self, NotAList> {
        let strange = |error: toml::de::Error| NotAList::Strange(line(error.message().trim_end()).into_owned());
        let list: Self = toml::from_str(text).map_err(strange)?;
        if list.files.len() > MOST_FILES || list.size() > MOST_BYTES {
            return Err(NotAList::Large);
        }
        for (at, file) in list.files.iter().enumerate() {
            if !is_name(&file.name) || list.files[..at].iter().any(|other| other.name == file.name) {
                return Err(NotAList::Name(file.name.clone()));
            }
        }
        match [PROGRAM, LOADER].into_iter().find(|name| list.member(name).is_none()) {
            Some(name) => Err(NotAList::Missing(name)),
            None => Ok(list),
        }
    }

    /// Its text.
    ///
    /// # Errors
    ///
    /// None that a list of [`parse`](Self::parse) has.
    pub fn to_text(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.size))
    }

    /// The file of that name.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.files.iter().find(|file| file.name == name)
    }
}

/// A name in one directory, which nothing hides behind.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    name.len() <= 64 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain)
}

/// A capsule that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capsule {
    directory: PathBuf,
    text: String,
    list: List,
}

/// Why a capsule cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Its list is not there.
    #[error("{LIST} cannot be read")]
    File(#[from] io::Error),
    /// It is none.
    #[error(transparent)]
    List(#[from] NotAList),
}

impl Capsule {
    /// The capsule in `directory`. Its files are not read.
    pub fn load(directory: &Path) -> Result<Self, Unreadable> {
        let text = fs::read_to_string(directory.join(LIST))?;
        Ok(Self {
            directory: directory.to_owned(),
            list: List::parse(&text)?,
            text,
        })
    }

    /// The digest of its list, and so of all of it.
    pub fn digest(&self) -> Digest {
        digest::of_bytes(self.text.as_bytes())
    }

    /// The text of its list, which others may have written otherwise.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it has.
    pub fn list(&self) -> &List {
        &self.list
    }

    /// Where its files are.
    pub fn files(&self) -> PathBuf {
        self.directory.join(FILES)
    }

    /// Opens it to be run.
    pub(super) fn open(&self) -> io::Result<Opened> {
        Ok(Opened(File::open(self.files())?.into()))
    }
}

/// The directory of a capsule's files, open: QEMU's user need not be able to find it, and nobody puts another in its place.
#[derive(Debug)]
pub(super) struct Opened(OwnedFd);

impl Opened {
    /// What the program knows the directory by.
    fn place(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }

    /// What is run: the loader, because the one that the program names is the host's.
    pub(super) fn loader(&self) -> PathBuf {
        Path::new(&self.place()).join(LOADER)
    }

    /// The loader's arguments, and QEMU's first: nothing is looked for anywhere else.
    pub(super) fn arguments(&self) -> Vec<String> {
        let place = self.place();
        let program = format!("{place}/{PROGRAM}");
        let words = ["--inhibit-cache", "--library-path", &place, &program, "-L", &place];
        words.map(str::to_owned).to_vec()
    }

    /// Has it begin where its files are, and shut in with those and `files`.
    pub(super) fn bind<'a>(
        &self,
        start: &mut Start<'_>,
        files: impl Iterator<Item = BorrowedFd<'a>>,
    ) -> Result<(), confinement::Error> {
        let place = self.place();
        start.confinement = Some(Confinement::new(self.0.as_fd(), files)?);
        start.directory = Some(PathBuf::from(&place));
        // Where it looks for modules (util/module.c in QEMU).
        start.environment = vec![("QEMU_MODULE_DIR", place)];
        Ok(())
    }
}

impl AsFd for Opened {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> List {
        let files = names.iter().map(|name| Member {
            name: (*name).to_owned(),
            size: 1,
            digest: digest::of_bytes(b"x"),
        });
        List {
            version: "7.2.22".to_owned(),
            files: files.collect(),
        }
    }

    fn parsed(list: &List) -> Result<List, String> {
        List::parse(&list.to_text().expect("a text")).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_is_read() {
        let good = list(&[PROGRAM, LOADER, "libstdc++.so.6", "bios-256k.bin"]);
        assert_eq!(parsed(&good), Ok(good));
    }

    #[test]
    fn names_that_lead_elsewhere() {
        for name in [
            "",
            "..",
            ".hidden",
            "a/b",
            "../a",
            "/etc/passwd",
            "a b",
            "a\n",
            "ä",
            LOADER,
            &"a".repeat(65),
        ] {
            let error = parsed(&list(&[PROGRAM, LOADER, name])).expect_err(name);
            assert!(error.contains("is no name of a file in it"), "{name:?}: {error}");
        }
    }

    #[test]
    fn too_much_and_too_little() {
        assert_eq!(
            parsed(&list(&[PROGRAM])),
            Err("capsule.toml has no file \"loader\"".to_owned())
        );
        let names: Vec<String> = (0..=MOST_FILES).map(|number| number.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(parsed(&list(&names)).is_err());
        let mut large = list(&[PROGRAM, LOADER]);
        large.files[0].size = u64::MAX / 2;
        large.files[1].size = u64::MAX / 2 + 2;
        assert!(parsed(&large).is_err());
        assert!(List::parse("version = \"7.2\"\nfile = []\nmore = 1").is_err());
    }
}
