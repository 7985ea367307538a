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

use super::checkpoints::{Checkpoint, Checkpoints};
use super::log::point;
use super::replay::moment::Moment;
use super::replay::trail::Trail;
use super::replay::verdict::grouped;
use super::replay::{Checked, Choice, check, difference, open_log};
use super::session::disks::COMPARED;
use super::session::{Environment, Error, Listener, devices, live, reading, require_memory};
use super::{Divergence, Error as LibraryError, Recording};
use crate::base::fail_point::Flip;
use crate::config::guest::Guest;
use crate::config::types::Size;
use crate::qemu::engine::{self, Engine};
use crate::qemu::registers::Registers;
use nix::sys::signalfd::SignalFd;
use replay_log::{Event, Kind, Reader};
use request::Request;
use search::{Found, Search};
use side::{Run, Side};

/// Memories at once: two machines, and what each goes back to.
const MEMORIES: u64 = 4;

/// What a search came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Explanation {
    /// The first different instruction was found.
    First(Box<First>),
    /// They are not the same before any instruction; what differs, in words.
    FromTheBeginning(Vec<String>),
    /// Two recordings are the same up to the last instruction that both have.
    Same {
        /// So many instructions.
        instructions: u64,
        /// What they do not have in common of their ends, in words.
        ends: Vec<String>,
    },
    /// A replay was the recorded run where the one before it was not.
    NotAgain {
        /// After so many instructions.
        instructions: u64,
    },
    /// Replays were the same up to there, and what the one before them did otherwise is not in their memory.
    Unseen {
        /// After so many instructions.
        instructions: u64,
    },
    /// Every replay goes the same way, and it is not that of the recording.
    EachTime {
        /// Not any more after so many instructions, where that is known.
        instructions: Option<u64>,
        /// What differs at the first checkpoint from there on, in words.
        differences: Vec<String>,
    },
}

impl Explanation {
    /// Whether it is that two runs are the same.
    pub fn is_same(&self) -> bool {
        matches!(self, Self::Same { ends, .. } if ends.is_empty())
    }

    /// Whether it leaves open why two runs differ: no difference was found.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Same { .. } | Self::NotAgain { .. } | Self::Unseen { .. })
    }
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
            Self::Same { instructions, ends } => {
                write!(
                    f,
                    "memory and registers are the same up to instruction {}",
                    grouped(*instructions)
                )?;
                ends.iter().try_for_each(|line| write!(f, "\n{line}"))
            }
            Self::NotAgain { instructions } => write!(
                f,
                "the difference did not come again: another replay went the recorded way after {} instructions. Look at the host's memory and disks (`journalctl -k`)",
                grouped(*instructions)
            ),
            Self::Unseen { instructions } => write!(
                f,
                "two further replays had the same memory and registers after {} instructions: what differs came behind them, or the guest never read it",
                grouped(*instructions)
            ),
            Self::EachTime {
                instructions,
                differences,
            } => {
                f.write_str("each replay on this host goes the same way, and it is not that of the recording")?;
                if let Some(instructions) = instructions {
                    write!(f, " after {} instructions", grouped(*instructions))?;
                }
                f.write_str(
                    ": where the engine that recorded it came along, `ttvm replay --engine capsule` runs it there",
                )?;
                differences.iter().try_for_each(|line| write!(f, "\n{line}"))
            }
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
    require_explicable(recording)?;
    let _use = recording.use_shared()?;
    require_room(recording)?;
    let checked = check(recording, guest, &environment.seals, choice, listener)?;
    let own = own_engine(recording, listener)?;
    let signals = live::signals()?;
    let (same, noticed) = noticed(divergence);
    let question = Question {
        recording,
        guest,
        environment,
        checked: &checked,
        own: &own,
        divergence,
        last: noticed.unwrap_or(u64::MAX).min(checked.end().last_stop()),
        signals: &signals,
    };
    // What is kept of another engine's machine, this one may not take.
    let usable = own == *checked.engine() && choice != Choice::Any;
    let checkpoints = usable.then(|| Checkpoints::load(recording.directory()));
    if let Some(Ok(Some(all))) = &checkpoints
        && let Some(from) = all.before(same.unwrap_or(0))
    {
        match question.answer(Some((all, from)), listener) {
            // It is older than what was noticed: a disk's content, before it was read.
            Ok(Explanation::FromTheBeginning(_)) => {}
            Err(error @ (Error::Checkpoints { .. } | Error::Qmp(_))) => {
                tracing::warn!(
                    "it begins at the first instruction: {}",
                    crate::base::error::one_line(&error)
                );
            }
            answer => return answer,
        }
    }
    question.answer(None, listener)
}

