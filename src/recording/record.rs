// SPDX-License-Identifier: MIT OR Apache-2.0
//! Recording a run.

use std::fmt;
use std::fs::File;
use std::io::{Seek, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signalfd::SignalFd;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use replay_log::Devices;

use super::library::draft::new_file;
use super::library::manifest::{Engine, FORMAT, FileDigest, Interface, Manifest, Outcome, Run, RunExit};
use super::replay::moment::{self, Moment};
use super::session::disks::{self, Disks, Seals, Wanted};
use super::session::limit::Limit;
use super::session::live::{self, Happened, Live};
use super::session::{self, Environment, Error, Keys, Listener, require_memory};
use super::{Draft, Library, Recording, tt_xen};
use crate::base::catalogue::Message;
use crate::base::clock::{boot_id, now};
use crate::base::fail_point;
use crate::config::guest::{Boot, DiskSource, Guest, Shift};
use crate::config::types::GuestName;
use crate::guest::obstacles;
use crate::guest::restarts::{Reboots, Step};
use crate::qemu::engine::{self, Version};
use crate::qemu::machine::{self, CPU, Format, Machine, Mode};
use crate::qemu::memory::Memory;
use crate::qemu::process::{Emulator, died};
use crate::qemu::qmp::{Event, Failure, Qmp};

/// No guest writes faster, in bytes a second: its machine is emulated.
const FASTEST: u64 = 256 << 20;

/// Without so much free space no recording is begun.
pub const ROOM: u64 = 256 << 20;

/// With less than this left, the recording comes to its end: as long as there is room for it, it is a whole one.
pub(super) const RESERVE: u64 = 64 << 20;

/// With less than this left, what QEMU writes at its end may not have found room; that it does not tell.
const LAST: u64 = 64 << 10;

/// When the first moments of a run are taken.
const FIRST_MOMENT: Duration = Duration::from_millis(500);

/// How many are taken at a time.
const MOMENTS: u32 = 4;

/// How often it is looked whether a run has come to an instruction.
const LOOK: Duration = Duration::from_millis(50);

/// How long the guest runs between two of these.
const BETWEEN_MOMENTS: Duration = Duration::from_millis(10);

/// A guest that leaves the processor no more than the rest of it does not wait.
const BUSY: f64 = 0.9;

/// What QEMU says, once, when a part of its log could not be written; then it goes on without (replay/replay-internal.c).
const LOST: &str = "replay write error";

/// How to record.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// When to end the run.
    pub limit: Option<Limit>,
}

/// What was recorded, and why it ended where it did if that was not the guest's doing.
pub struct Recorded {
    /// The recording.
    pub recording: Recording,
    /// Why it was ended, if the guest could have gone on.
    pub cut: Option<Cut>,
    /// Whether somebody ended it.
    pub called_off: bool,
}

/// Why a run was ended that could have gone on. What was recorded so far is a whole recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut {
    /// The disk with the library was nearly full.
    Full,
    /// A disk of the guest failed on the host.
    Disk(Failure),
    /// The guest reboots again and again.
    Reboots {
        /// How often in a row, each time too soon.
        times: u32,
    },
}

impl Cut {
    /// What explains it.
    pub fn message(&self) -> Message {
        match self {
            Self::Full => Message::RecordingCut,
            Self::Disk(_) => Message::DiskFailed,
            Self::Reboots { .. } => Message::GivenUp,
        }
    }

    /// Whether the host is to blame: how the run would have ended, nobody knows.
    pub fn is_of_the_host(&self) -> bool {
        match self {
            Self::Full | Self::Disk(_) => true,
            Self::Reboots { .. } => false,
        }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str(
                "the disk was nearly full, so the run was ended there; the recording is whole. Remove old ones with `ttvm recordings rm`",
            ),
            Self::Disk(failure) => write!(
                f,
                "{failure}, because the host failed, so the run was ended there; the recording is whole. Look at the host (`dmesg`), then record again"
            ),
            Self::Reboots { times } => write!(
                f,
                "{times} times in a row the guest rebooted within a minute of its start, so the run was ended there; the recording is whole. With `--for` it goes on for that time"
            ),
        }
    }
}

