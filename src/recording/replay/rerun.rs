// SPDX-License-Identifier: MIT OR Apache-2.0
//! A recorded run once more, beside what was recorded of it.

use std::io;
use std::ops::ControlFlow;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;

use super::console::{Comparison, Difference};
use super::moment::Moment;
use super::start::Start;
use super::stillness::{Progress, Stillness, Threads};
use super::trail::{Stop, Stops};
use crate::base::fail_point::Flip;
use crate::qemu::engine::Engine;
use crate::qemu::machine::{Machine, Mode, Replaying, Watching};
use crate::qemu::memory::Memory;
use crate::qemu::process::{Emulator, died};
use crate::qemu::qmp::{self, Event, Qmp};
use crate::recording::checkpoints::{Checkpoints, Maker};
use crate::recording::library::free_space;
use crate::recording::library::manifest::{Outcome, RunExit};
use crate::recording::log::End;
use crate::recording::record::{RESERVE, exit_of};
use crate::recording::session::live::{Happened, Live};
use crate::recording::session::{Error, Listener, require_disks};
use crate::recording::{Divergence, Recording};

/// What QEMU says, and ends, when the log does not have what the guest asks for: `Missing character write event in the replay log`.
const MISSING: &str = "in the replay log";

/// What it prints where the guest's console is, and ends, when the log is over and the guest is not (since 10.0).
const GAVE_UP: &[u8] = b"Bail out! ERROR:replay/";

/// A replay, from the first instruction or a checkpoint on.
pub(in crate::recording) struct Rerun<'a> {
    pub(in crate::recording) recording: &'a Recording,
    pub(in crate::recording) result: &'a Outcome,
    /// Its log, which ends with the run.
    pub(in crate::recording) log: &'a Path,
    /// Where it ends.
    pub(in crate::recording) end: End,
    pub(in crate::recording) machine: &'a Machine,
    /// What runs it.
    pub(in crate::recording) engine: &'a Engine,
    pub(in crate::recording) memory: &'a Memory,
    /// Where it is compared on the way.
    pub(in crate::recording) stops: Stops,
    /// Whether it was stopped so far.
    pub(in crate::recording) stopped: bool,
    /// What it begins with, if that is not the first instruction.
    pub(in crate::recording) start: Option<&'a Start<'a>>,
    /// The machine as it was at some moments.
    pub(in crate::recording) checkpoints: Option<&'a Checkpoints>,
    /// What makes checkpoints on the way.
    pub(in crate::recording) maker: Option<Maker>,
    /// A file for the machine's state, of whoever saves it on the way, where it begins with the first instruction.
    pub(in crate::recording) state: Option<&'a Path>,
    /// New files for the packets of each network interface.
    pub(in crate::recording) packets: Vec<PathBuf>,
    /// What is watched from within QEMU.
    pub(in crate::recording) watching: Option<Watching>,
    /// What is to be done on the way.
    pub(in crate::recording) visit: Option<Visit<'a>>,
    /// What a test does on the way.
    pub(in crate::recording) flip: Option<Flip>,
    pub(in crate::recording) listener: &'a mut dyn Listener,
}

/// What somebody wants of a machine after so many instructions.
pub(in crate::recording) struct Visit<'a> {
    /// How many.
    pub(in crate::recording) at: u64,
    /// What is done with the machine, which stands still.
    pub(in crate::recording) act: &'a mut Act<'a>,
}

/// Does it, and says what is next.
pub(in crate::recording) type Act<'a> = dyn FnMut(&mut Qmp, &Memory) -> Result<Next, Error> + 'a;

/// What is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::recording) enum Next {
    /// The machine goes on.
    GoOn,
    /// It goes on to another visit, after so many instructions.
    Later(u64),
    /// It is left, and what was written to its disks is not wanted.
    Leave,
    /// It is left as one that somebody goes on with: all that was written is on its disks.
    Close,
}

