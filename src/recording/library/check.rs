// SPDX-License-Identifier: MIT OR Apache-2.0
//! Is a recording still what was recorded?

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Serialize, Serializer};

use super::draft::{CONSOLE, GUEST_FILE, LOG};
use super::manifest::{FileDigest, Manifest};
use super::stored::{INITRD, KERNEL, Recording};
use crate::base::error::reason;
use crate::base::progress::Progress;
use crate::file::digest::{self, Digest};
use crate::file::open_content;
use crate::recording::error::Error;

/// What is wrong with a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The manifest cannot be relied on, so nothing else is known.
    Manifest(String),
    /// A file is not there.
    Missing {
        /// The file.
        file: String,
    },
    /// It is no file.
    NotAFile {
        /// The file.
        file: String,
    },
    /// It cannot be read.
    Unreadable {
        /// The file.
        file: String,
        /// The system's reason.
        why: String,
    },
    /// It has another size.
    Size {
        /// The file.
        file: String,
        /// Bytes that are there.
        found: u64,
        /// Bytes that were recorded.
        recorded: u64,
    },
    /// It has another content.
    Content {
        /// The file.
        file: String,
        /// What it is.
        found: Digest,
        /// What was recorded.
        recorded: Digest,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest(why) => f.write_str(why),
            Self::Missing { file } => write!(f, "{file} is missing"),
            Self::NotAFile { file } => write!(f, "{file} is not a file any more"),
            Self::Unreadable { file, why } => write!(f, "{file} cannot be read: {why}"),
            Self::Size { file, found, recorded } if found < recorded => {
                write!(f, "{file} was truncated: {found} bytes, recorded {recorded}")
            }
            Self::Size { file, found, recorded } => {
                write!(f, "{file} was appended to: {found} bytes, recorded {recorded}")
            }
            Self::Content { file, found, recorded } => {
                // A console log is what somebody would open in an editor.
                let what = if file == LOG { "changed" } else { "edited" };
                write!(f, "{file} was {what}: its digest is {found}, recorded {recorded}")
            }
        }
    }
}

/// The sentence.
impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Recording {
    /// Reads everything that belongs to it and says what is not as it was recorded.
    pub fn check(&self, progress: &mut Progress<'_>) -> Result<Vec<Fault>, Error> {
        match Manifest::load(self.directory()) {
            Ok(manifest) if manifest == *self.manifest() => {}
            Ok(_) => return Ok(vec![Fault::Manifest("manifest.toml was replaced meanwhile".to_owned())]),
            Err(why) => return Ok(vec![Fault::Manifest(why.to_string())]),
        }
        let manifest = self.manifest();
        let mut parts = vec![(GUEST_FILE.to_owned(), self.guest_file(), of(&manifest.guest_file))];
        if let Some(result) = &manifest.result {
            parts.push((LOG.to_owned(), self.log(), of(&result.log)));
            parts.push((CONSOLE.to_owned(), self.console(), of(&result.console)));
        }
        for (name, file) in [(KERNEL, &manifest.kernel), (INITRD, &manifest.initrd)] {
            if let (Some(path), Some(file)) = (self.brought(name), file) {
                parts.push((name.to_owned(), path, of(file)));
            }
        }
        for disk in &manifest.disks {
            if let Some(path) = self.base_copy(disk) {
                let name = format!("the base of disk {}, {},", disk.target, path.display());
                parts.push((name, path, (disk.size, disk.digest)));
            }
        }
        let total = parts.iter().fold(0u64, |sum, part| sum.saturating_add(part.2.0));
        let (mut faults, mut before) = (Vec::new(), 0u64);
        for (name, path, recorded) in parts {
            let fault = part(&name, &path, recorded, &mut |done, _| {
                progress(before.saturating_add(done), total)
            })?;
            faults.extend(fault);
            before = before.saturating_add(recorded.0);
        }
        Ok(faults)
    }
}

fn of(file: &FileDigest) -> (u64, Digest) {
    (file.size, file.digest)
}

/// What is wrong with one file.
pub(in crate::recording) fn part(
    name: &str,
    path: &Path,
    (size, digest): (u64, Digest),
    progress: &mut Progress<'_>,
) -> Result<Option<Fault>, Error> {
    let file = name.to_owned();
    let unreadable = |error: &io::Error| Fault::Unreadable {
        file: name.to_owned(),
        why: reason(error),
    };
    let data = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(Fault::Missing { file })),
        Err(error) => return Ok(Some(unreadable(&error))),
        Ok(data) => data,
    };
    if !data.is_file() {
        return Ok(Some(Fault::NotAFile { file }));
    }
    if data.len() != size {
        return Ok(Some(Fault::Size {
            file,
            found: data.len(),
            recorded: size,
        }));
    }
    let opened = match open_content(path) {
        Err(error) => return Ok(Some(unreadable(&error))),
        Ok(opened) => opened,
    };
    match digest::of_file(&opened, progress) {
        Ok(found) if found == digest => Ok(None),
        Ok(found) => Ok(Some(Fault::Content {
            file,
            found,
            recorded: digest,
        })),
        Err(digest::Error::Read { source, .. }) => Ok(Some(unreadable(&source))),
        Err(error) => Err(Error::read(path)(error)),
    }
}
