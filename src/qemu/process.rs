// SPDX-License-Identifier: MIT OR Apache-2.0
//! A QEMU that runs a machine.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;

use super::cage::{self, Handed, Lent, SANDBOX};
use super::capsule::Opened;
use super::engine::{Engine, QEMU};
use super::machine::{Machine, Mode};
use super::memory::Memory;
use super::qmp::{self, Qmp};
use crate::base::error::{Classify, Exit};
use crate::run;
use crate::run::child::{Child, Start, Streams, confinement};

/// What is left to write when it ends has to be on the disk by then.
const QUIT: Duration = Duration::from_secs(120);

/// The most that is between the end of its connection and its own.
const LAST: Duration = Duration::from_secs(5);

/// While so much of what was typed is not taken yet, there is no room for more.
const TYPED: usize = 1 << 16;

/// So much is typed at once, and then it is waited until the guest has taken that: a serial port has room for 16 bytes, and while
/// a run is recorded, QEMU takes more than that, and loses it.
const KEYS: usize = 8;

/// How often it is looked whether it has.
const PAUSE: Duration = Duration::from_millis(50);

/// By so many instructions a guest that is busy has taken what was typed.
const TAKEN: u64 = 5_000_000;

/// Of what QEMU complains about, so much is kept.
const COMPLAINT: usize = 4096;

/// A running emulator. Dropped, it is killed.
#[derive(Debug)]
pub struct Emulator {
    child: Child,
    qmp: Qmp,
    console: File,
    keyboard: File,
    /// What was typed and not taken yet.
    typed: Vec<u8>,
    /// When the next of it may be handed on.
    due: Instant,
    /// How many instructions there were when some was handed on last.
    handed: Option<u64>,
    complaints: Complaints,
    /// Lent to it.
    lent: Vec<Lent>,
}

