// SPDX-License-Identifier: MIT OR Apache-2.0
//! A log, read to its end.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::END;
use crate::error::Error;
use crate::event::{Devices, Kind, Reader, Reason};

/// How often whoever waits is told.
const TOLD: u64 = 1 << 20;

/// What a log says of its run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Instructions from the beginning to the last one that is logged: QEMU goes on a little after the end of a run.
    pub instructions: u64,
    /// Events.
    pub events: u64,
    /// Where the run ended; `None` if the log does not say.
    pub end: Option<End>,
    /// Bytes that the guest printed and somebody took.
    pub printed: u64,
}

/// The end of a run: the guest shut itself down, or QEMU was told to quit. What is logged behind it depends on when QEMU noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Instructions up to it.
    pub instructions: u64,
    /// Why.
    pub reason: Reason,
    /// The byte of the log behind its event.
    pub behind: u64,
}

/// Has `log` end at the byte `at`. Behind the event of the run's [`End`], QEMU stops the machine at that very instruction, each
/// time.
///
/// # Errors
///
/// If it cannot be written.
pub fn cut(log: &mut File, at: u64) -> io::Result<()> {
    log.set_len(at)?;
    log.seek(SeekFrom::Start(at))?;
    log.write_all(&[END])?;
    log.sync_data()
}

