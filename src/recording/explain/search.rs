// SPDX-License-Identifier: MIT OR Apache-2.0
//! The first instruction behind which two runs are not the same: both go side by side until they are not, then the last
//! stretch is halved.

use std::thread;
use std::time::Duration;

use super::side::{Arrived, Side};
use crate::qemu::memory;
use crate::recording::replay::difference::Register;
use crate::recording::session::{Error, Listener};

/// Between two moments at which both are compared on the way there.
const STEP: u64 = 1 << 27;

/// What takes time, in words.
const GOING: &str = "looking for the first different instruction";
const HALVING: &str = "halving the last stretch";

/// A machine that is so far from where it goes back to is worth keeping.
const WORTH_KEEPING: u64 = 1 << 23;

/// What a disk reads is in memory soon after the request has begun, and a busy host takes its time: so often it is looked
/// whether a difference goes away, after `PAUSE` times 1, 2, 4 …
const LOOKS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(50);

/// A machine that is stopped where it is interrupted has it behind it or before it, as it happens. Two of these are compared so
/// often, until they are the same.
const TRIES: u32 = 4;

/// Both runs, and where they are the same.
pub(super) struct Search<'a, 's, 'l> {
    /// The one that is as it should be.
    pub(super) reference: Side<'a, 's>,
    /// The other.
    pub(super) other: Side<'a, 's>,
    /// Whether the processor of one of them is interrupted after so many instructions.
    interrupted: Interrupted<'l>,
    pub(super) listener: &'l mut dyn Listener,
    /// The last moment at which both are known to be the same.
    same: Option<u64>,
    /// How their memories differed the last time that they did.
    lasting: Option<memory::Difference>,
}

/// Tells whether a processor is interrupted after so many instructions.
pub(super) type Interrupted<'l> = Box<dyn Fn(u64) -> Result<bool, Error> + 'l>;

/// Where two runs part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// They are the same up to the last moment that was to be looked at.
    Same,
    /// They are not the same where they begin.
    FromTheBeginning,
    /// The reference does not go on: it is not the recorded run.
    NoReference {
        /// After so many instructions, where that is known.
        at: Option<u64>,
        /// What became of it.
        how: String,
    },
    /// They are the same after `instruction - 1` instructions, and not after one more.
    At {
        /// The number of the first different instruction, from 1.
        instruction: u64,
        /// What became of the other run, if it does not get there.
        stuck: Option<String>,
    },
}

/// How two machines at the same instruction compare.
enum Compared {
    Same,
    Differ,
    /// The other one did not get there; the last instruction that it got to, if that is known.
    Stuck(Option<u64>, String),
    /// The reference did not.
    Lost(Option<u64>, String),
}

/// Where two machines came to.
enum Went {
    There,
    /// The other one did not get there.
    Stuck(Option<u64>, String),
    /// The reference did not.
    Lost(Option<u64>, String),
}

/// What differs.
#[derive(Debug)]
pub(super) struct Differences {
    pub(super) registers: Vec<Register>,
    pub(super) memory: Option<memory::Difference>,
}

impl Differences {
    pub(super) fn is_none(&self) -> bool {
        self.registers.is_empty() && self.memory.is_none()
    }
}

impl<'a, 's, 'l> Search<'a, 's, 'l> {
    pub(super) fn new(
        (reference, other): (Side<'a, 's>, Side<'a, 's>),
        interrupted: Interrupted<'l>,
        listener: &'l mut dyn Listener,
    ) -> Self {
        Self {
            reference,
            other,
            interrupted,
            listener,
            same: None,
            lasting: None,
        }
    }

    /// Looks up to `last`, first of all at `first`. If something may happen soon behind it (`near`), the first steps from there are
    /// small: a difference that goes away again is found, too, if it is there at one of them.
    pub(super) fn run(&mut self, first: u64, near: bool, last: u64) -> Result<Found, Error> {
        let mut next = first.max(self.reference.at()).min(last);
        let mut step = if near { 1 } else { STEP };
        self.catch_up(next, last)?;
        let (differ, stuck) = loop {
            self.listener.progress(GOING, next, last);
            match self.compare(next)? {
                Compared::Same if next == last => return Ok(Found::Same),
                Compared::Same => {
                    self.same = Some(next);
                    self.keep()?;
                    next = ((next / step + 1) * step).min(last);
                    step = (step * 2).min(STEP);
                }
                Compared::Differ => break (next, None),
                Compared::Stuck(at, how) => break (behind(at, next), Some(how)),
                Compared::Lost(at, how) => return Ok(Found::NoReference { at, how }),
            }
        };
        match self.same {
            Some(same) => self.halve(same, differ.max(same + 1), stuck),
            None => Ok(Found::FromTheBeginning),
        }
    }

