// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why two runs are not the same: the first instruction behind which the guest's memory or its processor is not what it is in
//! the other run.
//!
//! Two machines go side by side. One is the reference: the recorded run, from a checkpoint where there is one. The other is the
//! replay that was another run, or another recording. Where both stand still after the same number of instructions, their
//! memories and registers are compared byte by byte; the last stretch is halved until it is one instruction.

mod request;
mod search;
mod side;

use std::fmt;
use std::path::Path;

use nix::sys::signalfd::SignalFd;
use replay_log::{Event, Kind, Reader};
use request::Request;
use search::{Found, Search};
use side::{Run, Side};

use super::checkpoints::Checkpoints;
use super::difference;
use super::log::{self, End};
use super::moment::Moment;
use super::replay::{Choice, open_log};
use super::session::{Environment, Error, Listener, devices, require_memory};
use super::trail::Trail;
use super::verdict::grouped;
use super::{Divergence, Recording, live, point};
use crate::config::guest::Guest;
use crate::config::types::Size;
use crate::fail_point::Flip;
use crate::qemu::engine::{self, Engine};
use crate::qemu::registers::Registers;

/// Memories at once: two machines, and what each goes back to.
const MEMORIES: u64 = 4;

/// What a search came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Explanation {
    /// The first different instruction was found.
    First(Box<First>),
    /// They are not the same before any instruction; what differs, in words.
    FromTheBeginning(Vec<String>),
    /// They are the same up to here.
    Same {
        /// So many instructions.
        instructions: u64,
    },
    /// A replay was the recorded run up to where the other one was not.
    NotAgain {
        /// So many instructions.
        instructions: u64,
    },
    /// Every replay goes the same way, and it is not that of the recording.
    EachTime {
        /// Not any more after so many instructions.
        instructions: u64,
    },
}

/// The first different instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct First {
    /// Its number, from 1: before it both runs are the same, behind it they are not.
    pub number: u64,
    /// Its address, as the processor reads it.
    pub address: u64,
    /// What it is, in the words of QEMU's disassembler.
    pub text: String,
    /// What differs behind it, in words: registers, and the first byte of the memory.
    pub differences: Vec<String>,
    /// What became of the other run, if it did not get behind it.
    pub stuck: Option<String>,
    /// What disks were asked for with it, in words.
    pub requests: Vec<String>,
    /// What came in next by the log of the reference, in words, and after how many instructions.
    pub event: Option<(String, u64)>,
    /// After how many instructions the console showed it.
    pub shown: Option<u64>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First(first) => first.fmt(f),
            Self::FromTheBeginning(differences) => {
                f.write_str("both differ before the first instruction")?;
                differences.iter().try_for_each(|line| write!(f, "\n{line}"))
            }
            Self::Same { instructions } => {
                write!(
                    f,
                    "memory and registers are the same up to instruction {}",
                    grouped(*instructions)
                )
            }
            Self::NotAgain { instructions } => write!(
                f,
                "the difference did not come again: another replay had the recorded memory and registers after {} instructions. Look at the host's memory and disks (`journalctl -k`)",
                grouped(*instructions)
            ),
            Self::EachTime { instructions } => write!(
                f,
                "each replay on this host goes the same way, which is not that of the recording after {} instructions: replay it on the QEMU that recorded it",
                grouped(*instructions)
            ),
        }
    }
}

impl fmt::Display for First {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the first different instruction is number {}, at {:#x}: {}",
            grouped(self.number),
            self.address,
            self.text
        )?;
        if let Some(stuck) = &self.stuck {
            write!(f, "\nthe other run does not get behind it: {stuck}")?;
        }
        for line in &self.differences {
            write!(f, "\nbehind it, {line}")?;
        }
        for request in &self.requests {
            write!(f, "\nwith it, {request}")?;
        }
        if let Some((event, at)) = &self.event {
            write!(
                f,
                "\nthe log's next event: {event}, after {} instructions",
                grouped(*at)
            )?;
        }
        if let Some(shown) = self.shown {
            let later = grouped(shown.saturating_sub(self.number));
            write!(f, "\nthe console shows it {later} instructions later")?;
        }
        Ok(())
    }
}

