// SPDX-License-Identifier: MIT OR Apache-2.0
//! One of two runs that are compared: a machine that stands still at whatever instruction is wanted, one after the other,
//! forwards and backwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signalfd::SignalFd;

use crate::base::fail_point::Flip;
use crate::config::guest::Guest;
use crate::config::types::Size;
use crate::qemu::engine::{self, Engine};
use crate::qemu::machine::{Mode, Replaying};
use crate::qemu::memory::{self, Memory};
use crate::qemu::process::{Emulator, died};
use crate::qemu::qmp::{self, Event, Qmp};
use crate::qemu::registers;
use crate::recording::Recording;
use crate::recording::checkpoints::{Checkpoint, Checkpoints};
use crate::recording::log::{End, Log};
use crate::recording::replay::difference::Register;
use crate::recording::replay::setup::{Fresh, Setup};
use crate::recording::replay::start::Start;
use crate::recording::replay::stillness::{Progress, Stillness, Threads};
use crate::recording::session::live::{Happened, Live};
use crate::recording::session::scratch::Scratch;
use crate::recording::session::{Environment, Error, require_disks};

/// The file for the machine's states.
const STATES: &str = "states.qcow2";

/// One that executes nothing for so long, and could, is tried once more.
const PATIENCE: Duration = Duration::from_secs(10);

/// What QEMU says where a disk is full.
const NO_ROOM: &str = "No space left on device";

/// What a disk was asked for is done within so many instructions, as powers of two: those that it is given.
const SOON: std::ops::Range<u32> = 16..24;

/// A run that is to be compared.
pub(super) struct Run<'a> {
    pub(super) recording: &'a Recording,
    /// What runs it.
    pub(super) engine: &'a Engine,
    pub(super) guest: Option<&'a Guest>,
    /// Where its log ends.
    pub(super) end: End,
    /// A checkpoint to begin at.
    pub(super) from: Option<(&'a Checkpoints, &'a Checkpoint)>,
    /// What a test does to it.
    pub(super) flip: Option<Flip>,
}

/// Where a machine came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Arrived {
    /// Where it was to go.
    There,
    /// It does not go on after so many instructions, or has ended.
    Stuck {
        /// How many, where that is known.
        at: Option<u64>,
        /// What became of it.
        how: String,
    },
}

/// A machine as it was, which it can go back to.
struct Kept {
    at: u64,
    /// What QEMU calls it.
    name: String,
    memory: Rc<Memory>,
}

/// A machine of a run.
pub(super) struct Side<'a, 's> {
    engine: Engine,
    setup: Setup<'a>,
    log: Log,
    memory: Memory,
    overlays: Scratch,
    signals: &'s SignalFd,
    flip: Option<Flip>,
    live: Live<'s, 's>,
    at: u64,
    kept: Option<Kept>,
    /// Whether it is where nothing leads back from.
    is_lost: bool,
    /// Whether it goes back even to where it is.
    turns_back: bool,
    /// Where it is to go.
    to: u64,
}

impl<'a, 's> Side<'a, 's> {
    /// Puts `run` together. Its files are in `overlays`, which is made, and goes away with it.
    pub(super) fn new(
        run: &Run<'_>,
        environment: &Environment<'a>,
        overlays: PathBuf,
        signals: &'s SignalFd,
    ) -> Result<Self, Error> {
        let overlays = Scratch::make(overlays)?;
        let environment = Environment {
            overlays: overlays.path().to_owned(),
            ..environment.clone()
        };
        let setup = Setup::new(run.recording, run.guest, &environment, Fresh::OverOrigins)?;
        let log = Log::of(run.recording, run.end, overlays.path())?;
        let memory = Memory::new(setup.machine.memory).map_err(Error::Memory)?;
        let states = overlays.path().join(STATES);
        let start = match run.from {
            Some((all, from)) => {
                let files = (&memory, &setup.disks);
                Some(Start::prepare(
                    run.recording.guest(),
                    all,
                    from,
                    files,
                    overlays.path(),
                    0,
                )?)
            }
            None => None,
        };
        match &start {
            Some(start) => fs::rename(start.state(), &states).map_err(|source| Error::Write {
                path: states.clone(),
                source,
            })?,
            None => engine::create_overlay(&states.to_string_lossy(), None, 1 << 20).map_err(Error::Overlay)?,
        }
        let mut live = spawn(run.engine, &setup, &log, &memory, overlays.path(), signals)?;
        if let Some(start) = &start {
            start.load(live.emulator.qmp())?;
        }
        let at = start.as_ref().map_or(0, Start::instructions);
        drop(start);
        let mut side = Self {
            engine: run.engine.clone(),
            setup,
            log,
            memory,
            overlays,
            signals,
            flip: run.flip,
            live,
            at,
            kept: None,
            is_lost: false,
            turns_back: false,
            to: at,
        };
        let name = match run.from {
            Some((_, from)) => from.name(),
            None => {
                if !side.save()? {
                    return Err(not_explained(
                        "QEMU cannot keep the machine before its first instruction",
                    ));
                }
                name(0)
            }
        };
        side.hold(name, side.copy()?);
        Ok(side)
    }

