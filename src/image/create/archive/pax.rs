// SPDX-License-Identifier: MIT OR Apache-2.0
//! Heads of tar archives, read a second time: the tar crate splits extended headers at line ends, which names and the values
//! of attributes may have, and says nothing of where the holes of a file are.

use std::cell::RefCell;
use std::io::{self, Read};
use std::rc::Rc;

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use super::sparse::Sparse;
use crate::base::signals;

/// Of an archive.
pub(in crate::image::create) const BLOCK: usize = 512;
/// More than all heads of a member can sensibly take: those of tar stay in memory.
pub(in crate::image::create) const LONGEST: usize = 4 << 20;

/// Keys and values.
pub(in crate::image::create) type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// Where the data of a sparse file is: from where to where, in their order.
pub(in crate::image::create) type Map = Vec<(u64, u64)>;

/// What the heads of a member say besides what the tar crate says of them.
#[derive(Debug, Default)]
pub(in crate::image::create) struct Extended {
    pub(in crate::image::create) records: Records,
    /// Of a sparse file.
    pub(in crate::image::create) map: Map,
    /// Of one in pax's format, whose map may be elsewhere.
    pub(super) sparse: Option<Sparse>,
}

/// What was read of an archive since the last member's content.
#[derive(Debug, Default)]
struct Heads {
    listening: bool,
    /// Where the first head is.
    start: u64,
    /// Where the next one is.
    next: u64,
    bytes: Vec<u8>,
    position: u64,
}

/// Hears what is read of an archive.
#[derive(Debug, Default, Clone)]
pub(in crate::image::create) struct Listener(Rc<RefCell<Heads>>);

/// The archive itself.
pub(in crate::image::create) struct Heard<R> {
    reader: R,
    listener: Listener,
    /// A head that is looked at before it is handed on, and how much of it is handed on.
    head: Vec<u8>,
    handed: usize,
}

impl Listener {
    pub(in crate::image::create) fn hear<R: Read>(&self, reader: R) -> Heard<R> {
        let listener = self.clone();
        Heard {
            reader,
            listener,
            head: Vec::new(),
            handed: 0,
        }
    }

    /// From the heads of the next member on, before which are so many bytes of content; before it is asked for.
    pub(in crate::image::create) fn begin(&self, content: u64, position: u64) {
        let mut heads = self.0.borrow_mut();
        heads.listening = true;
        heads.start = position
            .saturating_add(content)
            .div_ceil(BLOCK as u64)
            .saturating_mul(BLOCK as u64);
        heads.next = heads.start;
        heads.bytes.clear();
    }

    /// Where in the archive it is.
    pub(in crate::image::create) fn position(&self) -> u64 {
        self.0.borrow().position
    }

    /// Whether zeros come where the next member would, which say that there is none; else the archive ends without.
    pub(in crate::image::create) fn ended(&self) -> bool {
        let heads = self.0.borrow();
        let zeros = heads.bytes.get(..BLOCK);
        zeros.is_some_and(|zeros| zeros.iter().all(|byte| *byte == 0))
    }

    /// No more.
    pub(in crate::image::create) fn stop(&self) {
        self.0.borrow_mut().listening = false;
    }

    /// No more; returns what the heads said.
    pub(in crate::image::create) fn end(&self) -> Result<Extended, &'static str> {
        self.stop();
        let heads = self.0.borrow();
        let mut extended = Extended::default();
        let mut rest = heads.bytes.as_slice();
        while let Some((head, after)) = rest.split_at_checked(BLOCK) {
            // As the tar crate reads it, so that both are at the same place.
            let size = Header::from_byte_slice(head).entry_size().unwrap_or(u64::MAX);
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            match head[156] {
                b'x' => extended.records = records(after.get(..size).ok_or("its extended header is cut off")?)?,
                // Long names.
                b'L' | b'K' => {}
                b'S' => {
                    extended.map = map(head, after);
                    break;
                }
                _ => break,
            }
            let size = size.div_ceil(BLOCK).saturating_mul(BLOCK);
            rest = after.get(size..).unwrap_or_default();
        }
        extended.sparse = Sparse::of(&extended.records)?;
        Ok(extended)
    }
}

