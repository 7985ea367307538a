// SPDX-License-Identifier: MIT OR Apache-2.0
//! The proof of a recording on several processors: pieces of its run are replayed at once, each from a checkpoint to another.
//!
//! Where a piece ends, its machine has to be the one that the next piece begins with: memory, registers, what is on the disks, and
//! how much was printed. So all pieces together are the run, and the verdict is that of one replay. Where pieces alone cannot tell what
//! one replay would say, one replay is made.

mod apart;
mod plan;

use std::num::NonZero;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;

use super::checkpoints::{Checkpoint, Checkpoints};
use super::library::manifest::Outcome;
use super::log::Log;
use super::replay::rerun::{Came, Next, Rerun, Visit};
use super::replay::setup::{Fresh, Setup};
use super::replay::start::Start;
use super::replay::trail::{Stops, Trail};
use super::replay::{self, Checked, Choice, Options};
use super::session::disks::{Disks, PIECES};
use super::session::scratch::Scratch;
use super::session::{Environment, Error, Listener, live, require_memory};
use super::{Divergence, Recording, Verdict};
use crate::base::fail_point::Flip;
use crate::config::guest::Guest;
use crate::config::types::Size;
use crate::qemu::machine::Backing;
use crate::qemu::memory::Memory;
use crate::qemu::qmp::Qmp;
use crate::qemu::{content, engine};
pub use apart::{Part, Range, cuts, replay_part, together};
use plan::{Plan, Step};
use serde::{Deserialize, Serialize};

/// Proves that a replay of `recording` is the same run, with so many machines at once as `jobs` says; without, with as many as there are
/// processors, and memory for. `guest` is the guest's file as it is now, if there still is one.
///
/// # Errors
///
/// If a replay would not be one, if the host has not the memory for so many, or if one of the machines fails: then there is no verdict.
pub fn verify(
    recording: &Recording,
    guest: Option<&Guest>,
    environment: &Environment<'_>,
    jobs: Option<NonZero<usize>>,
    listener: &mut dyn Listener,
) -> Result<Verdict, Error> {
    match in_pieces(recording, guest, environment, jobs, listener)? {
        Ok(verdict) => return Ok(verdict),
        Err(Whole::Alone) => {}
        Err(Whole::Because(why)) => tracing::warn!(ttvm_guest = %recording.guest(), "it is replayed as one: {why}"),
    }
    let options = Options {
        checkpoints: true,
        ..Options::default()
    };
    let verdict = replay::replay(recording, guest, environment, &options, listener)?;
    verdict.ok_or(Error::Interrupted)
}

/// Why it is replayed as one.
enum Whole {
    /// One machine is wanted.
    Alone,
    /// Pieces cannot tell, for this reason.
    Because(String),
}

impl Whole {
    fn because(why: impl Into<String>) -> Self {
        Self::Because(why.into())
    }
}

/// The verdict of pieces, if they can tell.
fn in_pieces(
    recording: &Recording,
    guest: Option<&Guest>,
    environment: &Environment<'_>,
    jobs: Option<NonZero<usize>>,
    listener: &mut dyn Listener,
) -> Result<Result<Verdict, Whole>, Error> {
    let wanted = jobs
        .or_else(|| thread::available_parallelism().ok())
        .map_or(1, NonZero::get);
    if wanted == 1 {
        return Ok(Err(Whole::Alone));
    }
    let _use = recording.use_shared()?;
    let ground = match Ground::of(recording)? {
        Ok(ground) => ground,
        Err(whole) => return Ok(Err(whole)),
    };
    // Before there are more threads, so that they leave these signals to whoever reads them.
    let signals = live::signals()?;
    let checked = replay::check(recording, guest, &environment.seals, Choice::Installed, listener)?;
    let bounds = ground.bounds(checked.end().instructions);
    let most = bounds.len() - 1;
    let memory = Size::from_bytes(recording.manifest().engine.memory);
    let jobs = jobs_with_room(wanted.min(most), jobs.is_some(), memory)?;
    if jobs == 1 {
        let why = match most {
            1 => "none of its checkpoints is where a replay is compared",
            _ => "the host has memory for one machine alone",
        };
        return Ok(Err(Whole::because(why)));
    }
    let plan = Plan::new(bounds, jobs);
    listener.ready(&format!(
        "replaying {} in {} pieces at once",
        recording.id(),
        plan.count()
    ));
    let proof = Proof::new((recording, guest, environment), &checked, &ground, plan, &signals)?;
    let verdict = conclude(proof.end(), proof.run(jobs, listener)?).map_err(Whole::Because);
    if let Ok(verdict) = &verdict {
        replay::note(recording, verdict, &checked.ran_on(), true);
    }
    Ok(verdict)
}

