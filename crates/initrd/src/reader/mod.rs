// SPDX-License-Identifier: MIT OR Apache-2.0
//! An image from front to back: its segments, their archives, and the files in those.

pub(super) mod boot_config;
pub(super) mod content;
mod decode;
pub(super) mod event;
pub(super) mod image;
mod instead;
pub(super) mod limits;
pub(super) mod linux;

use std::io::{self, Read};

use nix::libc;

use self::decode::{Piece, Pieces};
use self::event::{Event, Segment};
use self::image::Image;
use self::instead::instead;
use self::limits::{Exceeded, Limits};
use super::compression::Compression;
use super::error::{Error, Place};
use super::names::escape;
use super::newc::{self, HEADER_SIZE, Header, TRAILER};
use super::watch::Interrupted;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// In no segment.
    Outside,
    /// In a segment without an archive so far: it may be but zeros.
    Begun,
    /// An archive is to be announced.
    Found,
    /// In a segment, after an archive.
    After,
    /// At the end of a segment.
    Ended,
    /// In an archive, before a header.
    Header,
    /// In an archive, in the data of an entry.
    Data,
}

/// Reads an image.
pub struct Reader {
    pieces: Pieces,
    image: String,
    size: u64,
    ahead: Option<Piece>,
    state: State,
    segment: Segment,
    /// Where in the image the segment has ended, if it has.
    end: Option<u64>,
    chunk: Vec<u8>,
    at: usize,
    /// Bytes of this segment's content that came by.
    unpacked: u64,
    /// Bytes of the entry's data that are still to come.
    left: u64,
    padding: u64,
    entry: Option<Vec<u8>>,
    uppercase: bool,
    sum: u32,
    expected: Option<u32>,
    limits: Limits,
    boot_config: Option<Vec<u8>>,
    /// Why Linux would stop in this segment.
    odd: Vec<&'static str>,
    /// The last segment was not compressed.
    after_bare: bool,
    /// Before a header, where Linux lets a stream end.
    between: bool,
    /// The first thing in the image was compressed and held nothing.
    began_with_nothing: bool,
}

impl Reader {
    /// Reads `image`, in a thread that begins with the first [`event`](Self::event); what is in it may not have more than `limit`
    /// bytes.
    pub fn new(image: Image<impl Read + Send + 'static>, limit: u64) -> Self {
        let Image { content, name, size } = image;
        Self {
            pieces: Pieces::of(Box::new(content)),
            image: name,
            size,
            ahead: None,
            state: State::Outside,
            segment: Segment {
                number: 0,
                offset: 0,
                compression: Compression::None,
                level: None,
                refused: None,
            },
            end: None,
            chunk: Vec::new(),
            at: 0,
            unpacked: 0,
            left: 0,
            padding: 0,
            entry: None,
            uppercase: false,
            sum: 0,
            expected: None,
            limits: Limits::new(limit),
            boot_config: None,
            odd: Vec::new(),
            after_bare: false,
            between: false,
            began_with_nothing: false,
        }
    }

    /// Bytes of the image that were read.
    pub fn position(&self) -> u64 {
        self.pieces.position()
    }

    /// Bytes of the image; 0 if nobody knows.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What comes next; `None` at the end of the image.
    ///
    /// # Errors
    ///
    /// What is wrong with the image, and where.
    pub fn event(&mut self) -> Result<Option<Event>, Error> {
        loop {
            match self.state {
                State::Outside => {
                    if !self.begin()? {
                        return Ok(self.boot_config.take().map(Event::BootConfig));
                    }
                }
                State::Begun => {
                    let is_first = self.segment.number == 0 && self.segment.compression != Compression::None;
                    if self.skip_zeros()? {
                        if is_first && self.consumed() > 0 {
                            self.is_odd(linux::ZEROS_FIRST);
                        }
                        let counted = self.limits.segment();
                        counted.map_err(|limit| self.exceeded(limit))?;
                        self.segment.number += 1;
                        self.state = State::Found;
                        return Ok(Some(Event::Segment(self.segment.clone())));
                    }
                    // It holds nothing, and counts as none.
                    self.began_with_nothing |= is_first;
                    self.state = State::Outside;
                }
                State::Found => {
                    self.state = State::Header;
                    self.uppercase = false;
                    return Ok(Some(Event::Archive));
                }
                State::After => {
                    let at = self.consumed();
                    self.state = match self.skip_zeros()? {
                        true => State::Found,
                        false => State::Ended,
                    };
                    let padding = self.consumed() - at;
                    let uppercase = self.uppercase;
                    return Ok(Some(Event::ArchiveEnd { at, padding, uppercase }));
                }
                State::Ended => {
                    self.state = State::Outside;
                    return self.ended().map(Some);
                }
                State::Header => {
                    self.state = match self.header()? {
                        Some(header) => {
                            self.state = State::Data;
                            return Ok(Some(Event::Entry(header)));
                        }
                        None => State::After,
                    }
                }
                State::Data => while self.data()?.is_some() {},
            }
        }
    }

