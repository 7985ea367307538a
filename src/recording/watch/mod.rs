// SPDX-License-Identifier: MIT OR Apache-2.0
//! A part of a recorded run once more, watched from within QEMU: what it executed and wrote, and its system calls.
//!
//! The machine begins at the last checkpoint before the part. Where it is known what the run was like, it is compared as in every
//! replay: what is seen of another run is no answer.

pub mod ask;
pub mod symbols;
pub mod trace;
pub(super) mod virtio;
use std::io::{self, PipeReader, Read};
use std::ops::{ControlFlow, Range};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use qemu_watch::{Decoder, Foreign, Record, Watch};

use self::virtio::offset;
use super::checkpoints::{Checkpoint, Checkpoints};
use super::library::stored::InUse;
use super::log::Log;
use super::log::point::Point;
use super::replay::rerun::{Act, Came, Next, Rerun, Visit};
use super::replay::setup::{Fresh, Setup};
use super::replay::start::Start;
use super::replay::trail::{Stops, Trail};
use super::replay::{self, Checked, Choice};
use super::session::disks::WATCHED;
use super::session::scratch::Scratch;
use super::session::{Environment, Error, Listener, live};
use super::{Recording, Verdict};
use crate::base::fail_point::Flip;
use crate::config::guest::Guest;
use crate::qemu::engine;
use crate::qemu::machine::{Shared, Watching};
use crate::qemu::memory::Memory;
use crate::qemu::qmp::Qmp;
use crate::qemu::watch::plugin;

/// Bytes that are read at once.
const PIECE: usize = 1 << 16;

/// What becomes of a record: nothing more is wanted after `Break`.
pub type Each<'a> = dyn FnMut(Record) -> ControlFlow<()> + Send + 'a;

/// A recording whose run can be watched.
pub struct Watcher<'a> {
    recording: &'a Recording,
    guest: Option<&'a Guest>,
    environment: &'a Environment<'a>,
    checked: Checked,
    checkpoints: Option<Checkpoints>,
    plugin: std::path::PathBuf,
    signals: SignalFd,
    _use: InUse,
}

impl<'a> Watcher<'a> {
    /// Of `recording`; `guest` is the guest's file as it is now, if there still is one.
    ///
    /// # Errors
    ///
    /// If a replay would not be one, or there is no plugin for this QEMU.
    pub fn new(
        recording: &'a Recording,
        guest: Option<&'a Guest>,
        environment: &'a Environment<'a>,
        listener: &mut dyn Listener,
    ) -> Result<Self, Error> {
        let lock = recording.use_shared()?;
        // Before there are more threads, so that they leave these signals to us.
        let signals = live::signals()?;
        let checked = replay::check(recording, guest, &environment.seals, Choice::Watched, listener)?;
        Ok(Self {
            recording,
            guest,
            environment,
            plugin: plugin(checked.version())?,
            checked,
            checkpoints: Checkpoints::load(recording.directory())?,
            signals,
            _use: lock,
        })
    }

    /// Its recording.
    pub fn recording(&self) -> &Recording {
        self.recording
    }

    /// How many instructions the run has.
    pub fn end(&self) -> u64 {
        self.checked.end().instructions
    }

    /// Where a point of the run is, in instructions.
    ///
    /// # Errors
    ///
    /// If the run does not have it.
    pub fn find(&self, point: &Point) -> Result<u64, Error> {
        match point {
            // Behind the last one that a replay can be stopped at there is one more.
            Point::End { before: 0 } => Ok(self.end()),
            point => self.checked.find(self.recording, point),
        }
    }

    /// What the plugin has for a guest's own address of its memory. Before 8.2, QEMU tells it where that is in the memory.
    pub(super) fn seen_at(&self, address: u64) -> Result<u64, Error> {
        match self.checked.version().release() < (8, 2) {
            true => offset(self.recording.manifest().engine.memory, address).ok_or(Error::StrangeRequest),
            false => Ok(address),
        }
    }

