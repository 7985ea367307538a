// SPDX-License-Identifier: MIT OR Apache-2.0
//! How archives are packed: gzip is read here, the others are unpacked by their own programs.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};

use flate2::bufread::GzDecoder;

use crate::run::child::{Child, Streams};
use crate::run::{self, Program};

static ZSTD: Program = Program::new(&["zstd"]);
static XZ: Program = Program::new(&["xz"]);
static BZIP2: Program = Program::new(&["bzip2"]);

/// Of memory, for those that take as much as an archive says. `xz -9` and `zstd --ultra` make nothing that needs more.
const MEMORY: &str = "128MiB";

const PIECE: usize = 256 << 10;

/// How an archive is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packed {
    Not,
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

/// Why it cannot be unpacked.
#[derive(Debug)]
pub(super) enum Unopened {
    Io(io::Error),
    /// This program cannot be run.
    Program(&'static str, run::Error),
}

impl Packed {
    /// That of a file that begins with `head`; `None` if it is no archive that is taken here.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        Some(match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // Behind frames that are skipped, too, as pzstd makes them.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            // Before POSIX, a head had no word in it by which it is known.
            _ if head.get(257..262) == Some(b"ustar") || is_head(head) => Self::Not,
            _ => return None,
        })
    }

    /// What is packed in `file`, from its beginning on.
    pub(super) fn unpack(self, mut file: &File) -> Result<Box<dyn Read + '_>, Unopened> {
        file.rewind().map_err(Unopened::Io)?;
        let (program, name, limit) = match self {
            Self::Not => return Ok(Box::new(BufReader::with_capacity(PIECE, file))),
            Self::Gzip => {
                let packed = BufReader::with_capacity(PIECE, file);
                return Ok(Box::new(Gzip(Some(GzDecoder::new(packed)))));
            }
            Self::Zstd => (&ZSTD, "zstd", Some(format!("--memory={MEMORY}"))),
            Self::Xz => (&XZ, "xz", Some(format!("--memlimit-decompress={MEMORY}"))),
            // It takes 4 MB.
            Self::Bzip2 => (&BZIP2, "bzip2", None),
        };
        let (output, stdout) = io::pipe().map_err(Unopened::Io)?;
        let null = File::options().write(true).open("/dev/null").map_err(Unopened::Io)?;
        let streams = Streams {
            stdin: file.try_clone().map_err(Unopened::Io)?.into(),
            stdout: stdout.into(),
            stderr: null.into(),
        };
        let arguments: Vec<String> = std::iter::once("-dc".to_owned()).chain(limit).collect();
        let child = Child::spawn(program, &arguments, streams);
        let child = child.map_err(|error| Unopened::Program(name, error))?;
        Ok(Box::new(BufReader::with_capacity(PIECE, Unpacker { child, output })))
    }
}

/// What gzip(1) unpacks: one stream behind the other, and zeros at the end, with which tapes and blocks are filled.
struct Gzip<R>(Option<GzDecoder<R>>);

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.0 {
            let length = decoder.read(buffer)?;
            if length > 0 || buffer.is_empty() {
                return Ok(length);
            }
            let Some(mut rest) = self.0.take().map(GzDecoder::into_inner) else {
                break;
            };
            if !is_over(&mut rest)? {
                self.0 = Some(GzDecoder::new(rest));
            }
        }
        Ok(0)
    }
}

/// Whether nothing follows, or zeros alone.
fn is_over(rest: &mut impl BufRead) -> io::Result<bool> {
    let mut zeros = false;
    loop {
        let bytes = match rest.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            bytes => bytes?,
        };
        let length = bytes.len();
        match bytes.iter().any(|byte| *byte != 0) {
            _ if length == 0 => return Ok(true),
            true if zeros || bytes[0] == 0 => return Err(io::Error::other("something is behind the zeros at its end")),
            true => return Ok(false),
            false => zeros = true,
        }
        rest.consume(length);
    }
}

/// What else it is packed with, or is, by its beginning: the name, and what makes a source of it.
pub(super) fn instead(head: &[u8]) -> Option<(&'static str, &'static str)> {
    Some(match head {
        [0x04, 0x22, 0x4d, 0x18, ..] | [0x02, 0x21, 0x4c, 0x18, ..] => ("compressed with lz4", "lz4 -d"),
        [0x5d, 0, 0, ..] => ("compressed with lzma", "xz -d --format=lzma"),
        [b'L', b'Z', b'I', b'P', ..] => ("compressed with lzip", "lzip -d"),
        [0x89, b'L', b'Z', b'O', 0, ..] => ("compressed with lzop", "lzop -d"),
        [b'L', b'R', b'Z', b'I', ..] => ("compressed with lrzip", "lrzip -d"),
        [0x1f, 0x9d, ..] => ("compressed with compress", "gzip -d"),
        [0x1f, 0x1e, ..] => ("compressed with pack", "gzip -d"),
        [0xff, 0x06, 0, 0, b's', b'N', b'a', b'P', ..] => ("compressed with snappy", "snzip -d"),
        [b'P', b'K', 3 | 5, 4 | 6, ..] => ("a zip archive", "unzip it into a directory"),
        [b'7', b'z', 0xbc, 0xaf, ..] => ("a 7z archive", "unpack it into a directory with 7z"),
        [b'R', b'a', b'r', b'!', ..] => ("a rar archive", "unpack it into a directory with unrar"),
        [b'0', b'7', b'0', b'7', b'0', b'1' | b'2' | b'7', ..] | [0xc7, 0x71, ..] | [0x71, 0xc7, ..] => {
            ("an archive of cpio", "unpack it into a directory with cpio -id")
        }
        [b'h', b's', b'q', b's', ..] => ("a squashfs", "unpack it into a directory with unsquashfs"),
        [b'Q', b'F', b'I', 0xfb, ..] => ("an image of a disk (qcow2)", "mount what is in it"),
        [b'!', b'<', b'a', b'r', b'c', b'h', b'>', ..] => ("a package of Debian, or another ar archive", "dpkg -x it"),
        [0xed, 0xab, 0xee, 0xdb, ..] => ("a package (rpm)", "unpack it into a directory with rpm2cpio and cpio"),
        _ => return None,
    })
}

/// Whether this is the head of a member, by its checksum.
fn is_head(head: &[u8]) -> bool {
    if head.len() < 512 {
        return false;
    }
    let others = head[..148].iter().chain(&head[156..]);
    let sum = others.map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ');
    tar::Header::from_byte_slice(head).cksum().is_ok_and(|said| said == sum)
}

/// Whether this is the head of a label, which GNU tar writes without the word that all others have in it.
pub(super) fn is_label(head: &[u8]) -> bool {
    head.get(156) == Some(&b'V') && is_head(head)
}

/// A program that unpacks.
struct Unpacker {
    child: Child,
    output: io::PipeReader,
}

impl Read for Unpacker {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.output.read(buffer)? {
            0 if !buffer.is_empty() && !self.child.wait()?.success() => Err(io::Error::other(format!(
                "what unpacks it says that it is damaged, or would need more than {MEMORY} of memory"
            ))),
            length => Ok(length),
        }
    }
}
