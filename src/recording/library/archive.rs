// SPDX-License-Identifier: MIT OR Apache-2.0
//! A recording as one file: a tar, compressed with gzip. It begins with the manifest, which says what else is in it.

use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::Path;

use super::draft::{CONSOLE, GUEST_FILE, LOG};
use super::manifest::{FileDigest, Manifest};
use super::stored::{INITRD, KERNEL};
use crate::base::progress::Progress;
use crate::file::digest::{Digest, Hasher};
use crate::qemu::capsule::{LIST, List, Member};

/// What of the archive is the engine's.
const ENGINE: &str = "engine";

/// What is read at once.
pub(in crate::recording) const PIECE: usize = 1 << 18;

/// A member of the archive, after the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::recording) struct Part {
    pub name: String,
    pub size: u64,
    pub digest: Digest,
    pub kind: Kind,
}

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::recording) enum Kind {
    /// A part of the recording.
    Own,
    /// What a disk was made from: it may be left out.
    Base,
    /// A file of the engine, which may be left out as a whole.
    Engine,
}

/// The member that is the engine's list.
pub(super) fn engine_list() -> String {
    format!("{ENGINE}/{LIST}")
}

/// The engine's files.
pub(super) fn engine_parts(list: &List) -> Vec<Part> {
    let part = |file: &Member| Part {
        name: format!("{ENGINE}/{}", file.name),
        size: file.size,
        digest: file.digest,
        kind: Kind::Engine,
    };
    list.files.iter().map(part).collect()
}

impl Part {
    /// Its name without the directory.
    pub fn file_name(&self) -> &Path {
        Path::new(self.name.rsplit('/').next().unwrap_or_default())
    }
}

/// Everything that `manifest` has digests of, in the order of the archive.
pub(in crate::recording) fn parts(manifest: &Manifest) -> Vec<Part> {
    let file = |name: &str, file: &FileDigest| Part {
        name: name.to_owned(),
        size: file.size,
        digest: file.digest,
        kind: Kind::Own,
    };
    let mut parts = vec![file(GUEST_FILE, &manifest.guest_file)];
    if let Some(result) = &manifest.result {
        parts.push(file(CONSOLE, &result.console));
        parts.push(file(LOG, &result.log));
    }
    parts.extend(manifest.kernel.iter().map(|kernel| file(KERNEL, kernel)));
    parts.extend(manifest.initrd.iter().map(|initrd| file(INITRD, initrd)));
    for disk in &manifest.disks {
        let part = Part {
            name: format!("disks/{}.img", disk.digest.hex()),
            size: disk.size,
            digest: disk.digest,
            kind: Kind::Base,
        };
        // Two disks may have been made from the same.
        if !parts.iter().any(|other| other.name == part.name) {
            parts.push(part);
        }
    }
    parts
}

/// A content that is read on its way to somewhere else, with its digest and its progress.
pub(in crate::recording) struct Passing<'a, 'b> {
    from: &'a mut dyn Read,
    hasher: Hasher,
    /// Bytes that came by.
    pub done: u64,
    before: u64,
    total: u64,
    progress: &'a mut Progress<'b>,
    /// Whether the caller called it off.
    pub interrupted: bool,
}

impl<'a, 'b> Passing<'a, 'b> {
    /// What `from` gives, after `before` bytes of `total` of the same work.
    pub fn new(from: &'a mut dyn Read, before: u64, total: u64, progress: &'a mut Progress<'b>) -> Self {
        Self {
            from,
            hasher: Hasher::default(),
            done: 0,
            before,
            total,
            progress,
            interrupted: false,
        }
    }

    /// Of all that came by.
    pub fn digest(&self) -> Digest {
        self.hasher.digest()
    }
}

impl Read for Passing<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        self.done += length as u64;
        let done = self.before.saturating_add(self.done);
        if let ControlFlow::Break(()) = (self.progress)(done, self.total.max(done)) {
            self.interrupted = true;
            return Err(io::Error::other("interrupted"));
        }
        Ok(length)
    }
}
