// SPDX-License-Identifier: MIT OR Apache-2.0
//! A recorded run in a debugger, forwards and backwards. There is no verdict: the guest does the same things again and again.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signalfd::SignalFd;

use super::rerun::unless_ended;
use super::start::Start;
use crate::config::types::GuestName;
use crate::file;
use crate::qemu::engine::{self, Engine};
use crate::qemu::machine::{Machine, Mode, Replaying, Shared};
use crate::qemu::memory::Memory;
use crate::qemu::process::{Emulator, died};
use crate::qemu::qmp::{self, Event, Qmp};
use crate::recording::Id;
use crate::recording::session::live::{Happened, Live};
use crate::recording::session::{Error, Listener, Removed, require_disks};

/// How often the machine is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Instructions that are a second's work, or less.
const FAR: u64 = 1 << 27;

/// A debugger that is to be served.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The socket that it connects to.
    pub socket: PathBuf,
    /// Whether the machine stands still before the first instruction until the debugger lets it go.
    pub paused: bool,
}

/// What is debugged.
pub(in crate::recording) struct Run<'a> {
    pub(in crate::recording) guest: &'a GuestName,
    pub(in crate::recording) id: &'a Id,
    /// Its log.
    pub(in crate::recording) log: &'a Path,
    /// After how many instructions it ends.
    pub(in crate::recording) end: u64,
    /// The last instruction from which there is a way back.
    pub(in crate::recording) last: u64,
    /// Where it begins, if that is not the first instruction.
    pub(in crate::recording) at: Option<At<'a>>,
    pub(in crate::recording) machine: &'a Machine,
    /// What runs it.
    pub(in crate::recording) engine: &'a Engine,
}

/// A moment at which a debugger finds the machine.
pub(in crate::recording) struct At<'a> {
    /// Instructions that the guest has executed.
    pub(in crate::recording) instructions: u64,
    /// From where the machine gets there.
    pub(in crate::recording) start: Option<&'a Start<'a>>,
    pub(in crate::recording) memory: &'a Memory,
}

/// Serves a debugger until it ends the machine or we are asked to end.
pub(in crate::recording) fn serve(
    run: &Run<'_>,
    overlays: &Path,
    debugger: &Wanted,
    listener: &mut dyn Listener,
    signals: &SignalFd,
) -> Result<(), Error> {
    let (mut state, listening, _removed) = listen(run.guest, &debugger.socket, overlays)?;
    if let Some(start) = run.at.as_ref().and_then(|at| at.start) {
        start.state().clone_into(&mut state);
    }
    let mode = Mode::Replay(Replaying {
        log: run.log.to_owned(),
        state: Some(state),
        debugger: Some(listening),
        packets: Vec::new(),
        watching: None,
    });
    let memory = run.at.as_ref().map(|at| at.memory);
    let mut live = Live::new(
        Emulator::start(run.engine, run.machine, &mode, memory, overlays)?,
        signals,
        None,
    );
    // From the first moment somebody may have it do what it is not allowed to, which ends it.
    let followed = follow(run, overlays, debugger, &mut live, listener);
    live.told(followed)
}

