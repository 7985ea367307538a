// SPDX-License-Identifier: MIT OR Apache-2.0
//! The moments of a recording that its replays are compared at: those that the recording took, and the trail that its first
//! replay left.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::moment::Moment;
use crate::file;
use crate::qemu::memory::Memory;
use crate::qemu::qmp::Qmp;
use crate::recording::Recording;
use crate::recording::session::Error;

/// The file, beside the manifest.
const NAME: &str = "trail.json";

/// Between two moments of a new trail, in instructions: a second of a replay, or less.
const STEP: u64 = 1 << 27;

/// Where a disk is busy, the next try is so many instructions later.
const LATER: u64 = 3000;

/// So often; a disk that is busy for longer is looked at in the next step.
const TRIES: u32 = 1000;

/// What a first replay left.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(in crate::recording) struct Trail {
    moments: Vec<Moment>,
}

impl Trail {
    /// Of the recording in `directory`; `None` if it has none, or none that can be read: then it gets another one.
    pub(in crate::recording) fn load(directory: &Path) -> Option<Self> {
        let text = fs::read(directory.join(NAME)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// In the order of the run.
    pub(in crate::recording) fn moments(&self) -> &[Moment] {
        &self.moments
    }

    /// Leaves it there.
    pub(in crate::recording) fn save(&self, directory: &Path) -> std::io::Result<()> {
        file::replace(&directory.join(NAME), &serde_json::to_vec(self)?, 0o600)
    }
}

impl Recording {
    /// After how many instructions its replays are compared with it, in memory and registers.
    pub fn compared_at(&self) -> BTreeSet<u64> {
        let recorded = self.manifest().result.iter().flat_map(|result| &result.moments);
        let trail = Trail::load(self.directory()).unwrap_or_default();
        recorded
            .chain(trail.moments())
            .map(|moment| moment.instructions)
            .collect()
    }
}

/// Where a replay stands still to be compared.
///
/// The moments of the recording itself are a little less sure than those of a replay if the guest has a network: a timer of its
/// card may just have written to memory that a packet was sent, or not yet. There, one memory that differs says nothing, and
/// two in a row do.
#[derive(Debug)]
pub(in crate::recording) struct Stops {
    /// Not yet reached.
    known: BTreeMap<u64, Moment>,
    /// Those of the recording, if the guest has a network.
    doubtful: BTreeSet<u64>,
    /// Whether the last of these had another memory.
    doubt: bool,
    /// Whether one ever had.
    doubted: bool,
    /// The next one of a new trail.
    next: Option<u64>,
    /// How often that was put off.
    tries: u32,
    /// The last one of a new trail.
    last: u64,
    /// The new trail.
    trail: Option<Vec<Moment>>,
    compared: u32,
    /// Whether the memory is, and not the registers alone.
    memory: bool,
    /// The last one at which both were the same.
    same: Option<u64>,
}

/// What a stop came to.
pub(in crate::recording) enum Stop {
    /// It is as it was, or nobody knew how it was; what it is like, if the disks are quiet.
    Same(Option<Moment>),
    /// It is not as it was.
    Differs {
        /// Whether the memory is.
        memory: bool,
        /// Whether the registers are.
        registers: bool,
    },
}

impl Stops {
    /// Of a replay of a run that had these moments, up to `last`; with `trail`, that of an earlier replay, else a new one is made.
    pub(in crate::recording) fn new(
        recorded: &[Moment],
        trail: Option<Trail>,
        network: bool,
        from: u64,
        last: u64,
    ) -> Self {
        let new = trail.is_none() && from == 0;
        let mut known: BTreeMap<u64, Moment> = BTreeMap::new();
        let moments = recorded.iter().cloned().chain(trail.unwrap_or_default().moments);
        known.extend(
            moments
                .filter(|moment| from < moment.instructions && moment.instructions <= last)
                .map(|moment| (moment.instructions, moment)),
        );
        let doubtful = recorded.iter().filter(|_| network).map(|moment| moment.instructions);
        Self {
            known,
            doubtful: doubtful.collect(),
            doubt: false,
            doubted: false,
            next: new.then_some(STEP.min(last)),
            tries: 0,
            last,
            trail: new.then(Vec::new),
            compared: 0,
            memory: true,
            same: None,
        }
    }

    /// The same without a look at the memory, where it is never the same twice.
    pub(in crate::recording) fn without_memory(mut self) -> Self {
        self.memory = false;
        self
    }

    /// The same of a replay that begins at a checkpoint to which another one is known to have come.
    pub(in crate::recording) fn same_at(mut self, from: u64) -> Self {
        self.same = Some(from);
        self
    }

    /// The next one.
    pub(in crate::recording) fn next(&self) -> Option<u64> {
        let known = self.known.keys().next().copied();
        [known, self.next].into_iter().flatten().min()
    }

    /// At how many the replay was compared.
    pub(in crate::recording) fn compared(&self) -> u32 {
        self.compared
    }

    /// The last one at which both runs were the same.
    pub(in crate::recording) fn same(&self) -> Option<u64> {
        self.same
    }

    /// Whether a memory that differed was taken for nothing.
    pub(in crate::recording) fn doubted(&self) -> bool {
        self.doubted
    }

    /// The new trail, if there was none.
    pub(super) fn into_trail(self) -> Option<Trail> {
        self.trail.map(|moments| Trail { moments })
    }

    /// The machine with `disks` disks stands still after `at` instructions.
    pub(in crate::recording) fn reached(
        &mut self,
        at: u64,
        qmp: &mut Qmp,
        memory: &Memory,
        disks: usize,
    ) -> Result<Stop, Error> {
        let known = self.known.remove(&at);
        let is_new = self.next == Some(at);
        // The last one is compared as it is: a request that has begun there will never end.
        let quiet = qmp.disks_are_quiet(disks)?;
        if known.is_none() && !(is_new && quiet) {
            if is_new {
                self.put_off(at);
            }
            return Ok(Stop::Same(None));
        }
        let moment = Moment::of(at, qmp, memory)?;
        if let Some(known) = known
            && let Some((memory, registers)) = self.compare(&known, &moment)
        {
            return Ok(Stop::Differs { memory, registers });
        }
        if is_new {
            self.trail.get_or_insert_default().push(moment.clone());
            self.advance(at);
        }
        Ok(Stop::Same(quiet.then_some(moment)))
    }

    /// Whether memory and registers differ where `found` is and `known` was, if that says something.
    fn compare(&mut self, known: &Moment, found: &Moment) -> Option<(bool, bool)> {
        let memory = self.memory && known.memory != found.memory;
        let registers = known.registers != found.registers;
        let is_doubtful = self.doubtful.contains(&known.instructions);
        if memory && !registers && is_doubtful && !self.doubt {
            self.doubt = true;
            self.doubted = true;
            return None;
        }
        if memory || registers {
            return Some((memory, registers));
        }
        self.doubt = self.doubt && !is_doubtful;
        self.compared += 1;
        self.same = Some(known.instructions);
        None
    }

    /// A disk is busy at the next one.
    fn put_off(&mut self, at: u64) {
        self.tries += 1;
        match self.tries < TRIES && at + LATER < self.last {
            true => self.next = Some(at + LATER),
            false => self.advance(at),
        }
    }

    fn advance(&mut self, at: u64) {
        self.tries = 0;
        self.next = (at < self.last).then(|| ((at / STEP + 1) * STEP).min(self.last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::digest;

    fn moment(instructions: u64) -> Moment {
        Moment {
            instructions,
            memory: digest::of_bytes(b"memory"),
            registers: digest::of_bytes(b"registers"),
        }
    }

    #[test]
    fn of_a_first_replay() {
        let mut stops = Stops::new(&[moment(5), moment(3 * STEP)], None, false, 0, 2 * STEP + 9);
        assert_eq!(stops.next(), Some(5), "that of the recording");
        stops.known.remove(&5);
        assert_eq!(stops.next(), Some(STEP));
        stops.put_off(STEP);
        assert_eq!(stops.next(), Some(STEP + LATER));
        stops.advance(STEP + LATER);
        assert_eq!(stops.next(), Some(2 * STEP));
        stops.put_off(2 * STEP);
        assert_eq!(stops.next(), Some(2 * STEP + 9), "the last but one");
        stops.advance(2 * STEP + 9);
        assert_eq!(stops.next(), None, "what is behind the end is none");
        // A disk that is never quiet does not keep the replay.
        let mut stops = Stops::new(&[], None, false, 0, 10 * STEP);
        for _ in 0..TRIES {
            stops.put_off(stops.next().expect("a stop"));
        }
        assert_eq!(stops.next(), Some(2 * STEP));
        // A run of no length.
        assert_eq!(Stops::new(&[], None, false, 0, 0).next(), Some(0));
    }

    #[test]
    fn one_doubt_is_no_difference() {
        let other = |instructions, memory: &[u8], registers: &[u8]| Moment {
            instructions,
            memory: digest::of_bytes(memory),
            registers: digest::of_bytes(registers),
        };
        let stops = |network| Stops::new(&[moment(1), moment(2), moment(3)], None, network, 0, 90);
        let differs = |found: Option<(bool, bool)>| found.is_some_and(|(memory, _)| memory);
        let found = |at| other(at, b"sent", b"registers");
        assert!(
            differs(stops(false).compare(&moment(1), &found(1))),
            "without a network"
        );
        let mut one = stops(true);
        assert!(one.compare(&moment(1), &found(1)).is_none() && one.compare(&moment(2), &moment(2)).is_none());
        assert!(one.compare(&moment(3), &found(3)).is_none());
        assert_eq!(one.compared(), 1);
        let mut two = stops(true);
        assert!(two.compare(&moment(1), &found(1)).is_none() && differs(two.compare(&moment(2), &found(2))));
        assert!(
            differs(stops(true).compare(&moment(1), &other(1, b"sent", b"others"))),
            "no timer does this"
        );
        // Of a replay.
        assert!(differs(stops(true).compare(&moment(50), &found(50))));
    }

    #[test]
    fn of_a_later_one() {
        let trail = Trail {
            moments: vec![moment(7), moment(90)],
        };
        let mut stops = Stops::new(&[moment(50)], Some(trail), false, 10, 90);
        let mut at = Vec::new();
        while let Some(next) = stops.next() {
            stops.known.remove(&next);
            at.push(next);
        }
        assert_eq!(at, [50, 90], "what is before it began is not compared");
        assert!(stops.into_trail().is_none());
    }
}
