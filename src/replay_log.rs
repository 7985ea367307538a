// SPDX-License-Identifier: MIT OR Apache-2.0
//! QEMU's log of a recorded run (version 0xe0200c of its format: QEMU 7.2 to 10.0), read and checked before QEMU sees it.
//!
//! QEMU's own reader trusts its log. It takes numbers of devices as indexes, and copies what it reads to where a size of its own
//! is expected. So a log that may come from anybody is compared here with what the machine can have written: the kinds of its
//! events, the devices that it has, the sizes that these deal in, the order, and an end where the file ends.
//!
//! This module knows nothing of the rest of ttvm.
//!
//! ```text
//! log     = version (4 bytes)  0 (8 bytes)  event…  end
//! event   = kind (1 byte)  content; numbers are big-endian
//!  0        instructions: how many until the next event (4)
//!  1, 2     interrupt, exception
//!  3…9      what came in beside the processor: bottom half (id 8), one-shot (id 8), input, input's end, character (port 1, text),
//!           disk request done (id 8), packet (network 1, flags 4, text)
//!  10…21    shutdown, with its reason
//!  22…24    character written (result 4, bytes taken 4), characters read (text), the same failed (4)
//!  25, 26   sound out, sound in
//!  27       random bytes (result 4, text): this machine's processor has none
//!  28, 29   clock of the host, of the run (8)
//!  30…38    checkpoint
//!  39       end
//! text    = length (4)  bytes
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

/// The format that is understood.
const VERSION: u32 = 0x00e0_200c;

/// After the version, QEMU leaves room for a number that nobody reads.
const HEADER: u64 = 12;

/// What is read at once.
const PIECE: usize = 1 << 16;

/// What a terminal gives QEMU in one go (CHR_READ_BUF_LEN).
const LONGEST_TEXT: u32 = 4096;

/// An Ethernet header; a network card that gets less reads on behind its end.
const SHORTEST_PACKET: u32 = 14;

/// The longest packet that QEMU passes on (NET_BUFSIZE).
const LONGEST_PACKET: u32 = 4096 + 65536;

/// Requests of disks that have begun and not ended, each disk with a queue of its own.
const IN_FLIGHT: usize = 1 << 16;

/// Checkpoints that come once, before the first instruction.
const INIT: u8 = 7;

/// What the machine has that a log can speak of. It has one serial port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Devices {
    /// Network cards.
    pub networks: usize,
    /// Disks.
    pub disks: usize,
}

/// What a log says of its run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Instructions from the beginning to the end.
    pub instructions: u64,
    /// Events.
    pub events: u64,
    /// After how many instructions the guest ended by itself, if it did.
    pub shutdown: Option<u64>,
}

/// Why a log is none that this machine can have written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    /// Another format, or no log.
    #[error("it is no log of a QEMU from 7.2 to 10.0: it begins with {found:#x}, not with {VERSION:#x}")]
    Version {
        /// What it begins with.
        found: u32,
    },
    /// It ends before its end.
    #[error("it is cut off: it ends at byte {at}, within an event or before the last one")]
    CutOff {
        /// How long it is.
        at: u64,
    },
    /// An event that this machine cannot have written.
    #[error("at byte {at} there is {what}, which the machine that was recorded cannot have written")]
    Foreign {
        /// Where the event begins.
        at: u64,
        /// What it is.
        what: What,
    },
    /// Whoever waits has called it off.
    #[error("interrupted")]
    Interrupted,
}

/// What does not belong in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A kind of event that there is not, or that only machines with other devices have.
    Kind(u8),
    /// A number of instructions that is none.
    Instructions(u32),
    /// A device that is not there.
    Device {
        /// What kind of device.
        kind: &'static str,
        /// Which.
        id: u8,
    },
    /// A size that this event does not have.
    Size {
        /// Of what.
        kind: &'static str,
        /// Bytes.
        size: u32,
    },
    /// A value that this event does not have.
    Value {
        /// Of what.
        kind: &'static str,
        /// The value.
        value: i64,
    },
    /// A request of a disk that has ended before.
    Again(u64),
    /// It is too early or too late for it.
    Order(&'static str),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => write!(f, "an event of kind {kind}"),
            Self::Instructions(count) => write!(f, "a run of {count} instructions"),
            Self::Device { kind, id } => write!(f, "an event of {kind} {id}"),
            Self::Size { kind, size } => write!(f, "{kind} of {size} bytes"),
            Self::Value { kind, value } => write!(f, "{kind} of {value}"),
            Self::Again(id) => write!(f, "the end of disk request {id}, which had ended"),
            Self::Order(what) => f.write_str(what),
        }
    }
}

