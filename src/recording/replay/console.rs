// SPDX-License-Identifier: MIT OR Apache-2.0
//! The console of a replay beside that of the recording, as it comes in.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// More of a line than this is not shown.
const SHOWN: usize = 160;

/// More of a line than this is not kept: enough for what is shown, however many bytes a character has.
const LONGEST: usize = 4 * SHOWN;

/// Where two consoles differ for the first time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Bytes before it.
    pub byte: u64,
    /// The line, from 1.
    pub line: u64,
    /// The byte in the line, from 1.
    pub column: u64,
    /// The line as recorded; nothing if there is none.
    pub expected: Option<String>,
    /// The line as replayed, as far as it is known; nothing if there is none.
    pub found: Option<String>,
}

/// A comparison that is going on.
#[derive(Debug)]
pub struct Comparison {
    recorded: BufReader<File>,
    byte: u64,
    line: u64,
    /// Bytes that both have printed since the last line break.
    begun: u64,
    /// The first of them: a guest need not ever break a line.
    head: Vec<u8>,
    /// Whether more was printed than is in the log.
    goes_on: bool,
}

impl Comparison {
    /// With the console log at `path`.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            recorded: BufReader::with_capacity(1 << 16, File::open(path)?),
            byte: 0,
            line: 1,
            begun: 0,
            head: Vec::new(),
            goes_on: false,
        })
    }

    /// The same of a console log whose end is lost, if it is not `complete`: it is compared as far as it goes.
    #[must_use]
    pub fn of_all(self, complete: bool) -> Self {
        Self {
            goes_on: !complete,
            ..self
        }
    }

    /// Bytes that were the same.
    pub fn same(&self) -> u64 {
        self.byte
    }

    /// Takes the first `count` bytes for the same: the replay begins behind them.
    pub fn pass_over(&mut self, count: u64) -> io::Result<()> {
        let mut passed = Vec::new();
        self.recorded.by_ref().take(count).read_to_end(&mut passed)?;
        self.pass(&passed);
        Ok(())
    }

    /// Takes in what the replay has printed; returns the first difference.
    pub fn feed(&mut self, text: &[u8]) -> io::Result<Option<Difference>> {
        let mut text = text;
        while !text.is_empty() {
            let expected = self.recorded.fill_buf()?;
            let both = expected.len().min(text.len());
            let same = expected.iter().zip(text).take_while(|(a, b)| a == b).count();
            let passed = text[..same].to_vec();
            let ended = expected.is_empty();
            self.recorded.consume(same);
            self.pass(&passed);
            if ended && self.goes_on {
                return Ok(None);
            }
            if same < both || ended {
                return self.difference(&text[same..]).map(Some);
            }
            text = &text[same..];
        }
        Ok(None)
    }

    /// The replay is over: returns what it did not print.
    pub fn finish(&mut self) -> io::Result<Option<Difference>> {
        match self.recorded.fill_buf()?.is_empty() {
            true => Ok(None),
            false => self.difference(&[]).map(Some),
        }
    }

    fn pass(&mut self, text: &[u8]) {
        self.byte += text.len() as u64;
        for part in text.split_inclusive(|byte| *byte == b'\n') {
            if part.ends_with(b"\n") {
                self.line += 1;
                self.begun = 0;
                self.head.clear();
            } else {
                self.begun += part.len() as u64;
                let room = LONGEST.saturating_sub(self.head.len());
                self.head.extend_from_slice(&part[..part.len().min(room)]);
            }
        }
    }

    fn difference(&mut self, found: &[u8]) -> io::Result<Difference> {
        let mut recorded = Vec::new();
        let mut rest = self.recorded.by_ref().take(LONGEST as u64);
        rest.read_until(b'\n', &mut recorded)?;
        let line = |rest: &[u8]| {
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            let line = [self.head.as_slice(), &rest[..end]].concat();
            (!rest.is_empty()).then(|| shown(&line))
        };
        Ok(Difference {
            byte: self.byte,
            line: self.line,
            column: self.begun + 1,
            expected: line(&recorded),
            found: line(found),
        })
    }
}

/// A line of a guest, harmless on a terminal.
fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text: String = text.trim_end_matches('\r').chars().take(SHOWN).collect();
    crate::base::text::line(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::*;

    fn compare(recorded: &[u8], replayed: &[&[u8]]) -> Option<Difference> {
        compare_with(recorded, replayed, true)
    }

    fn compare_with(recorded: &[u8], replayed: &[&[u8]], complete: bool) -> Option<Difference> {
        let mut file = nix::sys::memfd::memfd_create(c"console", nix::sys::memfd::MFdFlags::empty())
            .map(File::from)
            .expect("memory");
        file.write_all(recorded).expect("it is written");
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let comparison = Comparison::open(Path::new(&path)).expect("it opens");
        let mut comparison = comparison.of_all(complete);
        for text in replayed {
            if let Some(difference) = comparison.feed(text).expect("it is read") {
                return Some(difference);
            }
        }
        comparison.finish().expect("it is read")
    }

    #[test]
    fn the_same_in_any_pieces() {
        assert_eq!(compare(b"", &[]), None);
        assert_eq!(compare(b"one\ntwo\n", &[b"o", b"ne\nt", b"wo\n"]), None);
    }

    #[test]
    fn the_first_difference() {
        let found = compare(b"one\r\ntwo\r\nthree\n", &[b"one\r\nt", b"oo\r\nthree"]).expect("they differ");
        assert_eq!((found.byte, found.line, found.column), (6, 2, 2));
        assert_eq!(found.expected.as_deref(), Some("two"));
        assert_eq!(found.found.as_deref(), Some("too"));
    }

    #[test]
    fn the_end_of_the_recorded_one_is_lost() {
        let end_lost = |replayed| compare_with(b"one\ntw", &[replayed], false);
        assert_eq!(end_lost(&b"one\ntw"[..]), None);
        assert_eq!(end_lost(b"one\ntwo\nthree\n"), None);
        assert_eq!(end_lost(b"one\ntoo\n").map(|found| found.byte), Some(5));
        assert_eq!(end_lost(b"one\n").map(|found| found.byte), Some(4));
    }

    #[test]
    fn one_is_longer() {
        let less = compare(b"one\ntwo\n", &[b"one\n"]).expect("they differ");
        assert_eq!(
            (less.byte, less.expected.as_deref(), less.found),
            (4, Some("two"), None)
        );
        let more = compare(b"one\n", &[b"one\ntwo"]).expect("they differ");
        assert_eq!(
            (more.byte, more.expected, more.found.as_deref()),
            (4, None, Some("two"))
        );
    }
}