impl<R: Read> Read for Heard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Also what nobody wants is read, and may be much.
        if signals::waiting() {
            return Err(io::Error::other("it was interrupted"));
        }
        let length = self.some(buffer)?;
        let mut heads = self.listener.0.borrow_mut();
        let before = heads.start.saturating_sub(heads.position).min(length as u64) as usize;
        heads.position += length as u64;
        if heads.listening {
            heads.bytes.extend_from_slice(&buffer[before..length]);
            if heads.bytes.len() > LONGEST {
                return Err(io::Error::other("the heads of a file in it have no end"));
            }
        }
        Ok(length)
    }
}

impl<R: Read> Heard<R> {
    /// What comes next, up to a head; heads with what is missing in them.
    fn some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.handed == self.head.len() {
            let (listening, before) = {
                let heads = self.listener.0.borrow();
                (heads.listening, heads.next.saturating_sub(heads.position))
            };
            if !listening || buffer.is_empty() {
                return self.reader.read(buffer);
            }
            if before > 0 {
                let length = buffer.len().min(usize::try_from(before).unwrap_or(usize::MAX));
                return self.reader.read(&mut buffer[..length]);
            }
            self.head.clear();
            self.handed = 0;
            self.reader.by_ref().take(BLOCK as u64).read_to_end(&mut self.head)?;
            let mut heads = self.listener.0.borrow_mut();
            heads.next = match <&mut [u8; BLOCK]>::try_from(self.head.as_mut_slice()) {
                Ok(head) => heads.position.saturating_add(mended(head)),
                Err(_) => u64::MAX,
            };
        }
        let rest = &self.head[self.handed..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.handed += length;
        Ok(length)
    }
}

/// Numbers of a head: mode, owner, group, size and time, from where to where.
const NUMBERS: [std::ops::Range<usize>; 5] = [100..108, 108..116, 116..124, 124..136, 136..148];
const CHECKSUM: std::ops::Range<usize> = 148..156;
const TYPE: usize = 156;

/// Writes what other programs take for it where a head leaves a number empty: 0, or what is behind a NUL at its beginning.
/// (Archives of npm have no owners, "portable" ones no times; GNU tar and bsdtar read them so.) Solaris' type for pax's
/// headers becomes the usual one. Returns how far it is to the next head, if this is one before that of a member.
fn mended(head: &mut [u8; BLOCK]) -> u64 {
    let sum = |head: &[u8; BLOCK]| {
        let others = head[..CHECKSUM.start].iter().chain(&head[CHECKSUM.end..]);
        others.map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ')
    };
    if Header::from_byte_slice(head).cksum().ok() != Some(sum(head)) {
        return u64::MAX;
    }
    for place in NUMBERS {
        let number = &mut head[place];
        if number.iter().all(|byte| matches!(byte, 0 | b' ')) || number[0] == 0 {
            number[0] = b'0';
        }
    }
    if head[TYPE] == b'X' {
        head[TYPE] = b'x';
    }
    let checksum = format!("{:06o}\0 ", sum(head));
    head[CHECKSUM].copy_from_slice(checksum.as_bytes());
    let size = Header::from_byte_slice(head).entry_size();
    match (head[TYPE], size) {
        (b'x' | b'L' | b'K', Ok(size)) => {
            let content = size.div_ceil(BLOCK as u64).saturating_mul(BLOCK as u64);
            content.saturating_add(BLOCK as u64)
        }
        _ => u64::MAX,
    }
}

