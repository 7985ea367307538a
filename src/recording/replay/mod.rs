// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replaying a recording, and the verdict: the same run, or where it was another.

pub(super) mod compare;
pub mod console;
pub mod debugger;
pub(super) mod difference;
pub mod moment;
pub(super) mod rerun;
pub(super) mod setup;
pub(super) mod start;
pub(super) mod stillness;
pub(super) mod trail;
pub mod verdict;
use std::fs::{self, File};
use std::path::PathBuf;

use self::rerun::{Came, Next, Rerun, Visit};
use self::setup::{Fresh, Setup};
use self::start::Start;
use self::trail::{Stops, Trail};
use super::checkpoints::{Checkpoints, Maker};
use super::library::draft::new_file;
use super::library::manifest::{Manifest, Outcome};
use super::log::point::{self, Point};
use super::log::{self, End, Log};
use super::session::disks::{Disks, Seals};
use super::session::{Environment, Error, Listener, devices, different, live, reading, require_memory, unreadable};
use super::{Divergence, Recording, Verdict, tt_xen};
use crate::base::fail_point::{self, Flip};
use crate::config::guest::{Guest, Shift};
use crate::config::types::Size;
use crate::file;
use crate::qemu::core;
use crate::qemu::engine::{self, Engine, Version};
use crate::qemu::memory::Memory;
use crate::qemu::qmp::Qmp;

/// Beside a verdict on next to nothing.
const NOTHING: &str =
    "nothing was printed in this run, so its end and, where they are known, its disks alone were compared";

/// The same of a run that was cut off.
const END_ALONE: &str =
    "of this run neither what it printed nor what was on its disks is known, so its end alone was compared";

/// How to replay.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Serves a debugger.
    pub gdb: Option<debugger::Wanted>,
    /// Goes to a point of the run, from the last checkpoint before it.
    pub at: Option<At>,
    /// Writes the guest's packets to this new file, as libpcap has them.
    pub packets: Option<PathBuf>,
    /// Makes checkpoints on the way, if there are none.
    pub checkpoints: bool,
    /// What runs it.
    pub engine: Choice,
}

/// Which engine runs a replay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Choice {
    /// The one that is installed, if it is the one that recorded.
    #[default]
    Installed,
    /// The one that is installed, whatever it is.
    Any,
    /// The one that came with the recording.
    Capsule,
    /// The one that is installed, and no other can be taken: its plugin watches the run.
    Watched,
}

impl Choice {
    pub(super) fn engine(self, recording: &Recording, listener: &mut dyn Listener) -> Result<Engine, Error> {
        Ok(match self {
            Self::Installed | Self::Any | Self::Watched => Engine::Installed,
            Self::Capsule => Engine::Capsule(recording.capsule_to_run(&mut reading("reading the engine", listener))?),
        })
    }
}

/// A point of a run, and what to do there.
#[derive(Debug, Clone)]
pub struct At {
    /// The point.
    pub point: Point,
    /// What to do.
    pub then: Then,
}

/// What to do at a point of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// Go on to the end.
    GoOn,
    /// Write the guest's memory and registers to a new file, as a core, and end.
    Dump(PathBuf),
}

/// Replays `recording`. `guest` is the guest's file as it is now, if there still is one. There is no verdict on what went
/// through a debugger, where the guest does the same things again and again.
pub fn replay(
    recording: &Recording,
    guest: Option<&Guest>,
    environment: &Environment<'_>,
    options: &Options,
    listener: &mut dyn Listener,
) -> Result<Option<Verdict>, Error> {
    let _use = recording.use_shared()?;
    let mut done = once(recording, guest, environment, options, Course::Quick, listener)?;
    if done.may_be_our_doing && options.packets.is_none() {
        tracing::warn!(
            "it stood still after it began at a checkpoint, or was stopped to be compared, which may be the reason: it is replayed once \
             more, from the first instruction and without that"
        );
        done = once(recording, guest, environment, options, Course::Plain, listener)?;
    }
    if let Some(verdict) = &done.verdict {
        note(recording, verdict, &done.ran_on, done.whole);
    }
    Ok(done.verdict)
}

/// Has the recording remember a verdict on the `whole` run, or on a part of it, and what ran it.
pub(super) fn note(recording: &Recording, verdict: &Verdict, ran_on: &str, whole: bool) {
    remark(recording);
    // That a part of it was the same says nothing of the rest.
    if whole || matches!(verdict, Verdict::Diverged { .. }) {
        recording.note_verdict(verdict, ran_on);
    }
}

/// What one replay came to.
struct Done {
    verdict: Option<Verdict>,
    /// What ran it, as the recording remembers it.
    ran_on: String,
    /// Whether it began with the first instruction.
    whole: bool,
    /// Whether it stood still, and had been loaded or stopped before: what QEMU does not save of a device, or does otherwise after a
    /// stop, looks the same as a guest that goes another way.
    may_be_our_doing: bool,
}

