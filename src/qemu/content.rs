// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest would read from a disk, whichever way it is kept.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::Deserialize;

use super::engine;
use super::machine::Backing;
use crate::base::progress::Progress;
use crate::base::text::line;
use crate::file::digest::{self, Digest};
use crate::file::open_content;
use crate::run;

/// What is compared at once.
const PIECE: usize = 1 << 20;

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
    /// qemu-img does not bring back what was on it.
    #[error("qemu-img does not bring back what was on {disk}")]
    Back {
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
    let overlay = Overlay::open(path, base)?;
    let mut reader = Layers {
        files: overlay.files,
        extents: overlay.extents.into_iter(),
        current: None,
    };
    digest::of_reader(&mut reader, overlay.total, progress).map_err(|source| Error::Read {
        disk: overlay.disk,
        source,
    })
}

/// Makes the content of the overlay at `path` that which it had when QEMU kept it as `name`.
///
/// # Errors
///
/// If it has its content elsewhere, or nothing was kept by that name.
pub fn go_back(path: &Path, name: &str) -> Result<(), Error> {
    let disk = path.display().to_string();
    let mut file = open_content(path).map_err(|source| Error::Read {
        disk: disk.clone(),
        source: digest::Error::Open {
            path: path.to_owned(),
            source,
        },
    })?;
    if has_data_file(&mut file) {
        return Err(elsewhere(disk));
    }
    engine::go_back(&disk, name).map_err(|source| Error::Back { disk, source })
}

/// Whether a guest would read the same from two overlays over the same `base`. What both have from there is not read.
///
/// # Errors
///
/// If one of them cannot be read.
pub fn is_same(a: &Path, b: &Path, base: &Path) -> Result<bool, Error> {
    same(&Overlay::open(a, base)?, &Overlay::open(b, base)?)
}

fn same(a: &Overlay, b: &Overlay) -> Result<bool, Error> {
    let failed = |disk: &str, at: u64, source: io::Error| Error::Read {
        disk: disk.to_owned(),
        source: digest::Error::Read { at, source },
    };
    if a.total != b.total {
        return Ok(false);
    }
    let (mut left, mut right) = (a.extents.iter(), b.extents.iter());
    let (mut x, mut y) = (left.next(), right.next());
    let mut at = 0;
    let mut pieces = [vec![0; PIECE], vec![0; PIECE]];
    while let (Some(one), Some(other)) = (x, y) {
        let end = (one.start + one.length).min(other.start + other.length);
        let both_below = one.depth > 0 && other.depth > 0;
        let both_zero = !one.is_data() && !other.is_data();
        while at < end && !both_below && !both_zero {
            let length = usize::try_from(end - at).map_or(PIECE, |left| left.min(PIECE));
            let [of_one, of_other] = &mut pieces;
            one.read(&a.files, at, &mut of_one[..length])
                .map_err(|source| failed(&a.disk, at, source))?;
            other
                .read(&b.files, at, &mut of_other[..length])
                .map_err(|source| failed(&b.disk, at, source))?;
            if of_one[..length] != of_other[..length] {
                return Ok(false);
            }
            at += length as u64;
        }
        at = end;
        if one.start + one.length == end {
            x = left.next();
        }
        if other.start + other.length == end {
            y = right.next();
        }
    }
    Ok(true)
}

/// An overlay, and where its content is.
struct Overlay {
    disk: String,
    /// The overlay itself, and what is below it.
    files: [File; 2],
    /// Without gaps.
    extents: Vec<Extent>,
    /// Bytes of the disk.
    total: u64,
}

impl Overlay {
    fn open(path: &Path, base: &Path) -> Result<Self, Error> {
        let disk = path.display().to_string();
        let open = |path: &Path| {
            open_content(path).map_err(|source| Error::Read {
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
            return Err(elsewhere(disk));
        }
        let map = engine::map(&disk, &base.display().to_string()).map_err(|source| Error::Map {
            disk: disk.clone(),
            source,
        })?;
        let extents: Vec<Extent> =
            serde_json::from_str(&map).map_err(|error| strange(line(&error.to_string()).into_owned()))?;
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
        Ok(Self {
            disk,
            files: [overlay, below],
            extents,
            total,
        })
    }
}

fn elsewhere(disk: String) -> Error {
    Error::Strange {
        disk,
        why: "its content is said to be in another file".to_owned(),
    }
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

    /// Fills `buffer` with what is at byte `at` of the disk.
    fn read(&self, files: &[File; 2], at: u64, buffer: &mut [u8]) -> io::Result<()> {
        buffer.fill(0);
        if !self.is_data() {
            return Ok(());
        }
        let file = files.get(self.depth).ok_or(io::ErrorKind::InvalidData)?;
        file.read_exact_at(buffer, self.offset.unwrap_or_default() + (at - self.start))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An overlay of 8 KiB over a base of sevens: its file has one page of `byte`, and `extents` say where each page of the disk is.
    fn overlay(byte: u8, extents: &[(usize, bool)]) -> Overlay {
        let file = |byte| {
            let name = std::env::temp_dir().join(format!("ttvm-content-{}", std::process::id()));
            std::fs::write(&name, [byte; 8192]).expect("a file");
            let file = File::open(&name).expect("a file");
            std::fs::remove_file(&name).expect("its end");
            file
        };
        let extents = (0..).zip(extents).map(|(number, (depth, zero))| Extent {
            start: number * 4096,
            length: 4096,
            depth: *depth,
            zero: *zero,
            data: !zero,
            offset: (!zero).then_some(number * 4096),
        });
        Overlay {
            disk: "vda".to_owned(),
            files: [file(byte), file(7)],
            extents: extents.collect(),
            total: 8192,
        }
    }

    #[test]
    fn the_same_whoever_has_it() {
        let below = (1, false);
        let (own, zeros) = ((0, false), (0, true));
        let is_same = |a: (u8, [(usize, bool); 2]), b: (u8, [(usize, bool); 2])| {
            same(&overlay(a.0, &a.1), &overlay(b.0, &b.1)).expect("two overlays")
        };
        assert!(is_same((1, [below, below]), (2, [below, below])), "neither wrote");
        assert!(
            is_same((7, [below, own]), (2, [below, below])),
            "what was there already"
        );
        assert!(!is_same((8, [below, own]), (2, [below, below])));
        assert!(is_same((8, [own, own]), (8, [own, own])));
        assert!(!is_same((8, [own, below]), (9, [own, below])));
        assert!(
            is_same((0, [zeros, own]), (1, [zeros, zeros])),
            "zeros that are written"
        );
        assert!(!is_same((0, [zeros, below]), (1, [zeros, zeros])));
    }
}
