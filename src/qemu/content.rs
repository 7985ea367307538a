// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest would read from a disk, whichever way it is kept.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use serde::Deserialize;

use super::engine;
use super::machine::Backing;
use crate::digest::{self, Digest};
use crate::progress::Progress;
use crate::run;

/// Why a disk's content is not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("the disk {disk} cannot be read")]
    Read {
        /// The file or device.
        disk: String,
        /// Why.
        #[source]
        source: digest::Error,
    },
    /// qemu-img does not say where what is.
    #[error("qemu-img does not say what is in {disk}")]
    Map {
        /// The file.
        disk: String,
        /// Why.
        #[source]
        source: run::Error,
    },
    /// It says something that is not understood.
    #[error("what qemu-img says of {disk} is not understood: {why}")]
    Strange {
        /// The file.
        disk: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The digest of the whole content.
pub fn digest(backing: &Backing, progress: &mut Progress<'_>) -> Result<Digest, Error> {
    let (path, base) = match backing {
        Backing::Raw { path, .. } => {
            return digest::of_path(path, progress).map_err(|source| Error::Read {
                disk: path.display().to_string(),
                source,
            });
        }
        Backing::Overlay { path, base } => (path, base),
    };
    let disk = path.display().to_string();
    let open = |path: &std::path::Path| {
        File::open(path).map_err(|source| Error::Read {
            disk: disk.clone(),
            source: digest::Error::Open {
                path: path.to_owned(),
                source,
            },
        })
    };
    let strange = |why: String| Error::Strange {
        disk: disk.clone(),
        why,
    };
    let (mut overlay, below) = (open(path)?, open(base)?);
    if has_data_file(&mut overlay) {
        return Err(strange("its content is said to be in another file".to_owned()));
    }
    let map = engine::map(&disk, &base.display().to_string()).map_err(|source| Error::Map {
        disk: disk.clone(),
        source,
    })?;
    let extents: Vec<Extent> = serde_json::from_str(&map).map_err(|error| strange(error.to_string()))?;
    let mut total = 0;
    for extent in &extents {
        if extent.start != total || extent.is_data() && extent.offset.is_none() {
            return Err(strange(format!("a part at byte {} that cannot be read", extent.start)));
        }
        total += extent.length;
    }
    let size = (&below).seek(SeekFrom::End(0)).unwrap_or_default();
    // QEMU counts in sectors.
    if total != size.next_multiple_of(512) {
        return Err(strange(format!(
            "it has {total} bytes, and what it was made from {size}"
        )));
    }
    let mut reader = Layers {
        files: [overlay, below],
        extents: extents.into_iter(),
        current: None,
    };
    digest::of_reader(&mut reader, total, progress).map_err(|source| Error::Read { disk, source })
}

/// Whether a qcow2 file has its content elsewhere (docs/interop/qcow2.txt in QEMU: bit 2 of the incompatible features).
fn has_data_file(overlay: &mut File) -> bool {
    let mut head = [0; 80];
    let read = overlay
        .seek(SeekFrom::Start(0))
        .and_then(|_| overlay.read_exact(&mut head));
    read.is_err() || head[79] & 4 != 0
}

/// A part of a disk (`qemu-img map`).
#[derive(Debug, Clone, Deserialize)]
struct Extent {
    start: u64,
    length: u64,
    /// 0 in the file itself, 1 in the one below.
    depth: usize,
    zero: bool,
    data: bool,
    offset: Option<u64>,
}

impl Extent {
    fn is_data(&self) -> bool {
        self.data && !self.zero
    }
}

/// Reads through an overlay.
struct Layers {
    files: [File; 2],
    extents: std::vec::IntoIter<Extent>,
    /// The part that is being read, and how much of it has been.
    current: Option<(Extent, u64)>,
}

impl Read for Layers {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (extent, done) = match self.current.take() {
            Some(current) => current,
            None => match self.extents.next() {
                Some(extent) => {
                    if extent.is_data() {
                        let file = self.files.get_mut(extent.depth).ok_or(io::ErrorKind::InvalidData)?;
                        file.seek(SeekFrom::Start(extent.offset.unwrap_or_default()))?;
                    }
                    (extent, 0)
                }
                None => return Ok(0),
            },
        };
        let want = usize::try_from(extent.length - done).map_or(buffer.len(), |left| left.min(buffer.len()));
        let length = if extent.is_data() {
            let file = self.files.get_mut(extent.depth).ok_or(io::ErrorKind::InvalidData)?;
            match file.read(&mut buffer[..want])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => length,
            }
        } else {
            buffer[..want].fill(0);
            want
        };
        let done = done + length as u64;
        if done < extent.length {
            self.current = Some((extent, done));
        }
        Ok(length)
    }
}