/// The engine that made the recorded run, if it came along; else the one that is installed has to do.
fn own_engine(recording: &Recording, listener: &mut dyn Listener) -> Result<Engine, Error> {
    match recording.capsule_to_run(&mut reading("reading the engine", listener)) {
        Ok(capsule) => Ok(Engine::Capsule(capsule)),
        Err(LibraryError::Interrupted) => Err(Error::Interrupted),
        Err(_) => Ok(Engine::Installed),
    }
}

/// Where a replay left the recorded run.
struct Question<'a> {
    recording: &'a Recording,
    guest: Option<&'a Guest>,
    environment: &'a Environment<'a>,
    checked: &'a Checked,
    own: &'a Engine,
    divergence: &'a Divergence,
    /// After so many instructions it is looked for no more.
    last: u64,
    signals: &'a SignalFd,
}

impl Question<'_> {
    /// With a reference that begins at the checkpoint `from`, or at the first instruction.
    fn answer(
        &self,
        from: Option<(&Checkpoints, &Checkpoint)>,
        listener: &mut dyn Listener,
    ) -> Result<Explanation, Error> {
        let run = |engine, from, flip| Run {
            recording: self.recording,
            engine,
            guest: self.guest,
            end: self.checked.end(),
            from,
            flip,
        };
        let reference = run(self.own, from, None);
        let other = run(self.checked.engine(), None, Flip::wanted());
        let places = Places::below(self.environment, self.recording);
        let mut search = places.search(&reference, &other, self.environment, self.signals, listener)?;
        let found = search.run(0, false, self.last)?;
        conclude(&mut search, found, self.recording, self.divergence, self.last)
    }
}

/// What to make of what was found of a replay that came to `divergence`.
fn conclude(
    search: &mut Search<'_, '_, '_>,
    found: Found,
    recording: &Recording,
    divergence: &Divergence,
    last: u64,
) -> Result<Explanation, Error> {
    match (found, divergence) {
        (Found::NoReference { at, .. }, _) => Ok(Explanation::EachTime {
            instructions: at,
            differences: Vec::new(),
        }),
        (Found::Same, Divergence::Stalled { .. }) => Ok(Explanation::NotAgain { instructions: last }),
        (Found::Same, Divergence::Memory { .. } | Divergence::Console { .. }) => again(search, recording, last),
        (Found::Same, _) => Ok(Explanation::Unseen { instructions: last }),
        (found, _) => describe(search, found, recording, Some(divergence)),
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
    let [(reference, _), (other, _)] = runs;
    if reference.manifest().engine.memory != other.manifest().engine.memory {
        return Err(Error::NotExplained(
            "the two machines have memory of different sizes".to_owned(),
        ));
    }
    let _use = (reference.use_shared()?, other.use_shared()?);
    let mut checked = Vec::new();
    for (recording, guest) in runs {
        require_explicable(recording)?;
        require_room(recording)?;
        checked.push(check(
            recording,
            guest,
            &environment.seals,
            Choice::Installed,
            listener,
        )?);
    }
    let signals = live::signals()?;
    let sides: Vec<Run<'_>> = runs
        .into_iter()
        .zip(&checked)
        .map(|((recording, guest), checked)| Run {
            recording,
            engine: checked.engine(),
            guest,
            end: checked.end(),
            from: None,
            flip: None,
        })
        .collect();
    let last = checked[0].end().last_stop().min(checked[1].end().last_stop());
    let part = logs_part(reference, other)?;
    let places = Places::below(environment, reference);
    let mut search = places.search(&sides[0], &sides[1], environment, &signals, listener)?;
    // Before their logs differ, something of the machine may.
    let mut found = search.run(0, false, part.unwrap_or(last).min(last))?;
    if let (Found::Same, Some(part)) = (&found, part) {
        found = search.run(part, true, last)?;
    }
    match found {
        Found::Same => Ok(Explanation::Same {
            instructions: last,
            ends: ends(reference, other),
        }),
        Found::NoReference { how, .. } => Err(Error::NotExplained(format!(
            "{} {} is not its own run here ({how}): `ttvm replay --verify` it",
            reference.guest(),
            reference.id()
        ))),
        found => describe(&mut search, found, reference, None),
    }
}

/// What two recordings say otherwise of their ends, in words.
fn ends(a: &Recording, b: &Recording) -> Vec<String> {
    let (a, b) = (a.manifest(), b.manifest());
    let (Some(x), Some(y)) = (&a.result, &b.result) else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    if let (Some(x), Some(y)) = (x.instructions, y.instructions)
        && x != y
    {
        lines.push(format!(
            "one ends after {} instructions, the other after {}",
            grouped(x),
            grouped(y)
        ));
    }
    if x.exit != y.exit {
        lines.push(format!("one ended as \"{}\", the other as \"{}\"", x.exit, y.exit));
    }
    if x.console.digest != y.console.digest {
        lines.push("their consoles are not the same".to_owned());
    }
    let disks = a.disks.iter().zip(&b.disks).filter(|(a, b)| a.end != b.end);
    lines.extend(disks.map(|(disk, _)| format!("what they left on disk {} is not the same", disk.target)));
    lines
}

/// Why the first different instruction of a replay of `recording` cannot be found; `None` if it can.
pub fn obstacle(recording: &Recording) -> Option<&'static str> {
    let kernel = recording.kernel_path();
    match recording.manifest().format {
        1 => Some("its recording has format 1, of which no machine can go back: record the guest again"),
        _ if kernel.is_some_and(|kernel| engine::is_multiboot(&kernel)) => {
            Some("its kernel is loaded by its Multiboot header, and its memory is never the same twice")
        }
        _ => None,
    }
}