/// Records a run of `guest`, whose file has the text `file`.
pub fn record(
    guest: &Guest,
    file: &str,
    library: &Library,
    environment: &Environment<'_>,
    options: &Options,
    listener: &mut dyn Listener,
    keys: Option<&mut dyn Keys>,
) -> Result<Recorded, Error> {
    let version = check(guest)?;
    let limits = Limits::of(guest, options.limit)?;
    let signals = live::signals()?;
    library.salvage_all(&guest.name, &mut |done, total| {
        listener.progress("reading an older recording", done, total);
        ControlFlow::Continue(())
    });
    require_room(library)?;
    require_memory(guest.memory)?;
    let began = now();
    let mut machine = session::machine_of(guest, &version, began);
    for remark in [obstacles::prints_nothing(guest), obstacles::boots_nothing(guest)]
        .into_iter()
        .flatten()
    {
        tracing::warn!(ttvm_guest = %guest.name, "{remark}");
    }
    let engine = engine_of(guest, &machine, &version, listener)?;
    let mut manifest = manifest(guest, file, began, engine, "user", &environment.seals, listener)?;
    let disks = Disks::make(&guest.name, &wanted(guest, &manifest), environment)?;
    machine.drives.clone_from(&disks.drives);
    manifest.engine.config = machine.digest();
    let draft = library.create(&guest.name, &manifest, file)?;
    let ended = run(&machine, &draft, library, &limits, listener, keys, &signals);
    let recorded = whole(ended, draft, manifest, &disks, limits.instructions, listener)?;
    if recorded.recording.prints_nothing() {
        tracing::warn!(
            ttvm_guest = %guest.name,
            "the guest has printed nothing: a replay of this is compared by its end and its disks alone"
        );
    }
    Ok(recorded)
}

/// Makes a whole recording of a run of QEMU that came to this end; it was to end after so many instructions, if that was said. Why there is
/// none is noted in the draft.
pub(super) fn whole(
    ended: Result<Ended, Error>,
    draft: Draft,
    manifest: Manifest,
    disks: &Disks<'_>,
    wanted: Option<u64>,
    listener: &mut dyn Listener,
) -> Result<Recorded, Error> {
    let ended = ended.and_then(|ended| ended.with_log(&draft, session::devices(&manifest), wanted));
    let ended = ended.inspect_err(|error| draft.note_why(&crate::base::error::one_line(error)))?;
    // What was on them at an instruction that was chosen, nobody knows: the machine had gone on.
    let disks = (ended.exit != RunExit::Cut).then_some(disks);
    let recording = finish(draft, manifest, disks, listener, |log, console| Outcome {
        ended: ended.at,
        exit: ended.exit,
        instructions: Some(ended.instructions),
        console_complete: true,
        log,
        console,
        moments: ended.moments,
    })?;
    Ok(Recorded {
        recording,
        cut: ended.cut,
        called_off: ended.called_off,
    })
}

/// `Ok` if there is room to begin a recording.
pub(super) fn require_room(library: &Library) -> Result<(), Error> {
    require_room_beside(library, 0)
}

/// The same of one that begins with so many bytes.
pub(super) fn require_room_beside(library: &Library, begins: u64) -> Result<(), Error> {
    let free = library.free_space()?;
    let needed = ROOM.saturating_add(begins);
    if free >= needed {
        return Ok(());
    }
    Err(Error::NoSpace {
        directory: library.state_directory().to_owned(),
        free: free >> 20,
        needed: needed >> 20,
    })
}

/// The disks of a run of `guest` that begins as `manifest` says.
pub(super) fn wanted<'a>(guest: &'a Guest, manifest: &Manifest) -> Vec<Wanted<'a>> {
    let disks = guest.disks.iter().zip(&manifest.disks).map(|(disk, recorded)| Wanted {
        target: disk.target.clone(),
        source: &disk.source,
        base: None,
        size: recorded.size,
    });
    disks.collect()
}

