// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signals that would end the program wait until it has nothing half-done.
//!
//! `systemctl stop` signals us but not the LVM command that we wait for. If we died at once, the command would go on
//! without anybody who knows about it, and whoever comes next would find a volume in the making.

use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{SFlag, fstat};

const ENDING: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];
/// With these, a terminal stops a program until somebody has it go on.
const STOPPING: [Signal; 3] = [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU];

/// Not those that whoever started us has told us to take no notice of: `nohup`, or a shell that starts a job in the background.
/// Blocked, they would wait like the others.
fn ending() -> SigSet {
    ENDING.into_iter().filter(|signal| !is_ignored(*signal)).collect()
}

fn is_ignored(signal: Signal) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: nothing is set; what is there is written whole, unless it is no signal.
    unsafe {
        libc::sigaction(signal as libc::c_int, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// As long as this lives, a signal to end, or to stop, waits. Programs that are started meanwhile are not part of that
/// ([`crate::run`]).
#[must_use]
pub struct Deferred {
    before: SigSet,
}

/// Can be read as soon as a signal to end is waiting, by whoever waits for something else as well. It is not to be read.
///
/// # Errors
///
/// If there is no descriptor left.
pub fn arrival() -> io::Result<SignalFd> {
    Ok(SignalFd::with_flags(&ending(), SfdFlags::SFD_CLOEXEC)?)
}

/// Bytes that a pipe surely takes once it says that it takes some (`PIPE_BUF`, pipe(7)).
const TAKEN: usize = 4096;

/// Something to read or to write that may let one wait, a pipe: the wait ends when a signal arrives that was deferred.
pub struct Waiting<F> {
    file: F,
    arrival: SignalFd,
    interrupted: fn() -> io::Error,
    is_pipe: bool,
}

impl<F: AsFd> Waiting<F> {
    /// Uses `file`, and is told of signals by `arrival`; what one of them ends fails with what `interrupted` makes.
    pub fn new(file: F, arrival: SignalFd, interrupted: fn() -> io::Error) -> Self {
        let mode = fstat(&file).map_or(SFlag::empty(), |found| {
            SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT
        });
        Self {
            // Whatever else it may be that takes less than is there.
            is_pipe: mode != SFlag::S_IFREG,
            file,
            arrival,
            interrupted,
        }
    }

    fn wait(&self, event: PollFlags) -> io::Result<()> {
        let mut both = [
            PollFd::new(self.file.as_fd(), event),
            PollFd::new(self.arrival.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut both, PollTimeout::NONE) {
            Ok(_) if both[1].any() == Some(true) => Err((self.interrupted)()),
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl<F: Read + AsFd> Read for Waiting<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait(PollFlags::POLLIN)?;
        self.file.read(buffer)
    }
}

impl<F: Write + AsFd> Write for Waiting<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wait(PollFlags::POLLOUT)?;
        let length = if self.is_pipe {
            bytes.len().min(TAKEN)
        } else {
            bytes.len()
        };
        self.file.write(&bytes[..length])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Waits for so long, or until a signal to end arrives. That one is left waiting, as all that arrive from now on.
///
/// # Errors
///
/// If there is no descriptor left.
pub fn pause(time: Duration) -> io::Result<()> {
    swap(&ending(), SigmaskHow::SIG_BLOCK);
    let arrival = arrival()?;
    let mut fds = [PollFd::new(arrival.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Lets `signal` wait from now on, for good: whoever waits for it later finds it ([`arrival`], [`waiting`]).
pub fn hold(signal: Signal) {
    swap(&SigSet::from(signal), SigmaskHow::SIG_BLOCK);
}

/// Lets signals wait from now on.
pub fn defer() -> Deferred {
    Deferred {
        before: swap(&ending(), SigmaskHow::SIG_BLOCK),
    }
}

/// Lets the signals of a terminal that stop a program wait from now on: for a moment in which others wait for what is done.
pub fn defer_stop() -> Deferred {
    Deferred {
        before: swap(&STOPPING.into_iter().collect(), SigmaskHow::SIG_BLOCK),
    }
}

/// A good moment to end: a signal that has been waiting ends the process here.
pub fn deliver() {
    let before = swap(&ending(), SigmaskHow::SIG_UNBLOCK);
    swap(&before, SigmaskHow::SIG_SETMASK);
}

/// What is more than a limit of the size of files (`ulimit -f`) fails from now on, instead of ending the program
/// (setrlimit(2)).
pub fn ignore_file_size_limit() {
    // SAFETY: no handler is set that could be called at a wrong moment.
    let _ = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
}

/// Whether a signal to end is waiting: work that takes long looks here, undoes what it has begun, and lets it in.
pub fn waiting() -> bool {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigpending writes a whole signal set where it is told to, and fails only for an address that is none.
    let set = unsafe {
        if libc::sigpending(set.as_mut_ptr()) != 0 {
            return false;
        }
        SigSet::from_sigset_t_unchecked(set.assume_init())
    };
    ENDING
        .into_iter()
        .any(|signal| set.contains(signal) && !is_ignored(signal))
}

impl Drop for Deferred {
    fn drop(&mut self) {
        swap(&self.before, SigmaskHow::SIG_SETMASK);
    }
}

fn swap(set: &SigSet, how: SigmaskHow) -> SigSet {
    // It fails only for a number that is no SigmaskHow.
    set.thread_swap_mask(how).unwrap_or_else(|_| SigSet::empty())
}