/// Finds out where a replay of `recording` that came to `divergence` left it, with two further ones. `guest` is the guest's file as
/// it is now, if there still is one; `choice` is what ran the replay.
///
/// # Errors
///
/// If the recording cannot be replayed to be compared, or somebody asked to end.
pub fn replay(
    recording: &Recording,
    guest: Option<&Guest>,
    environment: &Environment<'_>,
    choice: Choice,
    divergence: &Divergence,
    listener: &mut dyn Listener,
) -> Result<Explanation, Error> {
    let _use = recording.use_shared()?;
    let end = prepare(&[recording], listener)?[0];
    let engine = choice.engine(recording, listener)?;
    let signals = live::signals()?;
    let (same, noticed) = noticed(divergence);
    let last = noticed.unwrap_or(u64::MAX).min(end.last_stop());
    let checkpoints = Checkpoints::load(recording.directory()).ok().flatten();
    let from = checkpoints
        .as_ref()
        .and_then(|all| Some((all, all.before(same.unwrap_or(0))?)));
    let flip = Flip::wanted();
    let run = |from, flip| Run {
        recording,
        engine: &engine,
        guest,
        end,
        from,
        flip,
    };
    let places = Places::below(environment, recording);
    let mut search = places.search(&run(from, None), &run(None, flip), environment, &signals, listener)?;
    let mut found = search.run(0, false, last)?;
    if found == Found::FromTheBeginning && from.is_some() {
        drop(search);
        // What differs may be older than what was noticed: a disk's content, before it was read.
        search = places.search(&run(None, None), &run(None, flip), environment, &signals, listener)?;
        found = search.run(0, false, last)?;
    }
    match found {
        Found::Same => again(&mut search, recording, last),
        found => describe(&mut search, found, recording, Some(divergence)),
    }
}

/// Finds the first instruction that two recordings of guests with the same memory do not have in common.
///
/// # Errors
///
/// If one of them cannot be replayed to be compared, or somebody asked to end.
pub fn compare(
    runs: [(&Recording, Option<&Guest>); 2],
    environment: &Environment<'_>,
    listener: &mut dyn Listener,
) -> Result<Explanation, Error> {
    let [(reference, reference_guest), (other, other_guest)] = runs;
    let _use = (reference.use_shared()?, other.use_shared()?);
    let ends = prepare(&[reference, other], listener)?;
    let signals = live::signals()?;
    let last = ends[0].last_stop().min(ends[1].last_stop());
    let part = logs_part(reference, other)?;
    let run = |recording, guest, end| Run {
        recording,
        engine: &Engine::Installed,
        guest,
        end,
        from: None,
        flip: None,
    };
    let (a, b) = (
        run(reference, reference_guest, ends[0]),
        run(other, other_guest, ends[1]),
    );
    let mut search = Places::below(environment, reference).search(&a, &b, environment, &signals, listener)?;
    // Before their logs differ, something of the machine may.
    let mut found = search.run(0, false, part.unwrap_or(last).min(last))?;
    if let (Found::Same, Some(part)) = (&found, part) {
        found = search.run(part, true, last)?;
    }
    describe(&mut search, found, reference, None)
}

/// Whether two recordings have the same end, by what they say of it: the last instruction, why, the console and the disks.
pub fn end_alike(a: &Recording, b: &Recording) -> bool {
    let end = |it: &Recording| {
        let manifest = it.manifest();
        let disks: Vec<_> = manifest.disks.iter().map(|disk| disk.end).collect();
        let result = manifest.result.as_ref();
        (result.map(|it| (it.instructions, it.exit, it.console.digest)), disks)
    };
    end(a) == end(b)
}

/// Makes sure that `recordings` can be run side by side, and returns where their logs end.
fn prepare(recordings: &[&Recording], listener: &mut dyn Listener) -> Result<Vec<End>, Error> {
    for recording in recordings {
        let why = match recording.manifest().format {
            1 => Some("it has format 1, of which no machine can go back: record the guest again"),
            _ if recording
                .kernel_path()
                .is_some_and(|kernel| engine::is_multiboot(&kernel)) =>
            {
                Some("its kernel is loaded by its Multiboot header, and its memory is never the same twice")
            }
            _ => None,
        };
        if let Some(why) = why {
            return Err(Error::NotExplained(why));
        }
    }
    let memories: Vec<u64> = recordings.iter().map(|it| it.manifest().engine.memory).collect();
    if memories.windows(2).any(|two| two[0] != two[1]) {
        return Err(Error::NotExplained("the two machines have memory of different sizes"));
    }
    let all = memories[0].saturating_mul(MEMORIES);
    require_memory(Size::from_bytes(all))?;
    recordings.iter().map(|it| log::check(it, listener)).collect()
}