    /// The next piece of the data of the entry that [`event`](Self::event) gave last; `None` at its end.
    ///
    /// # Errors
    ///
    /// As [`event`](Self::event).
    pub fn data(&mut self) -> Result<Option<&[u8]>, Error> {
        if self.state != State::Data {
            return Ok(None);
        }
        if self.left == 0 {
            if self.expected.is_some_and(|expected| expected != self.sum) {
                return Err(self.wrong("its data has another sum than its header says: it is damaged"));
            }
            self.skip(self.padding)?;
            self.state = State::Header;
            return Ok(None);
        }
        self.need()?;
        let length = (self.chunk.len() - self.at).min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let piece = self.at..self.at + length;
        self.at += length;
        self.left -= length as u64;
        let piece = &self.chunk[piece];
        if self.expected.is_some() {
            self.sum = newc::sum(self.sum, piece);
        }
        Ok(Some(piece))
    }

    /// That something is wrong with the entry, or the segment, of which [`event`](Self::event) told last.
    pub fn wrong(&self, why: impl Into<String>) -> Error {
        Error::Wrong {
            image: self.image.clone(),
            place: self.place(),
            why: why.into(),
        }
    }

    /// Counts a directory that is not in the archive and has so long a name, as if it were.
    ///
    /// # Errors
    ///
    /// If there are more entries, or there is more of their names, than an image may have.
    pub fn implied(&mut self, name: usize) -> Result<(), Error> {
        self.limits.entry(name).map_err(|limit| self.exceeded(limit))
    }

    fn is_odd(&mut self, why: &'static str) {
        if !self.odd.contains(&why) {
            self.odd.push(why);
        }
    }

    fn exceeded(&self, limit: Exceeded) -> Error {
        let (image, place) = (self.image.clone(), self.place());
        match limit {
            Exceeded::Content(limit) => Error::TooLarge { image, place, limit },
            Exceeded::Known(limit) => Error::TooMany { image, place, limit },
        }
    }

    fn place(&self) -> Place {
        Place {
            segment: self.segment.number + usize::from(self.state == State::Begun),
            compression: self.segment.compression,
            offset: self.segment.offset,
            entry: self.entry.as_deref().map(escape),
        }
    }

    fn receive(&mut self) -> Piece {
        self.ahead.take().unwrap_or_else(|| self.pieces.next())
    }