/// Reads a log to its end. `on` is told how many bytes have been read, now and then, and says whether to go on.
///
/// # Errors
///
/// If it is not what a machine with `devices` can have written, cannot be read, or `on` said no.
pub fn check(log: impl Read, devices: Devices, on: &mut dyn FnMut(u64) -> bool) -> Result<Summary, Error> {
    let mut reader = Reader::new(log, devices)?;
    let mut summary = Summary::default();
    let mut told = 0;
    loop {
        if reader.at() >= told {
            told = reader.at() + TOLD;
            if !on(reader.at()) {
                return Err(Error::Interrupted);
            }
        }
        let Some(event) = reader.next()? else {
            return Ok(summary);
        };
        summary.events += 1;
        summary.instructions = event.instructions;
        match event.kind {
            Kind::Shutdown(reason) if summary.end.is_none() => {
                summary.end = Some(End {
                    instructions: event.instructions,
                    reason,
                    behind: reader.at(),
                });
            }
            Kind::Written(true) => summary.printed += 1,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::What;
    use crate::written::{DEVICES, Log, good, text};

    impl Log {
        fn check(&self) -> Result<Summary, Error> {
            check(&self.bytes[..], DEVICES, &mut |_| true)
        }

        /// What is wrong with it.
        fn foreign(&self) -> (u64, What) {
            match self.check() {
                Err(Error::Foreign { at, what }) => (at, what),
                other => panic!("{other:?}"),
            }
        }
    }

    /// `log` with another event in the place of its last but two.
    fn with(kind: u8, content: &[u8]) -> Log {
        let log = good();
        let at = log.events[log.events.len() - 3];
        let mut changed = Log {
            bytes: log.bytes[..at].to_vec(),
            events: Vec::new(),
        };
        changed = changed.event(kind, content);
        changed.bytes.extend_from_slice(&log.bytes[at..]);
        changed
    }

    #[test]
    fn a_whole_run() {
        let summary = good().check().expect("a good log");
        assert_eq!(
            summary,
            Summary {
                instructions: 1241,
                events: 23,
                end: Some(End {
                    instructions: 1234,
                    reason: Reason(6),
                    behind: good().events[19] as u64 + 1,
                }),
                printed: 1
            }
        );
        let mut calls = 0;
        let stopped = check(&good().bytes[..], DEVICES, &mut |_| {
            calls += 1;
            false
        });
        assert!(matches!(stopped, Err(Error::Interrupted)) && calls == 1);
    }

    #[test]
    fn another_version_or_no_log() {
        for (bytes, found) in [(&b"\x00\xe0\x20\x0d"[..], 0x00e0_200d), (b"Linux version", 0x4c69_6e75)] {
            assert!(matches!(check(bytes, DEVICES, &mut |_| true), Err(Error::Version { found: it }) if it == found));
        }
    }

    #[test]
    fn cut_off_anywhere() {
        let log = good();
        for length in 0..log.bytes.len() {
            let found = check(&log.bytes[..length], DEVICES, &mut |_| true);
            assert!(matches!(found, Err(Error::CutOff { .. })), "{length}: {found:?}");
        }
        let mut longer = log;
        longer.bytes.push(0);
        assert!(matches!(longer.foreign().1, What::Order("more behind the end")));
    }

    /// Each of these makes QEMU take a number for an index, copy more than there is room for, or wait for ever.
    #[test]
    fn what_the_machine_does_not_have() {
        let kind = |kind| What::Kind(kind);
        let size = |kind, size| What::Size { kind, size };
        let cases: Vec<(u8, Vec<u8>, What)> = vec![
            (
                7,
                text(&[0xc8], b"A"),
                What::Device {
                    kind: "serial port",
                    id: 0xc8,
                },
            ),
            (7, text(&[0], b""), size("what was typed", 0)),
            (7, text(&[0], &[0; 4097]), size("what was typed", 4097)),
            (
                9,
                text(&[1, 0, 0, 0, 0], &[0; 64]),
                What::Device { kind: "network", id: 1 },
            ),
            (
                9,
                text(&[0, 0, 0, 0, 1], &[0; 64]),
                What::Value {
                    kind: "flags of a packet",
                    value: 1,
                },
            ),
            (9, text(&[0, 0, 0, 0, 0], &[0; 13]), size("a packet", 13)),
            (9, text(&[0, 0, 0, 0, 0], &[0; 69633]), size("a packet", 69633)),
            (
                9,
                vec![0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
                size("a packet", u32::MAX),
            ),
            (5, vec![0; 20], kind(5)),
            (6, vec![], kind(6)),
            (23, text(&[], &[0; 9000]), kind(23)),
            (24, vec![0; 4], kind(24)),
            (25, vec![0; 4], kind(25)),
            (26, vec![0; 8], kind(26)),
            (27, text(&[0; 4], &[0; 9000]), kind(27)),
            (10, vec![], kind(10)),
            (21, vec![], kind(21)),
            (40, vec![], kind(40)),
            (255, vec![], kind(255)),
            (0, vec![0; 4], What::Instructions(0)),
            (0, vec![0x80, 0, 0, 0], What::Instructions(1 << 31)),
            (
                3,
                5000u64.to_be_bytes().to_vec(),
                What::Order("work from after its time"),
            ),
            (8, 1u64.to_be_bytes().to_vec(), What::Again(1)),
            (
                22,
                vec![0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 0],
                What::Value {
                    kind: "the result of a write",
                    value: -2,
                },
            ),
            (
                22,
                vec![0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff],
                What::Value {
                    kind: "bytes taken",
                    value: -1,
                },
            ),
            (
                28,
                vec![0xff; 8],
                What::Value {
                    kind: "a time",
                    value: -1,
                },
            ),
            (37, vec![], What::Order("a second beginning")),
        ];
        for (kind, content, expected) in cases {
            let log = with(kind, &content);
            assert_eq!(log.foreign(), (log.events[0] as u64, expected), "{kind}");
        }
        // An end before the end, and a run before its beginning.
        assert_eq!(with(39, &[]).foreign().1, What::Order("more behind the end"));
        assert_eq!(
            Log::new().instructions(5).foreign().1,
            What::Order("an instruction before the beginning")
        );
        assert_eq!(
            Log::new().event(39, &[]).foreign().1,
            What::Order("an end before the beginning")
        );
        // A machine without disks and networks has no events of them.
        let none = Devices { networks: 0, disks: 0 };
        assert!(check(&good().bytes[..], none, &mut |_| true).is_err());
    }

    /// Requests that end and never began are not kept for ever.
    #[test]
    fn endless_requests() {
        let mut log = Log::new().event(37, &[]);
        for id in 0..=65_537u64 {
            log = log.event(8, &(2 * id + 2).to_be_bytes());
        }
        assert_eq!(
            log.foreign().1,
            What::Order("the end of a disk request that never began")
        );
    }

    /// Whatever is changed in a log, reading it ends, and what is accepted has none of what harms.
    #[test]
    fn mutations() {
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % below as u64).expect("small")
        };
        let log = good();
        let (mut accepted, mut refused) = (0, 0);
        for _ in 0..5000 {
            let mut bytes = log.bytes.clone();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                match random(5) {
                    0 => bytes[at] ^= 1 << random(8),
                    1 => bytes[at] = u8::try_from(random(256)).expect("a byte"),
                    2 => bytes.truncate(at.max(1)),
                    3 => bytes.insert(at, u8::try_from(random(256)).expect("a byte")),
                    _ => {
                        // An event somewhere, as in the reproducer.
                        let event = log.events[random(log.events.len())].min(bytes.len());
                        bytes.splice(event..event, text(&[7, 0xc8], b"A"));
                    }
                }
            }
            match check(&bytes[..], DEVICES, &mut |_| true) {
                Ok(_) => accepted += 1,
                Err(_) => refused += 1,
            }
        }
        // Another time or another text is as good as the old one.
        assert!(accepted > 100 && refused > 3000, "{accepted} {refused}");
    }
}
