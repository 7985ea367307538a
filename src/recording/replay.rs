// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replaying a recording, and the verdict: the same run, or where it was another.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;

use super::console::{Comparison, Difference};
use super::disks::{Disks, Seals, Wanted};
use super::live::{self, Happened, Live};
use super::manifest::{Manifest, Outcome};
use super::record::{exit_of, halt};
use super::session::{Environment, Error, Listener, died, require_memory};
use super::stillness::{Progress, Stillness, Threads};
use super::{Divergence, Recording, Verdict, compare, tt_xen};
use crate::config::guest::{DiskSource, Guest};
use crate::config::types::{GuestName, Size};
use crate::fail_point;
use crate::file;
use crate::qemu::engine;
use crate::qemu::machine::{Debug, Kernel, Listening, Machine, Mode, Network};
use crate::qemu::process::Emulator;
use crate::qemu::qmp::Event;

/// What QEMU says, and ends, when the log does not have what the guest asks for: `Missing character write event in the replay log`.
const MISSING: &str = "in the replay log";

/// Beside a verdict on next to nothing.
const NOTHING: &str = "nothing was printed in this run, so its end and its disks alone were compared";

/// QEMU stops a machine that has shut itself down within some thousand instructions, sooner or later; no guest does anything
/// in that time but wait.
const AFTER_SHUTDOWN: u64 = 1 << 20;

/// How to replay.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Serves a debugger at this socket.
    pub gdb: Option<PathBuf>,
    /// Stands still before the first instruction until the debugger lets it go.
    pub paused: bool,
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
    let manifest = recording.manifest();
    let _use = recording.use_shared()?;
    let signals = live::signals()?;
    check(recording, guest, &environment.seals, listener)?;
    let sources = sources(recording, guest);
    let wanted: Vec<Wanted<'_>> = manifest
        .disks
        .iter()
        .zip(&sources)
        .map(|(disk, (source, base))| Wanted {
            target: disk.target.clone(),
            source,
            base: base.clone(),
            size: disk.size,
        })
        .collect();
    // By the name that is locked: the manifest has the sender's.
    let name = recording.guest();
    let mut disks = Disks::make(name, &wanted, environment)?;
    fail_point::reach("session.disks-made");
    if options.gdb.is_some() {
        disks.cover(name, environment)?;
    }
    let mut machine = machine(recording);
    machine.drives.clone_from(&disks.drives);
    let digest = machine.digest();
    if digest != manifest.engine.config {
        let was = manifest.engine.config;
        let difference = format!("this version of ttvm makes another machine of it: it was {was}, now it is {digest}");
        return Err(different(recording, vec![difference]));
    }
    let result = manifest.result.as_ref().ok_or(Error::Interrupted)?;
    let mut run = Replay {
        recording,
        result,
        machine: &machine,
        options,
        listener,
    };
    let verdict = match run.run(&environment.overlays, &signals)? {
        None => return Ok(None),
        Some(Verdict::Identical { instructions }) => {
            let contents = disks.contents(listener)?;
            disks_verdict(manifest, &contents).unwrap_or(Verdict::Identical { instructions })
        }
        Some(verdict) => verdict,
    };
    if recording.prints_nothing() {
        tracing::warn!(ttvm_guest = %name, "{NOTHING}");
    }
    recording.note_verdict(&verdict);
    Ok(Some(verdict))
}

/// Whether a replay of `recording` would be one: every difference is named.
pub fn check(
    recording: &Recording,
    guest: Option<&Guest>,
    seals: &Seals,
    listener: &mut dyn Listener,
) -> Result<(), Error> {
    let manifest = recording.manifest();
    tt_xen::require_unit(recording.guest(), manifest.engine.toolstack, "replay")?;
    let version = engine::find()?;
    let mut differences = compare::words(manifest);
    differences.extend(compare::engine(manifest, "QEMU", &version.text));
    if let Some(guest) = guest {
        differences.extend(compare::guest(manifest, guest, Some(&version)));
    }
    differences.extend(compare::files(recording, guest, seals, listener)?);
    if !differences.is_empty() {
        return Err(different(recording, differences));
    }
    require_memory(Size::from_bytes(manifest.engine.memory))?;
    check_log(recording, listener)
}

