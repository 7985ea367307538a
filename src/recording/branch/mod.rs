// SPDX-License-Identifier: MIT OR Apache-2.0
//! A branch: a run that leaves a recorded one after some instruction and lives on, recorded.
//!
//! A replay goes there and saves its machine. Another QEMU loads that and goes on from there, live, and writes a log of its own. What
//! comes of both is one recording of one run: up to the fork the log of the parent, then that of the branch. It needs its parent
//! for nothing, and is replayed, proved, compared and exported as any other.

pub(super) mod branch_log;
pub mod tries;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use nix::sys::signalfd::SignalFd;
use replay_log::{Begun, Fork, Kind, Reader};

use super::checkpoints::Checkpoints;
use super::library::draft;
use super::library::manifest::{Manifest, Parent, Run};
use super::library::stored::{IMPORTED, INITRD, InUse, KERNEL};
use super::log::Log;
use super::log::point::Point;
use super::record::{self, Console, Course, Ended, Limits, Recorded};
use super::replay::moment::Moment;
use super::replay::rerun::{Came, Next, Rerun, Visit};
use super::replay::setup::{Fresh, Setup};
use super::replay::start::Start;
use super::replay::trail::{Stops, Trail};
use super::replay::{self, Checked, Choice, compare};
use super::session::disks::{BRANCH, Disks, Seals};
use super::session::limit::Limit;
use super::session::live::{self, Live};
use super::session::scratch::Scratch;
use super::session::{Environment, Error, Keys, Listener, devices, different, require_memory, unreadable};
use super::{Draft, Library, Recording};
use crate::base::clock::{boot_id, now};
use crate::base::fail_point;
use crate::config::guest::{Guest, Shift};
use crate::config::types::{GuestName, Size};
use crate::file;
use crate::qemu::engine::{self, Engine};
use crate::qemu::log_position::LogPosition;
use crate::qemu::machine::{self, Machine, Mode};
use crate::qemu::memory::Memory;
use crate::qemu::process::Emulator;
use crate::qemu::qmp::{self, Qmp};

/// The machine that the parent's replay saves.
const LEFT: &str = "left";

/// At no more points a run is left in one series.
const POINTS: u64 = 1000;

/// Where a disk is busy and the log does not say until when, the next try is so many instructions later.
const LATER: u64 = 3000;

/// So often; a guest whose disks are never quiet cannot be left there.
const TRIES: u32 = 1000;

/// A recording that has been left at a point of its run. From there one can live on, more than once, and each time it is another run.
pub struct Branching<'a> {
    parent: &'a Recording,
    name: &'a GuestName,
    checked: &'a Checked,
    // Before what it is in.
    left: Left<'a>,
    signals: SignalFd,
    _scratch: Scratch,
    _use: InUse,
}

