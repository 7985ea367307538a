// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decompressing an image, in a thread of its own ahead of whoever uses what is in it.
//!
//! Linux goes through an image as [`run`] does: zeros are skipped, then what comes next says by its first bytes what it is
//! (<https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/init/initramfs.c>). A bare archive ends with its
//! trailer, which may also be the content of a file; all else ends where its decoder says.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use flate2::bufread::GzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::Stream;
use zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode;

use super::boot_config;
use super::instead::instead;
use super::linux::refused;
use crate::compression::input::Input;
use crate::compression::{Compression, LZ4_LEGACY};
use crate::compression::{lz4_legacy, lzop};
use crate::newc::{self, HEADER_SIZE, Header, TRAILER};

/// What is passed on at once.
const PIECE: usize = 1 << 18;
/// Pieces that may wait.
const AHEAD: usize = 8;
/// What decoders of xz and lzma may need: twice that of `xz -9`, and as much as zstd's largest window. Linux' own is content
/// with what a machine has.
const MEMORY: u64 = 128 << 20;

/// What the thread has found, in the order of the image.
#[derive(Debug)]
pub(super) enum Piece {
    /// Something begins.
    Begin {
        offset: u64,
        compression: Compression,
        /// What its header says of the level.
        level: Option<i32>,
        /// Why Linux does not decompress it.
        refused: Option<&'static str>,
    },
    /// Its content.
    Data(Vec<u8>),
    /// It has ended before `offset`.
    End { offset: u64 },
    /// A configuration for Linux, with which the image ends.
    BootConfig { offset: u64, bytes: Vec<u8> },
    /// There is nothing any more.
    Finished { offset: u64 },
    /// It cannot be read on.
    Failed { offset: u64, error: io::Error },
}

/// The receiving side.
pub(super) struct Pieces {
    pieces: Receiver<Piece>,
    used: Sender<Vec<u8>>,
    position: Arc<AtomicU64>,
    /// The thread's, until it begins.
    ahead: Option<Decoding>,
}

impl Pieces {
    /// The pieces of the image that `source` gives, of which nothing is read before somebody asks for the first.
    pub fn of(source: Box<dyn Read + Send>) -> Self {
        let (sender, pieces) = sync_channel(AHEAD);
        let (used, empty) = channel();
        let position = Arc::new(AtomicU64::new(0));
        let decoding = Decoding {
            input: Input::new(source, Arc::clone(&position)),
            sender,
            empty,
        };
        Self {
            pieces,
            used,
            position,
            ahead: Some(decoding),
        }
    }

    /// The next one. The thread says how it ends before it ends.
    pub fn next(&mut self) -> Piece {
        if let Some(mut decoding) = self.ahead.take() {
            let thread = thread::Builder::new().name("decoder".into()).spawn(move || {
                // It ends early if nobody wants more.
                let _ = decoding.run();
            });
            if let Err(error) = thread {
                return Piece::Failed { offset: 0, error };
            }
        }
        let gone = |_| Piece::Failed {
            offset: self.position(),
            error: io::Error::other("the decoder is gone"),
        };
        self.pieces.recv().unwrap_or_else(gone)
    }

    /// Gives memory back.
    pub fn recycle(&self, buffer: Vec<u8>) {
        // The thread may be gone.
        let _ = self.used.send(buffer);
    }

    /// Bytes of the image that the decoder is past.
    pub fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }
}

/// What comes next.
enum Next {
    /// Compressed so, what its header says of the level, and why Linux does not take it.
    Segment(Compression, Option<i32>, Option<&'static str>),
    BootConfig(Vec<u8>),
    Nothing,
}

/// Nobody receives any more.
struct Unwanted;

struct Decoding {
    input: Input,
    sender: SyncSender<Piece>,
    empty: Receiver<Vec<u8>>,
}

impl Decoding {
    fn send(&self, piece: Piece) -> Result<(), Unwanted> {
        self.sender.send(piece).map_err(|_| Unwanted)
    }