/// Makes a whole recording of a run that has ended and left its log and console; of its disks, if what is on them is what was
/// there at its end. `outcome` adds the rest.
pub(super) fn finish(
    draft: Draft,
    mut manifest: Manifest,
    disks: Option<&Disks<'_>>,
    listener: &mut dyn Listener,
    outcome: impl FnOnce(FileDigest, FileDigest) -> Outcome,
) -> Result<Recording, Error> {
    let contents = disks.map_or_else(|| Ok(Vec::new()), |disks| disks.contents(listener))?;
    for (disk, content) in manifest.disks.iter_mut().zip(contents) {
        disk.end = Some(content);
    }
    fail_point::reach("record.ended");
    let (log, console) = draft.digests(&mut |done, total| {
        listener.progress("reading the recording", done, total);
        ControlFlow::Continue(())
    })?;
    manifest.result = Some(outcome(log, console));
    Ok(draft.finish(&manifest)?)
}

/// Whether QEMU can record `guest`, and which.
pub fn check(guest: &Guest) -> Result<Version, Error> {
    tt_xen::require_unit(&guest.name, guest.toolstack, "record")?;
    if !guest.toolstack.is_emulated() {
        return Err(Error::PlainOnly {
            guest: guest.name.clone(),
        });
    }
    disks::check_disks(guest)?;
    Ok(engine::find()?)
}

/// What is known of a run before it begins; `network` is what connects a guest that has interfaces.
pub(super) fn manifest(
    guest: &Guest,
    file: &str,
    began: u64,
    engine: Engine,
    network: &str,
    seals: &Seals,
    listener: &mut dyn Listener,
) -> Result<Manifest, Error> {
    let (kernel, initrd) = match &guest.boot {
        Boot::Kernel { kernel, initrd, .. } => (Some(kernel), initrd.as_ref()),
        Boot::Bootloader { .. } | Boot::Firmware => (None, None),
    };
    let mut read = |path: Option<&std::path::PathBuf>| path.map(|path| disks::digest_file(path, listener)).transpose();
    let kernel = read(kernel)?;
    let initrd = read(initrd)?;
    let disks = guest
        .disks
        .iter()
        .map(|disk| {
            let origin = disks::origin_of(&disk.source);
            let mut digest = disks::digest_origin(&disk.target, &origin, seals, listener)?;
            digest.writable = !matches!(disk.source, DiskSource::Path { writable: false, .. });
            Ok::<_, Error>(digest)
        })
        .collect::<Result<_, _>>()?;
    Ok(Manifest {
        format: FORMAT,
        guest: guest.name.clone(),
        run: Run {
            ttvm: env!("CARGO_PKG_VERSION").to_owned(),
            started: began,
            boot: boot_id(),
            network: if guest.vifs.is_empty() { "none" } else { network }.to_owned(),
        },
        engine,
        guest_file: FileDigest::of_bytes(std::path::Path::new(super::library::draft::GUEST_FILE), file.as_bytes()),
        kernel,
        initrd,
        disks,
        vifs: guest.vifs.iter().map(|vif| Interface { mac: vif.mac }).collect(),
        parent: None,
        result: None,
    })
}

fn engine_of(
    guest: &Guest,
    machine: &Machine,
    version: &Version,
    listener: &mut dyn Listener,
) -> Result<Engine, Error> {
    let kernel = machine.kernel.as_ref().map(|it| it.kernel.as_path());
    let firmware = engine::Engine::Installed.firmware(kernel)?;
    let firmware = firmware.iter().map(|path| disks::digest_file(path, listener));
    Ok(Engine {
        toolstack: guest.toolstack,
        version: version.text.clone(),
        machine: machine.machine.clone(),
        cpu: CPU.to_owned(),
        icount: machine.icount.to_string(),
        began: match machine.format {
            Format::First => None,
            Format::Second { began } => Some(began),
        },
        memory: machine.memory.bytes(),
        cmdline: machine.kernel.as_ref().map(|it| it.cmdline.clone()),
        reset_ends: machine.reset_ends,
        hpet: machine.hpet,
        config: machine.digest(),
        firmware: firmware.collect::<Result<_, _>>()?,
    })
}

/// How a run ended.
pub(super) struct Ended {
    pub(super) exit: RunExit,
    pub(super) instructions: u64,
    pub(super) at: u64,
    pub(super) cut: Option<Cut>,
    pub(super) called_off: bool,
    pub(super) moments: Vec<Moment>,
}

