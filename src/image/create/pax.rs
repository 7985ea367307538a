// SPDX-License-Identifier: MIT OR Apache-2.0
//! Extended headers of tar archives, read a second time: the tar crate splits them at line ends, which names and the values
//! of attributes may have.

use std::cell::RefCell;
use std::io::{self, Read};
use std::rc::Rc;

const BLOCK: usize = 512;
/// More than all heads of a member can sensibly take: those of tar stay in memory.
const LONGEST: usize = 4 << 20;

/// Keys and values.
pub(super) type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// What was read of an archive since the last member's content.
#[derive(Debug, Default)]
struct Heads {
    listening: bool,
    /// Where the first byte was.
    start: u64,
    bytes: Vec<u8>,
    position: u64,
}

/// Hears what is read of an archive.
#[derive(Debug, Default, Clone)]
pub(super) struct Listener(Rc<RefCell<Heads>>);

/// The archive itself.
pub(super) struct Heard<R> {
    reader: R,
    listener: Listener,
}

impl Listener {
    pub(super) fn hear<R: Read>(&self, reader: R) -> Heard<R> {
        let listener = self.clone();
        Heard { reader, listener }
    }

    /// From now on; before the next member is asked for.
    pub(super) fn begin(&self) {
        let mut heads = self.0.borrow_mut();
        heads.listening = true;
        heads.start = heads.position;
        heads.bytes.clear();
    }

    /// No more.
    pub(super) fn stop(&self) {
        self.0.borrow_mut().listening = false;
    }

    /// No more; returns the keys and values of the extended header there was.
    pub(super) fn end(&self) -> Result<Records, &'static str> {
        self.stop();
        let heads = self.0.borrow();
        let before = heads.start.next_multiple_of(BLOCK as u64) - heads.start;
        let mut rest = heads.bytes.get(before as usize..).unwrap_or_default();
        while let Some((head, after)) = rest.split_at_checked(BLOCK) {
            let size = number(&head[124..136]);
            match head[156] {
                b'x' => return records(after.get(..size).ok_or("its extended header is cut off")?),
                // Long names, and what holds for all members.
                b'L' | b'K' | b'g' => rest = after.get(size.next_multiple_of(BLOCK)..).unwrap_or_default(),
                _ => break,
            }
        }
        Ok(Vec::new())
    }
}

impl<R: Read> Read for Heard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        let mut heads = self.listener.0.borrow_mut();
        heads.position += length as u64;
        if heads.listening {
            heads.bytes.extend_from_slice(&buffer[..length]);
            if heads.bytes.len() > LONGEST {
                return Err(io::Error::other("the heads of a file in it have no end"));
            }
        }
        Ok(length)
    }
}

fn number(octal: &[u8]) -> usize {
    let digits = octal.iter().filter(|byte| (b'0'..=b'7').contains(byte));
    digits.fold(0usize, |number, digit| {
        number.saturating_mul(8).saturating_add(usize::from(digit - b'0'))
    })
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