/// What pieces of a recording begin at and are compared with.
struct Ground {
    checkpoints: Checkpoints,
    trail: Trail,
}

impl Ground {
    fn of(recording: &Recording) -> Result<Result<Self, Whole>, Error> {
        let kernel = recording.kernel_path();
        if kernel.is_some_and(|kernel| engine::is_multiboot(&kernel)) {
            let why = "its kernel is loaded by its Multiboot header, and its memory is never the same twice";
            return Ok(Err(Whole::because(why)));
        }
        let (Some(checkpoints), Some(trail)) = (
            Checkpoints::load(recording.directory())?,
            Trail::load(recording.directory()),
        ) else {
            let why = "there are no checkpoints, where pieces begin; if it is the same run, this replay makes them";
            return Ok(Err(Whole::because(why)));
        };
        Ok(Ok(Self { checkpoints, trail }))
    }

    /// Where a run of so many instructions can be cut: its beginning, the checkpoints at which one replay is compared as well, its end.
    fn bounds(&self, end: u64) -> Vec<u64> {
        let starts = self
            .checkpoints
            .all()
            .iter()
            .filter(|it| it.moment.instructions < end && self.trail.moments().contains(&it.moment))
            .map(|it| it.moment.instructions);
        [0].into_iter().chain(starts).chain([end]).collect()
    }
}

/// How many machines with so much memory there are to be: as many as are `wanted`, or if that is not `strict`, as many as there is room for.
fn jobs_with_room(wanted: usize, strict: bool, memory: Size) -> Result<usize, Error> {
    let has_room = |jobs: usize| require_memory(Size::from_bytes(memory.bytes().saturating_mul(jobs as u64)));
    match has_room(wanted) {
        Err(error) if strict => Err(error),
        Err(_) => Ok((2..wanted).rev().find(|jobs| has_room(*jobs).is_ok()).unwrap_or(1)),
        Ok(()) => Ok(wanted),
    }
}

/// What a piece came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Piece {
    /// It was the same, and all that it left was, too.
    Same {
        /// At how many moments it was compared.
        moments: u32,
        /// Whether a memory that differed at one was taken for nothing.
        doubted: bool,
        /// How many disks were compared with what the whole run left there.
        disks: usize,
    },
    /// It was another.
    Differs(Divergence),
    /// What one replay would say is not known, for this reason.
    Unknown(String),
}

/// What those who run pieces say.
enum Message {
    /// A piece is after so many instructions.
    At(usize, u64),
    /// It is over.
    Over(usize, Result<Piece, Error>),
}

/// A recording that is proved.
struct Proof<'a> {
    recording: &'a Recording,
    guest: Option<&'a Guest>,
    environment: &'a Environment<'a>,
    checked: &'a Checked,
    result: &'a Outcome,
    ground: &'a Ground,
    signals: &'a SignalFd,
    scratch: Scratch,
    plan: Mutex<Plan>,
}

impl<'a> Proof<'a> {
    fn new(
        (recording, guest, environment): (&'a Recording, Option<&'a Guest>, &'a Environment<'a>),
        checked: &'a Checked,
        ground: &'a Ground,
        plan: Plan,
        signals: &'a SignalFd,
    ) -> Result<Self, Error> {
        Ok(Self {
            recording,
            guest,
            environment,
            checked,
            result: recording.manifest().result.as_ref().ok_or(Error::Interrupted)?,
            ground,
            signals,
            scratch: Scratch::make(environment.overlays.join(format!("{}-{PIECES}", recording.guest())))?,
            plan: Mutex::new(plan),
        })
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) -> u64 {
        self.checked.end().instructions
    }