    /// Instructions that the guest has executed.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Its monitor, and its memory.
    pub(super) fn parts(&mut self) -> (&mut Qmp, &Memory) {
        (self.live.emulator.qmp(), &self.memory)
    }

    pub(super) fn qmp(&mut self) -> &mut Qmp {
        self.live.emulator.qmp()
    }

    /// Has it set off for the moment after `to` instructions. Where it began is the first to which it goes back.
    pub(super) fn set_off(&mut self, to: u64) -> Result<(), Error> {
        if self.is_lost || to < self.at || self.turns_back {
            self.go_back()?;
            self.turns_back = false;
        }
        self.to = to;
        self.go_on()
    }

    /// Waits until it is there.
    fn arrive(&mut self) -> Result<Arrived, Error> {
        let mut progress = Progress::with_patience(Instant::now(), PATIENCE);
        while self.at < self.to {
            let how = match self.live.next(Some(progress.again))? {
                Happened::Event(Event::Stopped) => {
                    self.stopped()?;
                    None
                }
                Happened::Event(Event::Shutdown(_)) => Some("the guest has ended".to_owned()),
                Happened::Ended => {
                    let status = self.live.emulator.wait().map_err(Error::Wait)?;
                    let why = died(status, self.live.emulator.complaint());
                    Some(if why.is_empty() {
                        "QEMU has ended".to_owned()
                    } else {
                        why
                    })
                }
                Happened::Signal { .. } => return Err(Error::Interrupted),
                Happened::Timeout => self.look(&mut progress)?,
                Happened::Console(_) | Happened::Event(Event::Resumed | Event::Reset) => None,
            };
            if let Some(how) = how {
                self.is_lost = true;
                let at = self.qmp().instructions().ok();
                return Ok(Arrived::Stuck { at, how });
            }
        }
        Ok(Arrived::There)
    }

    /// The next time it sets off, it begins where it is kept, wherever it is to go.
    pub(super) fn turn_back(&mut self) {
        self.turns_back = true;
    }

    /// Waits until it is there. One that is stuck is tried once more, in a new QEMU and without a stop on the way: it happens that a
    /// machine which is stopped just where a packet arrives does not go on.
    pub(super) fn arrive_surely(&mut self) -> Result<Arrived, Error> {
        let to = self.to;
        match self.arrive()? {
            Arrived::There => Ok(Arrived::There),
            Arrived::Stuck { .. } => {
                self.set_off(to)?;
                self.arrive()
            }
        }
    }

    /// Whether no request of a disk is on its way.
    pub(super) fn is_quiet(&mut self) -> Result<bool, Error> {
        let disks = self.setup.machine.drives.len();
        Ok(self.qmp().disks_are_quiet(disks)?)
    }

    /// What is in the processor that is not in that of `other`.
    pub(super) fn registers(&mut self, other: &mut Self) -> Result<Vec<Register>, Error> {
        Ok(registers::differences(
            &self.qmp().registers()?,
            &other.qmp().registers()?,
        ))
    }

    /// Where the memory is not that of `other`.
    pub(super) fn difference(&self, other: &Self) -> Result<Option<memory::Difference>, Error> {
        self.memory.difference(&other.memory).map_err(Error::Memory)
    }

    /// Instructions from where it goes back to.
    pub(super) fn since_kept(&self) -> u64 {
        self.at - self.kept.as_ref().map_or(0, |kept| kept.at)
    }

    /// Has QEMU keep the machine's state, but for its memory; whether it did.
    pub(super) fn save(&mut self) -> Result<bool, Error> {
        let line = format!("savevm {}", name(self.at));
        match self.qmp().monitor(&line) {
            Err(qmp::Error::Refused { why, .. }) if why.contains(NO_ROOM) => Err(self.no_room()),
            // It knows of something that is not over.
            Err(qmp::Error::Refused { .. }) => Ok(false),
            saved => Ok(saved.map(|()| true)?),
        }
    }

    /// Forgets the state that was saved here.
    pub(super) fn forget(&mut self) -> Result<(), Error> {
        let line = format!("delvm {}", name(self.at));
        Ok(self.qmp().monitor(&line)?)
    }

    fn no_room(&self) -> Error {
        Error::NoRoomForDisks {
            directory: self.overlays.path().to_owned(),
        }
    }

    /// From now on, it goes back to here: the state was saved, and `memory` is its memory now.
    pub(super) fn keep(&mut self, memory: Rc<Memory>) -> Result<(), Error> {
        let before = self.hold(name(self.at), memory);
        if let Some(before) = before.filter(|before| before.at != self.at) {
            self.qmp().monitor(&format!("delvm {}", before.name))?;
        }
        Ok(())
    }