/// Whether QEMU can be shown the log, which may be anybody's: it believes what is in one.
fn check_log(recording: &Recording, listener: &mut dyn Listener) -> Result<(), Error> {
    let path = recording.log();
    let failed = |source| Error::Log {
        guest: recording.guest().clone(),
        id: recording.id().to_string(),
        source,
    };
    let log = file::open_content(&path).map_err(|error| failed(error.into()))?;
    let size = log.metadata().map_err(|error| failed(error.into()))?.len();
    let devices = replay_log::Devices {
        networks: recording.manifest().vifs.len(),
        disks: recording.manifest().disks.len(),
    };
    let checked = replay_log::check(log, devices, &mut |done| {
        listener.progress("reading the log", done, size);
        !crate::signals::waiting()
    });
    match checked {
        Ok(_) => Ok(()),
        Err(replay_log::Error::Interrupted) => Err(Error::Interrupted),
        Err(error) => Err(failed(error)),
    }
}

pub(super) fn different(recording: &Recording, differences: Vec<String>) -> Error {
    Error::Different {
        guest: recording.guest().clone(),
        id: recording.id().to_string(),
        differences,
    }
}

/// What each disk is made from, and the copy of its base if it came from another host.
fn sources(recording: &Recording, guest: Option<&Guest>) -> Vec<(DiskSource, Option<PathBuf>)> {
    let disks = recording.manifest().disks.iter().map(|disk| {
        let now = guest.and_then(|guest| guest.disks.iter().find(|it| it.target == disk.target));
        let source = now.map_or_else(|| DiskSource::Overlay(disk.origin.clone()), |it| it.source.clone());
        let base = recording
            .base_path(disk, guest)
            .filter(|base| *base != disk.origin.path());
        (source, base)
    });
    disks.collect()
}

/// The machine that was recorded, without its disks.
fn machine(recording: &Recording) -> Machine {
    let engine = &recording.manifest().engine;
    Machine {
        machine: engine.machine.clone(),
        memory: Size::from_bytes(engine.memory),
        icount: engine.icount.parse().unwrap_or(crate::config::guest::Shift::Auto),
        kernel: recording.kernel_path().map(|kernel| Kernel {
            kernel,
            initrd: recording.initrd_path(),
            cmdline: engine.cmdline.clone().unwrap_or_default(),
        }),
        drives: Vec::new(),
        networks: (recording.manifest().vifs.iter())
            .map(|vif| Network {
                mac: vif.mac,
                outside: false,
            })
            .collect(),
        reset_ends: engine.reset_ends,
    }
}

pub(super) fn disks_verdict(manifest: &Manifest, contents: &[crate::digest::Digest]) -> Option<Verdict> {
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

struct Replay<'a> {
    recording: &'a Recording,
    result: &'a Outcome,
    machine: &'a Machine,
    options: &'a Options,
    listener: &'a mut dyn Listener,
}