    /// Runs all pieces, so many at once. Returns after how many instructions each began, and what it came to.
    fn run(&self, jobs: usize, listener: &mut dyn Listener) -> Result<Vec<(u64, Piece)>, Error> {
        let total = self.plan().length();
        let mut over = Vec::new();
        let mut failed = None;
        thread::scope(|scope| {
            let (sender, messages) = channel();
            for _ in 0..jobs {
                let sender = sender.clone();
                scope.spawn(move || self.work(&sender));
            }
            drop(sender);
            let mut done = Vec::new();
            for message in messages {
                match message {
                    Message::At(number, at) => {
                        let at = at - self.plan().begin(number);
                        done.resize(done.len().max(number + 1), 0);
                        done[number] = at;
                        listener.progress("replaying", done.iter().sum(), total);
                    }
                    Message::Over(number, Ok(piece)) => {
                        if !matches!(piece, Piece::Same { .. }) {
                            self.plan().give_up(Some(number), stop);
                        }
                        over.push((self.plan().begin(number), piece));
                    }
                    Message::Over(number, Err(error)) => {
                        // Others are told to end because of the first.
                        let is_wanted = self.plan().is_wanted(number);
                        if is_wanted {
                            failed.get_or_insert(error);
                            self.plan().give_up(None, stop);
                        }
                    }
                }
            }
        });
        failed.map_or(Ok(over), Err)
    }

    /// Runs pieces until there are none left.
    fn work(&self, sender: &Sender<Message>) {
        loop {
            let Some((number, from)) = self.plan().take(pthread_self()) else {
                return;
            };
            let piece = self.piece(number, from, sender);
            let is_wanted = self.plan().end(number);
            // Nobody reads that any more only if all is over.
            drop(sender.send(Message::Over(number, piece)));
            if !is_wanted {
                return;
            }
        }
    }

    /// Runs a piece that begins after so many instructions.
    fn piece(&self, number: usize, from: u64, sender: &Sender<Message>) -> Result<Piece, Error> {
        let scratch = Scratch::make(self.scratch.path().join(number.to_string()))?;
        let overlays = scratch.path();
        let environment = Environment {
            overlays: overlays.to_owned(),
            ..self.environment.clone()
        };
        let (recording, end) = (self.recording, self.checked.end());
        let manifest = recording.manifest();
        let Setup { disks, machine } = Setup::new(recording, self.guest, &environment, Fresh::OverOrigins)?;
        let log = Log::of(recording, end, overlays)?;
        let memory = Memory::new(machine.memory).map_err(Error::Memory)?;
        let start = match self.checkpoint(from) {
            Some(checkpoint) => {
                let printed = replay::printed_before(recording, from)?;
                let files = (&memory, &disks);
                Some(Start::prepare(
                    recording.guest(),
                    &self.ground.checkpoints,
                    checkpoint,
                    files,
                    overlays,
                    printed,
                )?)
            }
            None => None,
        };
        let mut stops = Stops::new(
            &self.result.moments,
            Some(self.ground.trail.clone()),
            !manifest.vifs.is_empty(),
            from,
            end.last_stop(),
        );
        if start.is_some() {
            stops = stops.same_at(from);
        }
        let mut left = None;
        let mut act = |qmp: &mut Qmp, _: &Memory| {
            let at = qmp.instructions()?;
            Ok(match self.plan().reached(number) {
                Step::End => {
                    left = Some(at);
                    Next::Close
                }
                Step::To(next) => Next::Later(next),
                Step::Last => Next::GoOn,
            })
        };
        let visit = match self.plan().first(number) {
            Step::To(at) => Some(Visit { at, act: &mut act }),
            Step::Last | Step::End => None,
        };
        let mut listener = Worker { number, sender };
        let mut rerun = Rerun {
            recording,
            result: self.result,
            log: log.path(),
            end,
            machine: &machine,
            engine: self.checked.engine(),
            memory: &memory,
            stops,
            stopped: false,
            start: start.as_ref(),
            checkpoints: Some(&self.ground.checkpoints),
            maker: None,
            state: None,
            packets: Vec::new(),
            watching: None,
            visit,
            flip: Flip::wanted().filter(|flip| from < flip.at),
            listener: &mut listener,
        };
        let came = rerun.run(overlays, self.signals)?;
        let (moments, doubted) = (rerun.stops.compared(), rerun.stops.doubted());
        let same = |disks| Piece::Same {
            moments,
            doubted,
            disks,
        };
        match came {
            Came::Differs(at) => Ok(Piece::Differs(at)),
            Came::Same => {
                let contents = replay::left_on(&disks, self.result, &mut listener)?;
                Ok(match replay::disks_verdict(manifest, &contents) {
                    Some(Verdict::Diverged { at }) => Piece::Differs(at),
                    _ => same(contents.len()),
                })
            }
            Came::Left { printed } => {
                let Some(checkpoint) = left.and_then(|at| self.checkpoint(at)) else {
                    return Ok(Piece::Unknown("a piece did not end where another begins".to_owned()));
                };
                Ok(match self.difference(checkpoint, printed, &disks, overlays)? {
                    Some(why) => Piece::Unknown(why),
                    None => same(0),
                })
            }
        }
    }