impl<'a> Branching<'a> {
    /// Leaves `parent`, which was [`check`]ed, at a point of its run; what is recorded from there is a run of `name`. `guest` is the file
    /// of the parent's guest as it is now, if there still is one. If it is to be gone on with `again`, a copy of the guest's memory is kept.
    ///
    /// # Errors
    ///
    /// If it has no such point, if the machine cannot be left there, or if somebody called it off.
    pub fn go(
        parent: &'a Recording,
        (guest, checked): (Option<&Guest>, &'a Checked),
        name: &'a GuestName,
        environment: &Environment<'a>,
        at: &Point,
        again: bool,
        listener: &mut dyn Listener,
    ) -> Result<Self, Error> {
        let in_use = parent.use_shared()?;
        let signals = live::signals()?;
        let wanted = checked.find(parent, at)?;
        let copied = again || is_multiboot(parent);
        let memory = parent.manifest().engine.memory;
        require_memory(Size::from_bytes(memory.saturating_mul(1 + u64::from(copied))))?;
        // Its own name is locked.
        let scratch = Scratch::make(environment.overlays.join(format!("{name}-{BRANCH}")))?;
        let environment = Environment {
            overlays: scratch.path().to_owned(),
            ..environment.clone()
        };
        let mut left = Left::go(parent, guest, (&environment, checked), wanted, listener, &signals)?;
        left.connect(parent, guest);
        if copied {
            left.keep_memory()?;
        }
        Ok(Self {
            parent,
            name,
            checked,
            left,
            signals,
            _scratch: scratch,
            _use: in_use,
        })
    }

    /// Instructions that the guest had executed there.
    pub fn instructions(&self) -> u64 {
        self.left.fork.instructions
    }

    /// Lives on and records that, in `library`. Times and instructions of the guest in `limit` count from there.
    ///
    /// # Errors
    ///
    /// If there is no room, or the machine cannot be gone on with.
    pub fn live_on(
        &mut self,
        library: &Library,
        limit: Option<Limit>,
        listener: &mut dyn Listener,
        keys: Option<&mut dyn Keys>,
    ) -> Result<Recorded, Error> {
        let Self { parent, left, .. } = self;
        // It begins with its parent's log.
        let begins = parent.manifest().result.as_ref().map_or(0, |result| result.log.size);
        record::require_room_beside(library, begins)?;
        let shift: Option<Shift> = parent.manifest().engine.icount.parse().ok();
        let limits = Limits::new(self.name, shift, limit, left.fork.instructions)?;
        let manifest = manifest(parent, self.name, self.checked, left.fork);
        let path = parent.guest_file();
        let text = fs::read_to_string(&path).map_err(unreadable(&path))?;
        let draft = library.create(self.name, &manifest, &text)?;
        let ended = left.record(parent, &draft, library, &limits, listener, keys, &self.signals);
        record::whole(ended, draft, manifest, &left.disks, limits.instructions(), listener)
    }
}

/// Whether `parent` can be left, and be gone on with as a run of `name`. `guest` is the file of the parent's guest as it is now, if there
/// still is one; `named` that of `name`.
///
/// # Errors
///
/// If a replay of `parent` would not be one, or one of the branch would not be: each difference is named.
pub fn check(
    parent: &Recording,
    guest: Option<&Guest>,
    named: Option<&Guest>,
    seals: &Seals,
    listener: &mut dyn Listener,
) -> Result<Checked, Error> {
    require_new_format(parent)?;
    let checked = replay::check(parent, guest, seals, Choice::Installed, listener)?;
    if let Some(named) = named {
        let differences = compare::guest(parent.manifest(), named, Some(checked.version()));
        if !differences.is_empty() {
            let name = named.name.clone();
            return Err(Error::OtherFile { name, differences });
        }
    }
    Ok(checked)
}

/// After how many instructions of `parent` the point `at` is.
///
/// # Errors
///
/// If there is no such point.
pub fn instructions(parent: &Recording, at: &Point) -> Result<u64, Error> {
    replay::find(parent, at, super::log::end(parent)?)
}

/// The points of `parent` from `first` on that are a `step` from each other, up to its end: after how many instructions each is.
///
/// # Errors
///
/// If there is no such point, or a step is none.
pub fn steps(parent: &Recording, first: &Point, step: &Point) -> Result<Vec<u64>, Error> {
    let end = super::log::end(parent)?;
    let first = replay::find(parent, first, end)?;
    let step = match step {
        Point::Instructions(_) | Point::Time(_) | Point::Percent(_) => replay::find(parent, step, end)?,
        Point::Text(_) | Point::End { .. } => 0,
    };
    let length = end.last_stop().saturating_sub(first);
    match (usize::try_from(step), length.checked_div(step)) {
        (Ok(_), Some(POINTS..)) => Err(Error::SmallStep {
            least: length / POINTS + 1,
        }),
        (Ok(step), Some(_)) => Ok((first..end.last_stop()).step_by(step).collect()),
        _ => Err(Error::NoStep),
    }
}

/// Until format 2, no state of a machine could be loaded once its network card was in use.
fn require_new_format(parent: &Recording) -> Result<(), Error> {
    match parent.manifest().format {
        1 => Err(different(
            parent,
            vec!["a recording of format 1 cannot be left on the way: record the guest again".to_owned()],
        )),
        _ => Ok(()),
    }
}

/// What is known of a branch before it begins.
fn manifest(parent: &Recording, name: &GuestName, checked: &Checked, fork: Fork) -> Manifest {
    let mut manifest = parent.manifest().clone();
    manifest.guest = name.clone();
    manifest.run = Run {
        ttvm: env!("CARGO_PKG_VERSION").to_owned(),
        started: now(),
        boot: boot_id(),
        network: manifest.run.network,
    };
    manifest.engine.version = checked.version().text.clone();
    for disk in &mut manifest.disks {
        disk.end = None;
    }
    manifest.parent = Some(Parent {
        guest: parent.guest().clone(),
        id: parent.id().clone(),
        instructions: fork.instructions,
    });
    manifest.result = None;
    manifest
}

/// A recorded machine that has been left, and what is needed to go on with it.
struct Left<'a> {
    fork: Fork,
    /// What it is like.
    moment: Moment,
    memory: Memory,
    /// A copy of it, where it is needed more than once, or QEMU itself changes it: a Multiboot kernel is written to it once more, and
    /// some of QEMU's own memory behind that.
    kept: Option<Memory>,
    disks: Disks<'a>,
    machine: Machine,
    /// The file that it is in.
    state: PathBuf,
    /// The parent's log, as QEMU has it.
    log: Log,
    /// What was printed up to there.
    printed: Vec<u8>,
    /// Requests of disks up to there.
    requests: u64,
    /// How often it was gone on with.
    times: u32,
}

