// SPDX-License-Identifier: MIT OR Apache-2.0
//! The image as a file. Its first entry says who made it, and what everything behind that entry is: so one that somebody has
//! unpacked, changed and packed again is not taken for ours, and not replaced.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;
use flate2::{Compression, GzBuilder};
use initrd::newc::{HEADER_SIZE, Writer};

use super::tree::Tree;
use super::{Error, Image};
use crate::base::signals;
use crate::file::{self, Seen};

/// The name of the first entry.
const MARK: &str = ".ttvm-initrd";

/// Where the time of the first entry is.
const TIME: Range<usize> = 46..54;

/// Everybody may read it, or, with a password that is somebody's own, only root.
const MODE: u32 = 0o644;
const SECRET_MODE: u32 = 0o600;

/// What is compressed between two looks whether to go on.
const PIECE: usize = 1 << 18;

/// None of ours is larger, nor is what is in it.
const LARGEST: u64 = 1 << 30;

/// What came of writing an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Bytes in the file.
    pub size: usize,
    /// `false` if the file was the same before.
    pub changed: bool,
    /// Others may not read it, as before, though there is nothing in it that they may not.
    pub closed: bool,
}

impl Image {
    /// The file's content: a compressed archive, which every kernel unpacks. `progress` is called with the bytes that were
    /// compressed and the bytes there are.
    pub fn content(&self, progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>) -> Result<Vec<u8>, Error> {
        let archive = self.archive()?;
        let whole = [mark(&blake3::hash(&archive), self.time).map_err(Error::Pack)?, archive].concat();
        // Neither a name nor a time.
        let mut packed = GzBuilder::new().write(Vec::new(), Compression::default());
        let mut done = 0;
        for piece in whole.chunks(PIECE) {
            if progress(done, whole.len() as u64).is_break() {
                return Err(Error::Interrupted);
            }
            packed.write_all(piece).map_err(Error::Pack)?;
            done += piece.len() as u64;
        }
        packed.finish().map_err(Error::Pack)
    }

    /// Writes `content` to `path` in one step. What is there and was not made here is only replaced by `force`.
    pub fn write(&self, content: &[u8], path: &Path, force: bool) -> Result<Written, Error> {
        let _whole = signals::defer();
        let path = &absolute(path)?;
        let seen = replaceable(path, force)?;
        let changed = !seen.is(content);
        let mut mode = MODE;
        if self.secret {
            mode = SECRET_MODE;
            close(path).map_err(Error::write(path))?;
        }
        file::replace_seen(path, content, mode, &seen).map_err(Error::write(path))?;
        let mode = fs::metadata(path).map_or(MODE, |data| data.permissions().mode());
        Ok(Written {
            size: content.len(),
            changed,
            closed: !self.secret && mode & 0o044 == 0,
        })
    }
}

/// Whether an image may be written to `path`: `Err` is why not.
pub fn check(path: &Path, force: bool) -> Result<(), Error> {
    replaceable(&absolute(path)?, force).map(drop)
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(Error::write(path))
}

/// What is at `path` now, if it may be replaced.
fn replaceable(path: &Path, force: bool) -> Result<Seen, Error> {
    match fs::symlink_metadata(path) {
        Ok(data) if !data.is_file() => return Err(Error::NotAFile(path.to_owned())),
        Ok(data) if data.len() > LARGEST && !force => return Err(Error::Foreign(path.to_owned())),
        _ => {}
    }
    // Read, and not kept: it may be anything.
    match file::open_content(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Ok(there) if force || is_ours(BufReader::new(&there)) => {}
        Ok(_) => return Err(Error::Foreign(path.to_owned())),
        Err(error) => return Err(Error::unreadable(path)(error)),
    }
    Seen::look(path).map_err(Error::unreadable(path))
}

/// Takes away what others than its owner may do with the file that will be replaced: the new one has its permissions.
fn close(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(data) => {
            let mode = data.permissions().mode() & 0o7777 & SECRET_MODE;
            fs::set_permissions(path, Permissions::from_mode(mode))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The first entry of an archive, which `rest` follows.
fn mark(rest: &blake3::Hash, time: u32) -> io::Result<Vec<u8>> {
    let mut tree = Tree::default();
    tree.file(MARK, 0o444, format!("made by ttvm initrd busybox from {rest}\n"));
    let mut entry = Vec::new();
    tree.write(&mut Writer::new(&mut entry), time)?;
    Ok(entry)
}

/// Whether `content` is an image as it was made here.
fn is_ours(content: impl BufRead) -> bool {
    let mut packed = GzDecoder::new(content);
    let mut plain = (&mut packed).take(LARGEST);
    let is_ours = is_marked(&mut plain).unwrap_or(false);
    is_ours && packed.into_inner().fill_buf().is_ok_and(<[u8]>::is_empty)
}

fn is_marked(plain: &mut dyn Read) -> io::Result<bool> {
    let mut found = mark(&blake3::hash(b""), 0)?;
    let name = HEADER_SIZE..HEADER_SIZE + MARK.len();
    plain.read_exact(&mut found)?;
    if &found[name] != MARK.as_bytes() {
        return Ok(false);
    }
    let time = std::str::from_utf8(&found[TIME]).ok();
    let time = time.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let mut rest = blake3::Hasher::new();
    io::copy(plain, &mut rest)?;
    Ok(mark(&rest.finalize(), time.unwrap_or_default())? == found)
}

#[cfg(test)]
mod tests {
    use flate2::write::GzEncoder;

    use super::*;

    fn packed(content: &[u8]) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(content).expect("in memory");
        packed.finish().expect("in memory")
    }

    #[test]
    fn ours_and_others() {
        let ours = |content: &[u8]| is_ours(content);
        let rest = b"any archive";
        let whole = [mark(&blake3::hash(rest), 7).expect("an entry"), rest.to_vec()].concat();
        assert_eq!(whole.len() % 4, rest.len() % 4, "what follows is aligned");
        assert!(ours(&packed(&whole)));
        assert!(!ours(&whole), "not packed");
        assert!(!ours(&packed(&whole[..whole.len() - 1])), "cut off");
        assert!(!ours(&packed(&[&whole[..], b"x"].concat())), "something added");
        assert!(!ours(&[packed(&whole), packed(b"x")].concat()), "something behind it");
        assert!(!ours(&packed(rest)));
        assert!(!ours(b""));
        for at in 0..whole.len() {
            let mut other = whole.clone();
            other[at] ^= 1;
            // The time alone is not part of the digest.
            assert_eq!(ours(&packed(&other)), TIME.contains(&at), "byte {at}");
        }
    }
}