    fn checkpoint(&self, at: u64) -> Option<&Checkpoint> {
        self.ground
            .checkpoints
            .all()
            .iter()
            .find(|it| it.moment.instructions == at)
    }

    /// How what a piece has left, that came to `next` with the same memory and registers, differs from what the next one begins with, in
    /// words. What one replay would find of that, it would find later.
    fn difference(
        &self,
        next: &Checkpoint,
        printed: u64,
        disks: &Disks<'_>,
        overlays: &std::path::Path,
    ) -> Result<Option<String>, Error> {
        let at = next.moment.instructions;
        // The end of a console log may be lost.
        let expected = replay::printed_before(self.recording, at)?.min(self.result.console.size);
        if printed < expected {
            return Ok(Some(format!(
                "the guest had printed {printed} bytes after {at} instructions, and it had been {expected}"
            )));
        }
        let then = Scratch::make(overlays.join("then"))?;
        for drive in &disks.drives {
            let Backing::Overlay { path, base } = &drive.backing else {
                continue;
            };
            let was: PathBuf = then.path().join(path.file_name().unwrap_or_default());
            self.ground.checkpoints.copy_disk(&was)?;
            content::go_back(&was, &next.name())?;
            if !content::is_same(path, &was, base)? {
                return Ok(Some(format!(
                    "disk {} was another after {at} instructions than at the checkpoint",
                    drive.target
                )));
            }
        }
        Ok(None)
    }
}

/// What all pieces of a run of `end` instructions come to, each with after how many it began; or why they cannot tell what one replay would.
fn conclude(end: u64, mut over: Vec<(u64, Piece)>) -> Result<Verdict, String> {
    over.sort_by_key(|(from, _)| *from);
    let (mut all, mut doubts, mut contents) = (0, 0, 0);
    for (_, piece) in over {
        match piece {
            Piece::Same {
                moments,
                doubted,
                disks,
            } => {
                all += moments;
                doubts += usize::from(doubted);
                contents += disks;
            }
            // One replay is made once more then, too.
            Piece::Differs(at @ Divergence::Stalled { .. }) => return Err(at.to_string()),
            Piece::Differs(at) => return Ok(Verdict::Diverged { at }),
            Piece::Unknown(why) => return Err(why),
        }
    }
    // That two differ one after the other says something, but who knows what was between them?
    if doubts > 1 {
        return Err("the memory was another at moments of the recording in more than one piece".to_owned());
    }
    Ok(Verdict::Identical {
        instructions: Some(end),
        from: None,
        moments: all,
        memory: true,
        disks: contents,
    })
}

/// Has a thread that runs a piece come to an end: a signal that is for it alone, which it takes as one that asks to end.
fn stop(thread: Pthread) {
    // It fails for a thread that has ended, and has nothing left to end.
    let _ = pthread_kill(thread, Signal::SIGTERM);
}

/// Who follows one piece.
struct Worker<'a> {
    number: usize,
    sender: &'a Sender<Message>,
}

impl Listener for Worker<'_> {
    fn console(&mut self, _text: &[u8]) {}

    fn ready(&mut self, _text: &str) {}

    fn progress(&mut self, what: &str, done: u64, _total: u64) {
        // Disks are counted in bytes.
        if what == "replaying" {
            drop(self.sender.send(Message::At(self.number, done)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_there_is_room_for() {
        let jobs = |strict, memory| jobs_with_room(3, strict, memory).ok();
        assert_eq!(jobs(true, Size::mib(1)), Some(3));
        assert_eq!(jobs(true, Size::from_bytes(u64::MAX / 2)), None);
        assert_eq!(jobs(false, Size::from_bytes(u64::MAX / 2)), Some(1));
    }
}