impl Ended {
    /// The same as the log has it, which ends with the run then: QEMU itself went on a little, for longer or shorter.
    fn with_log(mut self, draft: &Draft, devices: Devices, wanted: Option<u64>) -> Result<Self, Error> {
        let path = draft.log();
        let failed = |error| Error::Unlike(replay_log::Error::Read(error));
        let mut log = File::options().read(true).write(true).open(&path).map_err(failed)?;
        if let Some(wanted) = wanted {
            self.stop(
                draft,
                replay_log::stop(&mut log, devices, wanted).map_err(Error::Unlike)?,
            )?;
            log.rewind().map_err(failed)?;
        }
        let summary = replay_log::check(&log, devices, &mut |_| true).map_err(Error::Unlike)?;
        let end = summary.end.ok_or(Error::LogLost)?;
        replay_log::cut(&mut log, end.behind).map_err(failed)?;
        self.instructions = end.instructions;
        self.moments.retain(|moment| moment.instructions < end.instructions);
        log.rewind().map_err(failed)?;
        moment::retain_quiet(&mut self.moments, log, devices).map_err(Error::Unlike)?;
        Ok(self)
    }

    /// The run was made to end where somebody wanted it to, and its console ends there, too.
    fn stop(&mut self, draft: &Draft, stopped: Option<replay_log::Stopped>) -> Result<(), Error> {
        let Some(stopped) = stopped else { return Ok(()) };
        self.exit = RunExit::Cut;
        // What came after that does not count.
        self.cut = None;
        let path = draft.console();
        let cut = File::options().write(true).open(&path).and_then(|console| {
            let length = console.metadata()?.len().min(stopped.printed);
            console.set_len(length)
        });
        cut.map_err(|source| Error::Write { path, source })
    }
}

/// When a run is to end.
pub(super) struct Limits {
    /// After this time of the host.
    time: Option<Duration>,
    /// After so many instructions.
    instructions: Option<u64>,
}

impl Limits {
    fn of(guest: &Guest, limit: Option<Limit>) -> Result<Self, Error> {
        let shift = guest.qemu.as_ref().map(|qemu| qemu.icount);
        let shift = shift.filter(|_| guest.toolstack.is_emulated());
        Self::new(&guest.name, shift, limit, 0)
    }

    /// Those of `guest`, whose clock has this `shift`, and which has executed `begun` instructions when the run begins.
    pub(super) fn new(
        guest: &GuestName,
        shift: Option<Shift>,
        limit: Option<Limit>,
        begun: u64,
    ) -> Result<Self, Error> {
        let instructions = limit.map(|limit| limit.instructions(guest, shift)).transpose()?;
        Ok(Self {
            time: limit.and_then(Limit::host),
            instructions: instructions.flatten().map(|count| count.saturating_add(begun)),
        })
    }

    /// The instruction after which it ends, if that is known.
    pub(super) fn instructions(&self) -> Option<u64> {
        self.instructions
    }

    /// When to look how far the run is, at the latest.
    fn look(&self) -> Option<Instant> {
        self.instructions.map(|_| Instant::now() + LOOK)
    }

    /// Whether the run has come so far.
    fn are_reached(&self, qmp: &mut Qmp) -> Result<bool, Error> {
        match self.instructions {
            Some(wanted) => Ok(qmp.instructions()? > wanted),
            None => Ok(false),
        }
    }
}

/// What QEMU has used of the processor. Where that cannot be known, it is nothing.
fn processor_time(emulator: &Emulator) -> Duration {
    let pid = i32::try_from(emulator.id()).map(Pid::from_raw);
    let used = pid
        .ok()
        .and_then(|pid| clock_getcpuclockid(pid).and_then(clock_gettime).ok());
    used.map_or(Duration::ZERO, Duration::from)
}

/// Takes moments of a run, fewer and fewer: each costs the time to read the guest's memory. Two of three turn out to be of no use
/// (`moment::retain_quiet`), so several are taken each time.
struct Moments<'a> {
    memory: &'a Memory,
    disks: usize,
    taken: Vec<Moment>,
    /// How many are still taken this time.
    left: u32,
    /// When the next one is due.
    again: Instant,
    wait: Duration,
    /// When it was looked at whether the guest does something, and what QEMU had used of the processor by then.
    looked: Option<(Instant, Duration)>,
}

impl<'a> Moments<'a> {
    fn new(memory: &'a Memory, disks: usize) -> Self {
        Self {
            memory,
            disks,
            taken: Vec::new(),
            left: MOMENTS,
            again: Instant::now() + FIRST_MOMENT,
            wait: FIRST_MOMENT,
            looked: None,
        }
    }

