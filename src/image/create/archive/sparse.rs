// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files with holes in archives of pax's format, as GNU tar and bsdtar write them: in three versions, of which the last has the
//! list of its data before that (tar's manual, "Storing Sparse Files").

use std::io::{self, Read};

use super::pax::{BLOCK, LONGEST, Map, Records};

/// What the heads of such a file say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sparse {
    /// Its own, if that of the member is one that tar made up.
    pub(super) name: Option<Vec<u8>>,
    /// With its holes.
    pub(super) size: u64,
    /// Where its data is, unless that is said where that begins.
    said: Option<Map>,
}

const WRONG: &str = "what it says of the holes of a file cannot be";

impl Sparse {
    /// What these records say of it; `None` if it is a file like others.
    pub(super) fn of(records: &Records) -> Result<Option<Self>, &'static str> {
        let mut keys = records.iter().filter_map(|(key, value)| {
            let key = key.strip_prefix(b"GNU.sparse.")?;
            Some((key, value.as_slice()))
        });
        let (mut name, mut size, mut major, mut pieces) = (None, None, 0, None::<Vec<u64>>);
        let is_any = keys.clone().next().is_some();
        keys.try_for_each(|(key, value)| {
            match key {
                b"name" => name = Some(value.to_vec()),
                b"size" | b"realsize" => size = Some(number(value)?),
                b"major" => major = number(value)?,
                // The oldest one says each number for itself.
                b"offset" | b"numbytes" => pieces.get_or_insert_default().push(number(value)?),
                b"map" => pieces = Some(value.split(|byte| *byte == b',').map(number).collect::<Option<_>>()?),
                _ => {}
            }
            Some(())
        })
        .ok_or(WRONG)?;
        if !is_any {
            return Ok(None);
        }
        let size = size.ok_or(WRONG)?;
        let said = match (major, pieces) {
            (0, pieces) => Some(map(&pieces.unwrap_or_default(), size)?),
            (1, _) => None,
            _ => return Err("it has holes in a file as only a newer tar knows them: pack it anew with --format=gnu"),
        };
        Ok(Some(Self { name, size, said }))
    }

    /// Where its data is, of which so many bytes are in the archive. What says it is taken from `content`.
    pub(super) fn map(&self, content: &mut dyn Read, stored: u64) -> Result<Map, &'static str> {
        let (map, before) = match &self.said {
            Some(map) => (map.clone(), 0),
            None => {
                let (pieces, before) = list(content)?;
                (map(&pieces, self.size)?, before)
            }
        };
        let data = map
            .iter()
            .map(|(start, end)| end - start)
            .fold(before, u64::saturating_add);
        if data == stored { Ok(map) } else { Err(WRONG) }
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Offsets and lengths by turns, which are in order, and within the file.
fn map(pieces: &[u64], size: u64) -> Result<Map, &'static str> {
    let (pairs, rest) = pieces.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(WRONG);
    }
    let mut map = Vec::new();
    let mut before = 0;
    for [start, length] in pairs {
        let end = start.checked_add(*length).filter(|end| *end <= size).ok_or(WRONG)?;
        if *start < before {
            return Err(WRONG);
        }
        // The end of a file that ends with a hole has a piece without anything.
        if *length > 0 {
            map.push((*start, end));
        }
        before = end;
    }
    Ok(map)
}

/// The numbers before the data, each on a line, how many pairs first; and how many bytes these take, with zeros up to the next
/// whole block.
fn list(content: &mut dyn Read) -> Result<(Vec<u64>, u64), &'static str> {
    let mut text = Vec::new();
    let (mut numbers, mut wanted, mut from) = (Vec::new(), 1, 0);
    loop {
        let mut block = [0; BLOCK];
        content.read_exact(&mut block).map_err(|_| WRONG)?;
        text.extend_from_slice(&block);
        while numbers.len() < wanted
            && let Some(length) = text[from..].iter().position(|byte| *byte == b'\n')
        {
            let number = number(&text[from..from + length]).ok_or(WRONG)?;
            if numbers.is_empty() {
                // As many as there is room for.
                wanted = usize::try_from(number)
                    .ok()
                    .filter(|pairs| *pairs < LONGEST)
                    .ok_or(WRONG)?
                    * 2
                    + 1;
            }
            numbers.push(number);
            from += length + 1;
        }
        if numbers.len() == wanted {
            numbers.remove(0);
            return Ok((numbers, text.len() as u64));
        }
        if text.len() - from >= BLOCK || text.len() > LONGEST {
            return Err(WRONG);
        }
    }
}

