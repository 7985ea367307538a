// SPDX-License-Identifier: MIT OR Apache-2.0
//! The list beside the unpacked files: what the image was made of, in its order, and what a file system may not hold. One
//! line of JSON for each segment, archive and entry, so that it can be searched, compared and, where it must be, edited.

mod parser;

use std::fs::OpenOptions;
use std::io::{self, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc;
use serde::{Deserialize, Serialize};

use self::parser::Parser;
use super::compression::Compression;
use super::error::Error;
use super::names;
use super::newc::Header;

/// What the list is called.
pub const NAME: &str = "ttvm-initrd.jsonl";
/// The first version; another one would be another format.
const VERSION: u32 = 1;

/// Who knows the owners of files, and what their device numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owners {
    /// The file system: root has unpacked them.
    Files,
    /// The list: nobody but root can give files away.
    List,
}

/// Zeros that follow something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Padding {
    /// Up to a multiple of so many bytes.
    Align(u64),
    /// So many.
    Bytes(u64),
}

impl Padding {
    /// What `count` zeros that begin at `at` are there for, besides the `needed` ones. Whether there are none or up to three more
    /// is all the same.
    pub fn of(at: u64, count: u64, needed: u64) -> Self {
        let aligns = |align: &u64| at.next_multiple_of(*align) - at == count;
        match [4096, 512].into_iter().find(aligns) {
            Some(align) if count > 3 + needed => Self::Align(align),
            _ if count < 4 + needed => Self::Align(4),
            _ => Self::Bytes(count),
        }
    }

    /// How many zeros there are to be from `at` on.
    pub fn count(self, at: u64) -> u64 {
        match self {
            Self::Align(align) => at.next_multiple_of(align) - at,
            Self::Bytes(count) => count,
        }
    }

    /// Whether it can be used.
    fn is_sound(self) -> bool {
        match self {
            Self::Align(align) => align.is_power_of_two() && align <= 1 << 20,
            Self::Bytes(count) => count <= 1 << 30,
        }
    }
}

/// A line of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Line {
    /// The first one.
    #[serde(rename = "ttvm-initrd")]
    Initrd {
        /// Of the list's format.
        version: u32,
        /// Who knows the owners of its files.
        owners: Owners,
    },
    /// A segment begins.
    Segment {
        /// What it is compressed with.
        compression: Compression,
        /// The compressor's level; its usual one if the list has none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        level: Option<i32>,
    },
    /// An archive begins; its files are in that directory.
    Archive {
        /// Its name, [`names::escape`]d.
        directory: String,
    },
    /// A file of it.
    Entry(Entry),
    /// A directory that the archive does not have, only something in it.
    Implied {
        /// [`names::escape`]d.
        name: String,
    },
    /// The archive ends.
    ArchiveEnd {
        /// The zeros behind it.
        padding: Padding,
        /// Its numbers are written as cpio itself does.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        uppercase: bool,
    },
    /// The segment ends.
    SegmentEnd {
        /// The zeros behind it.
        padding: Padding,
    },
    /// The only archive's files are in the directory of the list itself.
    Here {},
    /// A configuration for Linux ends the image.
    BootConfig {
        /// All of it, [`names::escape`]d.
        bytes: String,
    },
}

/// A file as the image has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// [`names::escape`]d.
    pub name: String,
    /// The archive's number of the inode; names with the same one are one file.
    pub ino: u32,
    /// Octal.
    #[serde(with = "octal")]
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// How many names the archive says that it has.
    pub nlink: u32,
    /// When it was changed last, in seconds since 1970.
    pub mtime: u32,
    /// The device that it was on, major and minor.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dev: (u32, u32),
    /// The device that it is, major and minor.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rdev: (u32, u32),
    /// It has the data of its hard links.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub data: bool,
    /// Its header has a sum.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sum: bool,
    /// An empty file stands for the device.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub placeholder: bool,
    /// A NUL follows the target of the symbolic link.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub terminated: bool,
    /// NULs behind the one that ends the name, by which the data is aligned.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub padded: u32,
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}
mod octal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    pub fn serialize<S: Serializer>(mode: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{mode:o}"))
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<u32, D::Error> {
        let text = <std::borrow::Cow<'a, str>>::deserialize(deserializer)?;
        u32::from_str_radix(&text, 8).map_err(|_| D::Error::custom(format!("{text:?} is no octal number")))
    }
}