    /// Takes one if it is a good moment, and says when the next is due.
    ///
    /// A guest that waits is left alone, and so is one that did for a part of the last milliseconds: it may at any time. QEMU that is
    /// stopped while a guest waits goes on with the clock that is to wake it (`icount_warp_rt` in accel/tcg/icount-common.c: the time
    /// is up, and is not made up for). A replay, which is not stopped there, goes another way then, and stands still for ever. Under
    /// load that was one recording in ten of a guest that somebody typed in.
    fn take(&mut self, emulator: &mut Emulator) -> Result<(), Error> {
        let now = (Instant::now(), processor_time(emulator));
        let Some((since, used)) = self.looked.take() else {
            self.looked = Some(now);
            self.again = now.0 + BETWEEN_MOMENTS;
            return Ok(());
        };
        self.left -= 1;
        let wait = match self.left {
            0 => {
                self.left = MOMENTS;
                self.wait *= 2;
                self.wait
            }
            _ => BETWEEN_MOMENTS,
        };
        self.again = Instant::now() + wait;
        if now.1.saturating_sub(used) < (now.0 - since).mul_f64(BUSY) {
            return Ok(());
        }
        let qmp = emulator.qmp();
        let at = qmp.stop()?;
        // It may have ended just now.
        if !qmp.is_paused()? {
            return Ok(());
        }
        let is_new = self.taken.last().is_none_or(|moment| moment.instructions < at);
        if is_new && qmp.disks_are_quiet(self.disks)? {
            self.taken.push(Moment::of(at, qmp, self.memory)?);
        }
        qmp.go_on()?;
        Ok(())
    }
}

fn run(
    machine: &Machine,
    draft: &Draft,
    library: &Library,
    limits: &Limits,
    listener: &mut dyn Listener,
    keys: Option<&mut dyn Keys>,
    signals: &SignalFd,
) -> Result<Ended, Error> {
    let console = Console::new(draft.console())?;
    let memory = Memory::new(machine.memory).map_err(Error::Memory)?;
    let emulator = Emulator::start(
        &engine::Engine::Installed,
        machine,
        &Mode::Record(machine::Recording {
            log: draft.log(),
            state: None,
        }),
        Some(&memory),
        draft.directory(),
    )?;
    let live = Live::new(emulator, signals, keys);
    listener.ready(&format!("recording as {}", draft.id()));
    fail_point::reach("record.running");
    let course = Course {
        library,
        limits,
        memory: &memory,
        disks: machine.drives.len(),
        console,
        copied: None,
    };
    course.follow(live, listener)
}

/// Where what a guest prints is kept.
pub(super) struct Console {
    path: PathBuf,
    file: File,
}

impl Console {
    /// A new one.
    pub(super) fn new(path: PathBuf) -> Result<Self, Error> {
        match new_file(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(source) => Err(Error::Write { path, source }),
        }
    }

    pub(super) fn add(&mut self, text: &[u8]) -> Result<(), Error> {
        self.file.write_all(text).map_err(|source| Error::Write {
            path: self.path.clone(),
            source,
        })
    }
}

/// A run that goes on, up to its end.
pub(super) struct Course<'a> {
    pub(super) library: &'a Library,
    pub(super) limits: &'a Limits,
    /// The guest's.
    pub(super) memory: &'a Memory,
    /// How many it has.
    pub(super) disks: usize,
    pub(super) console: Console,
    /// A log that is copied when the run has ended: so much room is left alone.
    pub(super) copied: Option<PathBuf>,
}