/// When both runs were last known to be the same, and when that they are not was noticed.
fn noticed(divergence: &Divergence) -> (Option<u64>, Option<u64>) {
    match divergence {
        Divergence::Memory { instructions, same, .. } => (*same, Some(*instructions)),
        Divergence::Console { instructions, .. } => (None, *instructions),
        // It does not get to the next one.
        Divergence::Stalled { instructions } => (None, instructions.map(|at| at + 1)),
        Divergence::Instructions { found, .. } => (None, Some(*found)),
        Divergence::Disk { .. } | Divergence::Exit { .. } => (None, None),
    }
}

/// Where the files of both are.
struct Places([std::path::PathBuf; 2]);

impl Places {
    fn below(environment: &Environment<'_>, recording: &Recording) -> Self {
        let place = |which: &str| environment.overlays.join(format!("{}-{which}", recording.guest()));
        Self([place("reference"), place("other")])
    }

    fn search<'a, 's, 'l>(
        &self,
        reference: &Run<'l>,
        other: &Run<'l>,
        environment: &Environment<'a>,
        signals: &'s SignalFd,
        listener: &'l mut dyn Listener,
    ) -> Result<Search<'a, 's, 'l>, Error> {
        let side = |run: &Run<'_>, place: &Path| Side::new(run, environment, place.to_owned(), signals);
        let sides = (side(reference, &self.0[0])?, side(other, &self.0[1])?);
        let recordings = [reference.recording, other.recording];
        let interrupted = move |at| {
            let mut found = false;
            for recording in recordings {
                each_event(recording, |event| {
                    found |= event.instructions == at && event.kind == Kind::Interrupt;
                    event.instructions <= at
                })?;
            }
            Ok(found)
        };
        Ok(Search::new(sides, Box::new(interrupted), listener))
    }
}

/// Both replays are the same after `last` instructions: whether it is as in the recording is told by the next moment that is known of
/// it.
fn again(search: &mut Search<'_, '_, '_>, recording: &Recording, last: u64) -> Result<Explanation, Error> {
    let recorded = recording
        .manifest()
        .result
        .as_ref()
        .map(|result| result.moments.as_slice());
    let trail = Trail::load(recording.directory()).unwrap_or_default();
    // A replay's own are surer: see `Stops`.
    let known = [trail.moments(), recorded.unwrap_or_default()]
        .into_iter()
        .find_map(|moments| {
            let later = moments.iter().filter(|moment| moment.instructions >= last);
            later.min_by_key(|moment| moment.instructions)
        });
    let Some(known) = known else {
        return Ok(Explanation::Same { instructions: last });
    };
    let instructions = known.instructions;
    search.differences(instructions)?;
    let (qmp, memory) = search.reference.parts();
    Ok(match Moment::of(instructions, qmp, memory)? == *known {
        true => Explanation::NotAgain { instructions },
        false => Explanation::EachTime { instructions },
    })
}

/// What is known of where both part.
fn describe(
    search: &mut Search<'_, '_, '_>,
    found: Found,
    recording: &Recording,
    divergence: Option<&Divergence>,
) -> Result<Explanation, Error> {
    let (number, stuck) = match found {
        Found::Same => {
            let instructions = search.reference.at();
            return Ok(Explanation::Same { instructions });
        }
        Found::FromTheBeginning => {
            let found = search.differences(search.reference.at())?;
            let lines = difference::lines(&found.registers, found.memory.as_ref());
            return Ok(Explanation::FromTheBeginning(lines));
        }
        Found::At { instruction, stuck } => (instruction, stuck),
    };
    let before = number - 1;
    require(search.differences(before)?.is_none())?;
    let (address, text) = next_instruction(&mut search.reference)?;
    let (begun, _) = request::newest(&mut search.reference)?;
    let mut differences = Vec::new();
    if stuck.is_none() {
        let found = search.differences(number)?;
        require(!found.is_none())?;
        differences = difference::lines(&found.registers, found.memory.as_ref());
    }
    Ok(Explanation::First(Box::new(First {
        number,
        address,
        text,
        differences,
        requests: match stuck {
            None => requests(search, &begun, recording)?,
            Some(_) => Vec::new(),
        },
        stuck,
        event: next_event(recording, before)?,
        shown: divergence.and_then(|it| shown(recording, it)),
    })))
}