    fn run(&mut self) -> Result<(), Unwanted> {
        loop {
            let begun = self.begin();
            let offset = self.input.position();
            let compression = match begun {
                Ok(Next::Segment(compression, level, refused)) => {
                    self.send(Piece::Begin {
                        offset,
                        compression,
                        level,
                        refused,
                    })?;
                    compression
                }
                Ok(Next::BootConfig(bytes)) => {
                    let offset = offset - bytes.len() as u64;
                    self.send(Piece::BootConfig { offset, bytes })?;
                    continue;
                }
                Ok(Next::Nothing) => return self.send(Piece::Finished { offset }),
                Err(error) => return self.send(Piece::Failed { offset, error }),
            };
            let result = self.stream(compression)?;
            let offset = self.input.position();
            match result {
                Ok(()) => self.send(Piece::End { offset })?,
                Err(error) => {
                    let error = explained(error);
                    return self.send(Piece::Failed { offset, error });
                }
            }
        }
    }

    /// What comes next, if anything.
    fn begin(&mut self) -> io::Result<Next> {
        if !self.input.skip_zeros()? {
            return Ok(Next::Nothing);
        }
        let head = self.input.peek(Compression::HEAD)?;
        if let Some(compression) = Compression::detect(head) {
            return Ok(Next::Segment(
                compression,
                level(compression, head),
                refused(compression, head),
            ));
        }
        let rest = self.input.peek(boot_config::LIMIT + 1)?.to_vec();
        match rest.len() <= boot_config::LIMIT && boot_config::is_one(&rest) {
            true => {
                self.input.consume(rest.len());
                Ok(Next::BootConfig(rest))
            }
            false => {
                let unknown = "what is there is no archive, and not compressed in a way that Linux knows";
                let why = instead(&rest).unwrap_or(unknown);
                Err(io::Error::new(io::ErrorKind::InvalidData, why))
            }
        }
    }