impl Replay<'_> {
    fn run(&mut self, overlays: &Path, signals: &SignalFd) -> Result<Option<Verdict>, Error> {
        let console = self.recording.console();
        let unreadable = |source| Error::Read {
            path: console.clone(),
            source: crate::digest::Error::Open {
                path: console.clone(),
                source,
            },
        };
        let mut comparison = Comparison::open(&console).map_err(unreadable)?;
        let debug = match &self.options.gdb {
            Some(socket) => Some(debug(self.recording.guest(), socket, overlays)?),
            None => None,
        };
        let mode = Mode::Replay {
            log: self.recording.log(),
            debug: debug.as_ref().map(|it| it.0.clone()),
        };
        let mut live = Live::new(Emulator::start(self.machine, &mode, overlays)?, signals, None);
        if debug.is_some() {
            // What a debugger that goes backwards starts from.
            live.emulator.qmp().monitor("savevm start")?;
            if !self.options.paused {
                live.emulator.qmp().execute("cont", serde_json::Value::Null)?;
            }
        }
        self.listener.ready(&format!("replaying {}", self.recording.id()));
        let mut progress = Progress::new(Instant::now());
        let mut differs = None;
        let ended = loop {
            match live.next(Some(progress.again))? {
                Happened::Console(text) => {
                    self.listener.console(&text);
                    // In a debugger the guest prints the same again and again.
                    if debug.is_none()
                        && let Some(found) = comparison.feed(&text).map_err(unreadable)?
                    {
                        differs = Some(found);
                        break None;
                    }
                }
                // The debugger may still want to go back.
                Happened::Event(Event::Shutdown(reason)) if debug.is_none() => break Some(exit_of(&reason)),
                Happened::Event(Event::Stopped) if debug.is_none() => {
                    // There was no room for what the guest writes: that says nothing about the run.
                    if live.emulator.qmp().lacks_room()? {
                        return Err(Error::NoRoomForDisks {
                            directory: overlays.to_owned(),
                        });
                    }
                }
                Happened::Event(Event::Shutdown(_) | Event::Stopped | Event::Resumed) => {}
                Happened::Signal if debug.is_some() => return Ok(None),
                Happened::Signal => return Err(Error::Interrupted),
                Happened::Ended => {
                    let status = live.emulator.wait().map_err(Error::Wait)?;
                    let why = live.emulator.complaint();
                    // A debugger may end it; QEMU itself says when the log has no answer to what the guest does, and exits
                    // then (7.2) or aborts (since 9.0).
                    let by_itself = status.code().is_some() || status.signal() == Some(Signal::SIGABRT as i32);
                    match debug.is_some() && status.success() {
                        true => return Ok(None),
                        false if debug.is_none() && by_itself && why.contains(MISSING) => break None,
                        false => return Err(Error::EngineDied { why: died(status, why) }),
                    }
                }
                Happened::Timeout => {
                    let done = live.emulator.qmp().instructions()?;
                    let total = self.result.instructions.unwrap_or_default();
                    self.listener.progress("replaying", done, total);
                    let threads = Threads::of(live.emulator.id());
                    match progress.look(Instant::now(), done, &threads) {
                        Stillness::No => {}
                        _ if debug.is_some() => {}
                        Stillness::OfTheRun => break None,
                        Stillness::OfTheHost => return Err(Error::HostStoodStill),
                    }
                }
            }
        };
        let instructions = match ended {
            Some(_) => Some(halt(live.emulator.qmp())?),
            None => live.emulator.qmp().instructions().ok(),
        };
        match ended {
            // What it has written is on the disks only when it has closed them.
            Some(_) => drop(live.emulator.quit()?),
            // It waits for what does not come, and would not end by itself.
            None => live.emulator.kill(),
        }
        while differs.is_none() {
            let text = live.emulator.console().map_err(Error::Wait)?;
            if text.is_empty() {
                break;
            }
            self.listener.console(&text);
            differs = comparison.feed(&text).map_err(unreadable)?;
        }
        let counts = self.result.instructions.zip(instructions);
        let at = match (differs, ended) {
            (Some(found), _) => divergence(found, instructions),
            (None, None) => Divergence::Stalled { instructions },
            (None, Some(exit)) if exit != self.result.exit => Divergence::Exit {
                expected: self.result.exit,
                found: exit.to_string(),
            },
            (None, Some(_)) => match (comparison.finish().map_err(unreadable)?, counts) {
                (Some(found), _) => divergence(found, instructions),
                (None, Some((expected, found))) if found.abs_diff(expected) > AFTER_SHUTDOWN => {
                    Divergence::Instructions { expected, found }
                }
                (None, _) => return Ok(Some(Verdict::Identical { instructions })),
            },
        };
        Ok(Some(Verdict::Diverged { at }))
    }
}

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

/// A debugger's files, removed with this.
fn debug(guest: &GuestName, socket: &Path, overlays: &Path) -> Result<(Debug, Removed), Error> {
    let state = overlays.join(format!("{guest}-state.qcow2"));
    for path in [socket, &state] {
        drop(std::fs::remove_file(path));
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Write { path, source }
    };
    file::private_directory(overlays).map_err(failed(overlays))?;
    let directory = file::parent(socket);
    file::private_directory(directory).map_err(failed(directory))?;
    let listening = UnixListener::bind(socket).map_err(failed(socket))?;
    // The debugger's protocol has QEMU's monitor in it: who speaks to it can do whatever QEMU can.
    std::fs::set_permissions(socket, Permissions::from_mode(0o600)).map_err(failed(socket))?;
    // Its own content is nothing; the states of the machine lie behind it.
    engine::create_overlay(&state.to_string_lossy(), None, 1 << 20).map_err(Error::Overlay)?;
    let debug = Debug {
        socket: Listening(Arc::new(listening)),
        state: state.clone(),
    };
    Ok((debug, Removed([socket.to_owned(), state])))
}

struct Removed([PathBuf; 2]);

impl Drop for Removed {
    fn drop(&mut self) {
        for path in &self.0 {
            drop(std::fs::remove_file(path));
        }
    }
}