    /// Where the run can be begun before `end`, in the order of the run: the parts that can be watched one by one.
    pub fn parts(&self, end: u64) -> Vec<Range<u64>> {
        let checkpoints = self.checkpoints.iter().flat_map(Checkpoints::all);
        let mut bounds: Vec<u64> = checkpoints.map(|it| it.moment.instructions).collect();
        bounds.retain(|at| (1..end).contains(at));
        bounds.insert(0, 0);
        bounds.push(end);
        bounds.windows(2).map(|two| two[0]..two[1]).collect()
    }

    /// Runs the part `during` once more, and hands on what is watched for.
    ///
    /// # Errors
    ///
    /// If the replay fails, or was another run.
    pub fn watch(
        &self,
        watch: Watch,
        during: Range<u64>,
        each: &mut Each<'_>,
        listener: &mut dyn Listener,
    ) -> Result<(), Error> {
        if during.is_empty() {
            return Ok(());
        }
        let (ours, theirs) = io::pipe().map_err(Error::Watched)?;
        let is_reader_busy = Shared(Arc::new(AtomicBool::new(false)));
        let watching = Watching {
            is_reader_busy: is_reader_busy.clone(),
            plugin: self.plugin.clone(),
            watch,
            during: during.clone(),
            records: Shared(Arc::new(theirs.into())),
        };
        let us = pthread_self();
        thread::scope(|scope| {
            let reader = scope.spawn(move || read(ours, each, &is_reader_busy.0, us));
            // It is ended in good order: the plugin has written everything only then.
            let mut act = |_: &mut Qmp, _: &Memory| Ok(Next::Close);
            let is_last = during.end > self.checked.end().last_stop();
            let visit: Option<(u64, &mut Act<'_>)> = (!is_last).then_some((during.end, &mut act));
            let came = self.run(during.start, Some(watching), visit, listener);
            // What was not read to its end is no answer.
            let ended = reader.join().unwrap_or_else(|panic| resume_unwind(panic));
            match ended.map_err(Error::Watched)? {
                Ended::ByItself => came,
                Ended::Early => {
                    // It may have come too late to end anything.
                    while let Ok(Some(_)) = self.signals.read_signal() {}
                    match came {
                        Err(Error::Interrupted) => Ok(()),
                        came => came,
                    }
                }
            }
        })
    }

    /// Runs a part once more, and calls `look` where the machine stands still: after `begin` instructions, and after so many as
    /// `stops` say, which are in the order of the run.
    pub(super) fn visit(
        &self,
        begin: u64,
        stops: &[u64],
        look: &mut dyn FnMut(u64, &mut Qmp, &Memory) -> Result<(), Error>,
        listener: &mut dyn Listener,
    ) -> Result<(), Error> {
        let mut stops = stops.iter().copied().filter(|at| *at > begin);
        let mut here = begin;
        let mut act = |qmp: &mut Qmp, memory: &Memory| {
            look(here, qmp, memory)?;
            Ok(match stops.next() {
                Some(next) => {
                    here = next;
                    Next::Later(next)
                }
                None => Next::Leave,
            })
        };
        self.run(begin, None, Some((begin, &mut act)), listener)
    }

    /// Runs it from the last checkpoint before `begin` on.
    fn run(
        &self,
        begin: u64,
        watching: Option<Watching>,
        visit: Option<(u64, &mut Act<'_>)>,
        listener: &mut dyn Listener,
    ) -> Result<(), Error> {
        let (recording, end) = (self.recording, self.checked.end());
        let manifest = recording.manifest();
        let result = manifest.result.as_ref().ok_or(Error::Interrupted)?;
        let scratch = Scratch::make((self.environment.overlays).join(format!("{}-{WATCHED}", recording.guest())))?;
        let overlays = scratch.path();
        let environment = Environment {
            overlays: overlays.to_owned(),
            ..self.environment.clone()
        };
        let Setup { disks, machine } = Setup::new(recording, self.guest, &environment, Fresh::OverOrigins)?;
        let log = Log::of(recording, end, overlays)?;
        let memory = Memory::new(machine.memory).map_err(Error::Memory)?;
        let start = match self.before(begin) {
            Some((all, from)) => {
                let printed = replay::printed_before(recording, from.moment.instructions)?;
                let files = (&memory, &disks);
                Some(Start::prepare(recording.guest(), all, from, files, overlays, printed)?)
            }
            None => None,
        };
        let from = start.as_ref().map_or(0, Start::instructions);
        let trail = Trail::load(recording.directory()).unwrap_or_default();
        let mut stops = Stops::new(
            &result.moments,
            Some(trail),
            !manifest.vifs.is_empty(),
            from,
            end.last_stop(),
        );
        if recording
            .kernel_path()
            .is_some_and(|kernel| engine::is_multiboot(&kernel))
        {
            stops = stops.without_memory();
        }
        // For no longer than what is here.
        let mut act;
        let visit = match visit {
            Some((at, wanted)) => {
                act = |qmp: &mut Qmp, memory: &Memory| wanted(qmp, memory);
                Some(Visit { at, act: &mut act })
            }
            None => None,
        };
        let mut rerun = Rerun {
            recording,
            result,
            log: log.path(),
            end,
            machine: &machine,
            engine: self.checked.engine(),
            memory: &memory,
            stops,
            stopped: false,
            start: start.as_ref(),
            checkpoints: self.checkpoints.as_ref(),
            maker: None,
            state: None,
            packets: Vec::new(),
            watching,
            visit,
            flip: Flip::wanted().filter(|flip| from < flip.at),
            listener,
        };
        let came = rerun.run(overlays, &self.signals)?;
        match came {
            Came::Same | Came::Left { .. } => Ok(()),
            Came::Differs(divergence) => Err(self.other_run(divergence)),
        }
    }

    /// The last checkpoint from which a replay comes to `instructions`.
    fn before(&self, instructions: u64) -> Option<(&Checkpoints, &Checkpoint)> {
        let all = self.checkpoints.as_ref()?;
        all.before(instructions).map(|from| (all, from))
    }

    /// The recording remembers it, as after every replay.
    fn other_run(&self, divergence: super::Divergence) -> Error {
        let verdict = Verdict::Diverged { at: divergence.clone() };
        replay::note(self.recording, &verdict, &self.checked.ran_on(), false);
        Error::OtherRun {
            guest: self.recording.guest().clone(),
            id: self.recording.id().to_string(),
            divergence: Box::new(divergence),
        }
    }
}

/// How what was watched came to its end.
enum Ended {
    /// With the machine.
    ByItself,
    /// Nothing more was wanted.
    Early,
}

/// Why what was read cannot be taken apart.
enum Trouble {
    Foreign(Foreign),
    /// Nothing more is wanted.
    Enough,
}

impl From<Foreign> for Trouble {
    fn from(foreign: Foreign) -> Self {
        Self::Foreign(foreign)
    }
}

/// Reads records to their end. If nothing more is wanted, the thread `us`, which has the machine, is asked to end.
fn read(mut from: PipeReader, each: &mut Each<'_>, is_busy: &AtomicBool, us: Pthread) -> io::Result<Ended> {
    let mut decoder = Decoder::default();
    let mut piece = vec![0; PIECE];
    let mut ended = Ended::ByItself;
    loop {
        let length = match from.read(&mut piece) {
            Ok(0) => return Ok(ended),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        // Until it has ended, QEMU must not have to wait for us.
        if matches!(ended, Ended::Early) {
            continue;
        }
        is_busy.store(true, Ordering::Relaxed);
        let fed = decoder.feed(&piece[..length], |record| match each(record) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Trouble::Enough),
        });
        is_busy.store(false, Ordering::Relaxed);
        match fed {
            Ok(()) => {}
            Err(Trouble::Enough) => {
                ended = Ended::Early;
                // It fails for a thread that has ended.
                let _ = pthread_kill(us, Signal::SIGTERM);
            }
            Err(Trouble::Foreign(Foreign(word))) => {
                let why = format!("{word:#x} is no record");
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
        }
    }
}