/// The whole file, with its holes, out of its data.
pub(super) struct Whole<'a> {
    data: &'a mut dyn Read,
    /// What is still to come.
    map: &'a [(u64, u64)],
    at: u64,
    size: u64,
}

impl<'a> Whole<'a> {
    pub(super) fn new(data: &'a mut dyn Read, map: &'a [(u64, u64)], size: u64) -> Self {
        let at = 0;
        Self { data, map, at, size }
    }
}

impl Read for Whole<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let [(_, end), rest @ ..] = self.map
            && *end <= self.at
        {
            self.map = rest;
        }
        let (start, end) = self.map.first().copied().unwrap_or((self.size, self.size));
        let up_to = |end: u64| (end - self.at).min(buffer.len() as u64) as usize;
        let length = match self.at < start {
            true => {
                let length = up_to(start);
                buffer[..length].fill(0);
                length
            }
            false => {
                let length = up_to(end);
                match self.data.read(&mut buffer[..length])? {
                    0 if length > 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    length => length,
                }
            }
        };
        self.at += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(records: &[(&str, &str)]) -> Result<Option<Sparse>, &'static str> {
        let record =
            |(key, value): &(&str, &str)| (format!("GNU.sparse.{key}").into_bytes(), value.as_bytes().to_vec());
        Sparse::of(&records.iter().map(record).collect())
    }

    #[test]
    fn three_versions() {
        let mut nothing = io::empty();
        let expected = vec![(512, 1024), (2048, 2050)];
        let oldest = [
            ("size", "9000"),
            ("numblocks", "3"),
            ("offset", "512"),
            ("numbytes", "512"),
            ("offset", "2048"),
            ("numbytes", "2"),
            ("offset", "9000"),
            ("numbytes", "0"),
        ];
        let sparse = of(&oldest).expect("sound").expect("sparse");
        assert_eq!((sparse.name.clone(), sparse.size), (None, 9000));
        assert_eq!(sparse.map(&mut nothing, 514), Ok(expected.clone()));
        assert_eq!(sparse.map(&mut nothing, 515), Err(WRONG));
        let old = [("size", "9000"), ("name", "a"), ("map", "512,512,2048,2,9000,0")];
        let sparse = of(&old).expect("sound").expect("sparse");
        assert_eq!(sparse.name.as_deref(), Some(b"a".as_slice()));
        assert_eq!(sparse.map(&mut nothing, 514), Ok(expected.clone()));
        let new = [("major", "1"), ("minor", "0"), ("name", "a"), ("realsize", "9000")];
        let sparse = of(&new).expect("sound").expect("sparse");
        let mut head = b"3\n512\n512\n2048\n2\n9000\n0\n".to_vec();
        head.resize(512, 0);
        assert_eq!(sparse.map(&mut head.as_slice(), 1026), Ok(expected));
        assert_eq!(of(&[]), Ok(None));
    }

    #[test]
    fn made_to_do_harm() {
        for bad in [
            &[("map", "0,1")][..],
            &[("size", "10"), ("map", "0,11")],
            &[("size", "10"), ("map", "5,1,4,1")],
            &[("size", "10"), ("map", "5")],
            &[("size", "10"), ("map", "x,1")],
            &[("size", "10"), ("map", "1,18446744073709551615")],
            &[("size", "10"), ("major", "2")],
        ] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
        let sparse = of(&[("major", "1"), ("realsize", "10")])
            .expect("sound")
            .expect("sparse");
        for text in [
            "99999999999\n",
            "-1\n",
            "2\n0\n1\n",
            "1\n0\nx\n",
            "1\n5\n6\n",
            &"1".repeat(600),
            "",
        ] {
            let mut head = text.as_bytes().to_vec();
            head.resize(1024, 0);
            assert_eq!(sparse.map(&mut head.as_slice(), 512), Err(WRONG), "{text}");
        }
        // It goes on and on.
        let endless = [b"1000000\n".as_slice(), &b"1\n".repeat(3 << 20)].concat();
        assert_eq!(sparse.map(&mut endless.as_slice(), 512), Err(WRONG));
    }

    #[test]
    fn holes_are_zeros() {
        let map = [(2, 4), (4, 5), (7, 8)];
        let mut text = Vec::new();
        let mut data = b"abcd".as_slice();
        let read = Whole::new(&mut data, &map, 10).read_to_end(&mut text);
        assert_eq!(read.ok(), Some(10));
        assert_eq!(text, b"\0\0abc\0\0d\0\0");
        let mut cut = b"ab".as_slice();
        assert!(Whole::new(&mut cut, &map, 10).read_to_end(&mut text).is_err());
    }
}