    fn stream(&mut self, compression: Compression) -> Result<io::Result<()>, Unwanted> {
        let Self {
            input, sender, empty, ..
        } = self;
        let pass = |from: &mut dyn Read| -> Result<io::Result<()>, Unwanted> {
            loop {
                let mut buffer = empty.try_recv().unwrap_or_default();
                buffer.resize(PIECE, 0);
                let (length, error) = fill(from, &mut buffer);
                buffer.truncate(length);
                if length > 0 {
                    sender.send(Piece::Data(buffer)).map_err(|_| Unwanted)?;
                }
                match error {
                    Some(error) => return Ok(Err(error)),
                    None if length < PIECE => return Ok(Ok(())),
                    None => {}
                }
            }
        };
        let xz = |stream: Result<Stream, liblzma::stream::Error>| stream.map_err(io::Error::from);
        match compression {
            Compression::None => pass(&mut Bare::new(input)),
            Compression::Gzip => pass(&mut GzDecoder::new(input)),
            Compression::Bzip2 => pass(&mut bzip2::bufread::BzDecoder::new(input)),
            Compression::Lzma => match xz(Stream::new_lzma_decoder(MEMORY)) {
                Ok(stream) => pass(&mut XzDecoder::new_stream(input, stream)),
                Err(error) => Ok(Err(error)),
            },
            Compression::Xz => match xz(Stream::new_stream_decoder(MEMORY, 0)) {
                Ok(stream) => pass(&mut XzDecoder::new_stream(input, stream)),
                Err(error) => Ok(Err(error)),
            },
            Compression::Lzo => match lzop::Decoder::new(input) {
                Ok(mut decoder) => pass(&mut decoder),
                Err(error) => Ok(Err(error)),
            },
            Compression::Lz4 => {
                let is_legacy = match input.peek(LZ4_LEGACY.len()) {
                    Ok(head) => head == LZ4_LEGACY,
                    Err(error) => return Ok(Err(error)),
                };
                if is_legacy {
                    return pass(&mut lz4_legacy::Decoder::new(input));
                }
                match lz4::Decoder::new(input) {
                    Ok(mut decoder) => {
                        let passed = pass(&mut decoder)?;
                        // It does not say itself that it was cut off.
                        let cut = || io::ErrorKind::UnexpectedEof.into();
                        Ok(passed.and_then(|()| decoder.finish().1.map_err(|_| cut())))
                    }
                    Err(error) => Ok(Err(error)),
                }
            }
            Compression::Zstd => match zstd::stream::read::Decoder::with_buffer(input) {
                Ok(decoder) => pass(&mut decoder.single_frame()),
                Err(error) => Ok(Err(error)),
            },
        }
    }
}

/// What needs too much memory is not damaged.
fn explained(error: io::Error) -> io::Error {
    let Some(inner) = error.get_ref() else {
        return error;
    };
    let is_lzma = matches!(inner.downcast_ref(), Some(liblzma::stream::Error::MemLimit));
    let is_zstd = inner
        .downcast_ref::<zstd::Error>()
        .is_some_and(|error| error.is(ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge));
    let remedy = match (is_lzma, is_zstd) {
        (true, _) => "a dictionary of 64 MiB at the most (`xz -9`)",
        (_, true) => "a window of 128 MiB at the most (`zstd --long=27`)",
        _ => return error,
    };
    let why = format!("to decompress it takes more than 128 MiB of memory; compress it anew, with {remedy}");
    io::Error::new(io::ErrorKind::OutOfMemory, why)
}

/// What the head of a compressed stream says of the level it was made with.
fn level(compression: Compression, head: &[u8]) -> Option<i32> {
    let at = |index: usize| head.get(index).copied();
    match compression {
        // Extra flags, RFC 1952.
        Compression::Gzip => match at(8)? {
            2 => Some(9),
            4 => Some(1),
            _ => None,
        },
        Compression::Bzip2 => at(3)
            .filter(|digit| (b'1'..=b'9').contains(digit))
            .map(|digit| i32::from(digit - b'0')),
        _ => None,
    }
}

/// Reads until `buffer` is full or there is no more.
fn fill(from: &mut dyn Read, buffer: &mut [u8]) -> (usize, Option<io::Error>) {
    let mut length = 0;
    while length < buffer.len() {
        match from.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (length, Some(error)),
        }
    }
    (length, None)
}

/// A bare archive, up to its trailer. Whoever reads it judges it: this ends after a header that is none.
struct Bare<'a> {
    input: &'a mut Input,
    /// Bytes of this entry that are still to come.
    left: u64,
    ended: bool,
}

impl<'a> Bare<'a> {
    fn new(input: &'a mut Input) -> Self {
        Self {
            input,
            left: 0,
            ended: false,
        }
    }

    fn next(&mut self) -> io::Result<()> {
        let head = self.input.peek(HEADER_SIZE + TRAILER.len() + 1)?;
        let zeros = head.iter().take_while(|byte| **byte == 0).count();
        if zeros > 0 {
            self.left = zeros as u64;
            return Ok(());
        }
        let Some((Ok((header, name_size)), name)) =
            head.split_first_chunk().map(|(head, name)| (Header::parse(head), name))
        else {
            self.left = head.len().min(HEADER_SIZE) as u64;
            self.ended = true;
            return Ok(());
        };
        // More zeros may follow, which align what comes then.
        let is_trailer = name.strip_prefix(TRAILER).is_some_and(|rest| rest.starts_with(&[0]));
        self.ended = is_trailer && name_size as usize > TRAILER.len();
        let head = HEADER_SIZE as u64 + u64::from(name_size);
        let size = u64::from(header.size);
        self.left = head + newc::padding(head) + size + newc::padding(size);
        Ok(())
    }
}

impl Read for Bare<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            if self.ended {
                return Ok(0);
            }
            self.next()?;
        }
        let limit = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let length = self.input.read(&mut buffer[..limit])?;
        self.left -= length as u64;
        if length == 0 {
            self.left = 0;
            self.ended = true;
        }
        Ok(length)
    }
}