impl Entry {
    /// What the list has of `header`.
    pub fn of(header: &Header) -> Self {
        Self {
            name: names::escape(&header.name),
            ino: header.ino,
            mode: header.mode,
            uid: header.uid,
            gid: header.gid,
            nlink: header.nlink,
            mtime: header.mtime,
            dev: header.dev,
            rdev: header.rdev,
            data: header.nlink > 1 && header.size > 0,
            sum: header.sum.is_some(),
            placeholder: false,
            terminated: false,
            padded: header.padded,
        }
    }
}

/// The permissions that a file gets: whoever is not root could not read, or fill, all files of all modes.
pub(super) fn permissions(mode: u32, owners: Owners) -> u32 {
    let needed = match (owners, mode & libc::S_IFMT) {
        (Owners::Files, _) => 0,
        (Owners::List, libc::S_IFDIR) => 0o700,
        (Owners::List, _) => 0o400,
    };
    mode & 0o7777 | needed
}

/// Writes the list.
pub(super) struct Writer<W: Write> {
    out: W,
}

impl<W: Write> Writer<W> {
    pub fn new(out: W, owners: Owners) -> io::Result<Self> {
        let mut writer = Self { out };
        let version = VERSION;
        writer.line(&Line::Initrd { version, owners })?;
        // By that the directory is known as ours, whatever happens.
        writer.out.flush()?;
        Ok(writer)
    }

    pub fn line(&mut self, line: &Line) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        self.out.write_all(b"\n")
    }

    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

/// The list as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Who knows the owners.
    pub owners: Owners,
    /// The segments, in their order.
    pub segments: Vec<Segment>,
    /// The configuration for Linux that is behind them.
    pub boot_config: Vec<u8>,
}

/// A segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// What it is compressed with.
    pub compression: Compression,
    /// The level, if it is known.
    pub level: Option<i32>,
    /// Its archives, in their order.
    pub archives: Vec<Archive>,
    /// What follows it in the image.
    pub padding: Padding,
}

/// An archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// Where its files are, below the directory of the list; empty if they are in that itself.
    pub directory: String,
    /// Its entries in their order, with the names as bytes and not as text.
    pub entries: Vec<(Vec<u8>, Entry)>,
    /// Directories that are there only because of what is in them.
    pub implied: Vec<Vec<u8>>,
    /// What follows it in its segment.
    pub padding: Padding,
    /// Its numbers are written with capitals.
    pub uppercase: bool,
}

impl Manifest {
    /// Whether the files of the only archive are in the directory of the list.
    pub fn is_here(&self) -> bool {
        let mut archives = self.segments.iter().flat_map(|segment| &segment.archives);
        archives.any(|archive| archive.directory.is_empty())
    }

    /// Reads the list in `directory`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// If it cannot be read, is no list, or says what cannot be; by its line.
    pub fn read(directory: &Path) -> Result<Option<Self>, Error> {
        let path = directory.join(NAME);
        // It comes from whoever made the directory: a pipe would be waited for, and a link leads out.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(Error::io("open", &path))?,
        };
        if !file.metadata().map_err(Error::io("look at", &path))?.is_file() {
            let wanted = "a regular file, as the list of an image is";
            return Err(Error::NotA { path, wanted });
        }
        Parser::new(path).parse(&mut BufReader::new(file)).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_there_for_something() {
        assert_eq!(Padding::of(500, 12, 0), Padding::Align(512));
        assert_eq!(Padding::of(4090, 6, 0), Padding::Align(4096));
        assert_eq!(Padding::of(514, 2, 0), Padding::Align(4));
        assert_eq!(Padding::of(516, 0, 0), Padding::Align(4));
        assert_eq!(Padding::of(517, 0, 0), Padding::Align(4));
        assert_eq!(Padding::of(517, 7, 4), Padding::Align(4));
        assert_eq!(Padding::of(4096, 4096, 0), Padding::Bytes(4096));
        for (at, count) in [(510, 2), (7, 1000), (0, 0), (1, 511)] {
            assert_eq!(Padding::of(at, count, 0).count(at), count);
        }
    }
}