impl Course<'_> {
    /// Follows it until the guest ends it, or somebody else.
    pub(super) fn follow(mut self, mut live: Live<'_, '_>, listener: &mut dyn Listener) -> Result<Ended, Error> {
        let limits = self.limits;
        let end = limits.time.map(|limit| Instant::now() + limit);
        let mut space = Space::new(self.library)?;
        let mut moments = Moments::new(self.memory, self.disks);
        let mut reboots = Reboots::begin(Instant::now());
        let (mut cut, mut called_off) = (None, false);
        let exit = loop {
            let due = space.again.min(moments.again);
            let until = [Some(due), end, limits.look()].into_iter().flatten().min();
            match live.next(until)? {
                Happened::Console(text) => {
                    self.console.add(&text)?;
                    listener.console(&text);
                }
                Happened::Event(Event::Shutdown(reason)) => break exit_of(&reason),
                // A disk failed. The guest waits for an answer that it gets in a replay: nobody knows what is on its disks then.
                Happened::Event(Event::Stopped) => {
                    if let Some(failure) = live.emulator.qmp().failure()? {
                        cut = Some(match failure.no_space {
                            true => Cut::Full,
                            false => Cut::Disk(failure),
                        });
                        break RunExit::Cut;
                    }
                }
                Happened::Event(Event::Resumed) => {}
                // It is not slowed: a recorded machine is left alone.
                Happened::Event(Event::Reset) => {
                    let at = live.emulator.qmp().instructions()?;
                    // Who said how long it is to go on means that.
                    let next = reboots.another(at, Instant::now());
                    if next == Some(Step::GiveUp) && end.is_none() && limits.instructions.is_none() {
                        let times = reboots.times();
                        cut = Some(Cut::Reboots { times });
                        break RunExit::Stopped;
                    }
                }
                Happened::Signal { .. } => {
                    called_off = true;
                    break RunExit::Stopped;
                }
                Happened::Ended => {
                    let status = live.emulator.wait().map_err(Error::Wait)?;
                    let why = died(status, live.emulator.complaint());
                    return Err(Error::EngineDied { why });
                }
                Happened::Timeout if end.is_some_and(|end| Instant::now() >= end) => break RunExit::Stopped,
                Happened::Timeout if limits.are_reached(live.emulator.qmp())? => break RunExit::Stopped,
                Happened::Timeout => {
                    let now = Instant::now();
                    if now >= moments.again {
                        moments.take(&mut live.emulator)?;
                    }
                    if now >= space.again {
                        let copied = self.copied.as_ref().and_then(|log| log.metadata().ok());
                        if space.look(self.library, copied.map_or(0, |log| log.len()))? {
                            cut = Some(Cut::Full);
                            break RunExit::Stopped;
                        }
                    }
                }
            }
        };
        let at = now();
        if exit == RunExit::Stopped && cut.is_none() {
            moments.take(&mut live.emulator)?;
        }
        let instructions = live.emulator.qmp().stop()?;
        live.emulator.quit()?;
        if live.emulator.complaint().contains(LOST) || self.library.free_space()? < LAST {
            return Err(Error::LogLost);
        }
        live.rest(|text| {
            self.console.add(text)?;
            listener.console(text);
            Ok(())
        })?;
        Ok(Ended {
            exit,
            instructions,
            at,
            cut,
            called_off,
            moments: moments.taken,
        })
    }
}

/// QEMU's reason for a shutdown (ShutdownCause in its qapi/run-state.json).
pub(super) fn exit_of(reason: &str) -> RunExit {
    match reason {
        "guest-shutdown" => RunExit::PoweredOff,
        "guest-reset" => RunExit::Rebooted,
        _ => RunExit::Stopped,
    }
}

/// The room that is left, looked at as often as it shrinks fast.
pub(super) struct Space {
    free: u64,
    looked: Instant,
    /// When.
    pub(super) again: Instant,
}

impl Space {
    pub(super) fn new(library: &Library) -> Result<Self, Error> {
        let looked = Instant::now();
        Ok(Self {
            free: library.free_space()?,
            looked,
            again: looked + Duration::from_secs(1),
        })
    }

    /// Whether it is time to come to an end; so many bytes `more` will be needed then.
    pub(super) fn look(&mut self, library: &Library, more: u64) -> Result<bool, Error> {
        let (free, looked) = (library.free_space()?, Instant::now());
        let shrunk = self.free.saturating_sub(free).max(1);
        let left = free.saturating_sub(RESERVE.saturating_add(more));
        // Half of the time in which all would be gone at this rate.
        let wait = (looked - self.looked).as_secs_f64() * left as f64 / shrunk as f64 / 2.0;
        // A guest that has written nothing so far may begin to.
        let wait = wait.min(left as f64 / FASTEST as f64);
        *self = Self {
            free,
            looked,
            again: looked + Duration::from_secs_f64(wait.clamp(0.25, 60.0)),
        };
        Ok(left == 0)
    }
}
