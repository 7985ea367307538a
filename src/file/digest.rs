// SPDX-License-Identifier: MIT OR Apache-2.0
//! The content of a disk as one number.
//!
//! A disk is much larger than dom0's memory: it is read in pieces, what has been read does not stay in the page cache,
//! holes of a file are not read at all, and between any two pieces the caller can call it off.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::base::progress::Progress;
use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::unistd::{Whence, lseek};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What is read at once.
const PIECE: usize = 1 << 20;

/// The page cache keeps folios of up to 2 MiB, and lets one go only if all of it is to go: so each piece is let go together
/// with this much before it.
const BEHIND: u64 = 4 << 20;

/// The algorithm's name, which a digest is written with.
const ALGORITHM: &str = "blake3:";

/// The BLAKE3 digest of a content, written `blake3:` and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(blake3::Hash);

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a digest: \"{ALGORITHM}\" and 64 hexadecimal digits")]
pub struct NotADigest(String);

/// Why there is no digest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// What was to be read.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// It cannot be read.
    #[error("cannot read at byte {at}")]
    Read {
        /// How far it went.
        at: u64,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// There is less than there was at the beginning.
    #[error("it became shorter while it was read: there were {total} bytes, now there are {at}")]
    Shorter {
        /// Bytes that were there.
        at: u64,
        /// Bytes that should have been.
        total: u64,
    },
    /// The caller called it off.
    #[error("it was interrupted")]
    Interrupted,
}

/// The digest of the `total` bytes that `reader` gives.
pub fn of_reader(reader: &mut dyn Read, total: u64, progress: &mut Progress<'_>) -> Result<Digest, Error> {
    let mut content = Content::new(total, progress);
    content.read(reader, total, |_, _| {})?;
    Ok(content.digest())
}

/// The digest of what is in memory.
pub fn of_bytes(bytes: &[u8]) -> Digest {
    Digest(blake3::hash(bytes))
}

/// The digest of the file or block device at `path`.
pub fn of_path(path: &Path, progress: &mut Progress<'_>) -> Result<Digest, Error> {
    let file = crate::file::open_content(path).map_err(|source| Error::Open {
        path: path.to_owned(),
        source,
    })?;
    of_file(&file, progress)
}