fn require_explicable(recording: &Recording) -> Result<(), Error> {
    obstacle(recording).map_or(Ok(()), |why| Err(Error::NotExplained(why.to_owned())))
}

/// `Ok` if the host has the memory for it.
fn require_room(recording: &Recording) -> Result<(), Error> {
    let all = recording.manifest().engine.memory.saturating_mul(MEMORIES);
    require_memory(Size::from_bytes(all)).map_err(|error| match error {
        Error::NoMemory { memory, free } => Error::NotExplained(format!(
            "it takes {memory} of memory, {MEMORIES} times the guest's, and this host has {free} to give: end something"
        )),
        error => error,
    })
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
        Self(COMPARED.map(|which| environment.overlays.join(format!("{}-{which}", recording.guest()))))
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
    let manifest = recording.manifest();
    let recorded = manifest.result.as_ref().map_or(&[][..], |result| &result.moments);
    let trail = Trail::load(recording.directory()).unwrap_or_default();
    let next = |moments: &[Moment]| {
        let later = moments.iter().filter(|moment| moment.instructions >= last);
        later.min_by_key(|moment| moment.instructions).cloned()
    };
    // A replay's own are surer: see `Stops`. What the replay before these differed from is one of them in any case.
    let Some(known) = next(trail.moments()).or_else(|| next(recorded)) else {
        return Ok(Explanation::Unseen { instructions: last });
    };
    let instructions = known.instructions;
    search.differences(instructions, true)?;
    let (qmp, memory) = search.reference.parts();
    if Moment::of(instructions, qmp, memory)? == known {
        return Ok(Explanation::NotAgain { instructions });
    }
    Ok(Explanation::EachTime {
        instructions: Some(instructions),
        // They may not come so far. Then that is not known.
        differences: at_a_checkpoint(search, recording, instructions).unwrap_or_default(),
    })
}

/// What differs from the recording at its first checkpoint from `instructions` on, in words.
fn at_a_checkpoint(
    search: &mut Search<'_, '_, '_>,
    recording: &Recording,
    instructions: u64,
) -> Result<Vec<String>, Error> {
    let Some(checkpoints) = Checkpoints::load(recording.directory())? else {
        return Ok(Vec::new());
    };
    let mut at = checkpoints
        .all()
        .iter()
        .map(|checkpoint| checkpoint.moment.instructions);
    let Some(at) = at.find(|at| *at >= instructions) else {
        return Ok(Vec::new());
    };
    search.differences(at, true)?;
    let (qmp, memory) = search.reference.parts();
    checkpoints.differences(at, memory, &qmp.registers()?)
}

/// What is known of where both part.
fn describe(
    search: &mut Search<'_, '_, '_>,
    found: Found,
    recording: &Recording,
    divergence: Option<&Divergence>,
) -> Result<Explanation, Error> {
    let Found::At {
        instruction: number,
        stuck,
    } = found
    else {
        let found = search.differences(search.reference.at(), false)?;
        let lines = difference::lines(&found.registers, found.memory.as_ref());
        return Ok(Explanation::FromTheBeginning(lines));
    };
    let before = number - 1;
    if !search.differences(before, true)?.is_none() {
        let why = "the two machines were the same after the instruction before it, and then were not: look once more";
        return Err(Error::NotExplained(why.to_owned()));
    }
    let (address, text) = next_instruction(&mut search.reference)?;
    let (begun, _) = request::newest(&mut search.reference)?;
    let mut differences = Vec::new();
    if stuck.is_none() {
        let found = search.differences(number, false)?;
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
    let mut new = now
        .iter()
        .filter(|request| !begun.contains(request))
        .map(ToString::to_string);
    if in_flight > 1 {
        return Ok(new.collect());
    }
    // Numbers are given in the order in which requests begin: it is the one behind all that are done.
    let mut done = 0;
    each_event(recording, |event| {
        let is_past = event.instructions <= search.reference.at();
        done += u64::from(is_past && matches!(event.kind, Kind::DiskDone(_)));
        is_past
    })?;
    Ok(new
        .next()
        .map(|request| format!("{request} (request {done})"))
        .into_iter()
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
        Kind::Typed(text) => format!("what was typed on the console, {} long", text.len()),
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
