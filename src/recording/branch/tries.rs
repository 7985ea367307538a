// SPDX-License-Identifier: MIT OR Apache-2.0
//! How runs end that leave a recording at a point and live on by themselves; and from which point on all of them end as it did: from
//! there its end was certain, whatever came in later.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};

use crate::recording::Recording;
use crate::recording::library::manifest::RunExit;

/// What is read at once.
const PIECE: usize = 1 << 16;

/// How a run ended, as far as it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    kind: Kind,
    /// Whether it printed what is looked for; `None` if nothing is.
    printed: Option<bool>,
}

/// Who ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    PoweredOff,
    Rebooted,
    Running,
}

impl End {
    /// That of `recording`, which is looked through for `text`.
    ///
    /// # Errors
    ///
    /// If what it printed cannot be read.
    pub fn of(recording: &Recording, text: Option<&str>) -> io::Result<Self> {
        let exit = recording.manifest().result.as_ref().map(|result| result.exit);
        let kind = match exit {
            Some(RunExit::PoweredOff) => Kind::PoweredOff,
            Some(RunExit::Rebooted) => Kind::Rebooted,
            _ => Kind::Running,
        };
        let printed = match text {
            Some(text) => Some(has(File::open(recording.console())?, text.as_bytes())?),
            None => None,
        };
        Ok(Self { kind, printed })
    }
}

impl End {
    /// Whether the guest did nothing to end it, and had nothing to print either.
    pub fn is_somebodys(&self) -> bool {
        self.kind == Kind::Running && self.printed.is_none()
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::PoweredOff => "powered off",
            Kind::Rebooted => "rebooted",
            Kind::Running => "was still running",
        })?;
        f.write_str(match self.printed {
            Some(true) => " and had printed it",
            Some(false) => " and had not printed it",
            None => "",
        })
    }
}

/// Whether `text` is in what is read from `from`.
fn has(from: impl Read, text: &[u8]) -> io::Result<bool> {
    let mut from = BufReader::new(from);
    let (mut read, mut piece) = (Vec::new(), vec![0; PIECE]);
    loop {
        let length = from.read(&mut piece)?;
        if length == 0 {
            return Ok(text.is_empty());
        }
        read.extend_from_slice(&piece[..length]);
        if read.windows(text.len().max(1)).any(|found| found == text) {
            return Ok(true);
        }
        // It may go on in the next piece.
        read.drain(..read.len().saturating_sub(text.len()));
    }
}

/// The ends of all runs that left the recording at one point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// After so many instructions.
    pub at: u64,
    /// One for each run.
    pub ends: Vec<End>,
}

impl Tried {
    /// How many ended like that.
    pub fn like(&self, end: End) -> usize {
        self.ends.iter().filter(|it| **it == end).count()
    }

    /// Each end with how many had it, the most frequent first.
    pub fn counts(&self) -> Vec<(End, usize)> {
        let mut ends = self.ends.clone();
        ends.sort_unstable();
        ends.dedup();
        let mut counts: Vec<(End, usize)> = ends.into_iter().map(|end| (end, self.like(end))).collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts
    }
}

/// The first of the points, which are in the order of the run, from which on every run ended like `end`.
pub fn certain_from(tried: &[Tried], end: End) -> Option<u64> {
    let sure = |it: &&Tried| it.like(end) == it.ends.len();
    tried.iter().rev().take_while(sure).last().map(|it| it.at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRASH: End = End {
        kind: Kind::Rebooted,
        printed: Some(true),
    };
    const GOOD: End = End {
        kind: Kind::PoweredOff,
        printed: Some(false),
    };

    fn tried(at: u64, crashes: usize, of: usize) -> Tried {
        let ends = (0..of)
            .map(|number| if number < crashes { CRASH } else { GOOD })
            .collect();
        Tried { at, ends }
    }

    #[test]
    fn from_where_on_it_was_certain() {
        let all = [
            tried(10, 1, 3),
            tried(20, 3, 3),
            tried(30, 2, 3),
            tried(40, 3, 3),
            tried(50, 3, 3),
        ];
        assert_eq!(certain_from(&all, CRASH), Some(40));
        assert_eq!(certain_from(&all[..3], CRASH), None);
        assert_eq!(certain_from(&all, GOOD), None);
        assert_eq!(certain_from(&[tried(7, 2, 2)], CRASH), Some(7));
        assert_eq!(all[0].counts(), [(GOOD, 2), (CRASH, 1)]);
        assert_eq!(CRASH.to_string(), "rebooted and had printed it");
    }

    #[test]
    fn what_was_printed() {
        let long = [vec![b'x'; PIECE - 3], b"panic".to_vec(), vec![b'y'; 10]].concat();
        assert!(has(&long[..], b"panic").expect("bytes"));
        assert!(!has(&long[..], b"panics").expect("bytes"));
        assert!(!has(&b""[..], b"panic").expect("bytes"));
    }
}