/// Reads a log to its end. `on` is told how many bytes have been read, now and then, and says whether to go on.
pub fn check(log: impl Read, devices: Devices, on: &mut dyn FnMut(u64) -> bool) -> Result<Summary, Error> {
    let mut reader = Reader {
        log: BufReader::with_capacity(PIECE, log),
        at: 0,
    };
    let found = reader.number()?;
    if found != VERSION {
        return Err(Error::Version { found });
    }
    reader.pass(HEADER - 4)?;
    let mut state = State {
        devices,
        summary: Summary::default(),
        begun: false,
        requests: Requests::default(),
    };
    let mut told = 0;
    loop {
        if reader.at >= told {
            told = reader.at + (1 << 20);
            if !on(reader.at) {
                return Err(Error::Interrupted);
            }
        }
        let at = reader.at;
        let kind = reader.byte()?;
        state.summary.events += 1;
        match state.event(kind, &mut reader) {
            Ok(true) => {}
            Ok(false) => break,
            Err(Problem::Read(error)) => return Err(error),
            Err(Problem::Foreign(what)) => return Err(Error::Foreign { at, what }),
        }
    }
    match reader.ended()? {
        true => Ok(state.summary),
        false => Err(Error::Foreign {
            at: reader.at,
            what: What::Order("more behind the end"),
        }),
    }
}

enum Problem {
    Read(Error),
    Foreign(What),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Read(error)
    }
}

impl From<What> for Problem {
    fn from(what: What) -> Self {
        Self::Foreign(what)
    }
}

/// How far a log has come.
struct State {
    devices: Devices,
    summary: Summary,
    /// Whether the machine has been set up.
    begun: bool,
    requests: Requests,
}

impl State {
    /// Takes in an event of that `kind`; `false` if it was the last.
    fn event(&mut self, kind: u8, log: &mut Reader<impl Read>) -> Result<bool, Problem> {
        match kind {
            0 => {
                let count = log.number()?;
                if count == 0 || i32::try_from(count).is_err() {
                    return Err(What::Instructions(count).into());
                }
                self.require_begun("an instruction before the beginning")?;
                self.summary.instructions += u64::from(count);
            }
            1 | 2 => self.require_begun("an interrupt before the beginning")?,
            3 | 4 => {
                // When it was scheduled, in instructions.
                let id = log.long()?;
                if id > self.summary.instructions {
                    return Err(What::Order("work from after its time").into());
                }
            }
            7 => {
                self.device("serial port", log.byte()?, 1)?;
                log.text("what was typed", 1..=LONGEST_TEXT)?;
            }
            8 => {
                if self.devices.disks == 0 {
                    return Err(What::Kind(kind).into());
                }
                self.requests.end(log.long()?)?;
            }
            9 => {
                self.device("network", log.byte()?, self.devices.networks)?;
                // One says that there is a header of virtio's before it, which a network of QEMU's own never has.
                match log.number()? {
                    0 => {}
                    flags => {
                        return Err(What::Value {
                            kind: "flags of a packet",
                            value: flags.into(),
                        }
                        .into());
                    }
                }
                log.text("a packet", SHORTEST_PACKET..=LONGEST_PACKET)?;
            }
            // The first is no reason, and the last but one the last that there is.
            11..=20 => {
                let ended = Some(self.summary.instructions);
                self.summary.shutdown = self.summary.shutdown.or(ended);
            }
            22 => {
                // The port writes bytes one by one.
                let (result, taken) = (log.number()?.cast_signed(), log.number()?.cast_signed());
                for (kind, value, least) in [("the result of a write", result, -1), ("bytes taken", taken, 0)] {
                    if !(least..=1).contains(&value) {
                        let value = value.into();
                        return Err(What::Value { kind, value }.into());
                    }
                }
            }
            28 | 29 => {
                let time = log.long()?.cast_signed();
                if time < 0 {
                    return Err(What::Value {
                        kind: "a time",
                        value: time,
                    }
                    .into());
                }
            }
            30..=38 => match kind - 30 {
                INIT if self.begun => return Err(What::Order("a second beginning").into()),
                INIT => self.begun = true,
                _ => {}
            },
            39 => {
                self.require_begun("an end before the beginning")?;
                return Ok(false);
            }
            _ => return Err(What::Kind(kind).into()),
        }
        Ok(true)
    }

    fn require_begun(&self, what: &'static str) -> Result<(), What> {
        match self.begun {
            true => Ok(()),
            false => Err(What::Order(what)),
        }
    }