/// Where the data of a sparse file is by its head, and by those that follow it. That it is in order, and within the file, the
/// tar crate has seen to.
fn map(head: &[u8], mut more: &[u8]) -> Map {
    let mut map = Vec::new();
    let mut add = |piece: &GnuSparseHeader| {
        if let (false, Ok(start), Ok(length @ 1..)) = (piece.is_empty(), piece.offset(), piece.length()) {
            map.push((start, start.saturating_add(length)));
        }
    };
    if let Some(head) = Header::from_byte_slice(head).as_gnu() {
        head.sparse.iter().for_each(&mut add);
        let mut is_extended = head.is_extended();
        while is_extended && let Some((bytes, rest)) = more.split_at_checked(BLOCK) {
            let mut next = GnuExtSparseHeader::new();
            next.as_mut_bytes().copy_from_slice(bytes);
            next.sparse.iter().for_each(&mut add);
            (is_extended, more) = (next.is_extended(), rest);
        }
    }
    map
}

/// The keys of a header that holds for all members.
pub(in crate::image::create) fn global(content: &mut dyn Read) -> Result<Records, &'static str> {
    let mut bytes = Vec::new();
    let read = content.take(LONGEST as u64).read_to_end(&mut bytes);
    read.map_err(|_| "its global header is cut off")?;
    records(&bytes)
}

/// Each is "LENGTH KEY=VALUE" and a line end, all of which are counted (pax(1)).
fn records(mut data: &[u8]) -> Result<Records, &'static str> {
    const WRONG: &str = "its extended header is damaged";
    let mut records = Vec::new();
    while !data.is_empty() {
        let space = data.iter().position(|byte| *byte == b' ').ok_or(WRONG)?;
        let length = std::str::from_utf8(&data[..space])
            .ok()
            .and_then(|text| text.parse::<usize>().ok());
        let (record, rest) = length.and_then(|length| data.split_at_checked(length)).ok_or(WRONG)?;
        let record = record
            .get(space + 1..)
            .and_then(|record| record.strip_suffix(b"\n"))
            .ok_or(WRONG)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or(WRONG)?;
        records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        data = rest;
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_numbers() {
        let mut head = Header::new_ustar();
        head.set_path("etc/motd").expect("a path");
        head.set_size(9);
        head.as_mut_bytes()[100..124].fill(0);
        head.as_mut_bytes()[136..148].fill(b' ');
        head.set_cksum();
        let mut head = *head.as_bytes();
        assert_eq!(mended(&mut head), u64::MAX);
        let read = Header::from_byte_slice(&head);
        let numbers = (read.mode().ok(), read.uid().ok(), read.gid().ok(), read.mtime().ok());
        assert_eq!(numbers, (Some(0), Some(0), Some(0), Some(0)));
        assert_eq!(read.entry_size().ok(), Some(9));
        // A number behind a NUL, as GNU tar takes it; what is wrong stays so.
        head[100..108].copy_from_slice(b"\x00000644\0");
        head[108..116].copy_from_slice(b"root\0\0\0\0");
        let mut header = Header::from_byte_slice(&head).clone();
        header.set_cksum();
        let mut head = *header.as_bytes();
        mended(&mut head);
        let read = Header::from_byte_slice(&head);
        assert_eq!((read.mode().ok(), read.uid().ok()), (Some(0o644), None));
        // Zeros at the end of an archive are none.
        let mut end = [0; BLOCK];
        assert_eq!((mended(&mut end), end), (u64::MAX, [0; BLOCK]));
    }

    #[test]
    fn values_may_have_line_ends() {
        let read = records(b"13 path=a\nb=\n10 uid=17\n").expect("records");
        assert_eq!(
            read,
            [(b"path".to_vec(), b"a\nb=".to_vec()), (b"uid".to_vec(), b"17".to_vec())]
        );
        for bad in [
            &b"8 path=a\n"[..],
            b"x path=a\n",
            b"10 pathab\n",
            b"99 a=b\n",
            b"0 a=b\n",
        ] {
            assert!(records(bad).is_err());
        }
    }
}