impl<'a> Left<'a> {
    /// Goes after `wanted` instructions of `parent`, or as little behind it as possible.
    fn go(
        parent: &Recording,
        guest: Option<&Guest>,
        (environment, checked): (&Environment<'a>, &Checked),
        wanted: u64,
        listener: &mut dyn Listener,
        signals: &SignalFd,
    ) -> Result<Self, Error> {
        let manifest = parent.manifest();
        let result = manifest.result.as_ref().ok_or(Error::Interrupted)?;
        let end = checked.end();
        let overlays = &environment.overlays;
        let Setup { disks, machine } = Setup::new(parent, guest, environment, Fresh::OverOrigins)?;
        let log = Log::of(parent, end, overlays)?;
        let memory = Memory::new(machine.memory).map_err(Error::Memory)?;
        let first = fork(parent, wanted)?;
        let checkpoints = Checkpoints::load(parent.directory())?;
        let start = match &checkpoints {
            Some(all) => all.before(first.instructions).map(|from| (all, from)),
            None => None,
        };
        let start = match start {
            Some((all, from)) => {
                let printed = replay::printed_before(parent, from.moment.instructions)?;
                Some(Start::prepare(
                    parent.guest(),
                    all,
                    from,
                    (&memory, &disks),
                    overlays,
                    printed,
                )?)
            }
            None => {
                if checkpoints.is_none() {
                    tracing::warn!(
                        "there are no checkpoints, so it goes there from the first instruction; a whole replay (`ttvm replay {} {}`) makes them",
                        parent.guest(),
                        parent.id()
                    );
                }
                None
            }
        };
        let state = match &start {
            Some(start) => start.state().to_owned(),
            None => {
                let state = overlays.join("states.qcow2");
                engine::create_overlay(&state.to_string_lossy(), None, 1 << 20).map_err(Error::Overlay)?;
                state
            }
        };
        let (mut at, mut moment, mut tries, mut busy) = (first, None, 0, None);
        let disks_of = machine.drives.len();
        let done = disks_done(parent, first.instructions)?;
        let mut act = |qmp: &mut Qmp, memory: &Memory| {
            busy = match save(qmp, disks_of)? {
                None => {
                    moment = Some(Moment::of(at.instructions, qmp, memory)?);
                    return Ok(Next::Close);
                }
                busy => busy,
            };
            tries += 1;
            if tries == TRIES {
                return Ok(Next::Leave);
            }
            // It is over where the log says so, or a little later.
            let done = done.iter().find(|done| **done > at.instructions);
            at = fork(parent, done.copied().unwrap_or(at.instructions + LATER))?;
            Ok(Next::Later(at.instructions))
        };
        let stops = Stops::new(
            &[],
            Some(Trail::default()),
            !manifest.vifs.is_empty(),
            start.as_ref().map_or(0, Start::instructions),
            end.last_stop(),
        );
        let mut rerun = Rerun {
            recording: parent,
            result,
            log: log.path(),
            end,
            machine: &machine,
            engine: checked.engine(),
            memory: &memory,
            stops,
            stopped: false,
            start: start.as_ref(),
            checkpoints: None,
            maker: None,
            state: Some(&state),
            packets: Vec::new(),
            watching: None,
            visit: Some(Visit {
                at: first.instructions,
                act: &mut act,
            }),
            flip: None,
            listener,
        };
        let came = rerun.run(overlays, signals)?;
        let Some(moment) = moment else {
            return Err(match came {
                Came::Differs(at) => Error::Left {
                    why: format!("its replay is not the same run: {at}"),
                },
                Came::Same | Came::Left { .. } => Error::Left {
                    why: format!("from there on {}; another point may do", busy.unwrap_or_default()),
                },
            });
        };
        // The copy of the states goes with it.
        let kept = overlays.join("left.qcow2");
        fs::rename(&state, &kept).map_err(|source| Error::Write {
            path: kept.clone(),
            source,
        })?;
        drop(start);
        let printed = printed(parent, at)?;
        let requests = requests(&kept, at)?;
        let left = Self {
            fork: at,
            moment,
            memory,
            kept: None,
            disks,
            machine,
            state: kept,
            log,
            printed,
            requests,
            times: 0,
        };
        Ok(left)
    }

    /// Keeps a copy of the memory.
    fn keep_memory(&mut self) -> Result<(), Error> {
        let kept = Memory::new(self.machine.memory).map_err(Error::Memory)?;
        kept.become_like(&self.memory).map_err(Error::Memory)?;
        self.kept = Some(kept);
        Ok(())
    }

    /// Has its networks reach what those of `guest` do: a replay sends nothing to anybody. Whoever made a recording that came from another
    /// host reaches nothing here: its kernel is theirs, whatever a guest's file of the same name says.
    fn connect(&mut self, parent: &Recording, guest: Option<&Guest>) {
        let vifs = match guest {
            Some(guest) if !parent.is_imported() => guest.vifs.as_slice(),
            _ => &[],
        };
        for network in &mut self.machine.networks {
            network.outside = vifs.iter().any(|vif| vif.mac == network.mac && vif.outside);
        }
    }

    /// Goes on with it, and records that.
    #[allow(clippy::too_many_arguments, reason = "each is another subject")]
    fn record(
        &mut self,
        parent: &Recording,
        draft: &Draft,
        library: &Library,
        limits: &Limits,
        listener: &mut dyn Listener,
        keys: Option<&mut dyn Keys>,
        signals: &SignalFd,
    ) -> Result<Ended, Error> {
        bring(parent, draft.directory())?;
        let mut console = Console::new(draft.console())?;
        console.add(&self.printed)?;
        let length = branch_log::begin(draft.directory(), self.log.path(), self.fork)?;
        let emulator = Emulator::start(
            &Engine::Installed,
            &self.machine,
            &Mode::Record(machine::Recording {
                log: branch_log::path(draft.directory()),
                state: Some(self.state.clone()),
            }),
            Some(&self.memory),
            draft.directory(),
        )?;
        let mut live = Live::new(emulator, signals, keys);
        let begun = self.load(live.emulator.qmp())?;
        branch_log::goes_on(draft.directory(), length, self.fork, begun)?;
        live.emulator.qmp().go_on()?;
        listener.ready(&format!(
            "recording as {}, from instruction {} of {} on",
            draft.id(),
            self.fork.instructions,
            parent.id()
        ));
        fail_point::reach("branch.running");
        let course = Course {
            library,
            limits,
            memory: &self.memory,
            disks: self.machine.drives.len(),
            console,
            copied: Some(branch_log::path(draft.directory())),
        };
        let ended = course.follow(live, listener)?;
        branch_log::finish(draft.directory(), devices(parent.manifest()))?;
        Ok(ended)
    }

    /// Makes the memory what it was, if it was changed.
    fn remember(&self) -> Result<(), Error> {
        match &self.kept {
            Some(kept) => self.memory.become_like(kept).map_err(Error::Memory),
            None => Ok(()),
        }
    }

    /// Has QEMU load the machine, makes sure that it is what it was, and finds out how far QEMU's log is.
    fn load(&mut self, qmp: &mut Qmp) -> Result<Begun, Error> {
        self.times += 1;
        let positions = || LogPosition::all(&self.state).map_err(unreadable(&self.state));
        let failed = |why: &str| Error::Left { why: why.to_owned() };
        let before = positions()?;
        let is_here = |position: &&LogPosition| position.instructions == self.fork.instructions;
        qmp.leave_memory_out(true)?;
        // Before it, for the devices, which look into the memory; behind it, because QEMU resets the machine first.
        self.remember()?;
        qmp.monitor(&format!("loadvm {LEFT}"))?;
        self.remember()?;
        let is_there = qmp.instructions()? == self.moment.instructions;
        if !is_there || Moment::of(self.moment.instructions, qmp, &self.memory)? != self.moment {
            return Err(failed("the machine that was loaded is not the one that was saved"));
        }
        // Once more, for what QEMU says of its log.
        qmp.monitor(&format!("savevm begun{}", self.times))?;
        let after = positions()?;
        let mut new = after.iter().filter(|it| is_here(it) && it.is_new(&before));
        match (new.next(), new.next()) {
            (Some(position), None) => Ok(Begun {
                logged: position.logged,
                requests: self.requests,
            }),
            _ => Err(failed("QEMU does not say how far its log is")),
        }
    }
}

/// How many requests of disks there were at `fork`, by the state of the machine in the file `state`.
fn requests(state: &Path, fork: Fork) -> Result<u64, Error> {
    let positions = LogPosition::all(state).map_err(unreadable(state))?;
    let mut here = positions.iter().filter(|it| it.instructions == fork.instructions);
    here.next().map(|it| it.requests).ok_or_else(|| Error::Left {
        why: "this QEMU saves what it knows of its log in a form that is not known (7.2 and 10.0 are)".to_owned(),
    })
}

fn is_multiboot(parent: &Recording) -> bool {
    let kernel = parent.kernel_path();
    kernel.is_some_and(|kernel| engine::is_multiboot(&kernel))
}

/// What `parent` had printed at `fork`.
fn printed(parent: &Recording, fork: Fork) -> Result<Vec<u8>, Error> {
    let path = parent.console();
    let mut printed = Vec::new();
    let read = file::open_content(&path).and_then(|file| file.take(fork.printed).read_to_end(&mut printed));
    match read.map_err(unreadable(&path))? as u64 == fork.printed {
        true => Ok(printed),
        // What comes then has its place behind it.
        false => Err(Error::Left {
            why: "a part of what it had printed by then is lost; leave it earlier".to_owned(),
        }),
    }
}

/// Where the run of `parent` can be left.
fn fork(parent: &Recording, wanted: u64) -> Result<Fork, Error> {
    let log = replay::open_log(parent)?;
    let fork = replay_log::fork(log, devices(parent.manifest()), wanted).map_err(Error::Unlike)?;
    fork.ok_or_else(|| Error::Left {
        why: "its run ends there; name an earlier point".to_owned(),
    })
}

/// When requests of disks were done in the run of `parent` behind `from`, in instructions.
fn disks_done(parent: &Recording, from: u64) -> Result<Vec<u64>, Error> {
    let log = replay::open_log(parent)?;
    let mut reader = Reader::new(log, devices(parent.manifest())).map_err(Error::Unlike)?;
    let mut done = Vec::new();
    while let Some(event) = reader.next().map_err(Error::Unlike)? {
        if matches!(event.kind, Kind::DiskDone(_)) && event.instructions > from {
            done.push(event.instructions);
        }
    }
    Ok(done)
}

/// Has QEMU save the machine, with `disks` disks, as it stands there. If that cannot be, because something is not over, returns what.
fn save(qmp: &mut Qmp, disks: usize) -> Result<Option<String>, Error> {
    if !qmp.disks_are_quiet(disks)? {
        return Ok(Some("its disks were never quiet".to_owned()));
    }
    match qmp.monitor(&format!("savevm {LEFT}")) {
        Ok(()) => Ok(None),
        Err(qmp::Error::Refused { why, .. }) => Ok(Some(format!("QEMU did not save the machine ({why})"))),
        Err(error) => Err(error.into()),
    }
}

/// Gives a branch what came with its parent from another host.
fn bring(parent: &Recording, directory: &Path) -> Result<(), Error> {
    for name in [KERNEL, INITRD, IMPORTED] {
        let (from, to) = (parent.directory().join(name), directory.join(name));
        // Nobody writes to them: where the file system can, both have the same.
        let linked = fs::hard_link(&from, &to).or_else(|_| {
            fs::copy(&from, &to)?;
            File::open(&to)?.sync_all()
        });
        match linked {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Write {
                    path: to,
                    source: error,
                });
            }
            _ => {}
        }
    }
    draft::sync(directory).map_err(Error::from)
}