/// Follows what the debugger does, until it is over.
fn follow(
    run: &Run<'_>,
    overlays: &Path,
    debugger: &Wanted,
    live: &mut Live<'_, '_>,
    listener: &mut dyn Listener,
) -> Result<(), Error> {
    if let Some(start) = run.at.as_ref().and_then(|at| at.start) {
        start.load(live.emulator.qmp())?;
        start.forget(live.emulator.qmp())?;
    }
    // What a debugger that goes backwards starts from.
    live.emulator.qmp().monitor("savevm start")?;
    if let Some(at) = &run.at {
        go_to(at.instructions, run, overlays, live, listener)?;
    }
    stop_before(run.last, live.emulator.qmp())?;
    if !debugger.paused && run.at.is_none() {
        live.emulator.qmp().go_on()?;
    }
    listener.ready(&format!("replaying {}", run.id));
    let mut again = Instant::now() + LOOK;
    let mut stood_at = None;
    let mut saved = run.at.as_ref().map_or(0, |at| at.instructions);
    loop {
        match live.next(Some(again))? {
            Happened::Console(text) => listener.console(&text),
            // The debugger may have ended it in the same moment.
            Happened::Event(Event::Stopped) => {
                unless_ended(require_disks(live.emulator.qmp(), &run.machine.drives, overlays))?;
            }
            Happened::Event(_) => {}
            Happened::Signal { .. } => return Ok(()),
            Happened::Ended => {
                let status = live.emulator.wait().map_err(Error::Wait)?;
                let why = live.emulator.complaint();
                // The debugger may end it.
                return match status.success() {
                    true => Ok(()),
                    false => Err(Error::EngineDied { why: died(status, why) }),
                };
            }
            Happened::Timeout => {
                let done = live.emulator.qmp().instructions()?;
                listener.progress("replaying", done, run.end);
                // Who goes backwards has QEMU forget where it was to stop. While it goes there, it has stops of its own.
                let stands = live.emulator.qmp().is_paused()?;
                if stands && stood_at == Some(done) {
                    stop_before(run.last, live.emulator.qmp())?;
                    saved = save(done, saved, live.emulator.qmp())?;
                }
                // It waits for what does not come; stopped, the debugger has it back.
                if !stands && done == run.end {
                    live.emulator.qmp().stop()?;
                }
                stood_at = stands.then_some(done);
                again = Instant::now() + LOOK;
            }
        }
    }
}

/// Keeps the machine where somebody looks at it, if it has come far: going backwards from here begins here. Returns the last
/// instruction at which it was kept.
fn save(at: u64, saved: u64, qmp: &mut Qmp) -> Result<u64, Error> {
    if at < saved + FAR {
        return Ok(saved);
    }
    match qmp.monitor(&format!("savevm s{at}")) {
        // A disk is busy.
        Err(qmp::Error::Refused { .. }) => Ok(saved),
        done => Ok(done.map(|()| at)?),
    }
}

/// Has the machine go on until the guest has executed `instructions`.
fn go_to(
    instructions: u64,
    run: &Run<'_>,
    overlays: &Path,
    live: &mut Live<'_, '_>,
    listener: &mut dyn Listener,
) -> Result<(), Error> {
    let qmp = live.emulator.qmp();
    if qmp.instructions()? >= instructions {
        return Ok(());
    }
    qmp.stop_at(instructions)?;
    qmp.go_on()?;
    loop {
        match live.next(Some(Instant::now() + LOOK))? {
            Happened::Event(Event::Stopped) => {
                return require_disks(live.emulator.qmp(), &run.machine.drives, overlays);
            }
            Happened::Signal { .. } => return Err(Error::Interrupted),
            Happened::Ended => {
                let status = live.emulator.wait().map_err(Error::Wait)?;
                let why = died(status, live.emulator.complaint());
                return Err(Error::EngineDied { why });
            }
            Happened::Timeout => {
                let done = live.emulator.qmp().instructions()?;
                listener.progress("going there", done, instructions);
            }
            Happened::Console(_) | Happened::Event(_) => {}
        }
    }
}

/// Has the machine stand still before its end, where it would wait for what does not come.
fn stop_before(last: u64, qmp: &mut Qmp) -> Result<(), Error> {
    if qmp.instructions()? < last {
        qmp.stop_at(last)?;
    }
    Ok(())
}

/// A debugger's socket, and the file for states of the machine, both removed with the last of these.
fn listen(
    guest: &GuestName,
    socket: &Path,
    overlays: &Path,
) -> Result<(PathBuf, Shared<UnixListener>, Removed), Error> {
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
    let removed = Removed(vec![socket.to_owned(), state.clone()]);
    // The debugger's protocol has QEMU's monitor in it: who speaks to it can do whatever QEMU can.
    std::fs::set_permissions(socket, Permissions::from_mode(0o600)).map_err(failed(socket))?;
    // Its own content is nothing; the states of the machine lie behind it.
    engine::create_overlay(&state.to_string_lossy(), None, 1 << 20).map_err(Error::Overlay)?;
    Ok((state, Shared(Arc::new(listening)), removed))
}
