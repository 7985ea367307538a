// SPDX-License-Identifier: MIT OR Apache-2.0
//! The events of a log, one by one.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};

use crate::error::{Error, What};
use crate::{END, HEADER, VERSION};

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

/// The checkpoint that comes once, before the first instruction.
const INIT: u8 = 7;

/// Shutdowns have the numbers from here on, each with its reason.
pub(crate) const SHUTDOWN: u8 = 10;

/// What the machine has that a log can speak of. It has one serial port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Devices {
    /// Network cards.
    pub networks: usize,
    /// Disks.
    pub disks: usize,
}

/// Something that a log tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The byte of the log at which it begins.
    pub at: u64,
    /// Instructions that the guest had executed when it happened. Of [`Kind::Instructions`] those at its end.
    pub instructions: u64,
    /// What it is.
    pub kind: Kind,
}

/// What kind of event it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The guest executed so many instructions.
    Instructions(u32),
    /// The processor took an interrupt.
    Interrupt,
    /// The processor took an exception.
    Exception,
    /// QEMU did work that it had put off, by the number of its scheduling.
    BottomHalf(u64),
    /// Something was typed on the serial port.
    Typed(Vec<u8>),
    /// A disk's request was done, by its number; numbers are given in the order in which requests begin, from 0.
    DiskDone(u64),
    /// A packet arrived.
    Packet {
        /// At which network card, from 0.
        network: u8,
        /// The Ethernet frame.
        frame: Vec<u8>,
    },
    /// The machine was asked to shut down.
    Shutdown(Reason),
    /// The serial port handed on one byte of what the guest prints; `false` if nobody took it.
    Written(bool),
    /// A clock of the host was read, in nanoseconds.
    HostClock(u64),
    /// The clock of the run was read: nanoseconds since QEMU began, in which it was not stopped.
    RunClock(u64),
    /// QEMU's main loop came by a point at which other events may follow.
    Checkpoint(u8),
    /// The log ends.
    End,
}

/// Why a machine shuts down (ShutdownCause in QEMU's qapi/run-state.json).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason(pub(crate) u8);

impl Reason {
    /// QEMU was told to quit.
    pub const QUIT: Self = Self(2);

    /// Whether the guest did it: it powered itself off, reset itself, or crashed.
    pub fn is_the_guests(self) -> bool {
        (6..=8).contains(&self.0)
    }
}

/// Reads the events of a log.
pub struct Reader<R> {
    input: Input<R>,
    devices: Devices,
    /// Whether QEMU did not end in good order.
    unfinished: bool,
    instructions: u64,
    /// Whether the machine has been set up.
    begun: bool,
    ended: bool,
    requests: Requests,
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

impl<R: Read> Reader<R> {
    /// Of a whole log, of a machine with `devices`.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is none.
    pub fn new(log: R, devices: Devices) -> Result<Self, Error> {
        Self::with_version(log, devices, &[VERSION])
    }

    /// Of a log that may not have been finished.
    pub(crate) fn of_any(log: R, devices: Devices) -> Result<Self, Error> {
        Self::with_version(log, devices, &[VERSION, 0])
    }

    /// Of what follows the byte `at` of a log, of a machine that is set up and has executed so many `instructions`.
    pub(crate) fn resumed(log: R, devices: Devices, at: u64, instructions: u64) -> Self {
        Self {
            input: Input {
                log: BufReader::with_capacity(PIECE, log),
                at,
            },
            devices,
            unfinished: false,
            instructions,
            begun: true,
            ended: false,
            requests: Requests::default(),
        }
    }

    fn with_version(log: R, devices: Devices, versions: &[u32]) -> Result<Self, Error> {
        let mut input = Input {
            log: BufReader::with_capacity(PIECE, log),
            at: 0,
        };
        let found = input.number()?;
        if !versions.contains(&found) {
            return Err(Error::Version { found });
        }
        input.pass(HEADER - 4)?;
        Ok(Self {
            input,
            devices,
            unfinished: found == 0,
            instructions: 0,
            begun: false,
            ended: false,
            requests: Requests::default(),
        })
    }

    /// Bytes that have been read.
    pub fn at(&self) -> u64 {
        self.input.at
    }

    pub(crate) fn is_unfinished(&self) -> bool {
        self.unfinished
    }

