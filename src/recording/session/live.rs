// SPDX-License-Identifier: MIT OR Apache-2.0
//! A run that is going on: one poll for everything that can happen to it.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::{Error, Keys};
use crate::guest::watch::AT_ONCE;
use crate::qemu::process::{Emulator, died};
use crate::qemu::qmp::{self, Event};

/// What happened.
pub(in crate::recording) enum Happened {
    /// The guest printed something.
    Console(Vec<u8>),
    /// QEMU said something.
    Event(Event),
    /// We are asked to end; `at_once` if nothing is to be waited for.
    Signal { at_once: bool },
    /// QEMU has ended by itself.
    Ended,
    /// The time is over.
    Timeout,
}

/// The signals that ask us to end, as something to poll for.
pub(in crate::recording) fn signals() -> Result<SignalFd, Error> {
    let set: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, AT_ONCE]
        .into_iter()
        .collect();
    set.thread_block().map_err(|errno| Error::Wait(errno.into()))?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|errno| Error::Wait(errno.into()))
}

/// An emulator and whoever may end it.
pub(in crate::recording) struct Live<'s, 'k> {
    /// The emulator.
    pub(in crate::recording) emulator: Emulator,
    signals: &'s SignalFd,
    keys: Option<&'k mut dyn Keys>,
}

impl<'s, 'k> Live<'s, 'k> {
    pub(in crate::recording) fn new(emulator: Emulator, signals: &'s SignalFd, keys: Option<&'k mut dyn Keys>) -> Self {
        Self {
            emulator,
            signals,
            keys,
        }
    }

    /// Waits for the next thing to happen.
    pub(in crate::recording) fn next(&mut self, until: Option<Instant>) -> Result<Happened, Error> {
        loop {
            // First of all: whoever prints without end does not keep us from ending it.
            if let Some(signal) = self.signal() {
                return Ok(signal);
            }
            // In this order: the end of a run comes after everything it printed and said.
            let text = self.printed()?;
            if !text.is_empty() {
                return Ok(Happened::Console(text));
            }
            let gone = match self.emulator.qmp().event() {
                Ok(Some(event)) => return Ok(Happened::Event(event)),
                Ok(None) => false,
                Err(qmp::Error::Ended) => true,
                Err(error) => return Err(error.into()),
            };
            let late = until.is_some_and(|until| Instant::now() >= until);
            if gone {
                return Ok(Happened::Ended);
            }
            if late {
                return Ok(Happened::Timeout);
            }
            let ready = self.poll(until).map_err(Error::Wait)?;
            self.emulator.type_on().map_err(Error::Wait)?;
            if ready.complaint {
                self.emulator.listen();
            }
            if ready.signal {
                continue;
            }
            if ready.keys
                && let Some(keys) = &mut self.keys
            {
                match keys.read().map_err(Error::Wait)? {
                    Some(text) if text.is_empty() => {}
                    Some(text) => self.emulator.keys(&text).map_err(Error::Wait)?,
                    None => return Ok(Happened::Signal { at_once: false }),
                }
            }
        }
    }

    /// What came of asking QEMU; if it was gone by then, what ended it.
    pub(in crate::recording) fn told<T>(&mut self, answer: Result<T, Error>) -> Result<T, Error> {
        match answer {
            Err(Error::Qmp(qmp::Error::Ended)) => {
                let status = self.emulator.wait().map_err(Error::Wait)?;
                let why = died(status, self.emulator.complaint());
                Err(Error::EngineDied { why })
            }
            answer => answer,
        }
    }

    /// What the guest has printed since. Does not wait; empty if there is nothing, and behind the end nothing more.
    pub(in crate::recording) fn printed(&mut self) -> Result<Vec<u8>, Error> {
        let text = self.emulator.console().map_err(Error::Wait)?;
        if !text.is_empty()
            && let Some(keys) = &mut self.keys
        {
            keys.show(&text);
        }
        Ok(text)
    }

    /// Hands over what the guest has printed last, when it has ended.
    pub(in crate::recording) fn rest(&mut self, mut take: impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        loop {
            let text = self.printed()?;
            if text.is_empty() {
                return Ok(());
            }
            take(&text)?;
        }
    }

    /// One that has come, taken off, so that the next one is another.
    fn signal(&self) -> Option<Happened> {
        let signal = self.signals.read_signal().ok().flatten()?;
        let at_once = signal.ssi_signo == AT_ONCE as u32;
        Some(Happened::Signal { at_once })
    }

    fn poll(&self, until: Option<Instant>) -> io::Result<Ready> {
        let [_, qmp, console, complaints] = self.emulator.descriptors();
        let watched = [qmp, console, complaints, self.signals.as_fd()];
        let mut fds: Vec<PollFd<'_>> = watched.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        // What is typed is not read before there is room for it.
        let keys = self.keys.as_ref().filter(|_| self.emulator.has_room());
        if let Some(keys) = keys {
            fds.push(PollFd::new(keys.descriptor(), PollFlags::POLLIN));
        }
        let until = until.into_iter().chain(self.emulator.typing_due()).min();
        let left = until.map(|until| until.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready = |index: usize| {
            fds.get(index)
                .is_some_and(|fd| fd.revents().is_some_and(|it| !it.is_empty()))
        };
        Ok(Ready {
            complaint: ready(2),
            signal: ready(3),
            keys: keys.is_some() && ready(4),
        })
    }
}

/// However a run ends, who types to the guest is told.
impl Drop for Live<'_, '_> {
    fn drop(&mut self) {
        if let Some(keys) = &mut self.keys {
            keys.end();
        }
    }
}

struct Ready {
    complaint: bool,
    signal: bool,
    keys: bool,
}
