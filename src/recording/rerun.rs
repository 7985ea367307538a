// SPDX-License-Identifier: MIT OR Apache-2.0
//! A recorded run once more, beside what was recorded of it.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;

use super::console::{Comparison, Difference};
use super::live::{Happened, Live};
use super::log::End;
use super::manifest::{Outcome, RunExit};
use super::record::exit_of;
use super::session::{Error, Listener, died};
use super::stillness::{Progress, Stillness, Threads};
use super::trail::{Stop, Stops};
use super::{Divergence, Recording};
use crate::qemu::machine::{Machine, Mode, Replaying};
use crate::qemu::memory::Memory;
use crate::qemu::process::Emulator;
use crate::qemu::qmp::{self, Event};

/// What QEMU says, and ends, when the log does not have what the guest asks for: `Missing character write event in the replay log`.
const MISSING: &str = "in the replay log";

/// A replay from the first instruction to the end.
pub(super) struct Rerun<'a> {
    pub(super) recording: &'a Recording,
    pub(super) result: &'a Outcome,
    /// Its log, which ends with the run.
    pub(super) log: &'a Path,
    /// Where it ends.
    pub(super) end: End,
    pub(super) machine: &'a Machine,
    pub(super) memory: &'a Memory,
    /// Where it is compared on the way.
    pub(super) stops: Stops,
    pub(super) listener: &'a mut dyn Listener,
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
    /// Runs it. `None` if it was the same run, as far as this can tell: what is on the disks is not looked at.
    pub(super) fn run(&mut self, overlays: &Path, signals: &SignalFd) -> Result<Option<Divergence>, Error> {
        let console = self.recording.console();
        let unreadable = |source| Error::Read {
            path: console.clone(),
            source: crate::digest::Error::Open {
                path: console.clone(),
                source,
            },
        };
        let mut comparison = Comparison::open(&console).map_err(unreadable)?;
        let mode = Mode::Replay(Replaying {
            log: self.log.to_owned(),
            state: None,
            debugger: None,
        });
        let emulator = Emulator::start(self.machine, &mode, Some(self.memory), overlays)?;
        let mut live = Live::new(emulator, signals, None);
        unless_ended(self.go_on(&mut live))?;
        self.listener.ready(&format!("replaying {}", self.recording.id()));
        let mut progress = Progress::new(Instant::now());
        let mut differs = None;
        let ended = loop {
            match live.next(Some(progress.again))? {
                Happened::Console(text) => {
                    self.listener.console(&text);
                    differs = comparison.feed(&text).map_err(unreadable)?;
                    if differs.is_some() {
                        break Ended::Stalled;
                    }
                }
                Happened::Event(Event::Shutdown(reason)) => break Ended::As(exit_of(&reason)),
                Happened::Event(Event::Stopped) => {
                    if let Some(differs) = unless_ended(self.stopped(&mut live, overlays))?.flatten() {
                        break Ended::Differs(differs);
                    }
                    progress.again = Instant::now();
                }
                Happened::Event(Event::Resumed) => {}
                Happened::Signal => return Err(Error::Interrupted),
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
        while differs.is_none() {
            let text = live.emulator.console().map_err(Error::Wait)?;
            if text.is_empty() {
                break;
            }
            self.listener.console(&text);
            differs = comparison.feed(&text).map_err(unreadable)?;
        }
        if let Some(found) = differs {
            return Ok(Some(divergence(found, instructions)));
        }
        let exit = match ended {
            Ended::Stalled => return Ok(Some(Divergence::Stalled { instructions })),
            Ended::Differs(at) => return Ok(Some(at)),
            Ended::As(exit) => exit,
        };
        // That the guest reset itself is not in the log, but that QEMU was told to quit then: it tells of one of them.
        let was_reset = (self.result.exit, exit) == (RunExit::Rebooted, RunExit::Stopped);
        if exit != self.result.exit && !was_reset {
            return Ok(Some(Divergence::Exit {
                expected: self.result.exit,
                found: exit.to_string(),
            }));
        }
        if let Some(found) = comparison.finish().map_err(unreadable)? {
            return Ok(Some(divergence(found, instructions)));
        }
        Ok(instructions
            .filter(|found| *found != self.end.instructions)
            .map(|found| Divergence::Instructions {
                expected: self.end.instructions,
                found,
            }))
    }

    /// The machine stands still: at a moment, or because there was no room for what it writes.
    fn stopped(&mut self, live: &mut Live<'_, '_>, overlays: &Path) -> Result<Option<Divergence>, Error> {
        let qmp = live.emulator.qmp();
        // That says nothing about the run.
        if qmp.lacks_room()? {
            return Err(Error::NoRoomForDisks {
                directory: overlays.to_owned(),
            });
        }
        if !qmp.is_paused()? {
            return Ok(None);
        }
        let at = qmp.instructions()?;
        let disks = self.machine.drives.len();
        if let Stop::Differs { memory, registers } = self.stops.reached(at, qmp, self.memory, disks)? {
            return Ok(Some(Divergence::Memory {
                instructions: at,
                same: self.stops.same(),
                memory,
                registers,
            }));
        }
        self.go_on(live)?;
        Ok(None)
    }

    /// Lets it run to the next stop.
    fn go_on(&self, live: &mut Live<'_, '_>) -> Result<(), Error> {
        let qmp = live.emulator.qmp();
        if let Some(next) = self.stops.next() {
            qmp.stop_at(next)?;
        }
        Ok(qmp.go_on()?)
    }
}

/// What came of asking QEMU; `None` if it has ended, which is told by itself.
fn unless_ended<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Err(Error::Qmp(qmp::Error::Ended)) => Ok(None),
        answer => answer.map(Some),
    }
}

/// A difference of the console that was noticed after so many instructions.
pub(super) fn divergence(found: Difference, instructions: Option<u64>) -> Divergence {
    Divergence::Console {
        line: found.line,
        column: found.column,
        byte: found.byte,
        expected: found.expected.unwrap_or_default(),
        found: found.found.unwrap_or_default(),
        instructions,
    }
}