/// That what was found is found again.
fn require(again: bool) -> Result<(), Error> {
    let why = "the two machines were not the same at one look, and were at the next";
    again.then_some(()).ok_or(Error::NotExplained(why))
}

/// Where the processor is, and what it does next.
fn next_instruction(side: &mut Side<'_, '_>) -> Result<(u64, String), Error> {
    let text = side.qmp().registers()?;
    let registers = Registers::parse(&text).ok_or(crate::qemu::qmp::Error::Strange(text))?;
    let address = registers.cs.base.wrapping_add(registers.rip);
    Ok((address, side.qmp().instruction(address)?))
}

/// What disks of the reference are asked for since they had `begun` these.
fn requests(search: &mut Search<'_, '_, '_>, begun: &[Request], recording: &Recording) -> Result<Vec<String>, Error> {
    let (now, in_flight) = request::newest(&mut search.reference)?;
    let mut done = 0;
    each_event(recording, |event| {
        done += u64::from(matches!(event.kind, Kind::DiskDone(_)) && event.instructions < search.reference.at());
        event.instructions <= search.reference.at()
    })?;
    let new = now.iter().filter(|request| !begun.contains(request));
    Ok(new
        .map(|request| format!("{request} (request {})", (done + in_flight).saturating_sub(1)))
        .collect())
}

/// What comes in after `instructions`, and when.
fn next_event(recording: &Recording, instructions: u64) -> Result<Option<(String, u64)>, Error> {
    let mut found = None;
    each_event(recording, |event| {
        if event.instructions >= instructions {
            found = in_words(&event.kind).map(|text| (text, event.instructions));
        }
        found.is_none()
    })?;
    Ok(found)
}

/// An event that changes the guest.
fn in_words(kind: &Kind) -> Option<String> {
    Some(match kind {
        Kind::Interrupt => "an interrupt".to_owned(),
        Kind::Exception => "an exception".to_owned(),
        Kind::Typed(text) => format!("{} bytes typed on the console", text.len()),
        Kind::DiskDone(number) => format!("disk request {number} is done"),
        Kind::Packet { network, frame } => format!("a packet of {} bytes for network interface {network}", frame.len()),
        Kind::Shutdown(_) => "the machine shuts down".to_owned(),
        _ => return None,
    })
}

/// Hands on the events of a recording, until no more are wanted.
fn each_event(recording: &Recording, mut wants: impl FnMut(&Event) -> bool) -> Result<(), Error> {
    let mut events = Reader::new(open_log(recording)?, devices(recording.manifest())).map_err(Error::Unlike)?;
    while let Some(event) = events.next().map_err(Error::Unlike)? {
        if !wants(&event) {
            break;
        }
    }
    Ok(())
}

/// After how many instructions the logs of two recordings are not the same.
fn logs_part(a: &Recording, b: &Recording) -> Result<Option<u64>, Error> {
    let open = |it: &Recording| Reader::new(open_log(it)?, devices(it.manifest())).map_err(Error::Unlike);
    let (mut a, mut b) = (open(a)?, open(b)?);
    let mut last = 0;
    loop {
        let (x, y) = (a.next().map_err(Error::Unlike)?, b.next().map_err(Error::Unlike)?);
        match (x, y) {
            (Some(x), Some(y)) if x == y => last = x.instructions,
            (None, None) => return Ok(None),
            // An event of instructions ends with them, and may be longer in one of them.
            _ => return Ok(Some(last)),
        }
    }
}

/// When the console of the recorded run had the first byte that the other does not have.
fn shown(recording: &Recording, divergence: &Divergence) -> Option<u64> {
    let Divergence::Console { byte, .. } = divergence else {
        return None;
    };
    point::written_at(open_log(recording).ok()?, devices(recording.manifest()), *byte).ok()
}