/// How a replay comes to where it is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// From a checkpoint, if there is one; it is stopped on the way, to be compared and to make checkpoints.
    Quick,
    /// From the first instruction, without a stop: QEMU does nothing but replay.
    Plain,
}

/// Replays it once.
fn once(
    recording: &Recording,
    guest: Option<&Guest>,
    environment: &Environment<'_>,
    options: &Options,
    course: Course,
    listener: &mut dyn Listener,
) -> Result<Done, Error> {
    let manifest = recording.manifest();
    let signals = live::signals()?;
    let checked = check(recording, guest, &environment.seals, options.engine, listener)?;
    // By the name that is locked: the manifest has the sender's.
    let name = recording.guest();
    let end = checked.end;
    let at = options
        .at
        .as_ref()
        .map(|at| checked.find(recording, &at.point))
        .transpose()?;
    let checkpoints = checkpoints(recording, at.is_some())?;
    let quick = course == Course::Quick;
    let from = checkpoints
        .as_ref()
        .filter(|_| quick)
        .zip(at.as_ref())
        .and_then(|(all, at)| all.before(*at));
    let goes_on = options.gdb.is_none() && options.at.as_ref().is_none_or(|at| at.then == Then::GoOn);
    // What a capsule's engine wrote, the one that is installed does not load: it is less shut in.
    let ours = *checked.engine() == Engine::Installed;
    let keeps = ours && quick && (checkpoints.is_none() || Trail::load(recording.directory()).is_none());
    let alone = keeps.then(|| recording.keep_alone()).flatten();
    let makes = alone.is_some() && options.checkpoints && goes_on && checkpoints.is_none();
    if at.is_some() && checkpoints.is_none() {
        tracing::warn!(
            "there are no checkpoints, so it goes there from the first instruction; a whole replay (`ttvm replay {name}`) makes them"
        );
    }
    let mut maker = makes.then(|| begin_checkpoints(recording)).flatten();
    let fresh = match options.gdb.is_some() || maker.is_some() || from.is_some() {
        _ if environment.shared => Fresh::OverOrigins,
        true => Fresh::Covered,
        false => Fresh::AsConfigured,
    };
    let Setup { disks, machine } = Setup::new(recording, guest, environment, fresh)?;
    fail_point::reach("session.disks-made");
    let result = manifest.result.as_ref().ok_or(Error::Interrupted)?;
    let overlays = &environment.overlays;
    let log = match options.gdb.is_some() {
        true => Log::without_end(recording, end, overlays),
        false => Log::of(recording, end, overlays),
    }?;
    let memory = Memory::new(machine.memory).map_err(Error::Memory)?;
    let start = match (&checkpoints, from) {
        (Some(all), Some(from)) => {
            let printed = printed_before(recording, from.moment.instructions)?;
            Some(Start::prepare(name, all, from, (&memory, &disks), overlays, printed)?)
        }
        _ => None,
    };
    if let Some(wanted) = &options.gdb {
        let run = debugger::Run {
            id: recording.id(),
            guest: name,
            log: log.path(),
            last: end.last_stop(),
            end: end.instructions,
            at: at.map(|at| debugger::At {
                instructions: at,
                start: start.as_ref(),
                memory: &memory,
            }),
            machine: &machine,
            engine: &checked.engine,
        };
        debugger::serve(&run, overlays, wanted, listener, &signals)?;
        return Ok(checked.done(None));
    }
    let multiboot = recording
        .kernel_path()
        .is_some_and(|kernel| engine::is_multiboot(&kernel));
    let (moments, trail) = match course {
        Course::Quick => (result.moments.as_slice(), Trail::load(recording.directory())),
        Course::Plain => (&[][..], Some(Trail::default())),
    };
    let mut stops = Stops::new(
        moments,
        trail,
        !manifest.vifs.is_empty(),
        start.as_ref().map_or(0, Start::instructions),
        end.last_stop(),
    );
    if multiboot {
        stops = stops.without_memory();
    }
    let packets = packets(recording, options)?;
    let then = options.at.as_ref().map(|at| &at.then);
    let mut act = |qmp: &mut Qmp, memory: &Memory| arrived(then, qmp, memory);
    let mut rerun = Rerun {
        recording,
        result,
        log: log.path(),
        end,
        machine: &machine,
        engine: &checked.engine,
        memory: &memory,
        stops,
        stopped: false,
        start: start.as_ref(),
        checkpoints: checkpoints.as_ref(),
        maker: maker.take(),
        state: None,
        packets,
        watching: None,
        visit: at.map(|at| Visit { at, act: &mut act }),
        flip: Flip::wanted().filter(|flip| start.as_ref().is_none_or(|start| start.instructions() < flip.at)),
        listener,
    };
    let came = rerun.run(overlays, &signals)?;
    maker = rerun.maker.take();
    let stopped = rerun.stopped;
    let (compared, trail) = (rerun.stops.compared(), rerun.stops.into_trail());
    let verdict = match came {
        Came::Left { .. } => return Ok(checked.done(None)),
        Came::Differs(at) => Verdict::Diverged { at },
        Came::Same => {
            let contents = left_on(&disks, result, listener)?;
            disks_verdict(manifest, &contents).unwrap_or(Verdict::Identical {
                instructions: Some(end.instructions),
                from: start.as_ref().map(Start::instructions),
                moments: compared,
                memory: !multiboot,
                disks: contents.len(),
            })
        }
    };
    if let (Some(_alone), Verdict::Identical { .. }) = (alone, &verdict) {
        keep(recording, trail, maker, &disks);
    }
    let stalled = matches!(
        &verdict,
        Verdict::Diverged {
            at: Divergence::Stalled { .. }
        }
    );
    Ok(Done {
        whole: start.is_none(),
        may_be_our_doing: stalled && (stopped || start.is_some()),
        ..checked.done(Some(verdict))
    })
}