    /// The next event; `None` after the last.
    ///
    /// # Errors
    ///
    /// If the log cannot be read, is cut off, or has what the machine cannot have written.
    #[allow(
        clippy::should_implement_trait,
        reason = "it can fail, and then there is no next one"
    )]
    pub fn next(&mut self) -> Result<Option<Event>, Error> {
        if self.ended {
            return match self.input.is_at_the_end()? {
                true => Ok(None),
                false => Err(Error::Foreign {
                    at: self.input.at,
                    what: What::Order("more behind the end"),
                }),
            };
        }
        let at = self.input.at;
        match self
            .input
            .byte()
            .map_err(Problem::from)
            .and_then(|kind| self.event(kind))
        {
            Ok(kind) => {
                self.ended = kind == Kind::End;
                Ok(Some(Event {
                    at,
                    instructions: self.instructions,
                    kind,
                }))
            }
            Err(Problem::Read(error)) => Err(error),
            Err(Problem::Foreign(what)) => Err(Error::Foreign { at, what }),
        }
    }

    fn event(&mut self, kind: u8) -> Result<Kind, Problem> {
        Ok(match kind {
            0 => {
                let count = self.input.number()?;
                if count == 0 || i32::try_from(count).is_err() {
                    return Err(What::Instructions(count).into());
                }
                self.require_begun("an instruction before the beginning")?;
                self.instructions += u64::from(count);
                Kind::Instructions(count)
            }
            1 | 2 => {
                self.require_begun("an interrupt before the beginning")?;
                match kind {
                    1 => Kind::Interrupt,
                    _ => Kind::Exception,
                }
            }
            3 | 4 => {
                // When it was scheduled, in instructions.
                let id = self.input.long()?;
                if id > self.instructions {
                    return Err(What::Order("work from after its time").into());
                }
                Kind::BottomHalf(id)
            }
            7 => {
                device("serial port", self.input.byte()?, 1)?;
                Kind::Typed(self.input.text("what was typed", 1..=LONGEST_TEXT)?)
            }
            8 => {
                if self.devices.disks == 0 {
                    return Err(What::Kind(kind).into());
                }
                let id = self.input.long()?;
                self.requests.end(id)?;
                Kind::DiskDone(id)
            }
            9 => {
                let network = self.input.byte()?;
                device("network", network, self.devices.networks)?;
                // One says that there is a header of virtio's before it, which a network of QEMU's own never has.
                match self.input.number()? {
                    0 => {}
                    flags => return Err(value("flags of a packet", flags.into()).into()),
                }
                let frame = self.input.text("a packet", SHORTEST_PACKET..=LONGEST_PACKET)?;
                Kind::Packet { network, frame }
            }
            // The first is no reason, and the last but one the last that there is.
            11..=20 => Kind::Shutdown(Reason(kind - SHUTDOWN)),
            22 => {
                // The port writes bytes one by one.
                let (result, taken) = (self.input.number()?.cast_signed(), self.input.number()?.cast_signed());
                for (kind, found, least) in [("the result of a write", result, -1), ("bytes taken", taken, 0)] {
                    if !(least..=1).contains(&found) {
                        return Err(value(kind, found.into()).into());
                    }
                }
                Kind::Written(taken == 1)
            }
            28 | 29 => {
                let time = self.input.long()?;
                if i64::try_from(time).is_err() {
                    return Err(value("a time", time.cast_signed()).into());
                }
                match kind {
                    28 => Kind::HostClock(time),
                    _ => Kind::RunClock(time),
                }
            }
            30..=38 => {
                match kind - 30 {
                    INIT if self.begun => return Err(What::Order("a second beginning").into()),
                    INIT => self.begun = true,
                    _ => {}
                }
                Kind::Checkpoint(kind - 30)
            }
            END => {
                self.require_begun("an end before the beginning")?;
                Kind::End
            }
            _ => return Err(What::Kind(kind).into()),
        })
    }

    fn require_begun(&self, what: &'static str) -> Result<(), What> {
        match self.begun {
            true => Ok(()),
            false => Err(What::Order(what)),
        }
    }
}

fn device(kind: &'static str, id: u8, count: usize) -> Result<(), What> {
    match usize::from(id) < count {
        true => Ok(()),
        false => Err(What::Device { kind, id }),
    }
}

fn value(kind: &'static str, value: i64) -> What {
    What::Value { kind, value }
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

/// The bytes of a log.
struct Input<R> {
    log: BufReader<R>,
    at: u64,
}

impl<R: Read> Input<R> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        match self.log.read_exact(bytes) {
            Ok(()) => {
                self.at += bytes.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(Error::CutOff { at: self.at }),
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

    fn text(&mut self, kind: &'static str, sizes: std::ops::RangeInclusive<u32>) -> Result<Vec<u8>, Problem> {
        let size = self.number()?;
        if !sizes.contains(&size) {
            return Err(What::Size { kind, size }.into());
        }
        let mut text = vec![0; size as usize];
        self.fill(&mut text)?;
        Ok(text)
    }

    fn pass(&mut self, length: u64) -> Result<(), Error> {
        for _ in 0..length {
            self.byte()?;
        }
        Ok(())
    }

    fn is_at_the_end(&mut self) -> Result<bool, Error> {
        Ok(self.log.fill_buf()?.is_empty())
    }
}