/// Why there is no running emulator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be started.
    #[error("QEMU cannot be started")]
    Start(#[from] run::Error),
    /// Its pipes could not be made.
    #[error("QEMU cannot be connected")]
    Connect(#[from] io::Error),
    /// A file cannot be given to it.
    #[error(transparent)]
    Hand(#[from] cage::Error),
    /// It cannot be shut in.
    #[error(transparent)]
    Confine(#[from] confinement::Error),
    /// It was started and gave up.
    #[error("QEMU gave up: {why}")]
    GaveUp {
        /// What it printed, or what the connection says.
        why: String,
    },
}

/// Why QEMU is gone: what it said last, else what ended it.
pub fn died(status: ExitStatus, why: String) -> String {
    match status.signal() {
        Some(signal) if why.is_empty() => {
            let name = Signal::try_from(signal).map_or_else(|_| signal.to_string(), |signal| signal.to_string());
            format!("{name} ended it")
        }
        _ => why,
    }
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Confine(error) => error.exit(),
            _ => Exit::Failed,
        }
    }
}

impl Emulator {
    /// Starts QEMU. The machine runs unless the mode says otherwise; its memory is `memory`, if one is given. What QEMU cannot
    /// read where it is, is copied into `scratch` for the time.
    pub fn start(
        engine: &Engine,
        machine: &Machine,
        mode: &Mode,
        memory: Option<&Memory>,
        scratch: &Path,
    ) -> Result<Self, Error> {
        let capsule = match engine {
            Engine::Installed => None,
            Engine::Capsule(capsule) => Some(capsule.open()?),
        };
        let identity = cage::identity();
        let mut handed = Handed::open(machine, mode, memory, identity, scratch)?;
        let (ours, theirs) = UnixStream::pair()?;
        let (console, stdout) = io::pipe()?;
        let (stdin, keyboard) = io::pipe()?;
        let (complaints, stderr) = io::pipe()?;
        let mut args = capsule.as_ref().map(Opened::arguments).unwrap_or_default();
        args.extend(["-sandbox".to_owned(), SANDBOX.to_owned()]);
        args.append(&mut handed.arguments);
        args.append(&mut machine.arguments(mode, &handed.names));
        let fd = theirs.as_raw_fd();
        for words in [
            format!("-chardev socket,id=qmp,fd={fd}"),
            "-mon chardev=qmp,mode=control".to_owned(),
            // Not -chardev: only what comes in by this way is written to the log (qemu_chr_new in QEMU's chardev/char.c).
            "-serial stdio".to_owned(),
        ] {
            args.extend(words.split(' ').map(str::to_owned));
        }
        let streams = Streams {
            stdin: stdin.into(),
            stdout: stdout.into(),
            stderr: stderr.into(),
        };
        let mut inherited: Vec<BorrowedFd<'_>> = handed.descriptors().collect();
        inherited.push(theirs.as_fd());
        if let Mode::Replay(from) = mode {
            inherited.extend(from.debugger.as_ref().map(AsFd::as_fd));
            inherited.extend(from.watching.as_ref().map(|watching| watching.records.as_fd()));
        }
        inherited.extend(capsule.as_ref().map(AsFd::as_fd));
        let mut start = Start {
            inherited: &inherited,
            // QEMU looks for its firmware where it begins before anywhere else (qemu_find_file): nobody has left some there.
            directory: Some("/".into()),
            identity: identity.map(|it| (it.uid, it.gid)),
            ..Start::default()
        };
        let program = match &capsule {
            None => QEMU.path()?.clone(),
            Some(capsule) => {
                capsule.bind(&mut start, handed.files())?;
                capsule.loader()
            }
        };
        let child = Child::spawn_as(&program, &args, streams, start)?;
        drop(inherited);
        drop(theirs);
        let lent = std::mem::take(&mut handed.lent);
        // Closed here: as long as they are open, so are QEMU's locks.
        drop(handed);
        let mut complaints = Complaints {
            pipe: unblocked(complaints.into())?,
            text: Vec::new(),
        };
        let qmp = match Qmp::open(ours) {
            Ok(qmp) => qmp,
            Err(error) => {
                let mut child = child;
                // What ends it closes its connection first. One that does not end would not be ended by the signal that is named.
                let status = match error {
                    qmp::Error::Ended => child.wait_for(LAST).ok().flatten(),
                    _ => None,
                };
                drop(child.kill());
                let said = complaints.take();
                let said = match status {
                    Some(status) => died(status, said),
                    None => said,
                };
                return Err(Error::GaveUp {
                    why: if said.is_empty() { error.to_string() } else { said },
                });
            }
        };
        Ok(Self {
            child,
            qmp,
            console: unblocked(console.into())?,
            keyboard: unblocked(keyboard.into())?,
            typed: Vec::new(),
            due: Instant::now(),
            handed: None,
            complaints,
            lent,
        })
    }

    /// Its monitor.
    pub fn qmp(&mut self) -> &mut Qmp {
        &mut self.qmp
    }

    /// What the guest has printed since. Does not wait; empty if there is nothing, or nothing more.
    pub fn console(&mut self) -> io::Result<Vec<u8>> {
        let mut text = vec![0; 1 << 16];
        let length = read(&mut self.console, &mut text)?;
        text.truncate(length);
        Ok(text)
    }

    /// Whether more may be typed: whoever types waits for a guest that does not read it.
    pub fn has_room(&self) -> bool {
        self.typed.len() < TYPED
    }

    /// Types on the guest's console, while [there is room](Self::has_room). A guest that does not read it does not keep us waiting.
    pub fn keys(&mut self, text: &[u8]) -> io::Result<()> {
        self.typed.extend_from_slice(text);
        self.type_on()
    }

    /// Hands on some of what was typed, if the guest has taken what came before.
    pub fn type_on(&mut self) -> io::Result<()> {
        let now = Instant::now();
        if self.typed.is_empty() || now < self.due {
            return Ok(());
        }
        self.due = now + PAUSE;
        let Some(here) = self.has_taken() else { return Ok(()) };
        self.handed = Some(here);
        let piece = self.typed.len().min(KEYS);
        match self.keyboard.write(&self.typed[..piece]) {
            Ok(length) => drop(self.typed.drain(..length)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// How many instructions there were, if the guest has taken what was handed on: it did something, and waits again, or it did
    /// much. An emulator that does not answer has ended, which is found out elsewhere.
    fn has_taken(&mut self) -> Option<u64> {
        let before = self.qmp.instructions().ok()?;
        let here = self.qmp.instructions().ok()?;
        let has_taken = |handed| here > handed && here == before || here - handed.min(here) >= TAKEN;
        self.handed.is_none_or(has_taken).then_some(here)
    }

    /// When more is to be typed, if something is left.
    pub fn typing_due(&self) -> Option<Instant> {
        (!self.typed.is_empty()).then_some(self.due)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it in good order and returns how it ended.
    pub fn quit(&mut self) -> Result<ExitStatus, qmp::Error> {
        match self.qmp.execute("quit", serde_json::Value::Null) {
            Ok(_) | Err(qmp::Error::Ended) => {}
            Err(error) => return Err(error),
        }
        let Some(status) = self.child.wait_for(QUIT)? else {
            return Err(qmp::Error::Slow {
                seconds: QUIT.as_secs(),
            });
        };
        self.lent.clear();
        Ok(status)
    }

    /// How it ended; to be asked when its descriptor says that it has.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        drop(self.child.kill());
    }

    /// What it complained about, up to now.
    pub fn complaint(&mut self) -> String {
        self.complaints.take()
    }

    /// What to poll for: its end, its monitor, the guest's console, its complaints.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 4] {
        [
            self.child.as_fd(),
            self.qmp.as_fd(),
            self.console.as_fd(),
            self.complaints.pipe.as_fd(),
        ]
    }

    /// Takes in what it complains about, so that it never waits for us.
    pub fn listen(&mut self) {
        self.complaints.read();
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // Before what was lent to it is taken back.
        drop(self.child.kill());
    }
}

#[derive(Debug)]
struct Complaints {
    pipe: File,
    text: Vec<u8>,
}

impl Complaints {
    fn read(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = read(&mut self.pipe, &mut buffer) {
            self.text.extend_from_slice(&buffer[..length]);
            let excess = self.text.len().saturating_sub(COMPLAINT);
            self.text.drain(..excess);
        }
    }

    fn take(&mut self) -> String {
        self.read();
        let text = String::from_utf8_lossy(&self.text);
        let lines = text.lines().map(|line| line.trim_start_matches("qemu-system-x86_64: "));
        lines.collect::<Vec<_>>().join("; ")
    }
}

/// 0 if there is nothing.
fn read(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    match file.read(buffer) {
        Err(error) if [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&error.kind()) => Ok(0),
        result => result,
    }
}

fn unblocked(fd: OwnedFd) -> io::Result<File> {
    fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(fd.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_it_is_gone() {
        let killed = ExitStatus::from_raw(Signal::SIGSYS as i32);
        assert_eq!(died(killed, String::new()), "SIGSYS ended it");
        assert_eq!(died(killed, "out of memory".into()), "out of memory");
        assert_eq!(died(ExitStatus::from_raw(1 << 8), String::new()), "");
    }
}