/// Says beside a verdict that there was next to nothing to compare.
fn remark(recording: &Recording) {
    let Some(result) = recording
        .manifest()
        .result
        .as_ref()
        .filter(|_| recording.prints_nothing())
    else {
        return;
    };
    let remark = match result.is_cut() && !result.console_complete {
        true => END_ALONE,
        false => NOTHING,
    };
    tracing::warn!(ttvm_guest = %recording.guest(), "{remark}");
}

/// A file for the packets of each network interface, if they are wanted: the name that was given, and for more than one interface
/// the same with their numbers.
fn packets(recording: &Recording, options: &Options) -> Result<Vec<PathBuf>, Error> {
    let Some(file) = &options.packets else {
        return Ok(Vec::new());
    };
    let manifest = recording.manifest();
    if manifest.vifs.is_empty() {
        return Err(Error::NoPackets("the guest has no network interface"));
    }
    // The dump reads the host's clock, which such a log has for the guest alone.
    if manifest.format == 1 {
        return Err(Error::NoPackets("the recording has format 1: record the guest again"));
    }
    let name = |index: usize| match index {
        0 => file.clone(),
        index => {
            let mut name = file.clone().into_os_string();
            name.push(format!(".{index}"));
            name.into()
        }
    };
    Ok((0..manifest.vifs.len()).map(name).collect())
}

/// How much the guest had printed when it had executed so many instructions.
pub(super) fn printed_before(recording: &Recording, instructions: u64) -> Result<u64, Error> {
    point::printed_before(open_log(recording)?, devices(recording.manifest()), instructions).map_err(Error::Unlike)
}

/// Its log, to be read.
pub(super) fn open_log(recording: &Recording) -> Result<File, Error> {
    file::open_content(&recording.log()).map_err(|error| Error::Unlike(error.into()))
}

/// Those that there are. If they cannot be read, they are needed only where somebody goes to a point.
fn checkpoints(recording: &Recording, needed: bool) -> Result<Option<Checkpoints>, Error> {
    match Checkpoints::load(recording.directory()) {
        Err(error) if !needed => {
            tracing::warn!("{}", crate::base::error::one_line(&error));
            Ok(None)
        }
        loaded => loaded,
    }
}

/// Does what is wanted of a machine that has come to the point.
fn arrived(then: Option<&Then>, qmp: &mut Qmp, memory: &Memory) -> Result<Next, Error> {
    match then {
        Some(Then::Dump(path)) => {
            let registers = qmp.registers()?;
            let failed = |source| Error::Write {
                path: path.clone(),
                source,
            };
            let file = new_file(path).map_err(failed)?;
            let written = core::write(memory, &registers, &file);
            if written.is_err() {
                drop(fs::remove_file(path));
            }
            written?;
            Ok(Next::Leave)
        }
        Some(Then::GoOn) | None => Ok(Next::GoOn),
    }
}

/// Keeps what a replay that was the same run has made. What prevents it is no fault of the replay.
fn keep(recording: &Recording, trail: Option<Trail>, maker: Option<Maker>, disks: &Disks<'_>) {
    if let Some(trail) = trail
        && let Err(error) = trail.save(recording.directory())
    {
        tracing::warn!("the moments of this replay cannot be kept: {error}");
    }
    if let Some(maker) = maker
        && let Err(error) = maker.keep(disks.overlays())
    {
        tracing::warn!(
            "the checkpoints of this replay cannot be kept: {}",
            crate::base::error::one_line(&error)
        );
    }
}