    /// A copy of its memory.
    pub(super) fn copy(&self) -> Result<Rc<Memory>, Error> {
        let copy = Memory::new(Size::from_bytes(self.memory.size())).map_err(Error::Memory)?;
        copy.become_like(&self.memory).map_err(Error::Memory)?;
        Ok(Rc::new(copy))
    }

    fn hold(&mut self, name: String, memory: Rc<Memory>) -> Option<Kept> {
        let at = self.at;
        self.kept.replace(Kept { at, name, memory })
    }

    /// Back to the machine that is kept: in this QEMU, if it has nothing left to do.
    fn go_back(&mut self) -> Result<(), Error> {
        if !self.calms_down()? {
            return self.begin_again();
        }
        match self.load() {
            Err(Error::Qmp(qmp::Error::Refused { .. })) => self.begin_again(),
            loaded => loaded,
        }
    }

    /// Lets what the guest has asked its disks for end, which else would end in another life of the machine. Whether it did soon.
    fn calms_down(&mut self) -> Result<bool, Error> {
        for steps in SOON {
            if self.is_lost || self.is_quiet()? {
                break;
            }
            self.to = self.at + (1 << steps);
            self.go_on()?;
            self.arrive()?;
        }
        Ok(!self.is_lost && self.is_quiet()?)
    }

    /// The same in a new QEMU.
    fn begin_again(&mut self) -> Result<(), Error> {
        self.live.emulator.kill();
        self.live = spawn(
            &self.engine,
            &self.setup,
            &self.log,
            &self.memory,
            self.overlays.path(),
            self.signals,
        )?;
        self.is_lost = false;
        self.load()
    }

    fn load(&mut self) -> Result<(), Error> {
        let Some(kept) = &self.kept else {
            return Ok(());
        };
        // Before the state is loaded: the disks' devices look into it then.
        self.memory.become_like(&kept.memory).map_err(Error::Memory)?;
        let line = format!("loadvm {}", kept.name);
        self.live.emulator.qmp().monitor(&line)?;
        let differs = self.memory.difference(&kept.memory).map_err(Error::Memory)?.is_some();
        if differs {
            return Err(not_explained(
                "QEMU does not give back the machine that it has kept: replay it once more",
            ));
        }
        self.at = kept.at;
        Ok(())
    }

    /// Lets it run, to where it is to go or to what a test does on the way.
    fn go_on(&mut self) -> Result<(), Error> {
        let flip = self.flip.map(|flip| flip.at);
        let stop = flip.filter(|at| self.at < *at && *at < self.to).unwrap_or(self.to);
        if stop > self.at {
            self.qmp().stop_at(stop)?;
            self.qmp().go_on()?;
        }
        Ok(())
    }

    /// It stands still.
    fn stopped(&mut self) -> Result<(), Error> {
        let qmp = self.live.emulator.qmp();
        require_disks(qmp, &self.setup.machine.drives, self.overlays.path())?;
        let before = self.at;
        self.at = self.qmp().instructions()?;
        if let Some(flip) = self.flip.filter(|flip| before < flip.at && flip.at == self.at) {
            self.memory.flip_bit(flip.address).map_err(Error::Memory)?;
        }
        self.go_on()
    }

    /// How it is getting on; what became of it if it is not.
    fn look(&mut self, progress: &mut Progress) -> Result<Option<String>, Error> {
        let done = match self.qmp().instructions() {
            Err(qmp::Error::Ended) => return Ok(None),
            done => done?,
        };
        let threads = Threads::of(self.live.emulator.id());
        match progress.look(Instant::now(), done, &threads) {
            Stillness::No => Ok(None),
            Stillness::OfTheRun => Ok(Some("it stands still".to_owned())),
            Stillness::OfTheHost => Err(Error::HostStoodStill),
        }
    }

    /// The guest's memory.
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The names of its disks, in the order of their devices.
    pub(super) fn disks(&self) -> Vec<String> {
        let drives = self.setup.machine.drives.iter();
        drives.map(|drive| drive.target.to_string()).collect()
    }
}

fn not_explained(why: &str) -> Error {
    Error::NotExplained(why.to_owned())
}

/// What QEMU calls a machine that was kept after so many instructions.
fn name(at: u64) -> String {
    format!("k{at}")
}

fn spawn<'s>(
    engine: &Engine,
    setup: &Setup<'_>,
    log: &Log,
    memory: &Memory,
    overlays: &Path,
    signals: &'s SignalFd,
) -> Result<Live<'s, 's>, Error> {
    let mode = Mode::Replay(Replaying {
        log: log.path().to_owned(),
        state: Some(overlays.join(STATES)),
        debugger: None,
        packets: Vec::new(),
        watching: None,
    });
    let emulator = Emulator::start(engine, &setup.machine, &mode, Some(memory), overlays)?;
    let mut live = Live::new(emulator, signals, None);
    live.emulator.qmp().leave_memory_out(true)?;
    Ok(live)
}