/// What came of a replay.
pub(in crate::recording) enum Came {
    /// It was the same run, as far as this can tell: what is on the disks is not looked at.
    Same,
    /// It was another.
    Differs(Divergence),
    /// It was left on the way, as wanted; so far it was the same run.
    Left {
        /// Bytes that it had printed, as far as the recording knows what was.
        printed: u64,
    },
}

/// What is next for a machine that stands still.
enum Stood {
    /// It goes on.
    On,
    /// It was left after so many instructions.
    Left(u64),
    /// It is not as it was.
    Differs(Divergence),
}

/// How a machine came to its end.
enum Ended {
    /// By itself.
    As(RunExit),
    /// It was left where it was another run.
    Differs(Divergence),
    /// It does not go on, or QEMU has ended: the log does not have what the guest does.
    Stalled,
}

impl Rerun<'_> {
    /// Runs it.
    pub(in crate::recording) fn run(&mut self, overlays: &Path, signals: &SignalFd) -> Result<Came, Error> {
        let console = self.recording.console();
        let unreadable = |source| Error::Read {
            path: console.clone(),
            source: crate::file::digest::Error::Open {
                path: console.clone(),
                source,
            },
        };
        let comparison = Comparison::open(&console).map_err(unreadable)?;
        let mut comparison = comparison.of_all(self.result.console_complete);
        let state = match (&self.start, &self.maker) {
            (Some(start), _) => Some(start.state().to_owned()),
            (None, Some(maker)) => Some(maker.state()),
            (None, None) => self.state.map(Path::to_owned),
        };
        let keeps = state.is_some();
        let is_reader_busy = self.watching.as_ref().map(|it| it.is_reader_busy.clone());
        let is_reader_busy = || is_reader_busy.as_ref().is_some_and(|it| it.0.load(Ordering::Relaxed));
        let mode = Mode::Replay(Replaying {
            log: self.log.to_owned(),
            state,
            debugger: None,
            packets: self.packets.clone(),
            watching: self.watching.take(),
        });
        let emulator = Emulator::start(self.engine, self.machine, &mode, Some(self.memory), overlays)?;
        // Who reads what is watched comes to its end with QEMU: nobody else may have the other one open.
        drop(mode);
        let mut live = Live::new(emulator, signals, None);
        if let Some(start) = &self.start {
            comparison.pass_over(start.printed).map_err(unreadable)?;
            let loaded = start.load(live.emulator.qmp());
            live.told(loaded)?;
        } else if keeps {
            live.emulator.qmp().leave_memory_out(true)?;
        }
        let from = self.start.as_ref().map_or(0, |start| start.instructions());
        if self.visit(&mut live, from)?.is_break() {
            let printed = comparison.same();
            return Ok(Came::Left { printed });
        }
        unless_ended(self.go_on(&mut live))?;
        self.listener.ready(&format!("replaying {}", self.recording.id()));
        let mut progress = Progress::new(Instant::now());
        let (mut differs, mut own) = (None, false);
        let ended = loop {
            match live.next(Some(progress.again))? {
                Happened::Console(text) => {
                    // Who goes to a point sees the console from there.
                    if self.visit.is_none() {
                        self.listener.console(&text);
                    }
                    differs = comparison.feed(&text).map_err(unreadable)?;
                    if differs.is_some() {
                        own = contains(&text, GAVE_UP);
                        break Ended::Stalled;
                    }
                }
                Happened::Event(Event::Shutdown(reason)) => break Ended::As(exit_of(&reason)),
                Happened::Event(Event::Stopped) => match unless_ended(self.stopped(&mut live, overlays))? {
                    Some(Stood::Differs(differs)) => break Ended::Differs(differs),
                    Some(Stood::Left(at)) => {
                        let found = self.rest(&mut live, &mut comparison, &unreadable)?;
                        let printed = comparison.same();
                        return Ok(match found {
                            Some(found) => Came::Differs(divergence(found, Some(at))),
                            None => Came::Left { printed },
                        });
                    }
                    Some(Stood::On) | None => progress.again = Instant::now(),
                },
                Happened::Event(Event::Resumed | Event::Reset) => {}
                Happened::Signal { .. } => return Err(Error::Interrupted),
                Happened::Ended => {
                    let status = live.emulator.wait().map_err(Error::Wait)?;
                    let why = live.emulator.complaint();
                    // QEMU itself says when the log has no answer to what the guest does, and exits then (7.2) or aborts
                    // (since 9.0).
                    let by_itself = status.code().is_some() || status.signal() == Some(Signal::SIGABRT as i32);
                    match by_itself && why.contains(MISSING) {
                        true => break Ended::Stalled,
                        false => return Err(Error::EngineDied { why: died(status, why) }),
                    }
                }
                // Into a pager, for example: QEMU waits for that in the middle of a block, as long as it takes.
                Happened::Timeout if is_reader_busy() => progress.pass_over(Instant::now()),
                Happened::Timeout => {
                    let done = live.emulator.qmp().instructions();
                    let Some(done) = unless_ended(done.map_err(Error::from))? else {
                        continue;
                    };
                    self.listener.progress("replaying", done, self.end.instructions);
                    let threads = Threads::of(live.emulator.id());
                    match progress.look(Instant::now(), done, &threads) {
                        Stillness::No => {}
                        Stillness::OfTheRun => break Ended::Stalled,
                        Stillness::OfTheHost => return Err(Error::HostStoodStill),
                    }
                }
            }
        };
        let instructions = match ended {
            Ended::Stalled => live.emulator.qmp().instructions().ok(),
            _ => Some(live.emulator.qmp().stop()?),
        };
        match ended {
            // What it has written is on the disks only when it has closed them.
            Ended::As(_) => drop(live.emulator.quit()?),
            // It waits for what does not come, and would not end by itself.
            _ => live.emulator.kill(),
        }
        if differs.is_none() {
            differs = self.rest(&mut live, &mut comparison, &unreadable)?;
        }
        if let Some(found) = differs.filter(|_| !own) {
            return Ok(Came::Differs(divergence(found, instructions)));
        }
        let exit = match ended {
            Ended::Stalled => return Ok(Came::Differs(Divergence::Stalled { instructions })),
            Ended::Differs(at) => return Ok(Came::Differs(at)),
            Ended::As(exit) => exit,
        };
        // That the guest reset itself is not in the log, but that QEMU was told to quit then: it tells of one of them.
        let was_reset = (self.result.exit, exit) == (RunExit::Rebooted, RunExit::Stopped);
        // Of a run that was cut off, the log alone says how it ends, and QEMU does what it says.
        if exit != self.result.exit && !was_reset && !self.result.is_cut() {
            return Ok(Came::Differs(Divergence::Exit {
                expected: self.result.exit,
                found: exit.to_string(),
            }));
        }
        if let Some(found) = comparison.finish().map_err(unreadable)? {
            return Ok(Came::Differs(divergence(found, instructions)));
        }
        let expected = self.end.instructions;
        Ok(match instructions.filter(|found| *found != expected) {
            Some(found) => Came::Differs(Divergence::Instructions { expected, found }),
            None => Came::Same,
        })
    }

    /// The machine stands still: at a moment, or because a disk failed.
    fn stopped(&mut self, live: &mut Live<'_, '_>, overlays: &Path) -> Result<Stood, Error> {
        let qmp = live.emulator.qmp();
        require_disks(qmp, &self.machine.drives, overlays)?;
        if !qmp.is_paused()? {
            return Ok(Stood::On);
        }
        self.stopped = true;
        let at = qmp.instructions()?;
        if let Some(flip) = self.flip.take_if(|flip| flip.at == at) {
            self.memory.flip_bit(flip.address).map_err(Error::Memory)?;
        }
        let disks = self.machine.drives.len();
        match self.stops.reached(at, qmp, self.memory, disks)? {
            Stop::Differs { memory, registers } => {
                let differences = self.differences(at, qmp)?;
                return Ok(Stood::Differs(Divergence::Memory {
                    instructions: at,
                    same: self.stops.same(),
                    memory,
                    registers,
                    differences,
                }));
            }
            Stop::Same(Some(moment)) => self.keep(qmp, moment),
            Stop::Same(None) => {}
        }
        if self.visit(live, at)?.is_break() {
            return Ok(Stood::Left(at));
        }
        self.go_on(live)?;
        Ok(Stood::On)
    }

    /// Takes in what a machine that has ended had printed; returns the first difference.
    fn rest(
        &mut self,
        live: &mut Live<'_, '_>,
        comparison: &mut Comparison,
        unreadable: &dyn Fn(io::Error) -> Error,
    ) -> Result<Option<Difference>, Error> {
        loop {
            let text = live.emulator.console().map_err(Error::Wait)?;
            if text.is_empty() {
                return Ok(None);
            }
            self.listener.console(&text);
            let differs = comparison.feed(&text).map_err(unreadable)?;
            if differs.is_some() {
                return Ok(differs);
            }
        }
    }

    /// What is another than it was, as far as there is a checkpoint to compare it with.
    fn differences(&self, at: u64, qmp: &mut Qmp) -> Result<Vec<String>, Error> {
        match self.checkpoints {
            Some(all) => all.differences(at, self.memory, &qmp.registers()?),
            None => Ok(Vec::new()),
        }
    }

    /// Makes a checkpoint, if some are made. What prevents it does not prevent the replay.
    fn keep(&mut self, qmp: &mut Qmp, moment: Moment) {
        let Some(maker) = &mut self.maker else {
            return;
        };
        let room = free_space(self.recording.directory()).is_ok_and(|free| free > RESERVE);
        let kept = match room {
            true => maker.add(qmp, self.memory, moment),
            false => Ok(false),
        };
        match kept {
            Ok(true) => {}
            // Those that there are will do.
            Ok(false) => maker.enough(),
            Err(error) => {
                tracing::warn!("no checkpoints are made: {}", crate::base::error::one_line(&error));
                self.maker = None;
            }
        }
    }

    /// Does what is to be done after `at` instructions. Where the machine is left, it has ended.
    fn visit(&mut self, live: &mut Live<'_, '_>, at: u64) -> Result<ControlFlow<()>, Error> {
        let Some(visit) = self.visit.take_if(|visit| visit.at == at) else {
            return Ok(ControlFlow::Continue(()));
        };
        match (visit.act)(live.emulator.qmp(), self.memory)? {
            Next::GoOn => return Ok(ControlFlow::Continue(())),
            Next::Later(at) => {
                self.visit = Some(Visit { at, act: visit.act });
                return Ok(ControlFlow::Continue(()));
            }
            Next::Leave => live.emulator.kill(),
            Next::Close => drop(live.emulator.quit()?),
        }
        Ok(ControlFlow::Break(()))
    }

    /// Lets it run to the next stop.
    fn go_on(&self, live: &mut Live<'_, '_>) -> Result<(), Error> {
        let qmp = live.emulator.qmp();
        let visit = self.visit.as_ref().map(|visit| visit.at);
        let flip = self.flip.map(|flip| flip.at);
        if let Some(next) = [self.stops.next(), visit, flip].into_iter().flatten().min() {
            qmp.stop_at(next)?;
        }
        Ok(qmp.go_on()?)
    }
}

fn contains(text: &[u8], words: &[u8]) -> bool {
    text.windows(words.len()).any(|found| found == words)
}

/// What came of asking QEMU; `None` if it has ended, which is told by itself.
pub(super) fn unless_ended<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Err(Error::Qmp(qmp::Error::Ended)) => Ok(None),
        answer => answer.map(Some),
    }
}

/// A difference of the console that was noticed after so many instructions.
pub(in crate::recording) fn divergence(found: Difference, instructions: Option<u64>) -> Divergence {
    Divergence::Console {
        line: found.line,
        column: found.column,
        byte: found.byte,
        expected: found.expected.unwrap_or_default(),
        found: found.found.unwrap_or_default(),
        instructions,
    }
}