/// Checkpoints in the making. What prevents them does not prevent the replay.
fn begin_checkpoints(recording: &Recording) -> Option<Maker> {
    let manifest = recording.manifest();
    if manifest.format == 1 {
        return None;
    }
    Maker::begin(recording.directory(), manifest.engine.memory)
        .inspect_err(|error| tracing::warn!("no checkpoints are made: {}", crate::base::error::one_line(error)))
        .ok()
}

/// Whether a replay of `recording` would be one: every difference is named.
pub fn check(
    recording: &Recording,
    guest: Option<&Guest>,
    seals: &Seals,
    choice: Choice,
    listener: &mut dyn Listener,
) -> Result<Checked, Error> {
    let manifest = recording.manifest();
    tt_xen::require_unit(recording.guest(), manifest.engine.toolstack, "replay")?;
    let engine = choice.engine(recording, listener)?;
    let version = engine.version()?;
    let kernel = recording.kernel_path();
    let mut differences = compare::words(manifest);
    if choice != Choice::Any {
        let firmware = engine.firmware(kernel.as_deref())?;
        differences.extend(compare::qemu(recording, &version, &firmware, choice, listener)?);
    }
    if let Some(guest) = guest {
        differences.extend(compare::guest(
            manifest,
            guest,
            (choice != Choice::Any).then_some(&version),
        ));
    }
    differences.extend(compare::files(recording, guest, seals, listener)?);
    if !differences.is_empty() {
        return Err(different(recording, differences));
    }
    require_memory(Size::from_bytes(manifest.engine.memory))?;
    let end = log::check(recording, listener)?;
    Ok(Checked { end, version, engine })
}

/// What is known of a recording that can be replayed.
pub struct Checked {
    end: End,
    version: Version,
    engine: Engine,
}

impl Checked {
    /// One replay is over, with this verdict.
    fn done(&self, verdict: Option<Verdict>) -> Done {
        Done {
            verdict,
            ran_on: self.ran_on(),
            whole: true,
            may_be_our_doing: false,
        }
    }

    /// Where the run ends.
    pub(super) fn end(&self) -> End {
        self.end
    }

    /// What runs it.
    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Which QEMU that is.
    pub(super) fn version(&self) -> &Version {
        &self.version
    }

    /// What ran it, as the recording remembers it.
    pub(super) fn ran_on(&self) -> String {
        match self.engine {
            Engine::Installed => self.version.text.clone(),
            Engine::Capsule(_) => format!("{} in its capsule", self.version),
        }
    }

    /// Where a point of the run is, in instructions.
    ///
    /// # Errors
    ///
    /// If the run does not have it, or its log or console cannot be read.
    pub fn find(&self, recording: &Recording, point: &Point) -> Result<u64, Error> {
        find(recording, point, self.end)
    }
}

/// Where a point of the run of `recording` is, in instructions; the run ends at `end`.
pub(super) fn find(recording: &Recording, point: &Point, end: End) -> Result<u64, Error> {
    let log = open_log(recording)?;
    let path = recording.console();
    let console = file::open_content(&path).map_err(unreadable(&path))?;
    let found = match (point, recording.manifest().engine.icount.parse()) {
        // A guest that waits is ahead of this, by as much as it waited.
        (Point::Time(time), Ok(Shift::Fixed(shift))) => {
            let instructions = u64::try_from(time.as_nanos() >> shift).unwrap_or(u64::MAX);
            let point = Point::Instructions(instructions);
            point::resolve(&point, log, devices(recording.manifest()), console, end.instructions)
        }
        _ => point::resolve(point, log, devices(recording.manifest()), console, end.instructions),
    };
    let found = found.map_err(|source| Error::Point { source })?;
    // Behind that one there is no way on.
    Ok(found.instructions.min(end.last_stop()))
}

/// What a replay left on its disks, as far as it can be compared.
pub(super) fn left_on(
    disks: &Disks<'_>,
    result: &Outcome,
    listener: &mut dyn Listener,
) -> Result<Vec<crate::file::digest::Digest>, Error> {
    match result.is_cut() {
        // Nobody knows what was on them when the run was cut off.
        true => Ok(Vec::new()),
        false => disks.contents(listener),
    }
}

/// The disk that a replay left otherwise than the recorded run did, if there is one.
pub(super) fn disks_verdict(manifest: &Manifest, contents: &[crate::file::digest::Digest]) -> Option<Verdict> {
    manifest.disks.iter().zip(contents).find_map(|(disk, found)| {
        let expected = disk.end.filter(|end| end != found)?;
        Some(Verdict::Diverged {
            at: Divergence::Disk {
                target: disk.target.clone(),
                expected,
                found: *found,
            },
        })
    })
}
