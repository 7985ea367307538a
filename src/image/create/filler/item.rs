// SPDX-License-Identifier: MIT OR Apache-2.0
//! A file on its way from a source into an image.

use std::fs::File;

use ext4_fill::{Attribute, FileType, Meta, Time};
use nix::libc;
use nix::sys::stat::{FileStat, major, minor};

/// A file on its way.
#[derive(Debug)]
pub(in crate::image::create) struct Item {
    /// From the root, without `/` at the beginning.
    pub(in crate::image::create) path: Vec<u8>,
    pub(in crate::image::create) meta: Meta,
    pub(in crate::image::create) attributes: Vec<Attribute>,
    /// If it has other names: what it is known by, and how many.
    pub(in crate::image::create) names: Option<(Key, u64)>,
    pub(in crate::image::create) content: Content,
}

/// Device and inode.
pub(in crate::image::create) type Key = (u64, u64);

/// What is in a file.
#[derive(Debug)]
pub(in crate::image::create) enum Content {
    /// A directory, a device, a pipe or a socket.
    Nothing,
    /// All of it.
    Bytes(Vec<u8>),
    /// It is to be read; as it was when it was opened.
    File(File, Box<FileStat>),
    /// What a symbolic link leads to.
    Target(Vec<u8>),
}

/// What a file is known to be, unless its type is unknown.
pub(in crate::image::create) fn meta(stat: &FileStat) -> Option<Meta> {
    Some(Meta {
        kind: FileType::of_mode(stat.st_mode)?,
        permissions: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        accessed: time(stat.st_atime, stat.st_atime_nsec),
        modified: time(stat.st_mtime, stat.st_mtime_nsec),
        device: (major(stat.st_rdev) as u32, minor(stat.st_rdev) as u32),
    })
}

fn time(seconds: libc::time_t, nanoseconds: i64) -> Time {
    Time {
        seconds,
        nanoseconds: nanoseconds as u32,
    }
}

/// Whether there are holes in a regular file.
pub(in crate::image::create) fn has_holes(stat: &FileStat) -> bool {
    stat.st_blocks * 512 < stat.st_size
}
