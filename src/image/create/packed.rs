// SPDX-License-Identifier: MIT OR Apache-2.0
//! How archives are packed: gzip is read here, the others are unpacked by their own programs.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};

use flate2::read::MultiGzDecoder;

use crate::child::{Child, Streams};
use crate::run::{self, Program};

static ZSTD: Program = Program::new(&["zstd"]);
static XZ: Program = Program::new(&["xz"]);
static BZIP2: Program = Program::new(&["bzip2"]);

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

/// Why it can not be unpacked.
#[derive(Debug)]
pub(super) enum Unopened {
    Io(io::Error),
    /// This program can not be run.
    Program(&'static str, run::Error),
}

impl Packed {
    /// That of a file that begins with `head`; `None` if it is no archive.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        Some(match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            _ if head.get(257..262) == Some(b"ustar") || is_label(head) => Self::Not,
            _ => return None,
        })
    }

    /// What is packed in `file`, from its beginning on.
    pub(super) fn unpack(self, mut file: &File) -> Result<Box<dyn Read + '_>, Unopened> {
        file.rewind().map_err(Unopened::Io)?;
        let (program, name) = match self {
            Self::Not => return Ok(Box::new(BufReader::with_capacity(PIECE, file))),
            Self::Gzip => {
                let packed = BufReader::with_capacity(PIECE, file);
                return Ok(Box::new(MultiGzDecoder::new(packed)));
            }
            Self::Zstd => (&ZSTD, "zstd"),
            Self::Xz => (&XZ, "xz"),
            Self::Bzip2 => (&BZIP2, "bzip2"),
        };
        let (output, stdout) = io::pipe().map_err(Unopened::Io)?;
        let null = File::options().write(true).open("/dev/null").map_err(Unopened::Io)?;
        let streams = Streams {
            stdin: file.try_clone().map_err(Unopened::Io)?.into(),
            stdout: stdout.into(),
            stderr: null.into(),
        };
        let child = Child::spawn(program, &["-dc".to_owned()], streams, &[]);
        let child = child.map_err(|error| Unopened::Program(name, error))?;
        Ok(Box::new(BufReader::with_capacity(PIECE, Unpacker { child, output })))
    }
}

/// Whether this is the head of a label, which GNU tar writes without the word that all others have in it.
pub(super) fn is_label(head: &[u8]) -> bool {
    if head.len() < 512 {
        return false;
    }
    let header = tar::Header::from_byte_slice(head);
    let others = head[..148].iter().chain(&head[156..]);
    let sum = others.map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ');
    header.entry_type().as_byte() == b'V' && header.cksum().is_ok_and(|said| said == sum)
}

/// A program that unpacks.
struct Unpacker {
    child: Child,
    output: io::PipeReader,
}

impl Read for Unpacker {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.output.read(buffer)? {
            0 if !buffer.is_empty() && !self.child.wait()?.success() => {
                Err(io::Error::other("what unpacks it says that it is damaged"))
            }
            length => Ok(length),
        }
    }
}
