// SPDX-License-Identifier: MIT OR Apache-2.0
//! A run that leaves another one on the way and lives on: the log of the one up to there, and that of the other from there, as one
//! log of one run.

use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::error::Error;
use crate::event::{Devices, Kind, Reader};
use crate::stop::{self, INSTRUCTIONS, Place};

/// Where a run is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// After so many instructions.
    pub instructions: u64,
    /// Bytes that the guest had printed by then, and somebody took.
    pub printed: u64,
    at: u64,
    left: u32,
}

/// Where the run in `log` can be left: after `wanted` instructions, or at the first one behind that at which nothing happens;
/// `None` if it has ended by then.
///
/// # Errors
///
/// If it is no log of a machine with `devices`, or cannot be read.
pub fn fork(log: impl Read, devices: Devices, wanted: u64) -> Result<Option<Fork>, Error> {
    let place = stop::find(log, devices, wanted)?;
    Ok(place.map(|Place { at, left, stopped }| Fork {
        instructions: stopped.instructions,
        printed: stopped.printed,
        at,
        left,
    }))
}

/// What QEMU had done before it went on from there, with the machine's state loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// Bytes of its log, which are of no run: it had set up a machine that was thrown away.
    pub logged: u64,
    /// Requests of disks up to the fork: QEMU counts those of the branch from 0 again.
    pub requests: u64,
}

/// Begins the log of a run that is that of `parent` up to `fork` and then goes another way: writes that part to `joined`, and returns
/// how many bytes it has. More is to follow it ([`append`]): it has no end.
///
/// # Errors
///
/// If something cannot be read or written.
pub fn begin(parent: &mut impl Read, fork: Fork, joined: &mut impl Write) -> io::Result<u64> {
    copy(parent, fork.at, joined)?;
    let [a, b, c, d] = fork.left.to_be_bytes();
    let last = [INSTRUCTIONS, a, b, c, d];
    joined.write_all(&last)?;
    Ok(fork.at + last.len() as u64)
}

/// Goes on with that log after so many `instructions`: writes what `branch` has to `joined`. Of a branch that nobody finished that is
/// what is good of it, and there is no end then.
///
/// # Errors
///
/// If something cannot be read or written.
pub fn append(
    branch: &mut (impl Read + Seek),
    instructions: u64,
    begun: Begun,
    devices: Devices,
    joined: &mut impl Write,
) -> io::Result<()> {
    // Its events are read first, then copied: the bytes between two that are changed in one piece.
    branch.seek(SeekFrom::Start(begun.logged))?;
    let mut reader = Reader::resumed(&mut *branch, devices, begun.logged, instructions);
    let (mut requests, mut end, mut begun_first) = (Vec::new(), begun.logged, false);
    loop {
        let event = match reader.next() {
            Ok(Some(event)) => event,
            Err(Error::Read(error)) => return Err(error),
            Ok(None) | Err(_) => break,
        };
        end = reader.at();
        // The first request is number 0; whatever else has that began when there was no log, and has no number.
        if let Kind::DiskDone(id) = event.kind
            && (id > 0 || !begun_first)
        {
            begun_first |= id == 0;
            requests.push((event.at + 1, id));
        }
    }
    branch.seek(SeekFrom::Start(begun.logged))?;
    let mut at = begun.logged;
    for (place, id) in requests {
        copy(branch, place - at, joined)?;
        joined.write_all(&(id + begun.requests).to_be_bytes())?;
        at = place + 8;
        branch.seek(SeekFrom::Start(at))?;
    }
    copy(branch, end - at, joined)
}

fn copy(from: &mut impl Read, length: u64, to: &mut impl Write) -> io::Result<()> {
    match io::copy(&mut from.take(length), to)? == length {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::check;
    use crate::written::{DEVICES, Log, good};

    fn joined(wanted: u64, branch: &Log, logged: usize) -> Vec<u8> {
        let parent = good();
        let fork = fork(&parent.bytes[..], DEVICES, wanted)
            .expect("a good log")
            .expect("a place");
        let begun = Begun {
            logged: logged as u64,
            requests: 2,
        };
        let mut joined = Vec::new();
        let length = begin(&mut &parent.bytes[..], fork, &mut joined).expect("room");
        assert_eq!(joined.len() as u64, length);
        let branch = &mut Cursor::new(&branch.bytes);
        append(branch, fork.instructions, begun, DEVICES, &mut joined).expect("a log");
        joined
    }

    /// QEMU sets up a machine, and then goes on with another one.
    fn branch() -> (Log, usize) {
        let log = Log::new().event(28, &7u64.to_be_bytes()).event(37, &[]);
        let begun = log.bytes.len();
        let log = log
            .event(35, &[])
            .instructions(50)
            .event(8, &0u64.to_be_bytes())
            .event(22, &[0, 0, 0, 1, 0, 0, 0, 1])
            .event(3, &540u64.to_be_bytes())
            .instructions(10)
            .event(8, &1u64.to_be_bytes())
            .event(8, &0u64.to_be_bytes())
            .event(16, &[])
            .event(39, &[]);
        (log, begun)
    }

    #[test]
    fn one_run() {
        let (branch, begun) = branch();
        // After 1000 instructions something happens: it is left one later.
        for (wanted, instructions, printed) in [(500, 560, 1), (1000, 1061, 2), (1100, 1160, 2)] {
            let log = joined(wanted, &branch, begun);
            let summary = check(&log[..], DEVICES, &mut |_| true).expect("a whole log");
            let end = summary.end.expect("its end");
            assert_eq!((end.instructions, summary.printed), (instructions, printed), "{wanted}");
        }
        // Requests go on with their numbers.
        let log = joined(1100, &branch, begun);
        let mut reader = Reader::new(&log[..], DEVICES).expect("a log");
        let mut requests = Vec::new();
        while let Some(event) = reader.next().expect("an event") {
            if let Kind::DiskDone(id) = event.kind {
                requests.push(id);
            }
        }
        assert_eq!(requests, [1, 0, 2, 3, 0]);
    }

    #[test]
    fn where_there_is_no_way_on() {
        for wanted in [1234, 5000] {
            assert_eq!(fork(&good().bytes[..], DEVICES, wanted).expect("a good log"), None);
        }
    }

    /// Killed anywhere, what is good of it is kept.
    #[test]
    fn cut_off_anywhere() {
        let (whole, begun) = branch();
        for length in begun..whole.bytes.len() {
            let cut = Log {
                bytes: whole.bytes[..length].to_vec(),
                events: Vec::new(),
            };
            let log = joined(1100, &cut, begun);
            assert!(check(&log[..], DEVICES, &mut |_| true).is_err(), "{length}");
            assert!(joined(1100, &whole, begun).starts_with(&log), "{length}");
        }
    }
}