    /// Has the other one come near to `to`, where the reference is already.
    fn catch_up(&mut self, to: u64, last: u64) -> Result<(), Error> {
        let mut next = self.other.at() + STEP;
        while next < to {
            self.listener.progress(GOING, next, last);
            self.other.set_off(next)?;
            if self.other.arrive_surely()? != Arrived::There {
                break;
            }
            next += STEP;
        }
        Ok(())
    }

    /// Both are the same after `same` instructions, and not after `differ`.
    fn halve(&mut self, mut same: u64, mut differ: u64, mut stuck: Option<String>) -> Result<Found, Error> {
        let all = (differ - same).ilog2();
        while differ - same > 1 {
            let left = (differ - same).ilog2();
            self.listener.progress(HALVING, u64::from(all - left), u64::from(all));
            let middle = same + (differ - same) / 2;
            match self.compare(middle)? {
                Compared::Same => {
                    same = middle;
                    self.same = Some(middle);
                    self.keep()?;
                }
                Compared::Differ => (differ, stuck) = (middle, None),
                Compared::Stuck(at, how) => (differ, stuck) = (behind(at, middle).max(same + 1), Some(how)),
                Compared::Lost(at, how) => return Ok(Found::NoReference { at, how }),
            }
        }
        Ok(Found::At {
            instruction: differ,
            stuck,
        })
    }

    /// Brings both to `at`, and says what differs there: nothing if they are to be the `same`. Where they are interrupted, that is
    /// tried more than once.
    pub(super) fn differences(&mut self, at: u64, same: bool) -> Result<Differences, Error> {
        let mut tried = 0;
        loop {
            match self.go(at)? {
                Went::There => {}
                Went::Stuck(_, how) | Went::Lost(_, how) => return Err(Error::EngineDied { why: how }),
            }
            let found = self.settle()?;
            tried += 1;
            if found.is_none() == same || tried == TRIES || !(self.interrupted)(at)? {
                return Ok(found);
            }
            self.turn_back();
        }
    }

    /// Brings both to `at`.
    fn go(&mut self, at: u64) -> Result<Went, Error> {
        // At once: there may be a processor for each.
        self.reference.set_off(at)?;
        self.other.set_off(at)?;
        if let Arrived::Stuck { at, how } = self.reference.arrive_surely()? {
            return Ok(Went::Lost(at, how));
        }
        Ok(match self.other.arrive_surely()? {
            Arrived::There => Went::There,
            Arrived::Stuck { at, how } => Went::Stuck(at, how),
        })
    }

    fn turn_back(&mut self) {
        self.reference.turn_back();
        self.other.turn_back();
    }

    fn compare(&mut self, at: u64) -> Result<Compared, Error> {
        for tried in 1.. {
            match self.go(at)? {
                Went::There => {}
                Went::Stuck(at, how) => return Ok(Compared::Stuck(at, how)),
                Went::Lost(at, how) => return Ok(Compared::Lost(at, how)),
            }
            let found = self.settle()?;
            if found.is_none() {
                return Ok(Compared::Same);
            }
            if found.registers.is_empty() || tried == TRIES || !(self.interrupted)(at)? {
                break;
            }
            self.turn_back();
        }
        Ok(Compared::Differ)
    }

    /// What differs where both stand, when what disks read at last is there.
    fn settle(&mut self) -> Result<Differences, Error> {
        let quiet = self.reference.is_quiet()? && self.other.is_quiet()?;
        let mut pause = PAUSE;
        if !quiet {
            thread::sleep(pause);
        }
        let registers = self.reference.registers(&mut self.other)?;
        let mut memory = self.reference.difference(&self.other)?;
        // Nobody tells when it is there: QEMU itself does not look before the log says so.
        for _ in 0..LOOKS {
            // A difference that was there before is none that goes away.
            if quiet || !registers.is_empty() || memory.is_none() || memory == self.lasting {
                break;
            }
            thread::sleep(pause);
            pause *= 2;
            memory = self.reference.difference(&self.other)?;
        }
        self.lasting = memory.or(self.lasting);
        Ok(Differences { registers, memory })
    }

    /// Keeps both, which are the same, if they are far from where they go back to and their disks are quiet.
    fn keep(&mut self) -> Result<(), Error> {
        let far = self.reference.since_kept().max(self.other.since_kept()) >= WORTH_KEEPING;
        if !far || !self.reference.is_quiet()? || !self.other.is_quiet()? {
            return Ok(());
        }
        if !self.reference.save()? {
            return Ok(());
        }
        if !self.other.save()? {
            self.reference.forget()?;
        } else {
            let memory = self.reference.copy()?;
            self.reference.keep(memory.clone())?;
            self.other.keep(memory)?;
        }
        Ok(())
    }
}

/// The first moment that a run does not come to.
fn behind(at: Option<u64>, to: u64) -> u64 {
    at.map_or(to, |at| (at + 1).min(to))
}