    fn device(&self, kind: &'static str, id: u8, count: usize) -> Result<(), What> {
        match usize::from(id) < count {
            true => Ok(()),
            false => Err(What::Device { kind, id }),
        }
    }
}

/// Requests of disks that have ended. Their numbers are given in order, and each ends once, a little out of order.
#[derive(Default)]
struct Requests {
    /// All below have ended.
    below: u64,
    /// Those above that have ended.
    above: BTreeSet<u64>,
}

impl Requests {
    fn end(&mut self, id: u64) -> Result<(), What> {
        // What began before there was a log has no number.
        if id == 0 && self.below > 0 {
            return Ok(());
        }
        if id < self.below || !self.above.insert(id) {
            return Err(What::Again(id));
        }
        while self.above.remove(&self.below) {
            self.below += 1;
        }
        match self.above.len() > IN_FLIGHT {
            true => Err(What::Order("the end of a disk request that never began")),
            false => Ok(()),
        }
    }
}

struct Reader<R> {
    log: BufReader<R>,
    at: u64,
}

impl<R: Read> Reader<R> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        match self.log.read_exact(&mut bytes) {
            Ok(()) => {
                self.at += N as u64;
                Ok(bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Error::CutOff { at: self.at }),
            Err(error) => Err(error.into()),
        }
    }

    fn byte(&mut self) -> Result<u8, Error> {
        self.bytes().map(|[byte]| byte)
    }

    fn number(&mut self) -> Result<u32, Error> {
        self.bytes().map(u32::from_be_bytes)
    }

    fn long(&mut self) -> Result<u64, Error> {
        self.bytes().map(u64::from_be_bytes)
    }

    /// Bytes of which only the number is of interest.
    fn text(&mut self, kind: &'static str, sizes: std::ops::RangeInclusive<u32>) -> Result<(), Problem> {
        let size = self.number()?;
        if !sizes.contains(&size) {
            return Err(What::Size { kind, size }.into());
        }
        Ok(self.pass(size.into())?)
    }

    fn pass(&mut self, length: u64) -> Result<(), Error> {
        let mut left = length;
        while left > 0 {
            let there = self.log.fill_buf()?.len();
            if there == 0 {
                return Err(Error::CutOff { at: self.at });
            }
            let taken = usize::try_from(left).map_or(there, |left| left.min(there));
            self.log.consume(taken);
            self.at += taken as u64;
            left -= taken as u64;
        }
        Ok(())
    }

    fn ended(&mut self) -> Result<bool, Error> {
        Ok(self.log.fill_buf()?.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICES: Devices = Devices { networks: 1, disks: 1 };

    /// A log that is written by hand.
    #[derive(Clone)]
    struct Log {
        bytes: Vec<u8>,
        /// Where its events begin.
        events: Vec<usize>,
    }

    impl Log {
        fn new() -> Self {
            let mut bytes = VERSION.to_be_bytes().to_vec();
            bytes.extend([0; 8]);
            let events = Vec::new();
            Self { bytes, events }
        }

        fn event(mut self, kind: u8, content: &[u8]) -> Self {
            self.events.push(self.bytes.len());
            self.bytes.push(kind);
            self.bytes.extend_from_slice(content);
            self
        }

        fn instructions(self, count: u32) -> Self {
            self.event(0, &count.to_be_bytes())
        }

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

    fn text(before: &[u8], text: &[u8]) -> Vec<u8> {
        let length = u32::try_from(text.len()).expect("a short text");
        [before, &length.to_be_bytes(), text].concat()
    }

    /// With one event of each kind that the machine has, as QEMU orders them.
    fn good() -> Log {
        let clock = 1_795_974_774_081_165_000u64.to_be_bytes();
        Log::new()
            .event(28, &clock)
            .event(37, &[])
            .event(28, &clock)
            .event(38, &[])
            .event(35, &[])
            .instructions(1000)
            .event(31, &[])
            .event(29, &1000u64.to_be_bytes())
            .event(1, &[])
            .event(2, &[])
            .event(3, &1000u64.to_be_bytes())
            .event(4, &900u64.to_be_bytes())
            .event(22, &[0, 0, 0, 1, 0, 0, 0, 1])
            .event(7, &text(&[0], b"hello\n"))
            .event(8, &1u64.to_be_bytes())
            .event(8, &0u64.to_be_bytes())
            .event(9, &text(&[0, 0, 0, 0, 0], &[0; 64]))
            .event(34, &[])
            .instructions(234)
            .event(16, &[])
            .instructions(7)
            .event(12, &[])
            .event(39, &[])
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
                shutdown: Some(1234)
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
        for id in 0..=IN_FLIGHT as u64 + 1 {
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