    /// Why the decoder stopped at `offset`.
    fn failed(&self, offset: u64, error: &io::Error) -> Error {
        if Interrupted::is_in(error) {
            return Error::Interrupted;
        }
        let why = match error.kind() {
            io::ErrorKind::UnexpectedEof => "it is cut off".to_owned(),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other
                if self.state == State::Outside =>
            {
                error.to_string()
            }
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
                format!("it is damaged near byte {offset}: {error}")
            }
            _ => format!("it cannot be read: {error}"),
        };
        match self.state {
            State::Outside => Error::Wrong {
                image: self.image.clone(),
                place: Place {
                    segment: 0,
                    compression: Compression::None,
                    offset,
                    entry: None,
                },
                why,
            },
            _ => self.wrong(why),
        }
    }

    /// A segment begins. `false` at the end of the image, or of what is to be unpacked of it.
    fn begin(&mut self) -> Result<bool, Error> {
        match self.receive() {
            Piece::Begin {
                offset,
                compression,
                level,
                refused,
            } => {
                self.odd.clear();
                if std::mem::take(&mut self.began_with_nothing) {
                    self.odd.push(linux::NOTHING_FIRST);
                }
                match compression {
                    _ if offset.is_multiple_of(4) => {}
                    Compression::None => self.odd.push(linux::UNALIGNED),
                    _ if self.after_bare => self.odd.push(linux::UNALIGNED_AFTER),
                    _ => {}
                }
                self.after_bare = compression == Compression::None;
                self.segment = Segment {
                    number: self.segment.number,
                    offset,
                    compression,
                    level,
                    refused,
                };
                (self.end, self.unpacked) = (None, 0);
                self.state = State::Begun;
                Ok(true)
            }
            Piece::Failed { offset, error } => Err(self.failed(offset, &error)),
            Piece::BootConfig { bytes, .. } if self.segment.number > 0 => {
                self.boot_config = Some(bytes);
                Ok(false)
            }
            Piece::BootConfig { .. } => Err(Error::Nothing(self.image.clone())),
            Piece::Finished { .. } if self.segment.number == 0 => Err(Error::Nothing(self.image.clone())),
            finished => {
                // Whoever asks again gets the same answer.
                self.ahead = Some(finished);
                Ok(false)
            }
        }
    }

    /// What there is to say of a segment that has ended.
    fn ended(&mut self) -> Result<Event, Error> {
        let end = self.end.unwrap_or(self.segment.offset);
        let next = self.receive();
        let padding = match &next {
            Piece::Begin { offset, .. }
            | Piece::BootConfig { offset, .. }
            | Piece::Failed { offset, .. }
            | Piece::Finished { offset } => offset - end,
            _ => 0,
        };
        self.ahead = Some(next);
        Ok(Event::SegmentEnd {
            size: end - self.segment.offset,
            unpacked: self.unpacked,
            padding,
            odd: std::mem::take(&mut self.odd),
        })
    }

    /// The next header of an archive; `None` if it is the trailer.
    fn header(&mut self) -> Result<Option<Header>, Error> {
        self.entry = None;
        // Linux passes over zeros before each header, not only before the first.
        self.between = true;
        let there = self.skip_zeros();
        self.between = false;
        if !there? {
            return Err(self.wrong("the archive ends without a trailer: it is cut off"));
        }
        let at = self.consumed();
        if !at.is_multiple_of(4) {
            self.is_odd(linux::PADDING);
        }
        let wrong = |reader: &Self, why: &str| reader.wrong(format!("{why} (byte {at} of its content)"));
        let bytes = self.take(HEADER_SIZE)?;
        let bytes: &[u8; HEADER_SIZE] = bytes.first_chunk().ok_or_else(|| wrong(self, "it is cut off"))?;
        let parsed = Header::parse(bytes).map_err(|why| {
            let more = self.chunk[self.at..].iter().take(1024);
            let beginning: Vec<u8> = bytes.iter().chain(more).copied().collect();
            wrong(self, instead(&beginning).unwrap_or(why))
        });
        let (mut header, name_size) = parsed?;
        self.uppercase |= newc::is_uppercase(bytes);
        let mut name = self.take(name_size as usize)?;
        let end = name.iter().position(|byte| *byte == 0);
        let end = end.ok_or_else(|| wrong(self, "the name of an entry does not end with a NUL"))?;
        // Zeros may align what follows.
        if name[end..].iter().any(|byte| *byte != 0) {
            return Err(wrong(self, "the name of an entry has a NUL in it"));
        }
        name.truncate(end);
        header.padded = name_size - 1 - end as u32;
        self.skip(newc::padding(HEADER_SIZE as u64 + u64::from(name_size)))?;
        let (size, is_trailer) = (u64::from(header.size), name == TRAILER);
        header.name.clone_from(&name);
        self.entry = (!is_trailer).then_some(name);
        self.left = size;
        self.padding = newc::padding(size);
        // As Linux: what is no file has none that anybody would reckon, whatever its header says.
        let is_file = header.mode & libc::S_IFMT == libc::S_IFREG && !is_trailer;
        (self.sum, self.expected) = (0, header.sum.filter(|_| is_file));
        let counted = self.limits.entry(header.name.len());
        counted.map_err(|limit| self.exceeded(limit))?;
        if is_trailer {
            self.skip(size + newc::padding(size))?;
            self.left = 0;
            return Ok(None);
        }
        Ok(Some(header))
    }
}