/// The digest of an open file or block device.
pub fn of_file(file: &File, progress: &mut Progress<'_>) -> Result<Digest, Error> {
    let failed = |at: u64| move |source: io::Error| Error::Read { at, source };
    let mut reader = file;
    let total = reader.seek(SeekFrom::End(0)).map_err(failed(0))?;
    // Of use but not needed: what cannot be told that is read all the same. What is there from before goes first, so
    // that it is the disk that is looked at.
    let advise = |at: u64, length: u64, advice| {
        let _ = posix_fadvise(file, at as i64, length as i64, advice);
    };
    advise(0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    advise(0, 0, PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL);
    let mut content = Content::new(total, progress);
    while content.done < total {
        let at = content.done;
        let data = next(file, at, Whence::SeekData).map_err(failed(at))?;
        content.zeros(data.unwrap_or(total).min(total))?;
        if let Some(data) = data.filter(|data| *data < total) {
            let end = next(file, data, Whence::SeekHole).map_err(failed(data))?;
            reader.seek(SeekFrom::Start(data)).map_err(failed(data))?;
            let end = end.unwrap_or(total).min(total);
            content.read(&mut reader, end, |at, length| {
                let from = at.saturating_sub(BEHIND);
                advise(from, at - from + length, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
            })?;
        }
    }
    advise(0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    Ok(content.digest())
}

/// Where the next data or hole is; `None` if there is none any more.
fn next(file: &File, at: u64, whence: Whence) -> io::Result<Option<u64>> {
    match lseek(file, at as i64, whence) {
        Ok(position) => Ok(Some(position as u64)),
        Err(Errno::ENXIO) => Ok(None),
        // A file system that knows of no holes: all is data.
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(matches!(whence, Whence::SeekData).then_some(at)),
        Err(errno) => Err(errno.into()),
    }
}

/// A content on its way into its digest.
struct Content<'a, 'b> {
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    done: u64,
    total: u64,
    progress: &'a mut Progress<'b>,
}

impl<'a, 'b> Content<'a, 'b> {
    fn new(total: u64, progress: &'a mut Progress<'b>) -> Self {
        Self {
            hasher: blake3::Hasher::new(),
            buffer: vec![0; PIECE],
            done: 0,
            total,
            progress,
        }
    }

    /// Takes in what `reader` gives up to position `end`; `taken` hears of each piece.
    fn read(&mut self, reader: &mut dyn Read, end: u64, taken: impl Fn(u64, u64)) -> Result<(), Error> {
        while self.done < end {
            let at = self.done;
            let want = piece(end - at);
            match reader.read(&mut self.buffer[..want]) {
                Ok(0) => return Err(Error::Shorter { at, total: self.total }),
                Ok(length) => {
                    self.hasher.update(&self.buffer[..length]);
                    taken(at, length as u64);
                    self.step(length)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => self.step(0)?,
                Err(source) => return Err(Error::Read { at, source }),
            }
        }
        Ok(())
    }

    /// Takes in zeros up to position `end`.
    fn zeros(&mut self, end: u64) -> Result<(), Error> {
        if self.done < end {
            self.buffer.fill(0);
        }
        while self.done < end {
            let length = piece(end - self.done);
            self.hasher.update(&self.buffer[..length]);
            self.step(length)?;
        }
        Ok(())
    }

    fn step(&mut self, length: usize) -> Result<(), Error> {
        self.done += length as u64;
        match (self.progress)(self.done, self.total) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Interrupted),
        }
    }

    fn digest(&self) -> Digest {
        Digest(self.hasher.finalize())
    }
}

/// As much of `left` as is taken at once.
fn piece(left: u64) -> usize {
    usize::try_from(left).map_or(PIECE, |left| left.min(PIECE))
}

impl Digest {
    /// Its digits alone: part of a file's name.
    pub fn hex(&self) -> String {
        self.0.to_hex().to_string()
    }

    /// The number itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

/// A content that passes by in pieces.
#[derive(Debug, Default)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Takes in the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The digest of all that was taken in.
    pub fn digest(&self) -> Digest {
        Digest(self.0.finalize())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALGORITHM}{}", self.0.to_hex())
    }
}

impl FromStr for Digest {
    type Err = NotADigest;
    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let digits = text.strip_prefix(ALGORITHM);
        let hash = digits.and_then(|digits| blake3::Hash::from_hex(digits).ok());
        hash.map(Self).ok_or_else(|| NotADigest(text.to_owned()))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// <https://github.com/BLAKE3-team/BLAKE3/blob/master/test_vectors/test_vectors.json>: of no bytes at all.
    const EMPTY: &str = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

    #[test]
    fn digests_are_written_and_read() {
        let digest: Digest = EMPTY.parse().expect("a digest");
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(serde_json::to_string(&digest).ok(), Some(format!("\"{EMPTY}\"")));
        assert_eq!(
            serde_json::from_str::<Digest>(&format!("\"{EMPTY}\"")).ok(),
            Some(digest)
        );
        for wrong in [
            "",
            "blake3:",
            &EMPTY[7..],
            &EMPTY[..70],
            &EMPTY.replace("blake3", "sha256"),
        ] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_reader_is_read_to_its_end() {
        let mut goes_on = |_, _| ControlFlow::Continue(());
        let digest = of_reader(&mut io::empty(), 0, &mut goes_on).expect("a digest");
        assert_eq!(digest.to_string(), EMPTY);
        let bytes = vec![7; 3 * PIECE + 5];
        let mut seen = Vec::new();
        let mut watch = |done, total| {
            seen.push((done, total));
            ControlFlow::Continue(())
        };
        let digest = of_reader(&mut &bytes[..], bytes.len() as u64, &mut watch).expect("a digest");
        assert_eq!(digest, Digest(blake3::hash(&bytes)));
        let total = bytes.len() as u64;
        assert_eq!(seen.first(), Some(&(PIECE as u64, total)));
        assert_eq!(seen.last(), Some(&(total, total)));
    }

    #[test]
    fn less_than_promised_and_called_off() {
        let mut goes_on = |_, _| ControlFlow::Continue(());
        let short = of_reader(&mut &[1, 2, 3][..], 4, &mut goes_on);
        assert!(matches!(short, Err(Error::Shorter { at: 3, total: 4 })));
        let mut pieces = 0;
        let mut stop = |_, _| {
            pieces += 1;
            ControlFlow::Break(())
        };
        let stopped = of_reader(&mut io::repeat(0), 1 << 40, &mut stop);
        assert!(matches!(stopped, Err(Error::Interrupted)));
        assert_eq!(pieces, 1);
    }
}
